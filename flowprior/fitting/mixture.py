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
        weights: (M,) of the components, summing to one.
        means: (M, 69) radians.
        precision_factors: (M, 69, 69) upper triangular U with U U^T the inverse covariance.
        mean_pose: (69,) mean of the poses it was fitted to.

    References:
        Bogo et al., *Keep it SMPL*, 2016, eq. 6: the pose prior E_theta.
    """

    weights: Tensor
    means: Tensor
    precision_factors: Tensor
    mean_pose: Tensor

    def energy(self, body_pose: Tensor) -> Tensor:
        """SMPLify's prior: the least negative log of one component, from its own least value.

        Args:
            body_pose: (B, 69) rotation vectors, radians.

        Returns:
            (B,), at least 0, in nats.
        """
        away = body_pose[:, None] - self.means
        scaled = torch.einsum("bmi,mij->bmj", away, self.precision_factors)
        log_det = self.precision_factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        constant = -log_det - self.weights.log()
        return (scaled.square().sum(dim=-1) / 2 + constant - constant.amin()).amin(dim=-1)

    def to(self, *args: Any, **kwargs: Any) -> "PoseMixture":  # noqa: ANN401
        """A copy on another device or of another dtype, as ``Tensor.to``."""
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
        """Read what `save` wrote; FileNotFoundError or ValueError where that is not possible."""
        content: Mapping[str, object] = read_npz(path)
        names = ("weights", "means", "precision_factors", "mean_pose")
        missing = [name for name in names if name not in content]
        if missing:
            raise ValueError(f"{path} is no pose mixture: {', '.join(missing)} missing")
        return cls(*(torch.from_numpy(np.asarray(content[name], np.float32)) for name in names))

    @classmethod
    def fit(
        cls, body_pose: Tensor, components: int = 8, seed: int = 0, poses: int = 8000
    ) -> "PoseMixture":
        """Fit the mixture to poses (N, 69), by scikit-learn, at most ``poses`` of them."""
        from sklearn.mixture import GaussianMixture

        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(body_pose), generator=generator)[:poses]
        rows = body_pose[chosen].double().numpy()
        # One degree of noise: hinges that never turn about two axes have no covariance there.
        mixture = GaussianMixture(components, reg_covar=3e-4, random_state=seed).fit(rows)
        return cls(
            torch.from_numpy(mixture.weights_).float(),
            torch.from_numpy(mixture.means_).float(),
            torch.from_numpy(mixture.precisions_cholesky_).float(),
            body_pose.mean(dim=0),
        )

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.weights, self.means, self.precision_factors, self.mean_pose
