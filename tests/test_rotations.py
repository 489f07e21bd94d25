import functools
import math

import mpmath  # a dependency of torch
import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowprior import rotations
from tests.flow.helpers import assert_close, draw

layouts = pytest.mark.parametrize("layout", rotations.LAYOUTS)
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def random_matrices(*shape: int) -> Tensor:
    return roma.random_rotmat(shape, dtype=torch.float64)


def assert_rotations(matrix: Tensor, tolerance: float = 1e-5) -> None:
    identity = torch.eye(3, dtype=matrix.dtype).expand_as(matrix)
    torch.testing.assert_close(matrix.mT @ matrix, identity, rtol=0, atol=tolerance)
    assert (torch.linalg.det(matrix) > 0).all()


def test_layouts_order_their_entries_as_documented():
    matrix = torch.arange(9.0).reshape(3, 3)  # entry rc is 3 r + c
    expected = {
        "columns": [0, 3, 6, 1, 4, 7],
        "interleaved": [0, 1, 3, 4, 6, 7],
        "rows": [0, 1, 2, 3, 4, 5],
    }
    for layout, entries in expected.items():
        assert rotations.matrix_to_rot6d(matrix, layout).tolist() == entries


@layouts
def test_round_trip(layout):
    matrix = random_matrices(5, 24)
    assert_close(
        rotations.rot6d_to_matrix(rotations.matrix_to_rot6d(matrix, layout), layout), matrix, 1e-12
    )


def test_mixed_layouts_do_not_agree():
    matrix = random_matrices(100)
    for write in rotations.LAYOUTS:
        for read in set(rotations.LAYOUTS) - {write}:
            wrong = rotations.rot6d_to_matrix(rotations.matrix_to_rot6d(matrix, write), read)
            assert rotations.geodesic_distance(wrong, matrix).mean() > 0.5


@layouts
def test_decoding_is_gram_schmidt(layout):
    x = draw(50, 6)
    first, second = rotations._split(x, layout).unbind(-2)
    first = first / first.norm(dim=-1, keepdim=True)
    second = second - (first * second).sum(-1, keepdim=True) * first
    second = second / second.norm(dim=-1, keepdim=True)
    expected = torch.stack((first, second, torch.cross(first, second, dim=-1)), dim=-1)
    matrix = rotations.rot6d_to_matrix(x, layout)
    assert_close(matrix, expected.mT if layout == "rows" else expected, 1e-12)
    assert torch.autograd.gradcheck(
        lambda x: rotations.rot6d_to_matrix(x, layout), x[:3].requires_grad_()
    )


DEGENERATE = {
    "zero": [0, 0, 0, 0, 0, 0],
    "first zero": [0, 0, 0, 1, 2, 3],
    "second zero": [1, 2, 3, 0, 0, 0],
    "both along x": [1, 0, 0, 5, 0, 0],
    "parallel": [1, 2, 3, 2, 4, 6],
    "opposed": [1, 2, 3, -1, -2, -3],
    "almost parallel": [1, 2, 3, 1, 2, 3.000001],
    "huge": [1e30, 2e30, 0, 0, 1e30, 3e30],
    "at the limit": [3e38, 3e38, -3e38, -3e38, 3e38, 3e38],
    "tiny": [1e-30, 0, 0, 0, 1e-30, 0],
    "subnormal": [1e-42, 0, 1e-42, 0, 1e-43, 0],
    "huge and tiny": [1e30, 0, 0, 1e-30, 1e-30, 0],
    "small": [1e-6, 2e-6, 0, 0, 1e-6, 3e-6],
}


@layouts
@pytest.mark.parametrize("numbers", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_input_gives_rotations_and_finite_gradients(numbers, layout):
    x = torch.tensor(numbers, dtype=torch.float32).requires_grad_()
    matrix = rotations.rot6d_to_matrix(x, layout)
    assert_rotations(matrix)
    (gradient,) = torch.autograd.grad((matrix * torch.randn(3, 3)).sum(), x)
    assert gradient.isfinite().all()


@given(st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=6, max_size=6))
def test_any_finite_input_gives_a_rotation(numbers):
    x = torch.tensor(numbers, dtype=torch.float32).requires_grad_()
    matrix = rotations.rot6d_to_matrix(x)
    assert_rotations(matrix)
    (gradient,) = torch.autograd.grad(matrix.sum(), x)
    assert gradient.isfinite().all()


