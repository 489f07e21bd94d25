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
from flowprior.prior.spaces import (
    Centre,
    PointSpace,
    PoseSpace,
    Rot6dSpace,
    So3Space,
    make_space,
)
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


SPACES = {"rot6d": Rot6dSpace(24), "so3": So3Space(24), "points": PointSpace(24)}
spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


def random_poses(space: PoseSpace, *batch: int) -> Tensor:
    """Float64 poses (*batch, J, k) of a space."""
    if isinstance(space, PointSpace):
        return draw(*batch, space.joints, 3, seed=sum(batch))
    matrix = roma.random_rotmat((*batch, space.joints), dtype=torch.float64)
    return rotations.matrix_to_rot6d(matrix, space.layout)


def inside(x: Tensor) -> Tensor:
    """Vectors (..., 3 J) of the same directions, with lengths inside the ball."""
    joints = x.unflatten(-1, (-1, 3))
    length = joints.norm(dim=-1, keepdim=True)
    scale = rotations.CHART_RADIUS * torch.tanh(length / 2) / length
    return (joints * scale).flatten(start_dim=-2)


def log_density_of_pose(density, theta: Tensor, centre: Centre | None = None) -> Tensor:
    """Of one joint's theta under Haar measure."""
    space = So3Space(1)
    return density.log_prob(space.to_vector(theta, centre)) + space.log_volume


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
    x = inside(2 * draw(50, 72)).to(dtype)
    theta = space.to_pose(x)
    assert theta.shape == (50, 24, 6)
    assert theta.dtype == dtype
    assert space.to_vector(theta).dtype == dtype
    assert_close(space.to_vector(theta), x, tolerance)
    assert_close(rotations.orthogonality_loss(theta), 0, 1e-12)


def test_so3_vectors_beyond_the_ball_are_wrapped():
    space, x = So3Space(24), 4 * draw(50, 72)
    assert space.outside(x).any()
    settled = space.settled(x)
    assert not space.outside(settled).any()
    assert_close(space.to_pose(settled), space.to_pose(x), 1e-9)
    assert_close(space.to_vector(space.to_pose(x)), settled, 1e-7)


def test_only_so3_changes_the_measure():
    assert So3Space(24).log_volume == pytest.approx(24 * math.log(8 * math.pi**2), abs=1e-10)
    for space in (Rot6dSpace(24), PointSpace(24)):
        assert space.log_volume == 0
        x = draw(5, space.features)
        assert space.settled(x) is x


# --- centres --------------------------------------------------------------------------------------


@spaces
def test_the_centre_is_the_origin(space):
    pose = random_poses(space, 5)
    centre = space.centre(pose)
    assert torch.equal(centre.pose, pose)
    assert_close(space.to_vector(pose, centre), torch.zeros(5, space.features), 1e-14)
    assert_close(space.to_pose(torch.zeros(5, space.features), centre), pose, 1e-14)


@spaces
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("extra", [(), (4,), (2, 4), (0,)], ids=str)
def test_round_trip_around_a_centre(space, batch, extra):
    centre = space.centre(random_poses(space, *batch))
    x = inside(draw(*batch, *extra, space.features))
    theta = space.to_pose(x, centre)
    assert theta.shape == (*batch, *extra, *space.event_shape)
    assert_close(space.to_vector(theta, centre), x, 1e-10)


@pytest.mark.parametrize("layout", rotations.LAYOUTS)
def test_so3_vectors_are_turns_after_the_centre(layout):
    space = So3Space(2, layout)
    centre, turn = roma.random_rotmat((2, 5, 2), dtype=torch.float64)
    about = space.centre(rotations.matrix_to_rot6d(centre, layout))
    for theta in forms_of(centre @ turn, layout).values():
        assert_close(space.to_vector(theta, about), space.to_vector(turn), 1e-9)


@spaces
def test_centres_are_selected_and_expanded_as_tensors_are(space):
    pose = random_poses(space, 5, 2)
    centre = space.centre(pose)
    assert centre.batch_shape == (5, 2)
    mask = torch.tensor([True, False, True, False, False])
    for index in (1, -1, slice(1, 4), [4, 0, -1], mask, (slice(None), 1), (..., 0), (2, 1)):
        found = centre.select(index)
        rows = index if isinstance(index, tuple) else (index,)
        rows = rows if ... in rows else (*rows, ...)
        assert torch.equal(found.pose, pose[(*rows, slice(None), slice(None))])
        assert_close(space.centre(found.pose).frame, found.frame, 0)
    wide = centre.expand(torch.Size((3, 5, 2)))
    assert wide.batch_shape == (3, 5, 2)
    assert torch.equal(wide.pose[2], pose)
    assert wide.frame.data_ptr() == centre.frame.data_ptr()
    assert centre.frame_for(4).shape == (5, 2, 1, 1, *centre.frame.shape[2:])


