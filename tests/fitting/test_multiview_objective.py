import pytest
import torch

from flowprior import rotations
from flowprior.fitting import (
    Cameras,
    KeypointObjective,
    MultiviewObjective,
    MultiviewWeights,
)
from flowprior.keypoints import keypoint_squares
from flowprior.skeleton import BODY_25
from tests.fitting.people import energy


@pytest.fixture
def make(people, priors, body):
    seen = people.keypoints[:7]
    centre, side = keypoint_squares(seen)

    def build(groups, **weights):
        pose = priors.variables("conditional", seen)
        camera = Cameras.crop(centre, side)
        views = KeypointObjective(body, seen, BODY_25, camera, pose, torch.ones(7, 3) * 40)
        return MultiviewObjective(views, groups, MultiviewWeights(**weights))

    return build


def test_is_the_formula_of_the_paper(make):
    objective = make([[0, 1, 2]])
    x = objective.start() + 0.2 * torch.randn(1, objective.start().shape[1])
    views = objective.unpack(x)[0]
    theta = objective.views.parts(views, torch.arange(3)).theta
    body = rotations.rot6d_to_matrix(theta)[:, 1:]
    apart = (body - rotations.mean_rotation(body.transpose(0, 1))[None]).square().sum()
    prior = objective.views.pose.prior
    z = views[:, : prior.flow.features]
    wanted = 300**2 * apart + energy(prior, z).sum()
    torch.testing.assert_close(objective(x, torch.arange(1))[0], wanted, rtol=1e-4, atol=1e-3)


def test_gradient_goes_through_the_mean_although_it_is_held(make):
    objective = make([[0, 1, 2]], consistency=1.0, pose=0.0)
    rows = torch.arange(1)
    x = (objective.start() + 0.3 * torch.randn(1, objective.start().shape[1])).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(x, rows).sum(), x)
    direction = torch.nn.functional.normalize(torch.randn(x.shape), dim=-1)
    with torch.no_grad():
        ahead, behind = (objective(x + h * direction, rows) for h in (1e-2, -1e-2))
    torch.testing.assert_close(
        (gradient * direction).sum(), (ahead - behind)[0] / 2e-2, rtol=0.1, atol=0.05
    )


def test_people_may_have_any_number_of_views(make):
    ragged = make([[0, 1, 2], [3], [5, 4]], keypoints=1.0)
    x = ragged.start() + 0.1
    together = ragged(x, torch.arange(3))
    single = make([[3]], keypoints=1.0)
    torch.testing.assert_close(
        single(single.start() + 0.1, torch.arange(1)), together[1:2], rtol=1e-4, atol=1e-2
    )
    pair = make([[5, 4]], keypoints=1.0)
    torch.testing.assert_close(
        pair(pair.start() + 0.1, torch.arange(1)), together[2:], rtol=1e-4, atol=1e-2
    )


def test_one_shape_for_all_views(make):
    objective = make([[0, 1]], keypoints=1.0)
    x = objective.start()
    x[:, -10:] = torch.arange(10.0)
    views = objective.unpack(x)[0]
    place = objective.views.slices["betas"]
    assert torch.equal(views[0, place], views[1, place])
    assert torch.equal(objective._pack(objective.unpack(x)), x)


@pytest.mark.parametrize(
    ("groups", "message"),
    [([[0], []], "at least one view"), ([[0, 7]], "0 to 7 of 7"), ([[-1]], "-1 to -1 of 7")],
)
def test_refuses_groups_of_nothing(make, groups, message):
    with pytest.raises(ValueError, match=message):
        make(groups)


def test_refuses_weights_below_zero():
    with pytest.raises(ValueError, match="consistency"):
        MultiviewWeights(consistency=-1.0)
