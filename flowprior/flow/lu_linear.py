"""LULinear: a dense invertible linear map, parametrised by its LU factors."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowprior._modes import is_exporting

__all__ = ["LULinear", "held_product", "held_solution"]

MIN_DIAGONAL = 1e-3


class LULinear(nn.Module):
    r"""Linear bijection :math:`y = L U x + b`, initially the identity.

    L is lower triangular with a unit diagonal. U is upper triangular, its diagonal
    :math:`\mathrm{softplus}(u) + 10^{-3}` is positive, so the map is invertible for any weights.
    Both triangles are stored as flat vectors in row-major order.

    Args:
        features: Number of features D.
        bias: Whether there is a bias; without one, the map keeps the origin.
        legacy_forward: Compute the forward map as :math:`y = L^T U^T x`, as ProHMR's code did
            between 16 August and 8 September 2021. The inverse remains that of
            :math:`L U x + b`, so it no longer inverts the forward map.

    Attributes:
        lower_entries: Strict lower triangle of L, shape (D (D - 1) / 2,).
        upper_entries: Strict upper triangle of U, shape (D (D - 1) / 2,).
        unconstrained_upper_diag: u, shape (D,).
        bias: b, shape (D,), or None.

    References:
        Durkan et al., *nflows*, 2020 (``LULinear``); https://zenodo.org/record/4296287.
    """

    def __init__(self, features: int, *, bias: bool = True, legacy_forward: bool = False) -> None:
        super().__init__()
        self.features = features
        self.legacy_forward = legacy_forward
        entries = features * (features - 1) // 2
        self.lower_entries = nn.Parameter(torch.zeros(entries))
        self.upper_entries = nn.Parameter(torch.zeros(entries))
        self.unconstrained_upper_diag = nn.Parameter(
            torch.full((features,), math.log(math.expm1(1.0 - MIN_DIAGONAL)))
        )
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def forward(self, x: Tensor, free: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Map data to latent.

        With held features the map is :math:`y = M L M U M x` for the diagonal matrix M of
        ``free``: the rows and columns of a triangular matrix that belong to the free features are
        triangular again, so the map of the free features is invertible, with the diagonal of
        U as before.

        Args:
            x: (..., D).
            free: 0 for features that are held at 0, 1 for the others, (\*batch, \*ones, D), with as
                many axes as x; only for a layer without a bias. None if all are free.

        Returns:
            ``y`` (..., D) and the log-determinant, () or the leading shape of ``free``.
        """
        lower, upper = self.factors(x.dtype)
        if free is not None:
            return held_product(x, lower, upper, free), self.log_abs_det(x.dtype, free)
        if self.legacy_forward:
            y = F.linear(x, lower.mT @ upper.mT)
        else:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            y = F.linear(x, lower @ upper, bias)
        return y, self.log_abs_det(x.dtype)

    def inverse(self, y: Tensor, free: Tensor | None = None) -> Tensor:
        """Map latent to data, y (..., D) -> x (..., D), by two triangular solves."""
        lower, upper = self.factors(y.dtype)
        if free is not None:
            return held_solution(y, lower, upper, free)
        # Flattened to one matrix: with more axes the solver copies the factors for each of them.
        rows = (y if self.bias is None else y - self.bias).reshape(-1, self.features)
        rows = torch.linalg.solve_triangular(
            lower.mT, rows, upper=True, left=False, unitriangular=True
        )
        rows = torch.linalg.solve_triangular(upper.mT, rows, upper=False, left=False)
        return rows.reshape(y.shape)

    def log_abs_det(self, dtype: torch.dtype, free: Tensor | None = None) -> Tensor:
        """Log-determinant of the forward map, () or the leading shape of ``free``."""
        logs = self._diagonal(dtype).log()
        return logs.sum() if free is None else (logs * free).sum(dim=-1)

    def factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """L and U, each (D, D), in ``dtype``."""
        device, size = self.lower_entries.device, self.features
        below = torch.tril_indices(size, size, offset=-1, device=device)
        above = torch.triu_indices(size, size, offset=1, device=device)
        zeros = torch.zeros(size, size, dtype=dtype, device=device)
        lower = zeros.index_put((below[0], below[1]), self.lower_entries.to(dtype))
        upper = zeros.index_put((above[0], above[1]), self.upper_entries.to(dtype))
        identity = torch.eye(size, dtype=dtype, device=device)
        return lower + identity, upper + torch.diag(self._diagonal(dtype))

    def _diagonal(self, dtype: torch.dtype) -> Tensor:
        return F.softplus(self.unconstrained_upper_diag.to(dtype)) + MIN_DIAGONAL


def held_product(x: Tensor, lower: Tensor, upper: Tensor, free: Tensor) -> Tensor:
    """M L M U M x with M the diagonal matrix of ``free``: see :meth:`LULinear.forward`."""
    return free * F.linear(free * F.linear(free * x, upper), lower)


def held_solution(y: Tensor, lower: Tensor, upper: Tensor, free: Tensor) -> Tensor:
    r"""The x of the free features with M L M U M x = M y; 0 for the held features.

    Args:
        y: (\*batch, \*extra, D).
        lower: (D, D).
        upper: (D, D).
        free: (\*batch, \*ones, D), with as many axes as y.
    """
    # One system per mask: rows of the last extra axis share theirs.
    shared = free.ndim > 1 and free.shape[-2] == 1
    mask = free.squeeze(-2) if shared else free
    rows = (free * y) if shared else (free * y).unsqueeze(-2)
    block = mask[..., :, None] * mask[..., None, :]
    rest = torch.diag_embed(1 - mask)
    if is_exporting():  # ONNX has no solver
        rows = rows @ _unit_inverse(block * lower + rest).mT
        whole = block * upper + rest
        diagonal = whole.diagonal(dim1=-2, dim2=-1)
        rows = rows @ (_unit_inverse(whole / diagonal[..., None]) / diagonal[..., None, :]).mT
        return rows if shared else rows.squeeze(-2)
    rows = torch.linalg.solve_triangular(
        (block * lower + rest).mT, rows, upper=True, left=False, unitriangular=True
    )
    rows = torch.linalg.solve_triangular((block * upper + rest).mT, rows, upper=False, left=False)
    return rows if shared else rows.squeeze(-2)


def _unit_inverse(triangular: Tensor) -> Tensor:
    """Inverse of triangular matrices (..., D, D) with a unit diagonal, by products alone.

    With the strictly triangular N = I - T, the inverse is the finite sum of the powers of N, which
    is the product of I + N^(2^k).
    """
    size = triangular.shape[-1]
    identity = torch.eye(size, dtype=triangular.dtype, device=triangular.device)
    power = identity - triangular
    inverse = identity + power
    for _ in range(max(0, (size - 1).bit_length() - 1)):
        power = power @ power
        inverse = inverse @ (identity + power)
    return inverse
