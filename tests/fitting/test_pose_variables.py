import pytest
import torch

from flowprior import ConditionalPosePrior, rotations
from flowprior.fitting import AnglePose, DensityPose, LatentPose, facing
from flowprior.fitting.pose_variables import variables_of
from flowprior.skeleton import BODY_25, SMPL_24
from tests.fitting.people import KINDS, energy


@pytest.fixture(params=[*KINDS, "conditional theta", "unconditional theta", "contracting"])
def variables(request, priors, people):
    kind, _, form = request.param.partition(" ")
    return priors.variables(kind, people.keypoints[:6], theta=bool(form))


def vectors_of(density: DensityPose, theta: torch.Tensor) -> torch.Tensor:
    """The variables (P, size) of theta (P, 24, 6)."""
    root, pose = (theta[:, 0], theta[:, 1:]) if density.free_root else (theta[:, 0, :0], theta)
    return torch.cat([root, density.space.to_vector(pose, density.posterior.centre)], dim=-1)


def test_start_is_what_the_prior_likes_best(variables):
    x = variables.start(6)
    assert x.shape == (6, variables.size)
    torch.testing.assert_close(variables.penalty(x), torch.zeros(6), atol=1e-2, rtol=0) if not (
        isinstance(variables, AnglePose) and variables.mixture
    ) else None
    theta = variables.theta(x)
    assert theta.shape == (6, 24, 6)
    if variables.free_root:
        torch.testing.assert_close(theta[:, 0], facing(torch.zeros(6)))
    away = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert (variables.penalty(away) >= -1e-3).all()


def test_everybody_has_variables_of_their_own(variables):
    x = variables.start(6)
    x = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([4, 1, 1])
    some = variables.select(rows)
    torch.testing.assert_close(some.theta(x[rows]), variables.theta(x)[rows])
    torch.testing.assert_close(
        some.penalty(x[rows]), variables.penalty(x)[rows], atol=1e-3, rtol=1e-4
    )


def test_a_free_root_costs_nothing(variables):
    if not variables.free_root:
        pytest.skip("the prior knows the root")
    x = variables.start(6)
    turned = x.clone()
    turned[:, :6] = facing(torch.linspace(0, 300, 6))
    torch.testing.assert_close(variables.penalty(x), variables.penalty(turned))
    torch.testing.assert_close(variables.theta(x)[:, 1:], variables.theta(turned)[:, 1:])


@pytest.mark.parametrize("kind", ["conditional", "unconditional"])
def test_density_and_latent_are_one_penalty(kind, priors, people):
    latent = priors.variables(kind, people.keypoints[:4])
    density = priors.variables(kind, people.keypoints[:4], theta=True)
    z = latent.start(4)
    body = 6 * latent.free_root
    z[:, body:] += 0.5 * torch.randn(z[:, body:].shape, generator=torch.Generator().manual_seed(2))
    theta = latent.theta(z)
    x = vectors_of(density, theta)
    torch.testing.assert_close(density.penalty(x), latent.penalty(z), atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(density.theta(x), theta, atol=1e-5, rtol=1e-4)


def test_the_penalty_of_latents_is_the_energy_of_the_base(priors, people):
    latent = priors.variables("conditional", people.keypoints[:4])
    z = 0.5 * torch.randn(4, latent.size, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(latent.penalty(z), energy(latent.prior, z))
    log_prob = latent.posterior.log_prob(latent.theta(z))
    peak = latent.posterior.log_prob(latent.posterior.mode())
    torch.testing.assert_close(latent.penalty(z), 2 * (peak - log_prob), atol=0.05, rtol=1e-3)


@pytest.mark.parametrize("coupling", ["additive", "contracting"])
def test_variables_start_at_a_given_centre(priors, people, coupling):
    prior = priors.conditional if coupling == "additive" else priors.contracting
    centre = rotations.matrix_to_rot6d(people.theta[:4])
    seen = torch.zeros(4, prior.context_features)
    variables = variables_of(prior.freeze()(seen, centre=centre), people.keypoints[:4], BODY_25)
    assert isinstance(variables, LatentPose if coupling == "additive" else DensityPose)
    x = variables.start(4)
    torch.testing.assert_close(variables.theta(x), centre, atol=1e-5, rtol=0)
    torch.testing.assert_close(variables.penalty(x), torch.zeros(4), atol=1e-2, rtol=0)
    rows = torch.tensor([3, 0])
    some = variables.select(rows)
    torch.testing.assert_close(some.theta(x[rows]), centre[rows], atol=1e-5, rtol=0)


def test_every_variable_of_a_density_on_so3_matters(priors, people):
    variables = priors.variables("contracting", people.keypoints[:3])
    x = variables.start(3) + 0.1 * torch.randn(3, variables.size)
    assert variables.size == variables.prior.flow.features
    log_prob = variables.posterior.log_prob(variables.theta(x))
    peak = variables.posterior.log_prob(variables.posterior.mode())
    torch.testing.assert_close(variables.penalty(x), 2 * (peak - log_prob), atol=0.05, rtol=1e-3)
    theta = variables.theta(x)
    torch.testing.assert_close(
        rotations.orthogonality_loss(theta), torch.zeros(()), atol=1e-10, rtol=0
    )
    unit = torch.func.jacrev(lambda x: variables.select(torch.zeros(1, dtype=torch.long)).theta(x))
    matrix = unit(x[:1]).reshape(24 * 6, -1)
    assert torch.linalg.matrix_rank(matrix) == variables.size


def test_a_volume_that_depends_on_theta_is_part_of_the_density():
    prior = ConditionalPosePrior(0, hidden_features=16, coupling="affine")
    prior.nll(0.3 * torch.randn(50, 24, 3))
    prior.eval()
    pose = DensityPose(prior(None))
    theta = prior.sample(None, 5)
    penalty = pose.penalty(vectors_of(pose, theta))
    torch.testing.assert_close(
        penalty.diff(), -2 * prior.log_prob(theta).diff(), atol=1e-2, rtol=1e-4
    )


def test_other_layouts_are_turned_into_columns():
    prior = ConditionalPosePrior(0, hidden_features=16, layout="interleaved").eval()
    pose = LatentPose(prior(None))
    z = torch.randn(3, prior.flow.features, generator=torch.Generator().manual_seed(0))
    wanted = rotations.rot6d_to_matrix(prior(None).decode(z), "interleaved")
    torch.testing.assert_close(rotations.rot6d_to_matrix(pose.theta(z)), wanted)


def test_people_face_where_they_are_told():
    matrix = rotations.rot6d_to_matrix(facing(torch.tensor([0.0, 90.0])))
    ahead = matrix[..., 2]  # where the body's +z points
    torch.testing.assert_close(ahead[0], torch.tensor([0.0, 0.0, -1.0]))  # at the camera
    torch.testing.assert_close(ahead[1].abs(), torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(matrix[:, 1, 1], -torch.ones(2))  # upright, y down


def test_refuses_priors_over_something_else(priors):
    other = ConditionalPosePrior(0, joints=16, space="points", hidden_features=16)
    with pytest.raises(ValueError, match=r"SMPL's 24 joints.*\(16, 3\)"):
        LatentPose(other(None))
    with pytest.raises(ValueError, match="'gaussian'"):
        AnglePose(torch.zeros(69), "gaussian")
    with pytest.raises(ValueError, match="mixture belongs"):
        AnglePose(torch.zeros(69), "none", priors.mixture)
    assert SMPL_24.num_joints == 24
