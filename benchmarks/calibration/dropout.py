"""The same regressor with dropout, whose passes disagree: the usual estimate of uncertainty."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.calibration.views import Views
from examples.fitting.train_prior import JOINT_WEIGHT, ROTATION_WEIGHT
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.files.whole_file import whole_file
from flowprior.skeleton import SMPL_24
from tools.priors.chain import SCORED, Chain
from tools.priors.drawing import draw
from tools.priors.step import held_joints, losses
from tools.priors.training import context_of

__all__ = ["PASSES", "passes", "with_dropout"]

PASSES = 10
SHARE = 0.1
RATE = 3e-4
BATCH = 256
POOL = 16
SAVED_EVERY = 320


def with_dropout(
    prior: ConditionalPosePrior,
    rotvecs: Tensor,
    body: BodyModel,
    steps: int,
    path: Path,
) -> ConditionalPosePrior:
    """Train encoder and head of a prior on with dropout, on its training poses.

    Args:
        prior: The prior; it is copied.
        rotvecs: (P, 24, 3) training poses.
        body: The body.
        steps: Steps of Adam, batch 256, the learning rate falling to 0.
        path: Where the weights are kept, from which an interrupted training goes on.
    """
    model = copy.deepcopy(prior)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = SHARE
    assert model.encoder is not None
    assert model.head is not None
    parameters = [*model.encoder.parameters(), *model.head.parameters()]
    optimizer = torch.optim.Adam(parameters, RATE)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    step = 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["prior"])
        optimizer.load_state_dict(saved["optimizer"])
        generator.set_state(saved["generator"])
        step = int(saved["step"])
    chain = Chain(body)
    model.train()
    while step < steps:
        rows = torch.randint(len(rotvecs), (POOL * BATCH,), generator=generator)
        examples = draw("people", rotvecs, rows, body, generator)
        with torch.no_grad():
            context = context_of(prior, examples)
        parts = (examples.theta, context, examples.known)
        for theta, seen, known in zip(*(part.split(BATCH) for part in parts), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = RATE * max(0.0, 1 - step / steps)
            distance, turned, _ = losses(
                model,
                chain,
                theta,
                theta,
                seen,
                held_joints(model, known),
                generator,
                likelihood=False,
            )
            optimizer.zero_grad()
            (JOINT_WEIGHT * distance + ROTATION_WEIGHT * turned).backward()
            optimizer.step()
            step += 1
        if step % SAVED_EVERY == 0 or step >= steps:
            content = {
                "prior": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "step": step,
            }
            with whole_file(path) as partial:
                torch.save(content, partial)
    return model


@torch.no_grad()
def passes(
    model: ConditionalPosePrior, views: Views, body: BodyModel, count: int = PASSES
) -> tuple[Tensor, Tensor]:
    """Errors of the mean of several passes and their spread, both (N, 22) in mm."""
    assert model.encoder is not None
    assert model.head is not None
    torch.manual_seed(0)
    model.train()
    assert model.evidence is not None
    context = model.evidence.context(keypoints_2d=views.examples.keypoints_2d)
    places = []
    for _ in range(count):
        theta = rotations.rot6d_to_matrix(model.head(model.encoder(context)))
        joints = body.keypoints(theta, SMPL_24)
        places.append((joints - joints[:, :1])[:, :SCORED])
    model.eval()
    several = 1000 * torch.stack(places)
    error = (several.mean(dim=0) - 1000 * views.examples.joints[:, :SCORED]).norm(dim=-1)
    return error, several.var(dim=0).sum(dim=-1).sqrt()