def test_a_degenerate_neighbour_changes_nothing():
    x = draw(3, 6)
    spoiled = x.clone()
    spoiled[1] = 0
    assert torch.equal(rotations.rot6d_to_matrix(spoiled)[0], rotations.rot6d_to_matrix(x)[0])


def test_optimisation_leaves_a_degenerate_start():
    target = random_matrices(8)
    x = torch.zeros(8, 6, dtype=torch.float64)
    x[:, 0] = 1  # the second vector is zero
    x.requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (rotations.rot6d_to_matrix(x) - target).square().sum().backward()
        # What was replaced gets no gradient, so a push is needed there, as sampling noise gives.
        x.grad += 1e-3 * torch.randn_like(x)
        optimizer.step()
    assert rotations.geodesic_distance(rotations.rot6d_to_matrix(x), target).max() < 0.05


def test_rotation_vectors():
    rotvec = draw(50, 3)
    matrix = rotations.rotvec_to_matrix(rotvec)
    assert_rotations(matrix, 1e-12)
    angle = rotvec.norm(dim=-1)
    assert_close(matrix.diagonal(dim1=-1, dim2=-2).sum(-1), 1 + 2 * angle.cos(), 1e-12)
    small = rotvec * (3 / angle.clamp(min=3))[:, None]
    assert_close(rotations.matrix_to_rotvec(rotations.rotvec_to_matrix(small)), small, 1e-10)


@given(st.floats(0, math.pi))
def test_geodesic_distance_is_the_angle(angle):
    start = random_matrices()
    axis = torch.nn.functional.normalize(draw(3), dim=0)
    end = start @ rotations.rotvec_to_matrix(angle * axis)
    assert_close(rotations.geodesic_distance(start, end), angle, 1e-7)
    assert_close(rotations.geodesic_distance(end, start), angle, 1e-7)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0, math.pi - 1e-9, math.pi])
def test_geodesic_distance_has_finite_gradients(angle):
    start = torch.eye(3, dtype=torch.float64)
    rotvec = torch.tensor([angle, 0, 0], dtype=torch.float64)
    end = rotations.rotvec_to_matrix(rotvec).requires_grad_()
    (gradient,) = torch.autograd.grad(rotations.geodesic_distance(start, end), end)
    assert gradient.isfinite().all()


HALF_TURNS = torch.tensor(
    [
        [1.0, 0, 0],
        [0, -1, 0],
        [0, 0, 1],
        [1, -1, 0],
        [-1, 0, 1],
        [1, 1, -1],
        [2, -1, 0],
        [0.3, -0.2, 0.9],
    ],
    dtype=torch.float64,
)
HALF_TURNS = math.pi * torch.nn.functional.normalize(HALF_TURNS, dim=-1)

RADIUS = rotations.CHART_RADIUS
AXIS = torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64)
# Not 1e-6, where roma's two forms of the exponential meet: from torch 2.14 on, its slope at that
# very angle is off.
ANGLES = [0, 1e-300, 1e-12, 2e-6, 1e-3, 0.1, 0.5, 1, 2, 3, 3.1, math.pi - 1e-6, math.pi - 1e-12]
# In the chart: inside the ball, at its surface, and beyond, also near the first whole turn, 3.353.
INSIDE = [0, 1e-12, 1e-5, 1e-3, 0.1, 0.5, 1, 2, 2.6, RADIUS - 1e-6, RADIUS - 1e-13]
BEYOND = [RADIUS + 1e-13, RADIUS + 1e-6, 2.7, 3, 3.3, 3.4, 3.8, 4, 5, 7.5]
chart_lengths = pytest.mark.parametrize("length", [*INSIDE, *BEYOND])
axes = st.tuples(*3 * [st.floats(-1, 1)]).filter(lambda axis: math.hypot(*axis) > 0.1)


def unit(axis: tuple[float, float, float]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=-1)


def chart_length(angle: float) -> float:
    """(6 (t - sin t))^(1/3) of any angle, rounded once."""
    with mpmath.workdps(40):
        exact = mpmath.mpf(angle)
        if exact < 1e-3:  # the difference would cancel
            cubed = exact**3 * (1 - exact**2 / 20 + exact**4 / 840 - exact**6 / 60480)
        else:
            cubed = 6 * (exact - mpmath.sin(exact))
        return float(mpmath.cbrt(cubed))


def rotvec_to_chart(rotvec: Tensor) -> Tensor:
    return rotations.matrix_to_chart(rotations.rotvec_to_matrix(rotvec))


