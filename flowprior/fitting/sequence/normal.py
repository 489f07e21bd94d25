"""The normal equations of Gauss-Newton for windows of frames, and their solution."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior.fitting.sequence.banded import BandedFactor, BandedMatrix

__all__ = ["NormalEquations", "Step"]


class NormalEquations:
    """Second derivatives and gradients of half the objective.

    A frame has D variables: three per joint and three of the translation. A person has S shape
    coefficients, which all of their windows share.

    Args:
        like: Tensor of the dtype and device.
        windows: Number B of windows.
        frames: Number T of frames of each.
        size: Number D of variables of a frame.
        shapes: Number S of shape coefficients.
        person: (B,) indices of the people of the windows.
        people: Number Q of people.
    """

    def __init__(
        self,
        like: Tensor,
        windows: int,
        frames: int,
        size: int,
        shapes: int,
        person: Tensor,
        people: int,
    ) -> None:
        self.person = person
        self.diagonal = like.new_zeros(windows, frames, size, size)
        self.first = like.new_zeros(windows, max(frames - 1, 0), size, size)
        self.second = like.new_zeros(windows, max(frames - 2, 0), size, size)
        self.gradient = like.new_zeros(windows, frames, size)
        self.cross = like.new_zeros(windows, frames, size, shapes)
        self.shape_hessian = like.new_zeros(people, shapes, shapes)
        self.shape_gradient = like.new_zeros(people, shapes)

    def add_residual(self, residual: Tensor, jacobian: Tensor, weight: Tensor) -> None:
        """Residuals (B, T, R) of single frames with derivatives (B, T, R, D)."""
        weighted = weight[..., None] * jacobian
        self.diagonal += jacobian.mT @ weighted
        self.gradient += (weighted.mT @ residual[..., None])[..., 0]

    def add_shape(
        self, residual: Tensor, jacobian: Tensor, shape_jacobian: Tensor, weight: Tensor
    ) -> None:
        """The part of the same residuals that belongs to the shape, (B, T, R, S)."""
        weighted = weight[..., None] * shape_jacobian
        self.cross += jacobian.mT @ weighted
        hessian = (shape_jacobian.mT @ weighted).sum(dim=1)
        gradient = (weighted.mT @ residual[..., None])[..., 0].sum(dim=1)
        self.shape_hessian.index_add_(0, self.person, hessian.to(self.shape_hessian))
        self.shape_gradient.index_add_(0, self.person, gradient.to(self.shape_gradient))

    def solve(self, damping: Tensor) -> "Step":
        """Solve with ``damping`` (D,) added to the diagonal of every frame."""
        matrix = BandedMatrix(self.diagonal + torch.diag(damping), self.first, self.second)
        factor = matrix.factor()
        solved = factor.solve(torch.cat([self.gradient[..., None], self.cross], dim=-1))
        alone, coupled = solved[..., 0], solved[..., 1:]
        shapes = self.cross.shape[-1]
        if not shapes:
            return Step(-alone, self.shape_gradient, factor, coupled, self.shape_hessian)
        hessian, gradient = self.shape_hessian.clone(), self.shape_gradient.clone()
        reduced = (self.cross.mT @ coupled).sum(dim=1)
        hessian.index_add_(0, self.person, reduced, alpha=-1)
        through = (self.cross.mT @ alone[..., None])[..., 0].sum(dim=1)
        gradient.index_add_(0, self.person, through, alpha=-1)
        shape = -torch.linalg.solve(hessian, gradient[..., None])[..., 0]
        move = -alone - (coupled @ shape[self.person][:, None, :, None])[..., 0]
        return Step(move, shape, factor, coupled, hessian)


@dataclass(frozen=True)
class Step:
    """One step of Gauss-Newton.

    Args:
        move: (B, T, D) change of the variables of the frames.
        shape: (Q, S) change of the shapes.
        factor: Factor of the matrix of the frames.
        coupled: (B, T, D, S), its inverse times the block between frames and shape.
        shape_information: (Q, S, S) inverse covariance of the shapes.
    """

    move: Tensor
    shape: Tensor
    factor: BandedFactor
    coupled: Tensor
    shape_information: Tensor

    def to(self, like: Tensor) -> "Step":
        """The step in the dtype of a tensor; the factor keeps its own."""
        move, shape, coupled, information = (
            each.to(like) for each in (self.move, self.shape, self.coupled, self.shape_information)
        )
        return Step(move, shape, self.factor, coupled, information)

    def covariance(self, person: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances of frames (B, T, D, D), of shapes (B, S, S), and between (B, T, D, S)."""
        own = self.factor.inverse_diagonal().to(self.coupled)
        shape = torch.linalg.inv(self.shape_information)[person]
        between = -self.coupled @ shape[:, None]
        return own - between @ self.coupled.mT, shape, between
