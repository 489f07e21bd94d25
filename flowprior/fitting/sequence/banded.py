"""Symmetric positive definite systems that couple each frame with its next two neighbours.

The matrix of T frames with D variables each is block-pentadiagonal. Its Cholesky factor has the
same band, so a factorisation, a solution and the blocks of the inverse within the band cost a fixed
amount per frame.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BandedFactor", "BandedMatrix", "band_product"]

# Added to the diagonal, relative to it, if rounding makes a block indefinite.
LIFT = 1e-6


@dataclass(frozen=True)
class BandedMatrix:
    """Blocks of symmetric matrices.

    Args:
        diagonal: (P, T, D, D) blocks (t, t).
        first: (P, T - 1, D, D) blocks (t + 1, t), below the diagonal.
        second: (P, T - 2, D, D) blocks (t + 2, t).
    """

    diagonal: Tensor
    first: Tensor
    second: Tensor

    def factor(self) -> "BandedFactor":
        """Cholesky factor; the matrices must be positive definite.

        Raises:
            ValueError: If a matrix is not positive definite, even with a slightly larger diagonal.
        """
        frames = self.diagonal.shape[1]
        lower: list[Tensor] = []
        below: list[Tensor] = []
        far: list[Tensor] = []
        for t in range(frames):
            block = self.diagonal[:, t]
            if t > 0:
                block = torch.baddbmm(block, below[t - 1], below[t - 1].mT, alpha=-1)
            if t > 1:
                block = torch.baddbmm(block, far[t - 2], far[t - 2].mT, alpha=-1)
            lower.append(_cholesky(block))
            if t + 1 < frames:
                right = self.first[:, t]
                if t > 0:
                    right = torch.baddbmm(right, far[t - 1], below[t - 1].mT, alpha=-1)
                below.append(_divided(right, lower[t]))
            if t + 2 < frames:
                far.append(_divided(self.second[:, t], lower[t]))
        return BandedFactor(lower, below, far)


@dataclass(frozen=True)
class BandedFactor:
    """Cholesky factors of banded matrices, by frame.

    Args:
        lower: T blocks (P, D, D) on the diagonal, lower triangular.
        below: T - 1 blocks (P, D, D) at (t + 1, t).
        far: T - 2 blocks (P, D, D) at (t + 2, t).
    """

    lower: list[Tensor]
    below: list[Tensor]
    far: list[Tensor]

    def solve(self, right: Tensor) -> Tensor:
        """Solve for right-hand sides (P, T, D, n); returns (P, T, D, n)."""
        frames = len(self.lower)
        forward: list[Tensor] = []
        for t in range(frames):
            value = right[:, t]
            if t > 0:
                value = torch.baddbmm(value, self.below[t - 1], forward[t - 1], alpha=-1)
            if t > 1:
                value = torch.baddbmm(value, self.far[t - 2], forward[t - 2], alpha=-1)
            forward.append(torch.linalg.solve_triangular(self.lower[t], value, upper=False))
        return self._backward(forward)

    def spread(self, noise: Tensor) -> Tensor:
        """Samples (P, T, D, n) whose covariance is the inverse, from standard normal noise."""
        return self._backward(list(noise.unbind(dim=1)))

    def _backward(self, right: list[Tensor]) -> Tensor:
        """Solve with the transposed factor for T right-hand sides (P, D, n), which it replaces."""
        frames, result = len(self.lower), right
        for t in reversed(range(frames)):
            value = right[t]
            if t + 1 < frames:
                value = torch.baddbmm(value, self.below[t].mT, result[t + 1], alpha=-1)
            if t + 2 < frames:
                value = torch.baddbmm(value, self.far[t].mT, result[t + 2], alpha=-1)
            result[t] = torch.linalg.solve_triangular(self.lower[t].mT, value, upper=True)
        return torch.stack(result, dim=1)

    def inverse_diagonal(self) -> Tensor:
        """Diagonal blocks (P, T, D, D) of the inverse.

        References:
            Takahashi, Fagan and Chen, *Formation of a sparse bus impedance matrix and its
            application to short circuit study*, 1973 (the recursion, here for blocks).
        """
        frames = len(self.lower)
        size = self.lower[0].shape[-1]
        identity = torch.eye(size, dtype=self.lower[0].dtype, device=self.lower[0].device)
        blocks: list[Tensor] = [identity] * frames
        # Inverse of the next two frames together: (t + 1, t + 1), (t + 2, t + 1), (t + 2, t + 2).
        one = two = cross = None
        for t in reversed(range(frames)):
            inverse = torch.linalg.solve_triangular(
                self.lower[t], identity.expand_as(self.lower[t]), upper=False
            )
            own = inverse.mT @ inverse
            if one is None:
                blocks[t] = own
                one = own
                continue
            below = self.below[t] @ inverse
            if two is None or cross is None:
                next_cross = -(one @ below)
                own = own - below.mT @ next_cross
                two = one
            else:
                far = self.far[t] @ inverse
                next_cross = -(one @ below + cross.mT @ far)
                farther = -(cross @ below + two @ far)
                own = own - below.mT @ next_cross - far.mT @ farther
                two = one
            cross = next_cross
            blocks[t] = one = 0.5 * (own + own.mT)
        return torch.stack(blocks, dim=1)


def band_product(matrix: BandedMatrix, x: Tensor) -> Tensor:
    """Products (P, T, D, n) of banded matrices with x (P, T, D, n)."""
    result = matrix.diagonal @ x
    result[:, 1:] += matrix.first @ x[:, :-1]
    result[:, :-1] += matrix.first.mT @ x[:, 1:]
    result[:, 2:] += matrix.second @ x[:, :-2]
    result[:, :-2] += matrix.second.mT @ x[:, 2:]
    return result


def _cholesky(block: Tensor) -> Tensor:
    lower, info = torch.linalg.cholesky_ex(block)
    if not bool(info.any()):
        return lower
    lift = LIFT * block.diagonal(dim1=-2, dim2=-1).abs().amax(dim=-1)
    raised = block + lift[:, None, None] * torch.eye(block.shape[-1]).to(block)
    lower, info = torch.linalg.cholesky_ex(raised)
    if bool(info.any()):
        raise ValueError("the system of a sequence is not positive definite: too little is known")
    return lower


def _divided(right: Tensor, lower: Tensor) -> Tensor:
    """Right @ inverse(lower)^T."""
    return torch.linalg.solve_triangular(lower.mT, right, upper=True, left=False)