def chart_and_back(u: Tensor) -> Tensor:
    return rotations.matrix_to_chart(rotations.chart_to_matrix(u))


def hessian(function):
    return torch.func.jacrev(torch.func.grad(function))


def log_haar_density(coordinates_to_matrix, x: Tensor) -> Tensor:
    """Of Haar measure over coordinates, from the full Jacobian: mass 1 is 8 pi^2 in body frame."""
    matrix = coordinates_to_matrix(x)
    jacobian = torch.func.jacrev(coordinates_to_matrix)(x)  # (3, 3, 3), coordinates last
    generators = torch.einsum("ji,jkc->ikc", matrix, jacobian)
    turn = torch.stack((generators[2, 1], generators[0, 2], generators[1, 0]))
    return torch.linalg.slogdet(turn).logabsdet - math.log(8 * math.pi**2)


def test_the_ball_of_the_chart():
    assert pytest.approx(chart_length(math.pi), rel=1e-15) == RADIUS
    volume = 4 / 3 * math.pi * RADIUS**3
    assert math.log(volume) == pytest.approx(rotations.LOG_CHART_VOLUME, rel=1e-14)


@pytest.mark.parametrize("angle", ANGLES)
def test_chart_equals_its_formula(angle):
    matrix = rotations.rotvec_to_matrix(angle * AXIS)
    u = chart_length(angle) * AXIS
    assert_close(rotations.matrix_to_chart(matrix), u, 1e-14)
    assert_close(rotations.chart_to_matrix(u), matrix, 1e-14)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 4e-9), (torch.float64, 4e-15)])
def test_the_polynomials_of_the_chart_are_exact_to_rounding(dtype, tolerance):
    angle = torch.linspace(0.03, math.pi, 60, dtype=torch.float64)
    length = torch.tensor([chart_length(each) for each in angle.tolist()], dtype=torch.float64)
    tangent = (angle / 4).tan()
    for function, kept, x, y in (
        (rotations._to_chart, rotations.TO_CHART[dtype], tangent, length),
        (rotations._to_stereographic, rotations.TO_STEREOGRAPHIC[dtype], length, tangent),
    ):
        top = x[-1].item() ** 2
        for coefficients in (kept, rotations._interpolate(function, top, len(kept))):
            ratio = rotations._polynomial(coefficients, 2 * x.square() / top - 1)
            assert_close(ratio / (y / x), torch.ones(60, dtype=torch.float64), tolerance)


@given(st.floats(0, math.pi), axes)
def test_chart_equals_its_formula_at_every_angle(angle, axis):
    matrix = rotations.rotvec_to_matrix(angle * unit(axis))
    u = chart_length(angle) * unit(axis)
    assert_close(rotations.chart_to_matrix(u), matrix, 1e-12)
    chart = rotations.matrix_to_chart(matrix)
    assert_close(chart if chart @ u >= 0 else -chart, u, 1e-12)
    assert chart @ u >= 0 or angle > math.pi - 1e-14


@given(st.floats(0, 1), axes)
def test_chart_round_trip(share, axis):
    u = share * RADIUS * unit(axis)
    matrix = rotations.chart_to_matrix(u)
    assert_rotations(matrix, 1e-14)
    again = rotations.matrix_to_chart(matrix)
    assert_close(again if again @ u >= 0 else -again, u, 1e-12)
    assert again @ u >= 0 or share > 1 - 1e-14
    assert_close(rotations.chart_to_matrix(again), matrix, 1e-12)


def test_chart_of_random_rotations():
    matrix = random_matrices(5000)
    u = rotations.matrix_to_chart(matrix)
    assert_close(rotations.chart_to_matrix(u), matrix, 1e-13)
    assert_close(rotations.matrix_to_chart(matrix.mT), -u, 1e-13)
    single = rotations.matrix_to_chart(matrix.float())
    assert_close(single.double(), u, 1e-6)
    assert_close(rotations.chart_to_matrix(u.float()).double(), matrix, 1e-6)
    assert_close(rotations.chart_to_matrix(single).double(), matrix, 2e-6)
    assert_rotations(rotations.chart_to_matrix(single), 2e-6)


@chart_lengths
def test_the_volume_of_the_chart_is_constant(length):
    density = log_haar_density(rotations.chart_to_matrix, length * AXIS)
    assert_close(density, -rotations.LOG_CHART_VOLUME, 1e-11)


