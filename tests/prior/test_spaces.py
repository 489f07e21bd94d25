import math

import numpy as np
import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from flowprior import rotations
from flowprior.prior.spaces import PointSpace, Rot6dSpace, So3Space, make_space
from tests.flow.helpers import assert_close, draw

# Densities of one joint's vector: where a new flow starts, narrow and off centre, wide, two modes.
MEANS = torch.tensor([[0.5, -1.0, 0.8], [-0.9, 0.1, 0.4]], dtype=torch.float64)
DENSITIES = {
    "standard": Independent(Normal(torch.zeros(3).double(), 1.0), 1),
    "narrow": Independent(Normal(MEANS[0], 0.25), 1),
    "wide": Independent(Normal(MEANS[1], 2.0), 1),
    "two modes": MixtureSameFamily(
        Categorical(torch.tensor([0.3, 0.7]).double()), Independent(Normal(MEANS, 0.4), 1)
    ),
}
densities = pytest.mark.parametrize("density", DENSITIES.values(), ids=DENSITIES.keys())


def log_density_of_pose(density, theta: Tensor) -> Tensor:
    """Of one joint's theta under Haar measure."""
    space = So3Space(1)
    x = space.to_vector(theta)
    return density.log_prob(x) + space.log_volume(x)


def forms_of(matrix: Tensor, layout: str) -> dict[str, Tensor]:
    """Theta (..., J, k) for matrices (..., J, 3, 3), in all forms that mean the same rotations."""
    rot6d = rotations.matrix_to_rot6d(matrix, layout)
    rotvec = rotations.matrix_to_rotvec(matrix)
    turn = 2 * math.pi * torch.nn.functional.normalize(rotvec, dim=-1)
    first, second = rotations._split(rot6d, layout).unbind(dim=-2)
    skewed = torch.stack((2 * first, 0.3 * second - 0.7 * first), dim=-2)
    skewed = skewed.mT if layout == "interleaved" else skewed
    return {
        "6D": rot6d,
        "flat 6D": rot6d.flatten(start_dim=-2),
        "scaled 6D": 5 * rot6d,
        "skewed 6D": skewed.flatten(start_dim=-2),
        "matrices": matrix,
        "rotation vectors": rotvec,
        "a full turn more": rotvec + turn,
        "a full turn less": rotvec - turn,
    }


@pytest.mark.parametrize("layout", rotations.LAYOUTS)
@pytest.mark.parametrize("batch", [(), (5,), (2, 5), (0,)])
def test_every_form_of_a_rotation_is_the_same_vector(layout, batch):
    space = Rot6dSpace(24, layout)
    matrix = roma.random_rotmat((*batch, 24), dtype=torch.float64)
    rot6d = rotations.matrix_to_rot6d(matrix, layout)
    expected = rot6d.reshape(*batch, 144)
    for theta in (rot6d, expected, matrix, rotations.matrix_to_rotvec(matrix)):
        assert_close(space.to_vector(theta), expected, 1e-10)
    assert_close(space.to_pose(expected), rot6d, 0)
    assert_close(space.to_matrix(expected), matrix, 1e-10)


@pytest.mark.parametrize("joints", [1, 2, 3, 6, 16])
def test_any_number_of_joints(joints):
    space = Rot6dSpace(joints)
    rot6d = torch.randn(4, joints, 6)
    assert torch.equal(space.to_vector(rot6d), rot6d.reshape(4, -1))
    matrix = roma.random_rotmat((4, joints))
    assert space.to_vector(matrix).shape == (4, 6 * joints)
    assert space.features == 6 * joints


def test_points():
    space = PointSpace(16)
    points = torch.randn(4, 16, 3)
    assert torch.equal(space.to_vector(points), points.reshape(4, 48))
    assert torch.equal(space.to_vector(points.reshape(4, 48)), points.reshape(4, 48))
    assert torch.equal(space.to_pose(points.reshape(4, 48)), points)


