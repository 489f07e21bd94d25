import math

import numpy as np
import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowprior import rotations
from tests.flow.helpers import assert_close, draw

layouts = pytest.mark.parametrize("layout", rotations.LAYOUTS)


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

# Where series and closed forms meet, on either side of it, and at the ends. Not 1e-6, where roma's
# own two forms meet: from torch 2.14 on, its slope at that very angle is off.
LENGTHS = [0, 1e-12, 2e-6, 1e-3, 0.1, 0.4899, 0.4901, 1, 1.9999, 2.0001, 3, 3.14]
lengths = pytest.mark.parametrize("length", LENGTHS)
AXIS = torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64)


def rotvec_to_chart(rotvec: Tensor) -> Tensor:
    return rotations.matrix_to_chart(rotations.rotvec_to_matrix(rotvec))


def hessian(function):
    return torch.func.jacrev(torch.func.grad(function))


def log_haar_density(coordinates_to_matrix, x: Tensor) -> Tensor:
    """Of Haar measure over coordinates, from the full Jacobian: mass 1 is 8 pi^2 in body frame."""
    matrix = coordinates_to_matrix(x)
    jacobian = torch.func.jacrev(coordinates_to_matrix)(x)  # (3, 3, 3), coordinates last
    generators = torch.einsum("ji,jkc->ikc", matrix, jacobian)
    turn = torch.stack((generators[2, 1], generators[0, 2], generators[1, 0]))
    return torch.linalg.slogdet(turn).logabsdet - math.log(8 * math.pi**2)


@lengths
def test_volume_terms_are_those_of_the_full_jacobian(length):
    x = length * AXIS
    expected = log_haar_density(rotations.rotvec_to_matrix, x)
    assert_close(rotations.exp_log_volume(x), expected, 1e-10)
    expected = log_haar_density(rotations.chart_to_matrix, x)
    assert_close(rotations.chart_log_volume(x), expected, 1e-10)
    stretching = torch.linalg.slogdet(torch.func.jacrev(rotvec_to_chart)(x)).logabsdet
    by_stretching = rotations.exp_log_volume(x) - stretching
    # 3.14 radians are near the antipode, whose distance is known to float64's rounding.
    assert_close(rotations.chart_log_volume(rotvec_to_chart(x)), by_stretching, 1e-9)


@pytest.mark.parametrize("angle", [0.5, 2.0, math.pi])
def test_exponential_volume_sums_to_the_share_of_rotations(angle):
    nodes, weights = np.polynomial.legendre.leggauss(40)
    radius = torch.from_numpy((nodes + 1) * angle / 2)
    weights = torch.from_numpy(weights * angle / 2)
    density = rotations.exp_log_volume(radius[:, None] * AXIS).exp()
    share = (weights * 4 * math.pi * radius**2 * density).sum()
    assert_close(share, (angle - math.sin(angle)) / math.pi, 1e-12)
    drawn = rotations.matrix_to_rotvec(random_matrices(100_000)).norm(dim=-1)
    assert_close((drawn <= angle).double().mean(), share, 0.006)