@spaces
def test_a_centre_under_autocast_is_exact(space):
    centre = space.centre(random_poses(space, 5).float())
    x = inside(draw(5, 4, space.features)).float()
    theta = space.to_pose(x, centre)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(space.to_pose(x, centre), theta)
        assert torch.equal(space.to_vector(theta, centre), space.to_vector(theta, centre))
        inner = space.to_vector(theta, centre)
    assert torch.equal(inner, space.to_vector(theta, centre))


@pytest.mark.parametrize("kind", [Rot6dSpace, So3Space])
def test_gradients_through_a_centre(kind):
    space = kind(2)
    pose, theta = (random_poses(space, *batch).requires_grad_() for batch in ((3,), (3, 2)))
    x = inside(draw(3, 2, space.features)).requires_grad_()
    to_vector = lambda theta, pose: space.to_vector(theta, space.centre(pose))  # noqa: E731
    to_pose = lambda x, pose: space.to_pose(x, space.centre(pose))  # noqa: E731
    assert torch.autograd.gradcheck(to_vector, (theta, pose))
    assert torch.autograd.gradcheck(to_pose, (x, pose))
    # At the centre itself, too.
    assert torch.autograd.gradcheck(to_vector, (pose.detach().clone().requires_grad_(), pose))


# --- densities over SO(3) -------------------------------------------------------------------------