@pytest.mark.parametrize("angle", [0.3, 1, 2, 3, math.pi - 1e-7])
def test_jacobian_of_the_chart_equals_its_formula(angle):
    along = torch.outer(AXIS, AXIS)
    length = chart_length(angle)
    stretching = 2 * (1 - math.cos(angle)) / length**2 * along
    expected = stretching + length / angle * (torch.eye(3).double() - along)
    assert_close(torch.func.jacrev(rotvec_to_chart)(angle * AXIS), expected, 1e-12)


@pytest.mark.parametrize("length", INSIDE[:-1])
def test_the_jacobians_of_the_chart_and_its_inverse_cancel(length):
    jacobian = torch.func.jacrev(chart_and_back)(length * AXIS)
    assert_close(jacobian, torch.eye(3), 1e-12)


@chart_lengths
def test_chart_gradients(length):
    u = torch.stack((length * AXIS, length * HALF_TURNS[1] / math.pi)).requires_grad_()
    # At a half-turn, finite differences of the vector would cross to the other side of the ball.
    functions = [rotations.chart_to_matrix]
    if abs(length - RADIUS) > 1e-5:
        functions += [rotations.wrap_chart, chart_and_back]
    for function in functions:
        assert torch.autograd.gradcheck(function, u)
        assert torch.autograd.gradgradcheck(
            function, u, rtol=1e-2 if length in (3.3, 3.4) else 1e-3
        )