@pytest.mark.parametrize("layout", rotations.LAYOUTS)
@pytest.mark.parametrize("batch", [(), (5,), (2, 5), (0,)])
def test_so3_takes_every_form_of_a_rotation(layout, batch):
    space = So3Space(24, layout)
    matrix = roma.random_rotmat((*batch, 24), dtype=torch.float64)
    x = space.to_vector(matrix)
    assert x.shape == (*batch, 72)
    assert space.features == 72
    assert space.event_shape == (24, 6)
    for theta in forms_of(matrix, layout).values():
        assert_close(space.to_vector(theta), x, 1e-10)
        assert_close(space.to_matrix(theta), matrix, 1e-10)
    assert_close(space.to_pose(x), rotations.matrix_to_rot6d(matrix, layout), 1e-10)
    single = forms_of(matrix.float(), layout)
    for theta in single.values():
        assert_close(space.to_vector(theta).double(), x, 1e-3)
    assert_close(space.log_volume(x), space.log_volume(x.reshape(-1, 72)).reshape(batch), 0)


def test_so3_layouts_are_the_same_density():
    matrix = roma.random_rotmat((5, 24), dtype=torch.float64)
    vectors = [
        So3Space(24, layout).to_vector(rotations.matrix_to_rot6d(matrix, layout))
        for layout in rotations.LAYOUTS
    ]
    assert_close(vectors[1], vectors[0], 1e-10)
    assert_close(vectors[2], vectors[0], 1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-5)])
def test_so3_round_trip(dtype, tolerance):
    space = So3Space(24)
    x = 2 * draw(50, 72).to(dtype)
    theta = space.to_pose(x)
    assert theta.shape == (50, 24, 6)
    assert theta.dtype == space.log_volume(x).dtype == dtype
    assert space.to_vector(theta).dtype == dtype
    assert_close(space.to_vector(theta), x, tolerance)
    assert_close(rotations.orthogonality_loss(theta), 0, 1e-12)


def test_so3_volume_is_the_sum_over_joints():
    x = draw(5, 72)
    by_joint = So3Space(1).log_volume(x.reshape(5, 24, 3))
    assert_close(So3Space(24).log_volume(x), by_joint.sum(dim=-1), 1e-12)
    assert (by_joint > So3Space(1).log_volume(torch.zeros(3))).all()


def test_only_so3_changes_the_measure():
    assert not So3Space(24).flat
    for space in (Rot6dSpace(24), PointSpace(24)):
        assert space.flat
        x = draw(2, 5, space.features).float()
        assert torch.equal(space.log_volume(x), torch.zeros(2, 5))


@densities
def test_so3_density_integrates_to_one(density):
    # Over the ball of rotation vectors, by Gauss-Legendre in radius and height, evenly around.
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(40))
    radius, radius_weight = (nodes + 1) * math.pi / 2, weights * math.pi / 2
    around = torch.arange(60, dtype=torch.float64) * 2 * math.pi / 60
    radius, height, around = torch.meshgrid(radius, nodes, around, indexing="ij")
    flat = (1 - height.square()).sqrt()
    axis = torch.stack((flat * around.cos(), flat * around.sin(), height), dim=-1)
    rotvec = radius[..., None] * axis
    weight = radius_weight[:, None, None] * weights[:, None] * 2 * math.pi / 60
    volume = weight * (1 - radius.cos()) / (4 * math.pi**2)  # Haar measure
    assert_close(volume.sum(), 1, 1e-10)
    probability = log_density_of_pose(density, rotvec.unsqueeze(-2)).exp()
    assert_close((probability * volume).sum(), 1, 1e-7)


@densities
def test_so3_expectations_are_those_of_uniform_rotations(density):
    count = 200_000
    uniform = roma.random_rotmat((count, 1), dtype=torch.float64)
    probability = log_density_of_pose(density, uniform).exp()
    x = density.sample((count,))
    sampled = So3Space(1).to_matrix(So3Space(1).to_pose(x))
    for function in (
        lambda matrix: torch.ones(len(matrix)).double(),
        lambda matrix: matrix.diagonal(dim1=-2, dim2=-1).sum(dim=(-2, -1)),
        lambda matrix: matrix[:, 0, 0, 1],
        lambda matrix: matrix[:, 0, 2, 1].square(),
    ):
        weighted, direct = probability * function(uniform), function(sampled)
        error = ((weighted.var() + direct.var()) / count).sqrt()
        assert error < 0.06
        assert_close(weighted.mean(), direct.mean(), float(4 * error))


