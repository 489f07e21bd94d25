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
from flowprior.metrics.tally import (
    Tally,
)

__all__ = [
    "PROTOCOLS",
    "JointCalibration",
    "Protocol",
    "SampleErrors",
    "SupportsSampling",
    "Tally",
    "best_of_n",
    "calibration_error",
    "consistency_2d",
    "coverage",
    "energy_score",
    "evaluate_samples",
    "expected_calibration_error",
    "latent_pit",
    "mpjpe",
    "pa_mpjpe",
    "pve",
    "quantise",
    "sample_diversity",
    "sample_spread",
]
