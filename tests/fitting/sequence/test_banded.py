import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprior.fitting.sequence.banded import BandedMatrix


def banded(people, frames, size, seed=0):
    """Random positive definite matrices, and the same as dense ones."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.zeros(people, frames * size, frames * size, dtype=torch.float64)
    for t in range(frames):
        width = min(3, frames - t) * size
        part = torch.randn(people, width, width, generator=generator, dtype=torch.float64)
        some = slice(t * size, t * size + width)
        dense[:, some, some] += part @ part.mT + 0.1 * torch.eye(width, dtype=torch.float64)
    blocks = dense.unflatten(-1, (frames, size)).unflatten(1, (frames, size)).transpose(2, 3)

    def band(away):
        rows = torch.arange(max(frames - away, 0))
        return blocks[:, rows + away, rows]

    return BandedMatrix(band(0), band(1), band(2)), dense


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
def test_solution_and_inverse_equal_those_of_the_dense_matrix(people, frames, size, seed):
    matrix, dense = banded(people, frames, size, seed)
    right = torch.randn(people, frames, size, 2, dtype=torch.float64)
    factor = matrix.factor()
    expected = torch.linalg.solve(dense, right.flatten(1, 2)).unflatten(1, (frames, size))
    torch.testing.assert_close(factor.solve(right), expected)
    inverse = torch.linalg.inv(dense).unflatten(-1, (frames, size)).unflatten(1, (frames, size))
    diagonal = inverse.transpose(2, 3)[:, range(frames), range(frames)]
    torch.testing.assert_close(factor.inverse_diagonal(), diagonal)


def test_an_indefinite_matrix_raises():
    matrix, _ = banded(1, 4, 2)
    with pytest.raises(ValueError, match="not positive definite"):
        BandedMatrix(-matrix.diagonal, matrix.first, matrix.second).factor()


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_spread_noise_has_the_inverse_as_covariance(frames):
    matrix, dense = banded(2, frames, 3)
    noise = (
        torch.eye(3 * frames, dtype=torch.float64).unflatten(0, (frames, 3)).expand(2, -1, -1, -1)
    )
    root = matrix.factor().spread(noise).flatten(1, 2)
    torch.testing.assert_close(root @ root.mT, torch.linalg.inv(dense))