def test_uniform_rotations_have_density_one():
    # The density of the vectors of uniform rotations, by their histogram, undoes the volume term.
    space = So3Space(1)
    length = space.to_vector(roma.random_rotmat((200_000, 1), dtype=torch.float64)).norm(dim=-1)
    edges = torch.linspace(0.5, 6, 23, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    share = torch.histogram(length, edges).hist / len(length)
    shell = 4 * math.pi / 3 * (edges[1:] ** 3 - edges[:-1] ** 3)
    x = middle[:, None] * torch.tensor([0.0, 0.6, 0.8])
    log_density = (share / shell).log() + space.log_volume(x)
    assert_close(log_density, torch.zeros(22), 0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("short", [0, 1e-12, 1e-7, 1e-6, 1e-5, 1e-3, 0.1, 1])
def test_so3_density_is_finite_and_differentiable_up_to_the_antipode(short, dtype):
    axis = torch.nn.functional.normalize(draw(20, 3), dim=-1)
    axis = torch.cat((axis, torch.eye(3), -torch.eye(3))).unsqueeze(1)
    rotvec = ((1 - short) * math.pi * axis).to(dtype)
    matrix = rotations.rotvec_to_matrix(rotvec)
    density = Independent(Normal(MEANS[0].to(dtype), 1.0), 1)
    for theta in (rotvec, matrix, rotations.matrix_to_rot6d(matrix)):
        theta = theta.detach().requires_grad_()
        log_prob = log_density_of_pose(density, theta)
        (gradient,) = torch.autograd.grad(log_prob.sum(), theta)
        assert log_prob.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_so3_density_of_half_turns_is_the_same_in_every_form(dtype):
    axis = torch.nn.functional.normalize(torch.randint(-3, 4, (200, 3)) + 1e-3, dim=-1)
    rotvec = (math.pi * axis).to(dtype).unsqueeze(1)
    matrix = rotations.rotvec_to_matrix(rotvec)
    forms = (-rotvec, 3 * rotvec, matrix, matrix.mT, 2 * rotations.matrix_to_rot6d(matrix))
    density = Independent(Normal(MEANS[0].to(dtype), 3.0), 1)
    expected = log_density_of_pose(density, rotvec)
    assert expected.std() > 0.1
    for theta in forms:
        assert_close(log_density_of_pose(density, theta), expected, 1e-3)


@pytest.mark.parametrize("layout", rotations.LAYOUTS)
def test_so3_density_has_no_gradient_along_the_gauge(layout):
    space = So3Space(2, layout)
    theta = draw(50, 2, 6).requires_grad_()
    x = space.to_vector(theta)
    log_prob = space.log_volume(x) - (x - 0.3).square().sum(dim=-1)
    (gradient,) = torch.autograd.grad(log_prob.sum(), theta)
    assert gradient.norm(dim=-1).min() > 0.01
    vectors = rotations._split(theta.detach(), layout)
    products = rotations._split(gradient, layout) @ vectors.mT
    # Neither length matters, nor how much of the first vector is in the second.
    for gauge in (products[..., 0, 0], products[..., 1, 1], products[..., 1, 0]):
        assert_close(gauge, torch.zeros(50, 2), 1e-9)


def test_so3_gradients():
    space = So3Space(2)
    x = torch.cat((draw(2, 6), torch.zeros(1, 6))).requires_grad_()
    assert torch.autograd.gradcheck(space.to_pose, x)
    assert torch.autograd.gradcheck(space.log_volume, x)
    assert torch.autograd.gradgradcheck(space.log_volume, x)
    theta = draw(3, 2, 6).requires_grad_()
    assert torch.autograd.gradcheck(space.to_vector, theta)
    assert torch.autograd.gradgradcheck(space.to_vector, theta)
    rotvec = torch.cat((draw(2, 2, 3), torch.zeros(1, 2, 3))).requires_grad_()
    # The step is longer than the angle below which roma's formula is of first order.
    assert torch.autograd.gradcheck(space.to_vector, rotvec, eps=1e-5)


@given(st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=6, max_size=6))
def test_so3_takes_any_finite_6d(numbers):
    theta = torch.tensor([numbers], dtype=torch.float32).requires_grad_()
    x = So3Space(1).to_vector(theta)
    value = So3Space(1).log_volume(x)
    (gradient,) = torch.autograd.grad(value, theta)
    assert x.norm() < 28.2
    assert value.isfinite()
    assert gradient.isfinite().all()


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 0.01),
    st.floats(0, 3.1),
    st.integers(-2, 2),
)
def test_so3_density_is_the_same_for_every_full_turn(axis, angle, turns):
    axis = torch.nn.functional.normalize(torch.tensor([axis], dtype=torch.float64), dim=-1)
    density = DENSITIES["narrow"]
    expected = log_density_of_pose(density, angle * axis)
    again = log_density_of_pose(density, (angle + 2 * math.pi * turns) * axis)
    assert_close(again, expected, 1e-9)
    back = log_density_of_pose(density, (2 * math.pi * turns - angle) * -axis)
    assert_close(back, expected, 1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_so3_does_not_hide_what_is_not_finite(bad):
    space = So3Space(2)
    matrix = roma.random_rotmat((3, 2))
    for theta in (rotations.matrix_to_rot6d(matrix), matrix, rotations.matrix_to_rotvec(matrix)):
        theta[1, 1].view(-1)[0] = bad
        finite = space.to_vector(theta).isfinite()
        assert finite[[0, 2]].all()
        assert finite[1, :3].all()
        assert not finite[1, 3:].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_so3_raises_half_precision(dtype):
    space = So3Space(2)
    x = draw(5, 6).to(dtype)
    theta = space.to_pose(x)
    assert theta.dtype == space.log_volume(x).dtype == dtype
    assert space.to_vector(theta).dtype == torch.float32
    assert_close(space.to_vector(theta).float(), x.float(), 0.1)
    assert torch.equal(space.log_volume(x), space.log_volume(x.float()).to(dtype))
    half_turns = math.pi * torch.eye(3, dtype=dtype)[:, None].expand(3, 2, 3)
    assert space.to_vector(half_turns).isfinite().all()


@pytest.mark.slow
def test_so3_under_transforms_and_devices():
    space = So3Space(2)

    def density(theta: Tensor) -> Tensor:
        x = space.to_vector(theta)
        return space.log_volume(x) + space.to_pose(x).sum(dim=(-2, -1))

    theta = draw(4, 2, 6).float()
    expected = density(theta)
    torch.testing.assert_close(torch.func.vmap(density)(theta), expected)
    compiled = torch.compile(density, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(theta), expected)
    assert density(theta.to("meta")).is_meta
    slopes = torch.func.vmap(torch.func.grad(density))(theta)
    given = theta.clone().requires_grad_()
    compiled(given).sum().backward()
    torch.testing.assert_close(given.grad, slopes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(density(theta), expected)


@pytest.mark.parametrize("shape", [(4, 23, 6), (4, 72), (4, 24, 4), (4, 24, 2, 3), (), (143,)])
def test_other_shapes_are_refused_and_accepted_ones_named(shape):
    for space in (Rot6dSpace(24), So3Space(24)):
        with pytest.raises(ValueError, match=r"accepted are 6D \(..., 24, 6\), .*\(..., 24, 3\)"):
            space.to_vector(torch.zeros(shape))


def test_so3_does_not_take_its_own_vectors_for_poses():
    with pytest.raises(ValueError, match=r"accepted are 6D .*flat 6D \(..., 144\)"):
        So3Space(24).to_vector(torch.zeros(4, 72))


@pytest.mark.parametrize("name", ["rot6d", "so3", "points"])
def test_spaces_by_name(name):
    kind = {"rot6d": Rot6dSpace, "so3": So3Space, "points": PointSpace}[name]
    space = make_space(name, 5, "rows")
    assert type(space) is kind
    assert space.joints == 5
    assert getattr(space, "layout", "rows") == "rows"


def test_flat_rotation_vectors_are_told_what_to_do():
    with pytest.raises(ValueError, match=r"theta.unflatten\(-1, \(24, 3\)\)"):
        Rot6dSpace(24).to_vector(torch.zeros(4, 72))


@pytest.mark.parametrize("form", [lambda m: m, rotations.matrix_to_rotvec])
def test_half_precision_is_raised_before_it_is_encoded(form):
    theta = form(roma.random_rotmat((4, 24))).half()
    vector = Rot6dSpace(24).to_vector(theta)
    assert torch.equal(vector, Rot6dSpace(24).to_vector(theta.float()))


def test_points_refuse_rotations():
    with pytest.raises(ValueError, match=r"keypoints \(..., 16, 3\)"):
        PointSpace(16).to_vector(torch.zeros(4, 16, 6))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("quaternion", 24, "columns"), "space must be one of"),
        (("rot6d", 24, "column"), "layout must be one of"),
        (("rot6d", 0, "columns"), "joints must be a whole number of at least 1"),
        (("so3", 24, "column"), "layout must be one of"),
        (("so3", 0, "columns"), "joints must be a whole number of at least 1"),
    ],
)
def test_bad_names(args, message):
    with pytest.raises(ValueError, match=message):
        make_space(*args)
