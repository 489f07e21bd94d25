"""Errors of one answer, chosen without the truth, and of the best sample."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.calibration.views import Views, given
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.metrics import mpjpe, pa_mpjpe
from flowprior.prior import PosePrior
from flowprior.skeleton import COCO_17, SMPL_24
from tools.priors.chain import SCORED

__all__ = ["SAMPLES", "answers"]

SAMPLES = 100
# A keypoint's error in sides of the person's box: that of the detections, 0.008, and what a body of
# average shape cannot follow.
DEVIATION = 0.03


@torch.no_grad()
def answers(prior: PosePrior, views: Views, body: BodyModel) -> dict[str, tuple[float, float]]:
    """MPJPE and PA-MPJPE in mm, over 22 joints from the pelvis, of every way to choose."""
    posterior = given(prior, views)
    truth = views.examples.joints[:, :SCORED]

    def joints(theta: Tensor) -> Tensor:
        places = body.keypoints(rotations.rot6d_to_matrix(theta), SMPL_24)
        return (places - places[..., :1, :])[..., :SCORED, :]

    def likelihood(theta: Tensor) -> Tensor:
        return reprojection(theta, views.examples.keypoints_2d, body)

    def both(theta: Tensor) -> tuple[float, float]:
        answer = joints(theta)
        return (
            1000 * float(mpjpe(answer, truth).mean()),
            1000 * float(pa_mpjpe(answer, truth).mean()),
        )

    generator = torch.Generator().manual_seed(2)
    state = generator.get_state()
    found = {"mode": both(posterior.pick())}
    choices: dict[str, dict[str, Any]] = {
        "mean on SO(3)": {"answer": "mean"},
        "medoid": {"answer": "medoid"},
        "weighted by keypoints": {"answer": "weighted", "log_likelihood": likelihood},
        "importance-weighted": {
            "answer": "weighted",
            "log_likelihood": likelihood,
            "marginal": prior.given(),
        },
    }
    for name, choice in choices.items():
        generator.set_state(state)  # the same samples
        found[name] = both(posterior.pick(num_samples=SAMPLES, generator=generator, **choice))
    generator.set_state(state)
    several = joints(posterior.sample(SAMPLES, generator=generator))
    errors = 1000 * mpjpe(several, truth[:, None])
    aligned = 1000 * pa_mpjpe(several, truth[:, None].expand_as(several))
    found["one sample"] = (float(errors.mean()), float(aligned.mean()))
    for count in (10, SAMPLES):
        found[f"best of {count} (oracle)"] = (
            float(errors[:, :count].amin(dim=1).mean()),
            float(aligned[:, :count].amin(dim=1).mean()),
        )
    return found


def reprojection(theta: Tensor, keypoints: Tensor, body: BodyModel) -> Tensor:
    """Log-likelihood (N, n) of keypoints (N, 17, 3), of the average body at the best place.

    Args:
        theta: (N, n, 24, 6).
        keypoints: Pixels and confidence.
        body: The body.
    """
    points = body.keypoints(rotations.rot6d_to_matrix(theta), COCO_17)  # (N, n, 17, 3)
    seen = (keypoints[..., 2] > 0.1).to(points)[:, None, :, None]
    rays = ((keypoints[..., :2] - IMAGE_PX / 2) / FOCAL_PX)[:, None]
    # x + t_x = u (z + t_z) is linear in the place t.
    left = torch.zeros(*points.shape[:-1], 2, 3)
    left[..., 0, 0] = left[..., 1, 1] = 1
    left[..., 2] = -rays
    right = rays * points[..., 2:] - points[..., :2]
    rows, values = (seen[..., None] * left).flatten(2, 3), (seen * right).flatten(2, 3)[..., None]
    normal = rows.mT @ rows + 1e-6 * torch.eye(3)
    place = torch.linalg.solve(normal, rows.mT @ values)[..., 0]
    moved = points + place[..., None, :]
    depth = moved[..., 2:].clamp(min=0.5)
    pixels = FOCAL_PX * moved[..., :2] / depth + IMAGE_PX / 2
    xy = torch.where(keypoints[..., 2:] > 0.1, keypoints[..., :2], torch.nan)
    shown = xy.nan_to_num(torch.inf).amin(dim=1), xy.nan_to_num(-torch.inf).amax(dim=1)
    side = (shown[1] - shown[0]).amax(dim=-1).clamp(min=1.0)[:, None, None, None]
    error = seen * (pixels - keypoints[:, None, :, :2]) / (DEVIATION * side)
    return -error.square().sum(dim=(-2, -1)) / 2