@chart_lengths
def test_derivatives_in_float32_are_those_in_float64(length):
    u = (length * AXIS).float()
    weight = draw(3, 3)

    def weighted(u: Tensor) -> Tensor:
        return (rotations.chart_to_matrix(u) * weight.to(u)).sum()

    for derivative in (torch.func.grad, hessian):
        single, double = (derivative(weighted)(v) for v in (u, u.double()))
        # Beyond the ball rounding also moves whole turns, around which derivatives are large.
        tolerance = 1e-5 if length < 2.7 else 1e-4 * double.abs().max().item()
        assert_close(single.double(), double, tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_half_turns_have_one_place_in_the_chart(dtype):
    u = rotvec_to_chart(HALF_TURNS.to(dtype))
    eps = torch.finfo(dtype).eps
    assert_close(u.norm(dim=-1), torch.full((8,), RADIUS, dtype=torch.float64), 8 * eps)
    assert_close(rotvec_to_chart(-HALF_TURNS.to(dtype)), u, 8 * eps)
    for cosine in (-2 * eps, 0, 2 * eps):  # of half the angle
        quaternion = torch.nn.functional.pad(HALF_TURNS / math.pi, (0, 1), value=cosine)
        matrix = roma.unitquat_to_rotmat(quaternion.to(dtype))
        assert_close(rotations.matrix_to_chart(matrix), u, 32 * eps)
    exact = torch.diag_embed(2 * torch.eye(3, dtype=dtype) - 1)
    diagonal = RADIUS * torch.eye(3, dtype=dtype)
    assert_close(rotations.matrix_to_chart(exact), diagonal, 8 * eps)
    for side in (u, -u):
        matrix = rotations.rotvec_to_matrix(HALF_TURNS).to(dtype)
        assert_close(rotations.chart_to_matrix(side), matrix, 32 * eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("short", [0, 1e-15, 1e-12, 3e-7, 1e-6, 1e-3, 1 - 1e-6, 1 - 1e-30, 1])
def test_chart_has_finite_gradients_from_the_identity_to_half_turns(short, dtype):
    matrix = rotations.rotvec_to_matrix(((1 - short) * HALF_TURNS).to(dtype)).requires_grad_()
    u = rotations.matrix_to_chart(matrix)
    (gradient,) = torch.autograd.grad((u * torch.tensor([1.0, -2, 3])).sum(), matrix)
    assert u.isfinite().all()
    assert gradient.abs().max() < 20
    assert_close(rotations.chart_to_matrix(u).detach(), matrix.detach(), 4e-6)


@pytest.mark.parametrize("angle", [3.2, 4, 6, 6.2, 6.4, 7, 9.4, 9.5, 12, 13, 25.2, 40])
def test_angle_is_continuous_beyond_the_ball(angle):
    u = chart_length(angle) * AXIS
    matrix = rotations.rotvec_to_matrix(angle * AXIS)
    assert_close(rotations.chart_to_matrix(u), matrix, 1e-11)
    wrapped = rotations.wrap_chart(u)
    assert_close(wrapped, rotations.matrix_to_chart(matrix), 1e-11)
    reduced = math.remainder(angle, 2 * math.pi)
    expected = math.copysign(chart_length(abs(reduced)), reduced) * AXIS
    assert_close(wrapped, expected, 1e-11)


@given(st.floats(0, 20), axes)
def test_wrapping_keeps_the_rotation(length, axis):
    u = length * unit(axis)
    wrapped = rotations.wrap_chart(u)
    assert wrapped.norm() <= RADIUS + 1e-14
    assert torch.equal(rotations.wrap_chart(wrapped), wrapped)
    matrix = rotations.chart_to_matrix(u)
    assert_close(rotations.chart_to_matrix(wrapped), matrix, 1e-12)
    again = rotations.matrix_to_chart(matrix)
    assert_close(again if again @ wrapped >= 0 else -again, wrapped, 1e-12)
    assert again @ wrapped >= -1e-20 or wrapped.norm() > RADIUS - 1e-13


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_wrapping_keeps_vectors_inside_the_ball(dtype):
    u = draw(2000, 3)
    u = (u * (2.66 / u.norm(dim=-1, keepdim=True).clamp(min=2.66))).to(dtype).requires_grad_()
    wrapped = rotations.wrap_chart(u)
    assert torch.equal(wrapped, u)
    (gradient,) = torch.autograd.grad(wrapped.sum(), u)
    assert torch.equal(gradient, torch.ones_like(u))
    if dtype != torch.float16:
        matrix = torch.cat((random_matrices(2000), rotations.rotvec_to_matrix(HALF_TURNS)))
        u = rotations.matrix_to_chart(matrix.to(dtype))
        assert torch.equal(rotations.wrap_chart(u), u)


@pytest.mark.parametrize("length", BEYOND)
def test_wrapping_preserves_volume(length):
    jacobian = torch.func.jacrev(rotations.wrap_chart)(length * AXIS)
    assert_close(torch.linalg.det(jacobian), 1, 1e-11)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [2.6611, 2.6612, 3.3531, 4.8360, 6e1, 6e4, 1e18, 1e30, 3e38])
def test_every_finite_vector_has_a_rotation_and_finite_gradients(length, dtype):
    limit = torch.finfo(dtype).max
    u = torch.cat((AXIS[None], torch.eye(3).double(), -torch.ones(1, 3).double()))
    u = (length * u).clamp(-limit, limit).to(dtype).requires_grad_()
    matrix, wrapped = rotations.chart_to_matrix(u), rotations.wrap_chart(u)
    eps = max(torch.finfo(dtype).eps, 1e-7)
    assert wrapped.norm(dim=-1).max() <= RADIUS * (1 + 16 * eps)
    assert_rotations(matrix.float(), 8 * eps)
    for answer in (matrix, wrapped):
        (gradient,) = torch.autograd.grad(answer.sum(), u)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("turns", [1, 2, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_turns_are_the_identity_with_finite_gradients(dtype, turns):
    length = torch.tensor((12 * math.pi * turns) ** (1 / 3), dtype=dtype)
    steps = torch.arange(-3, 4, dtype=dtype) * torch.finfo(dtype).eps  # some hit it exactly
    u = torch.zeros(7, 3, dtype=dtype)
    u[:, 2] = length * (1 + steps)
    u.requires_grad_()
    wrapped = rotations.wrap_chart(u)
    # The cube of the wrapped length is as uncertain as that of the length.
    assert wrapped.norm(dim=-1).max() < (1000 * turns * torch.finfo(dtype).eps) ** (1 / 3)
    for answer in (wrapped, rotations.chart_to_matrix(u)):
        (gradient,) = torch.autograd.grad(answer.sum(), u)
        assert gradient.isfinite().all()


def test_uniform_rotations_are_uniform_in_the_ball():
    count = 100_000
    quaternion = torch.nn.functional.normalize(draw(count, 4), dim=-1)
    u = rotations.matrix_to_chart(roma.unitquat_to_rotmat(quaternion))
    share = (u.norm(dim=-1) / RADIUS).pow(3).sort().values
    height = ((u[:, 2] / u.norm(dim=-1) + 1) / 2).sort().values
    even = (torch.arange(count).double() + 0.5) / count
    for sample in (share, height):  # Kolmogorov-Smirnov: larger in one of 10,000 samples
        assert (sample - even).abs().max() < 2.23 / math.sqrt(count)
    assert_close(u.T @ u / count, RADIUS**2 / 5 * torch.eye(3), 0.03)


def test_uniform_vectors_of_a_large_ball_are_uniform_rotations():
    # The ball of 27 volumes covers SO(3) evenly, because 27 is odd.
    count = 100_000
    length = (27 * torch.rand(count, generator=torch.Generator().manual_seed(2))).pow(1 / 3)
    axis = torch.nn.functional.normalize(draw(count, 3), dim=-1)
    matrix = rotations.chart_to_matrix(RADIUS * length.double()[:, None] * axis)
    flat = matrix.flatten(start_dim=1)
    assert_close(flat.mean(dim=0), torch.zeros(9), 0.01)
    assert_close(flat.T @ flat / count, torch.eye(9) / 3, 0.01)
    trace = flat[:, ::4].sum(dim=-1)
    assert_close(trace.square().mean(), 1, 0.02)
    assert_close(trace.pow(3).mean(), 1, 0.05)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0, 3), (2, 3, 4, 3)])
