import math

import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior import rotations
from tests.flow.helpers import assert_close, draw

layouts = pytest.mark.parametrize("layout", rotations.LAYOUTS)


def random_matrices(*shape: int) -> torch.Tensor:
    return roma.random_rotmat(shape, dtype=torch.float64)


def assert_rotations(matrix: torch.Tensor, tolerance: float = 1e-5) -> None:
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
        (
            lambda: rotations.geodesic_distance(torch.eye(3), torch.zeros(3)),
            "second must have shape",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_arrays_are_refused_by_name():
    with pytest.raises(TypeError, match=r"matrix must be a torch\.Tensor, got list"):
        rotations.matrix_to_rot6d([[1.0]])
