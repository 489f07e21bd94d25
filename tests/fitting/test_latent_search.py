import pytest
import torch

from flowprior import ConditionalPosePrior, rotations
from flowprior.fitting.latent_search import (
    LatentObjective,
    best_start,
    flattened,
    frozen,
    rotation_space,
    search,
)
from tests.fitting.people import random_poses


def nothing(theta, more, rows):
    return more.square().sum(dim=-1) + 0 * rows


@pytest.mark.parametrize("kind", ["conditional", "contracting", "unconditional", "body_pose"])
def test_the_objective_is_the_density(kind, priors):
    prior = getattr(priors, kind).freeze()
    if kind == "body_pose":
        posterior = prior.given(rotations=random_poses(4, 1)[:, 1:], known=torch.arange(23) < 5)
    else:
        posterior = prior(torch.randn(4, 75) if prior.context_features else None)
    z = 0.5 * torch.randn(4, prior.flow.features, generator=torch.Generator().manual_seed(0))
    more = torch.tensor([[0.0, 1.0]]).expand(4, -1)
    objective = LatentObjective(posterior, nothing, 2)
    rows = torch.arange(4)
    found = objective(torch.cat([z, more], dim=-1), rows)
    start = objective(torch.cat([torch.zeros_like(z), 0 * more], dim=-1), rows)
    there, at_zero = (
        posterior.log_prob(posterior.decode(each)) for each in (z, torch.zeros_like(z))
    )
    expected = 2 * (at_zero - there)
    torch.testing.assert_close(found - start, expected + 1, atol=0.05, rtol=1e-3)


def test_every_problem_has_its_own_start(priors):
    objective = LatentObjective(
        priors.body_pose.freeze().given(),
        lambda _, more, rows: torch.where(
            more[:, 0] == rows, -1.0, torch.where(more[:, 0] == 7, torch.nan, 1.0)
        ),
        1,
    )
    zero = torch.zeros(3, 70)
    starts = [torch.cat([zero[:, :69], torch.full((3, 1), float(k))], dim=-1) for k in (7, 2, 0, 1)]
    assert best_start(objective, starts)[:, -1].tolist() == [0, 1, 2]
    assert best_start(objective, starts[:1])[:, -1].tolist() == [7, 7, 7]
    assert best_start(objective, [start[:0] for start in starts]).shape == (0, 70)
    with pytest.raises(ValueError, match="at least one start"):
        best_start(objective, [])


def test_a_search_finds_the_mode(priors):
    posterior = priors.body_pose.freeze().given()
    objective = LatentObjective(posterior, nothing)
    z = torch.randn(3, 69, generator=torch.Generator().manual_seed(1))
    found = search(objective, [z], 50, 1e-9)
    torch.testing.assert_close(
        objective.theta(found.x), posterior.mode().expand(3, -1, -1), atol=1e-3, rtol=0
    )
    theta = rotations.matrix_to_rot6d(random_poses(3, 2)[:, 1:])
    torch.testing.assert_close(objective.encode(theta), posterior.encode(theta))


def test_batches_are_flattened_in_order(priors):
    theta = random_poses(6, 4)[:, 1:]
    known = torch.arange(23) < 9
    posterior = priors.body_pose.given(rotations=theta.unflatten(0, (2, 3)), known=known)
    flat = flattened(posterior, torch.Size((2, 3)))
    torch.testing.assert_close(
        flat.mode(), priors.body_pose.given(rotations=theta, known=known).mode()
    )
    assert flattened(priors.body_pose.given(), torch.Size((2, 3))).batch_shape == ()


def test_priors_are_frozen_once(priors):
    copy = frozen(priors.people)
    assert not isinstance(copy, ConditionalPosePrior)
    assert frozen(copy) is copy
    assert rotation_space(copy, (24,)).joints == 24
    with pytest.raises(ValueError, match="over the rotations of 23 joints"):
        rotation_space(copy, (23,))