def test_chart_of_any_batch_shape(shape):
    u = torch.randn(shape)
    matrix = rotations.chart_to_matrix(u)
    assert matrix.shape == (*shape, 3)
    assert rotations.matrix_to_chart(matrix).shape == shape
    assert rotations.wrap_chart(u).shape == shape


@pytest.mark.parametrize(
    "function",
    [rotations.chart_to_matrix, rotations.wrap_chart, chart_and_back],
    ids=["chart_to_matrix", "wrap_chart", "matrix_to_chart"],
)
def test_chart_under_transforms_and_devices(function):
    x = torch.cat((torch.randn(4, 3), torch.zeros(1, 3), torch.full((1, 3), 3.0)))
    expected = function(x)
    torch.testing.assert_close(torch.func.vmap(function)(x), expected)
    slope = torch.func.jacrev(function)
    expected_slopes = torch.stack([slope(each) for each in x])
    torch.testing.assert_close(torch.func.vmap(slope)(x), expected_slopes)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected)
    assert function(x.to("meta")).is_meta
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(function(x), expected)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert function(x).dtype == torch.float32
    finally:
        torch.set_default_dtype(before)


@layouts
def test_orthogonality_loss(layout):
    matrix = random_matrices(4, 24)
    assert_close(
        rotations.orthogonality_loss(rotations.matrix_to_rot6d(matrix, layout), layout), 0, 1e-12
    )
    x = torch.tensor([2.0, 0, 0, 1, 1, 0])  # as columns: dot products 4, 2, 2, 2
    scalar = rotations.orthogonality_loss(x, "columns")
    assert_close(scalar, (3**2 + 2**2 + 2**2 + 1**2) / 4, 1e-6)


@pytest.mark.parametrize("shape", [(0, 6), (3, 0, 6), (6,), (2, 3, 4, 6)])
def test_any_batch_shape(shape):
    x = torch.randn(shape)
    matrix = rotations.rot6d_to_matrix(x)
    assert matrix.shape == (*shape[:-1], 3, 3)
    assert rotations.matrix_to_rot6d(matrix).shape == shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    assert rotations.rot6d_to_matrix(torch.randn(3, 6).to(dtype)).dtype == dtype


