"""The directions of a latent that move a body most."""

import pytest
import torch

from flowprior.skeleton import SMPL_24
from flowprior.view.directions import latent_directions


@pytest.fixture(scope="module")
def posterior(prior, fits):
    return prior.given(keypoints_2d=torch.from_numpy(fits.keypoints_2d[0]))


@pytest.fixture(scope="module")
def directions(posterior, body):
    return latent_directions(posterior, body, count=3)


def movement(posterior, body, step, length=0.1):
    """Mean movement (24, 3) of the joints per step over the posterior, millimetres."""
    with torch.no_grad():
        z = posterior.encode(posterior.sample(500, generator=torch.Generator().manual_seed(5)))
        theta = posterior.decode(torch.stack([z - length * step, z + length * step], dim=1))
        before, after = 1000 * body.keypoints(theta, SMPL_24).movedim(1, 0)
    return ((after - before) / (2 * length)).mean(dim=0)


def test_the_movement_of_a_step_is_the_mean_over_the_posterior(posterior, body, directions):
    # Stein's lemma: for a normal distribution the least-squares slope is the mean derivative.
    for step, expected in zip(directions.steps, directions.movement_mm, strict=True):
        found = movement(posterior, body, step).norm(dim=-1)
        torch.testing.assert_close(found, expected, atol=20.0, rtol=0.2)


def test_no_direction_moves_the_joints_more_than_the_first(posterior, body, directions):
    unit = directions.steps / directions.steps.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(unit @ unit.T, torch.eye(3), atol=0.05, rtol=0)
    sizes = [float(movement(posterior, body, step).norm()) for step in unit]
    assert sizes[0] > 0.95 * sizes[1] > 0.9 * sizes[2]
    others = torch.nn.functional.normalize(torch.randn(20, unit.shape[-1]), dim=-1)
    assert max(float(movement(posterior, body, step).norm()) for step in others) < sizes[0]


def test_the_joint_that_moves_most_moves_up_or_to_the_right(posterior, body, directions):
    for index in range(3):
        name = directions.names(index, 1)[0].replace(" ", "_")
        moved = movement(posterior, body, directions.steps[index])[SMPL_24.index(name)]
        assert max(-moved[1], moved[0]) > 0


def test_joints_at_rest_do_not_move(posterior, directions):
    z = directions.latent([1.0, -2.0, 0.5])
    assert z.shape == (72,)
    theta = posterior.decode(z)
    assert torch.equal(theta[22:], posterior.mode()[22:])


def test_batches_and_impossible_counts_are_errors(posterior, body):
    with pytest.raises(ValueError, match="one person"):
        latent_directions(posterior.expand(torch.Size([2])), body)
    with pytest.raises(ValueError, match="from 1 to 72"):
        latent_directions(posterior, body, count=0)