def mass_inside(density) -> Tensor:
    """Mass of a density of vectors (3,) inside the ball, by quadrature."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(60))
    half = rotations.CHART_RADIUS / 2
    radius, axis, around_weight = sphere(half * (nodes + 1), nodes)
    weight = half * weights[:, None, None] * weights[:, None] * around_weight
    return (density.log_prob(radius * axis).exp() * radius[..., 0].square() * weight).sum()


def sphere(radius: Tensor, heights: Tensor) -> tuple[Tensor, Tensor, float]:
    """A grid of radii (..., 1) and axes (..., 3), with the weight of one step around."""
    around = torch.arange(60, dtype=torch.float64) * 2 * math.pi / 60
    radius, height, around = torch.meshgrid(radius, heights, around, indexing="ij")
    flat = (1 - height.square()).sqrt()
    axis = torch.stack((flat * around.cos(), flat * around.sin(), height), dim=-1)
    return radius[..., None], axis, 2 * math.pi / 60


@densities
@pytest.mark.parametrize("centred", [False, True])
def test_so3_density_integrates_to_the_mass_inside_the_ball(density, centred):
    # Haar measure in angle and axis: (1 - cos t) / pi dt, and the area on the sphere over 4 pi.
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(60))
    angle, axis, around_weight = sphere((nodes + 1) * math.pi / 2, nodes)
    weight = weights[:, None, None] * weights[:, None] * around_weight / (4 * math.pi)
    volume = weight * (math.pi / 2) * (1 - angle[..., 0].cos()) / math.pi
    assert_close(volume.sum(), 1, 1e-10)
    theta = rotations.rotvec_to_matrix((angle * axis).unsqueeze(-2))
    centre = None
    if centred:
        frame = roma.random_rotmat((1,), dtype=torch.float64)
        centre = So3Space(1).centre(rotations.matrix_to_rot6d(frame))
        theta = frame @ theta
    total = (log_density_of_pose(density, theta, centre).exp() * volume).sum()
    assert_close(total, mass_inside(density), 1e-6)
    assert total < 1 + 1e-9


@densities
def test_so3_expectations_are_those_of_uniform_rotations(density):
    count, space = 200_000, So3Space(1)
    uniform = roma.random_rotmat((count, 1), dtype=torch.float64)
    probability = log_density_of_pose(density, uniform).exp()
    x = density.sample((count,))
    sampled, seen = space.to_matrix(space.to_pose(x)), ~space.outside(x)[:, 0]
    for function in (
        lambda matrix: torch.ones(len(matrix)).double(),
        lambda matrix: matrix.diagonal(dim1=-2, dim2=-1).sum(dim=(-2, -1)),
        lambda matrix: matrix[:, 0, 0, 1],
        lambda matrix: matrix[:, 0, 2, 1].square(),
    ):
        weighted, direct = probability * function(uniform), seen * function(sampled)
        error = ((weighted.var() + direct.var()) / count).sqrt()
        assert error < 0.06
        assert_close(weighted.mean(), direct.mean(), float(4 * error))


def test_uniform_rotations_have_density_one():
    # The density of the vectors of uniform rotations, by their histogram, undoes the constant.
    space = So3Space(1)
    length = space.to_vector(roma.random_rotmat((200_000, 1), dtype=torch.float64)).norm(dim=-1)
    edges = torch.linspace(0.6, rotations.CHART_RADIUS, 13, dtype=torch.float64)
    share = torch.histogram(length, edges).hist / len(length)
    shell = 4 * math.pi / 3 * (edges[1:] ** 3 - edges[:-1] ** 3)
    assert_close((share / shell).log() + space.log_volume, torch.zeros(12), 0.05)


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
    axis = torch.nn.functional.normalize(torch.randint(-3, 4, (200, 3)).double() + 1e-3, dim=-1)
    rotvec = (math.pi * axis).to(dtype).unsqueeze(1)
    matrix = rotations.rotvec_to_matrix(rotvec)
    # Three half-turns differ from one by more than rounding.
    forms = (-rotvec, matrix, matrix.mT, 2 * rotations.matrix_to_rot6d(matrix))
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
    log_prob = -(x - 0.3).square().sum(dim=-1)
    (gradient,) = torch.autograd.grad(log_prob.sum(), theta)
    assert gradient.norm(dim=-1).min() > 0.01
    vectors = rotations._split(theta.detach(), layout)
    products = rotations._split(gradient, layout) @ vectors.mT
    # Neither length matters, nor how much of the first vector is in the second.
    for gauge in (products[..., 0, 0], products[..., 1, 1], products[..., 1, 0]):
        assert_close(gauge, torch.zeros(50, 2), 1e-9)


def test_so3_gradients():
    space = So3Space(2)
    x = torch.cat((inside(draw(2, 6)), torch.zeros(1, 6), 4 * draw(2, 6))).requires_grad_()
    assert torch.autograd.gradcheck(space.to_pose, x)
    assert torch.autograd.gradgradcheck(space.to_pose, x)
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
    (gradient,) = torch.autograd.grad(x.sum(), theta)
    assert x.norm() < rotations.CHART_RADIUS + 1e-5
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
def test_so3_keeps_non_finite_values_visible(bad):
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
    x = inside(draw(5, 6)).to(dtype)
    theta = space.to_pose(x)
    assert theta.dtype == dtype
    assert space.to_vector(theta).dtype == torch.float32
    assert_close(space.to_vector(theta).float(), x.float(), 0.1)
    half_turns = math.pi * torch.eye(3, dtype=dtype)[:, None].expand(3, 2, 3)
    assert space.to_vector(half_turns).isfinite().all()


@pytest.mark.slow
def test_so3_under_transforms_and_devices():
    space, frame = So3Space(2), roma.random_rotmat(2)

    def density(theta: Tensor) -> Tensor:
        centre = space.centre(rotations.matrix_to_rot6d(frame))
        x = space.to_vector(theta, centre)
        return space.to_pose(0.5 * x, centre).sum(dim=(-2, -1))

    theta = draw(4, 2, 6).float()
    expected = density(theta)
    torch.testing.assert_close(torch.func.vmap(density)(theta), expected)
    compiled = torch.compile(density, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(theta), expected)
    slopes = torch.func.vmap(torch.func.grad(density))(theta)
    given = theta.clone().requires_grad_()
    compiled(given).sum().backward()
    torch.testing.assert_close(given.grad, slopes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(density(theta), expected)


@pytest.mark.parametrize(
    ("joints", "body"),
    [
        (21, "the body of SMPL-X or SMPL-H without its root, as in VPoser"),
        (22, "the body of SMPL-X or SMPL-H: SMPL without the hands, joints 22 and 23"),
        (23, "SMPL's body_pose, without global_orient"),
        (24, "SMPL's"),
        (52, "SMPL-H's"),
        (55, "SMPL-X's"),
        (7, ""),
    ],
)
def test_the_body_of_another_number_of_joints_is_named(joints, body):
    found = rf"this has {joints} joints \({body}\) instead of 25" if body else ""
    found = found or f"this has {joints} joints instead of 25"
    shapes = [(4, joints, 6), (4, joints, 3), (joints, 3, 3), (joints, 3)]
    shapes += [(6 * joints,), (2, 3 * joints)] if body else []
    for shape in shapes:
        with pytest.raises(ValueError, match=found):
            So3Space(25).to_vector(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 23, 6), (4, 72), (4, 24, 4), (4, 24, 2, 3), (), (143,)])
def test_other_shapes_are_refused_and_accepted_ones_named(shape):
    for space in (Rot6dSpace(24), So3Space(24)):
        with pytest.raises(ValueError, match=r"accepted are 6D \(..., 24, 6\), .*\(..., 24, 3\)"):
            space.to_vector(torch.zeros(shape))


def test_so3_vectors_are_not_poses():
    with pytest.raises(ValueError, match=r"accepted are 6D .*flat 6D \(..., 144\)"):
        So3Space(24).to_vector(torch.zeros(4, 72))


@pytest.mark.parametrize("name", ["rot6d", "so3", "points"])
def test_spaces_by_name(name):
    kind = {"rot6d": Rot6dSpace, "so3": So3Space, "points": PointSpace}[name]
    space = make_space(name, 5, "rows")
    assert type(space) is kind
    assert space.joints == 5
    assert getattr(space, "layout", "rows") == "rows"


def test_error_for_flat_rotation_vectors_names_the_remedy():
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["so3", "rot6d", "points"])
def test_vectors_keep_their_dtype(name, dtype):
    space = make_space(name, 4, "columns")
    x = torch.randn(2, 3, space.features, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert space.settled(x).dtype == space.to_pose(x).dtype == dtype
    assert space.settled(x).shape == x.shape
    assert space.to_pose(x).shape == (2, 3, *space.event_shape)