def test_transforms_and_devices():
    x = torch.randn(4, 24, 6)
    expected = rotations.rot6d_to_matrix(x)
    torch.testing.assert_close(torch.func.vmap(rotations.rot6d_to_matrix)(x), expected)
    slope = torch.func.grad(lambda x: rotations.rot6d_to_matrix(x)[..., 0].sum())
    torch.testing.assert_close(torch.func.vmap(slope)(x), slope(x))
    compiled = torch.compile(rotations.rot6d_to_matrix, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected)
    assert rotations.rot6d_to_matrix(x.to("meta")).is_meta


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rotations.rot6d_to_matrix(torch.zeros(3, 6), "colums"), "layout must be one of"),
        (lambda: rotations.matrix_to_rot6d(torch.eye(3), "row"), "layout must be one of"),
        (lambda: rotations.orthogonality_loss(torch.zeros(6), ""), "layout must be one of"),
        (lambda: rotations.rot6d_to_matrix(torch.zeros(3, 9)), r"x must have shape \(..., 6\)"),
        (lambda: rotations.matrix_to_rot6d(torch.zeros(9)), r"matrix must have shape \(..., 3, 3"),
        (lambda: rotations.rotvec_to_matrix(torch.zeros(4)), r"rotvec must have shape \(..., 3\)"),
        (lambda: rotations.matrix_to_rotvec(torch.zeros(3)), r"matrix must have shape"),
        (lambda: rotations.matrix_to_chart(torch.zeros(3)), r"matrix must have shape"),
        (lambda: rotations.chart_to_matrix(torch.zeros(6)), r"u must have shape \(..., 3\)"),
        (lambda: rotations.wrap_chart(torch.zeros(4)), r"u must have shape \(..., 3\)"),
        (
            lambda: rotations.geodesic_distance(torch.eye(3), torch.zeros(3)),
            "second must have shape",
        ),
        (
            lambda: rotations.geodesic_distance(torch.zeros(3), torch.eye(3)),
            "first must have shape",
        ),
        (lambda: rotations.matching_layouts(torch.zeros(9)), r"x must have shape \(..., 6\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_default_layout_is_the_original_one():
    x, matrix = draw(5, 6), random_matrices(5)
    assert torch.equal(rotations.rot6d_to_matrix(x), rotations.rot6d_to_matrix(x, "columns"))
    assert torch.equal(
        rotations.matrix_to_rot6d(matrix), rotations.matrix_to_rot6d(matrix, "columns")
    )
    assert rotations.orthogonality_loss(x) == rotations.orthogonality_loss(x, "columns")


def test_vectors_longer_than_the_shortest_keep_their_direction():
    direction = torch.nn.functional.normalize(draw(3), dim=-1)
    direction = direction / direction.abs().max()
    for size, kept in ((1.5e-8, True), (0.9e-8, False)):
        x = torch.cat([size * direction, draw(3, seed=2)])
        first = rotations.rot6d_to_matrix(x)[:, 0]
        expected = torch.nn.functional.normalize(direction, dim=-1) if kept else [1, 0, 0]
        assert_close(first, expected, 1e-12)


@pytest.mark.parametrize(("error", "matches"), [(0.008, True), (0.015, False)])
def test_layouts_match_to_a_hundredth(error, matches):
    x = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    for moved in (x + error * torch.tensor([0, 1.0, 0, 0, 0, 0]), x * (1 - error) ** 0.5):
        assert ("columns" in rotations.matching_layouts(moved)) == matches


def test_layouts_are_matched_in_every_dtype_and_by_all_vectors():
    for dtype in (torch.float32, torch.float64):
        x = rotations.matrix_to_rot6d(random_matrices(5).to(dtype))
        with torch.device("meta"):  # where nothing but x may be
            assert rotations.matching_layouts(x) == ("columns", "rows")
    x[3] += 1
    assert rotations.matching_layouts(x) == ()
    assert rotations.matching_layouts(-torch.eye(2, 3).flatten()) == ("columns", "rows")


def test_arrays_are_refused_by_name():
    with pytest.raises(TypeError, match=r"matrix must be a torch\.Tensor, got list"):
        rotations.matrix_to_rot6d([[1.0]])


def test_half_precision_is_that_of_float32_rounded():
    x = torch.randn(50, 6)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = x.to(dtype)
        for layout in rotations.LAYOUTS:
            exact = rotations.rot6d_to_matrix(rounded.float(), layout)
            assert torch.equal(rotations.rot6d_to_matrix(rounded, layout), exact.to(dtype))


def test_two_parallel_vectors_make_a_rotation_for_every_axis():
    axes = torch.cartesian_prod(*3 * [torch.tensor([-1.0, 0.0, 1.0])])
    x = torch.cat([axes, 2 * axes], dim=-1).double().requires_grad_()
    matrix = rotations.rot6d_to_matrix(x)
    torch.testing.assert_close(
        matrix @ matrix.mT, torch.eye(3).double().expand(27, 3, 3), atol=1e-12, rtol=0
    )
    assert torch.linalg.det(matrix).min() > 0.99
    matrix.sum().backward()
    assert x.grad.isfinite().all()


# --- dtypes --------------------------------------------------------------------------------------

UNARY = {
    "rot6d_to_matrix": 6,
    "orthogonality_loss": 6,
    "matrix_to_rot6d": 9,
    "matrix_to_rotvec": 9,
    "matrix_to_chart": 9,
    "rotvec_to_matrix": 3,
    "chart_to_matrix": 3,
    "wrap_chart": 3,
}


def rotation_inputs(size: int) -> torch.Tensor:
    """Rotations (..., size) that integers hold: identity, half-turns, quarter-turns, an axis."""
    diagonals = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    cycle = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    matrix = torch.cat((torch.diag_embed(diagonals), cycle[None]))
    if size == 9:
        return matrix
    if size == 6:
        numbers = [[1, 0, 0, 0, 1, 0], [1, 1, 0, -1, 1, 0], [0, 0, 2, 3, 0, 0], [0, 0, 0, 0, 1, 0]]
        return torch.tensor(numbers)
    return torch.tensor([[0, 0, 0], [1, 0, 0], [0, -2, 1], [3, 0, 0]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_every_function_is_that_of_float64_in_every_dtype(name, dtype):
    function, exact = getattr(rotations, name), rotation_inputs(UNARY[name]).double()
    x = exact.to(dtype).requires_grad_()
    answer = function(x)
    assert answer.dtype == dtype
    (gradient,) = torch.autograd.grad(answer.sum(), x)
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()
    tolerance = 32 * max(torch.finfo(dtype).eps, 1e-7) * max(1, answer.abs().max().item())
    assert_close(answer.double(), function(exact), tolerance)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_integers_are_converted(name, dtype):
    function, x = getattr(rotations, name), rotation_inputs(UNARY[name]).abs().to(dtype)
    if UNARY[name] == 9:  # without signs only these are rotations
        x = x[[0, 4]]
    answer = function(x)
    assert answer.dtype == torch.float32
    assert torch.equal(answer, function(x.float()))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int64], ids=str)
def test_distance_and_layouts_in_every_dtype(dtype):
    turns = rotation_inputs(9).to(dtype)
    distance = rotations.geodesic_distance(turns, turns[:1])
    assert distance.dtype == (dtype if dtype.is_floating_point else torch.float32)
    expected = torch.tensor([0, math.pi, math.pi, math.pi, 2 * math.pi / 3]).double()
    assert_close(distance.double(), expected, 0.02)
    assert rotations.matching_layouts(rotations.matrix_to_rot6d(turns)) == ("columns", "rows")


def test_two_dtypes_give_the_wider():
    first, second = torch.eye(3).half(), torch.eye(3, dtype=torch.float64)
    assert rotations.geodesic_distance(first, second).dtype == torch.float64
    assert rotations.geodesic_distance(first, torch.eye(3, dtype=torch.int64)).dtype == torch.half


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("exponent", range(-8, 3))
def test_short_vectors_have_finite_gradients_in_every_dtype(dtype, exponent):
    length = 10.0**exponent
    numbers = [
        [1, 0.2, 0, 0, 1, 0.3],
        [1, 0, 0, 1, 1e-3, 0],
        [1, 0, 0, 1, 0.02, 0],
        [0, 0, 0, 1, 1, 0],
    ]
    x = (length * torch.tensor(numbers)).to(dtype).requires_grad_()
    matrix = rotations.rot6d_to_matrix(x)
    assert matrix.isfinite().all()
    (gradient,) = torch.autograd.grad(matrix.sum(), x)
    assert gradient.isfinite().all()


def test_complex_numbers_are_refused():
    with pytest.raises(ValueError, match="must hold real numbers"):
        rotations.rot6d_to_matrix(torch.zeros(6, dtype=torch.complex64))
    with pytest.raises(ValueError, match="must hold real numbers"):
        rotations.matrix_to_chart(torch.zeros(3, 3, dtype=torch.complex64))


def test_mean_is_a_rotation_and_the_best_one():
    matrix = roma.random_rotmat((5, 4))
    mean = rotations.mean_rotation(matrix)
    torch.testing.assert_close(mean @ mean.mT, torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(mean), torch.ones(5))
    best = (matrix - mean[:, None]).square().sum(dim=(1, 2, 3))
    other = mean @ rotations.rotvec_to_matrix(0.1 * torch.randn(5, 3))
    assert ((matrix - other[:, None]).square().sum(dim=(1, 2, 3)) >= best - 1e-5).all()
    torch.testing.assert_close(
        rotations.mean_rotation(matrix, torch.tensor([1.0, 0, 0, 0])), matrix[:, 0]
    )


def test_a_mean_first_computed_in_inference_mode_has_gradients_later(monkeypatch):
    if hasattr(roma.mappings, "_cached_horn_map"):  # what roma 1.8 keeps from its first call
        fresh = functools.lru_cache(roma.mappings._build_horn_map)
        monkeypatch.setattr(roma.mappings, "_cached_horn_map", fresh)
    matrix = roma.random_rotmat(4)
    with torch.inference_mode():
        rotations.mean_rotation(matrix)
    matrix.requires_grad_()
    rotations.mean_rotation(matrix).sum().backward()
    assert matrix.grad.isfinite().all()
