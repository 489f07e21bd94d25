"""Pose errors, calibration of posteriors, evaluation protocols."""

from flowprior.metrics.calibration import (
    JointCalibration,
    calibration_error,
    coverage,
    energy_score,
    expected_calibration_error,
    latent_pit,
    sample_spread,
)
from flowprior.metrics.errors import (
    best_of_n,
    consistency_2d,
    mpjpe,
    pa_mpjpe,
    pve,
    quantise,
    sample_diversity,
)
from flowprior.metrics.protocols import (
    PROTOCOLS,
    Protocol,
    SampleErrors,
    SupportsSampling,
    evaluate_samples,
)
from flowprior.metrics.selective import (
    GroupCoverage,
    RiskCoverage,
    ause,
    coverage_by_group,
    risk_coverage,
)
from flowprior.metrics.tally import (
    Tally,
)

__all__ = [
    "PROTOCOLS",
    "GroupCoverage",
    "JointCalibration",
    "Protocol",
    "RiskCoverage",
    "SampleErrors",
    "SupportsSampling",
    "Tally",
    "ause",
    "best_of_n",
    "calibration_error",
    "consistency_2d",
    "coverage",
    "coverage_by_group",
    "energy_score",
    "evaluate_samples",
    "expected_calibration_error",
    "latent_pit",
    "mpjpe",
    "pa_mpjpe",
    "pve",
    "quantise",
    "risk_coverage",
    "sample_diversity",
    "sample_spread",
]
