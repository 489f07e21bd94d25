"""Descriptions of files for the terminal: a name and a value per line."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flowprior.flow.base import StudentT
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.motion import MotionPrior
from flowprior.prior.spaces import RotationSpace
from flowprior.results import Fits

__all__ = ["describe_fits", "describe_motion_prior", "describe_prior", "megabytes"]

POSES = {"rot6d": "joints in 6D", "so3": "joints on SO(3)", "points": "keypoints"}
"""Descriptions of the pose spaces."""


def describe_prior(prior: ConditionalPosePrior, file: Path) -> str:
    """Describe a prior and the file that it was read from."""
    config = prior.config
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in prior.parameters()})
    return _table(
        {
            "file": f"{file} ({megabytes(file)})",
            "pose": f"{config['joints']} {POSES[config['space']]}, {prior.flow.features} features",
            "layout": config["layout"] if isinstance(prior.space, RotationSpace) else "-",
            "context": f"{config['context_features']} features",
            "preset": config["preset"],
            "flow": f"{config['num_steps']} steps, {config['num_blocks']} blocks, "
            f"{config['hidden_features']} hidden features",
            "lu forward": config["lu_forward"],
            "base": f"{_base(prior)}, temperature {float(prior.flow.temperature):.4g}",
            "mode": _mode(prior),
            "parameters": f"{sum(p.numel() for p in prior.parameters()):,} ({', '.join(dtypes)})",
            "actnorm": "initialised"
            if prior.flow.is_initialized()
            else "not initialised: untrained",
            "provenance": ", ".join(f"{k}: {v}" for k, v in prior.provenance.items()) or "-",
        }
    )


def describe_motion_prior(prior: MotionPrior, file: Path) -> str:
    """Describe a motion prior and the folder that it was read from."""
    low, high = prior.rates
    flow = prior.step.flow
    return _table(
        {
            "file": f"{file} ({megabytes(file)})",
            "pose": f"the next of {prior.config['joints']} {POSES['so3']}, given the last two",
            "frame rates": f"{low:g} to {high:g} per second",
            "evidence": ", ".join(prior.config["evidence"]) or "-",
            "temperature": f"{float(flow.temperature):.4g}",
            "parameters": f"{sum(p.numel() for p in prior.parameters()):,}",
            "provenance": ", ".join(f"{k}: {v}" for k, v in prior.provenance.items()) or "-",
        }
    )


def describe_fits(fits: Fits, file: Path) -> str:
    """Describe fits and the file that they were read from."""
    status = ", ".join(f"{count} {name}" for name, count in Counter(fits.status.tolist()).items())
    extent = fits.keypoints_2d[..., 1]
    seen = np.where(fits.keypoints_2d[..., 2] > 0, extent, np.nan)
    error = "-"
    if np.isfinite(fits.reprojection_px).any():
        height = np.array(
            [np.ptp(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in seen]
        )
        share = fits.reprojection_px / np.maximum(height, 1)
        error = (
            f"{np.nanmedian(fits.reprojection_px):.1f} px, "
            f"{100 * np.nanmedian(share):.1f} % of the person's height (medians)"
        )
    confidence = fits.joint_confidence
    people = f"{len(fits)} in {len(fits.images)} images"
    if fits.fps is not None:
        tracks = len(np.unique(fits.person))
        people = f"{tracks} in {len(fits.images)} frames at {fits.fps:g} per second"
    return _table(
        {
            "file": f"{file} ({megabytes(file)})",
            "people": people,
            "body": f"{fits.body}, {fits.kind.num_joints} joints of {fits.kind.name}, "
            f"{fits.betas.shape[1]} shape coefficients",
            **_hands(fits),
            "keypoints": fits.keypoint_set,
            "samples": f"{fits.samples.shape[1]} per person",
            "status": status or "-",
            "reprojection": error,
            "confidence": "-"
            if not np.isfinite(confidence).any()
            else f"{100 * np.nanmean(confidence):.0f} % of the joints within "
            f"{fits.confidence_distance_mm:g} mm (mean)",
        }
    )


def _hands(fits: Fits) -> dict[str, str]:
    """How many hands were fitted, if the body has fingers."""
    if fits.hands is None:
        return {}
    fitted = (fits.hands == "fitted").sum(axis=0)
    return {"hands": f"{fitted[0]} left and {fitted[1]} right fitted, the others at rest"}


def megabytes(file: Path) -> str:
    """Size of a file, "2.4 MB"; of a folder, that of its files."""
    files = [file] if file.is_file() else [each for each in file.rglob("*") if each.is_file()]
    return f"{sum(each.stat().st_size for each in files) / 1e6:.1f} MB"


def _table(rows: Mapping[str, object]) -> str:
    return "\n".join(f"{name:>12}  {value}" for name, value in rows.items())


def _base(prior: ConditionalPosePrior) -> str:
    base = prior.flow.base
    if isinstance(base, StudentT):
        return f"Student's t, {float(base.degrees_of_freedom):g} degrees of freedom"
    return "normal"


def _mode(prior: ConditionalPosePrior) -> str:
    """Where the mode of the prior comes from."""
    if not prior.has_exact_mode:
        return "by ascent from the decoded z = 0"
    if not prior.flow.keeps_origin:
        return "exact: the decoded z = 0"
    if prior.head is None:
        return "exact: the centre that the caller passes"
    untrained = ", not trained yet" if prior.head.is_untrained else ""
    width = prior.config["head_features"]
    return f"exact: the answer of the head ({width} hidden features{untrained})"