@pytest.mark.parametrize("name", ["exp_log_volume", "chart_log_volume"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_volume_terms_have_right_derivatives_at_zero(name, dtype):
    log_volume = getattr(rotations, name)
    curvature = {"exp_log_volume": -1 / 6, "chart_log_volume": -7 / 12}[name]
    for length in (0, 1e-30, 1e-9, 1e-5, 1e-3):
        x = length * AXIS.to(dtype)
        assert_close(log_volume(x), -math.log(8 * math.pi**2), 1e-6)
        assert_close(torch.func.grad(log_volume)(x), curvature * x, 1e-9)
        assert_close(hessian(log_volume)(x), curvature * torch.eye(3), 1e-6)


@lengths
def test_derivatives_in_float32_are_those_in_float64(length):
    x = length * AXIS
    weight = draw(3, 3)
    for function in (
        rotations.exp_log_volume,
        rotations.chart_log_volume,
        lambda x: (rotations.chart_to_matrix(x) * weight.to(x)).sum(),
    ):
        for derivative in (torch.func.grad, hessian):
            single, double = (derivative(function)(v) for v in (x.float(), x))
            assert_close(single.double(), double, 2e-6)


def test_chart_stretches_rotation_vectors():
    angle = torch.linspace(0.01, 3.1, 200, dtype=torch.float64)[:, None]
    axis = torch.nn.functional.normalize(draw(200, 3), dim=-1)
    assert_close(rotvec_to_chart(angle * axis), 2 * (angle / 2).tan().asinh() * axis, 1e-11)
    assert_close(rotvec_to_chart(1e-5 * AXIS), 1e-5 * AXIS, 1e-14)


@pytest.mark.parametrize(
    ("dtype", "longest", "tolerance"),
    [(torch.float64, 20, 1e-10), (torch.float32, 5, 1e-5), (torch.float32, 15, 5e-4)],
)
def test_chart_round_trip(dtype, longest, tolerance):
    length = torch.linspace(0, longest, 2000, dtype=torch.float64)[:, None]
    x = (length * torch.nn.functional.normalize(draw(2000, 3), dim=-1)).to(dtype)
    matrix = rotations.chart_to_matrix(x)
    assert_rotations(matrix, 1e-6 if dtype == torch.float32 else 1e-14)
    assert_close(rotations.matrix_to_chart(matrix), x, tolerance)
    matrix = random_matrices(2000).to(dtype)
    assert_close(rotations.chart_to_matrix(rotations.matrix_to_chart(matrix)), matrix, 2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_half_turns_have_one_place_in_the_chart(dtype):
    half_turns = HALF_TURNS.to(dtype)
    x = rotvec_to_chart(half_turns)
    longest = 2 * math.asinh(math.tan(rotations.MAX_ANGLE / 2))
    assert_close(x.norm(dim=-1), torch.full((8,), longest), 1e-5)
    for same in (-1.0, 1 - 3e-7, 3.0, -3.0):
        assert_close(rotvec_to_chart(same * half_turns), x, 1e-4)
    exact = torch.diag_embed(2 * torch.eye(3, dtype=dtype) - 1)
    assert_close(rotations.matrix_to_chart(exact), x[0, 0] * torch.eye(3), 1e-4)
    assert_close(rotations.chart_to_matrix(x), rotations.rotvec_to_matrix(half_turns), 4e-6)


def test_the_chart_is_continuous_up_to_its_last_angle():
    short = 1 - torch.tensor([2e-6, 1.01e-6, 0.99e-6, 1e-7, 0], dtype=torch.float64)
    length = rotvec_to_chart(short[:, None] * HALF_TURNS[0]).norm(dim=-1)
    expected = 2 * (short.clamp(max=1 - 1e-6) * math.pi / 2).tan().asinh()
    assert_close(length, expected, 1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("short", [0, 1e-12, 3e-7, 1e-6, 3e-6, 1e-3])
def test_chart_has_finite_gradients_up_to_half_turns(short, dtype):
    matrix = rotations.rotvec_to_matrix(((1 - short) * HALF_TURNS).to(dtype)).requires_grad_()
    x = rotations.matrix_to_chart(matrix)
    log_density = -x.square().sum(dim=-1) - rotations.chart_log_volume(x)
    (gradient,) = torch.autograd.grad(log_density.sum(), matrix)
    assert log_density.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [30.0, 200.0, 1e4, 1e18])
def test_chart_of_any_length(length, dtype):
    x = (length * AXIS).to(dtype).requires_grad_()
    matrix, log_volume = rotations.chart_to_matrix(x), rotations.chart_log_volume(x)
    assert_rotations(matrix.detach())
    decay = -2 * math.log(math.pi) - 2 * math.log(length) - length / 2
    assert_close(log_volume / decay, 1, 1e-6)
    (gradient,) = torch.autograd.grad(log_volume + matrix.sum(), x)
    assert gradient.isfinite().all()


def test_chart_gradients():
    x = torch.cat((draw(4, 3), 1e-3 * draw(2, 3), torch.zeros(1, 3))).requires_grad_()
    for function in (
        rotations.chart_to_matrix,
        rotations.chart_log_volume,
        rotations.exp_log_volume,
        lambda x: rotations.matrix_to_chart(rotations.chart_to_matrix(x)),
    ):
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)


@given(st.lists(st.floats(-20, 20), min_size=3, max_size=3))
def test_every_vector_is_the_chart_of_a_rotation(numbers):
    x = torch.tensor(numbers, dtype=torch.float64)
    x = x * (20 / x.norm().clamp(min=20))
    assert_close(rotations.matrix_to_chart(rotations.chart_to_matrix(x)), x, 1e-10)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0, 3), (2, 3, 4, 3)])
def test_chart_of_any_batch_shape(shape):
    x = torch.randn(shape)
    matrix = rotations.chart_to_matrix(x)
    assert matrix.shape == (*shape, 3)
    assert rotations.matrix_to_chart(matrix).shape == shape
    for log_volume in (rotations.chart_log_volume, rotations.exp_log_volume):
        assert log_volume(x).shape == shape[:-1]


@pytest.mark.parametrize(
    "function",
    [
        rotations.exp_log_volume,
        rotations.chart_log_volume,
        lambda x: rotations.matrix_to_chart(rotations.chart_to_matrix(x)),
    ],
    ids=["exp_log_volume", "chart_log_volume", "chart"],
)
def test_chart_under_transforms_and_devices(function):
    x = torch.cat((torch.randn(4, 3), torch.zeros(1, 3)))
    expected = function(x)
    torch.testing.assert_close(torch.func.vmap(function)(x), expected)
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
        (lambda: rotations.chart_to_matrix(torch.zeros(6)), r"x must have shape \(..., 3\)"),
        (lambda: rotations.chart_log_volume(torch.zeros(6)), r"x must have shape \(..., 3\)"),
        (lambda: rotations.exp_log_volume(torch.zeros(6)), r"rotvec must have shape \(..., 3\)"),
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


def test_the_farthest_place_in_the_chart():
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    assert rotations.matrix_to_chart(half_turn).norm() == pytest.approx(28.11, abs=0.01)


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

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
UNARY = {
    "rot6d_to_matrix": 6,
    "orthogonality_loss": 6,
    "matrix_to_rot6d": 9,
    "matrix_to_rotvec": 9,
    "matrix_to_chart": 9,
    "rotvec_to_matrix": 3,
    "exp_log_volume": 3,
    "chart_to_matrix": 3,
    "chart_log_volume": 3,
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
    if name == "matrix_to_chart":  # nowhere is it as steep as at half-turns
        lengths = function(exact).norm(dim=-1)
        assert_close(answer.norm(dim=-1).double(), lengths, 0.5)
        return
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
