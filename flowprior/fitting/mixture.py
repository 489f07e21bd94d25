"""SMPLify's Gaussian mixture over body poses."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowprior._modes import lasting
from flowprior.files.numpy_file import read_npz
from flowprior.files.whole_file import whole_file

__all__ = ["PoseMixture"]


@dataclass(frozen=True)
class PoseMixture:
    """A Gaussian mixture over rotation vectors of the 23 joints below the root.

    Args:
        weights: (M,) weights of the components, which sum to one.
        means: (M, 69) radians.
        precision_factors: (M, 69, 69) upper triangular U, where U U^T is the inverse covariance.
        mean_pose: (69,) mean of the training poses, radians.

    References:
        Bogo et al., *Keep it SMPL*, 2016, eq. 6: the pose prior E_theta.
    """

    weights: Tensor
    means: Tensor
    precision_factors: Tensor
    mean_pose: Tensor

    def energy(self, body_pose: Tensor) -> Tensor:
        """SMPLify's pose prior: the lowest negative log-density of a component, up to a constant.

        Args:
            body_pose: (B, 69) rotation vectors, radians.

        Returns:
            (B,) nats, at least 0.
        """
        away = body_pose[:, None] - self.means
        scaled = torch.einsum("bmi,mij->bmj", away, self.precision_factors)
        log_det = self.precision_factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        constant = -log_det - self.weights.log()
        return (scaled.square().sum(dim=-1) / 2 + constant - constant.amin()).amin(dim=-1)

    def to(self, *args: Any, **kwargs: Any) -> "PoseMixture":  # noqa: ANN401
        """A copy with another device or dtype; arguments as for ``Tensor.to``."""
        return PoseMixture(*(tensor.to(*args, **kwargs) for tensor in self._tensors()))

    def save(self, path: Path) -> None:
        """Write the four arrays to an ``.npz`` file, atomically."""
        names = ("weights", "means", "precision_factors", "mean_pose")
        arrays = dict(zip(names, (t.cpu().numpy() for t in self._tensors()), strict=True))
        # numpy appends .npz to a path, but not to an open file.
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    @lasting()
    def load(cls, path: Path) -> "PoseMixture":
        """Read a file written by `save`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged or contains no mixture.
        """
        content: Mapping[str, object] = read_npz(path)
        names = ("weights", "means", "precision_factors", "mean_pose")
        missing = [name for name in names if name not in content]
        if missing:
            raise ValueError(f"{path} is no pose mixture: {', '.join(missing)} missing")
        return cls(*(torch.from_numpy(np.asarray(content[name], np.float32)) for name in names))

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.weights, self.means, self.precision_factors, self.mean_pose
