"""Figures of a trained row on held-out subjects."""

import time
from typing import cast

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from benchmarks.density_study.data import Example, People
from benchmarks.density_study.models import NUM_HEADS, Model, Posterior, truth_of
from flowprior.flow import StudentT
from flowprior.metrics import (
    best_of_n,
    energy_score,
    expected_calibration_error,
    latent_pit,
    mpjpe,
)
from flowprior.prior.spaces import So3Space

__all__ = ["COUNTS", "judge"]

NUM_SAMPLES = 200
COUNTS = (1, 10, 25, 50, 200)
VIEWS_PER_CHUNK = 20


@torch.no_grad()
def judge(
    model: nn.Module, judged: People, held_out: People, num_views: int, seed: int
) -> dict[str, float]:
    """Figures before calibration, and, with the prefix ``calibrated_``, after it.

    Args:
        model: A trained `Model`.
        judged: The subjects that the figures are of.
        held_out: Subjects to calibrate with.
        num_views: Number of views of each.
        seed: Seed of views and samples.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    rows = judged.evenly(num_views)
    example = judged.examples(rows, generator)
    known = held_out.examples(held_out.evenly(num_views), generator)
    subject = judged.subject[rows]
    result = _figures(model, example, subject, seed)
    if isinstance(model, Posterior):
        cast(Model, model).calibrate(known)
        after = _figures(model, example, subject, seed)
        result |= {f"calibrated_{name}": value for name, value in after.items()}
        result["temperature"] = float(model.prior.flow.temperature)
        base = model.prior.flow.base
        if isinstance(base, StudentT):
            result["degrees_of_freedom"] = float(base.degrees_of_freedom)
    return result


def _figures(model: nn.Module, example: Example, subject: Tensor, seed: int) -> dict[str, float]:
    judged, views = cast(Model, model), example.views
    clear = views.visible.all(dim=1)
    truth = truth_of(judged.target, example)
    result: dict[str, Tensor | float] = {}
    with torch.inference_mode(False):
        mode = judged.mode(views)
    if mode is not None:
        error = 1000 * mpjpe(mode, truth)
        result |= _split("mode_mm", error, clear)
    if isinstance(model, Posterior):
        result |= _density(model, example, clear, subject)

    generator = torch.Generator().manual_seed(2000 + seed)
    errors, scores, kept, centres, spent = [], [], [], [], 0.0
    for begin in range(0, len(truth), VIEWS_PER_CHUNK):
        part = slice(begin, begin + VIEWS_PER_CHUNK)
        few = type(views)(views.joints[part], views.keypoints[part], views.visible[part])
        start = time.process_time()
        joints = judged.samples(few, NUM_SAMPLES, generator)
        spent += time.process_time() - start
        errors.append(1000 * mpjpe(joints, truth[part][:, None]))
        scores.append(1000 * energy_score(joints, truth[part]))
        kept.append(joints[..., 1:, :])
        if joints.shape[1] == NUM_SAMPLES:
            centres.append(_nearest_centre(joints, truth[part]))
    error = torch.cat(errors)
    for count in COUNTS:
        if count <= error.shape[1]:
            result |= _split(f"best_of_{count}_mm", best_of_n(error, count), clear)
    if centres:
        result |= _split("best_of_25_centres_mm", torch.cat(centres), clear)
        everything = torch.cat(kept)
        for name, rows in (("", slice(None)), ("_clear", clear), ("_occluded", ~clear)):
            ece = expected_calibration_error(everything[rows], truth[rows][:, 1:])
            result[f"ece{name}"] = ece.ece
            result[f"ece_joints{name}"] = ece.joint_errors.mean()
        for person in subject.unique().tolist():
            rows = subject == person
            curve = expected_calibration_error(
                everything[rows], truth[rows][:, 1:], [0.5, 0.9]
            ).median_coverage
            result[f"joint_coverage_50_subject_{person}"] = curve[0]
            result[f"joint_coverage_90_subject_{person}"] = curve[1]
        result |= _split("energy_mm", torch.cat(scores), clear)
        result["microseconds_per_sample"] = 1e6 * spent / (len(truth) * NUM_SAMPLES)
    return {name: float(value) for name, value in result.items()}


def _density(
    model: Posterior, example: Example, clear: Tensor, subject: Tensor
) -> dict[str, Tensor | float]:
    """Figures of the density itself."""
    posterior, base = model.posterior(example.views), model.prior.flow.base
    z = posterior.encode(model.truth(example))
    nu = float(base.degrees_of_freedom) if isinstance(base, StudentT) else None
    inside = latent_pit(z, nu)
    result: dict[str, Tensor | float] = dict(_split("nll", model.nll(example), clear))
    result["latent_mean_square"] = z.square().mean()
    for person in subject.unique().tolist():
        for level in (0.5, 0.9):
            share = (inside[subject == person] <= level).double().mean()
            result[f"latent_coverage_{100 * level:.0f}_subject_{person}"] = share
    entropy = posterior.entropy(generator=torch.Generator().manual_seed(0))
    mode = 1000 * mpjpe(model.mode(example.views), truth_of(model.target, example))
    if entropy.std() > 1e-3:
        result["entropy_error_r"] = torch.corrcoef(torch.stack((entropy, mode.log())))[0, 1]
    space = model.prior.space
    if isinstance(space, So3Space):
        x = model.prior.flow.sample(
            posterior.context, 100, generator=torch.Generator().manual_seed(0)
        )
        outside = space.outside(x).double().mean(dim=(0, 1))
        result["outside_root"], result["outside_others"] = outside[0], outside[1:].max()
    return result


def _split(name: str, value: Tensor, clear: Tensor) -> dict[str, Tensor | float]:
    """Means over all views, clear ones and occluded ones."""
    return {
        name: value.mean(),
        f"{name}_clear": value[clear].mean(),
        f"{name}_occluded": value[~clear].mean(),
    }


def _nearest_centre(samples: Tensor, truth: Tensor) -> Tensor:
    """Error (B,) in mm of the nearest of 25 k-means centres of samples (B, n, 17, 3)."""
    errors = []
    for few, one in zip(samples, truth, strict=True):
        rows = few.flatten(1).numpy()
        found = KMeans(NUM_HEADS, n_init=1, max_iter=20, random_state=0).fit(rows)
        centres = torch.from_numpy(found.cluster_centers_).to(one).unflatten(1, (17, 3))
        errors.append(1000 * mpjpe(centres, one[None]).amin())
    return torch.stack(errors)
