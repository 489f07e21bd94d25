"""One person's motion, checked and upright, as the writers of files need it."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from flowprior.body import Body
from flowprior.prior.spaces import Rot6dSpace

__all__ = ["Clip", "Up", "clip_of", "require_rate"]

Up: TypeAlias = Literal["-y", "y", "z"]
"""The axis that points up: "-y" in the axes of a camera, "y" in SMPL's, "z" in AMASS'."""

# To y up: about the x axis, so that what points right stays right.
_TO_Y: dict[str, NDArray[np.float64]] = {
    "-y": np.diag([1.0, -1.0, -1.0]),
    "y": np.eye(3),
    "z": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
}


@dataclass(frozen=True)
class Clip:
    """T frames of a person with J joints.

    Args:
        rotation: (T, J, 3, 3) relative to the parent.
        transl: (T, 3) metres; the root is at ``rest[0] + transl``, about which it turns.
        rest: (J, 3) joints of this person in the rest pose, metres.
        betas: (B,) shape coefficients.
        fps: Frames per second.
    """

    rotation: NDArray[np.float64]
    transl: NDArray[np.float64]
    rest: NDArray[np.float64]
    betas: NDArray[np.float64]
    fps: float

    def __len__(self) -> int:
        return len(self.rotation)

    @property
    def root(self) -> NDArray[np.float64]:
        """(T, 3) positions of the root, metres."""
        return self.rest[0] + self.transl

    @property
    def quaternions(self) -> NDArray[np.float64]:
        """(T, J, 4) unit quaternions xyzw; neighbours in time have the sign of the shorter way."""
        import roma

        found = roma.rotmat_to_unitquat(torch.from_numpy(self.rotation)).numpy()
        same = (found[1:] * found[:-1]).sum(axis=-1) >= 0
        sign = np.cumprod(np.where(same, 1.0, -1.0), axis=0)
        found[1:] *= sign[..., None]
        return found


@torch.no_grad()
def clip_of(
    theta: Tensor,
    transl: Tensor,
    body: Body,
    betas: Tensor | None,
    fps: float,
    up: Up = "-y",
    to: Literal["y", "z"] = "y",
) -> Clip:
    """Check a motion and turn it upright.

    Args:
        theta: (T, J, k) rotations relative to the parent in any accepted form.
        transl: (T, 3) metres.
        body: The body.
        betas: (B,) shape of the person; the average shape if None.
        fps: Frames per second.
        up: The axis that points up in the given motion.
        to: The axis that points up in the result.

    Raises:
        TypeError: A tensor is expected, and something else given.
        ValueError: Shapes do not match, a number is not finite, or the rate is not positive.
    """
    require_rate(fps)
    if up not in _TO_Y:
        raise ValueError(f"up must be one of {', '.join(_TO_Y)}, got {up!r}")
    for name, value in (("theta", theta), ("transl", transl)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    rotation = Rot6dSpace(body.num_joints).to_matrix(theta.detach().cpu().double())
    frames = len(rotation)
    if rotation.ndim != 4 or not frames or transl.shape != (frames, 3):
        raise ValueError(
            f"expected one motion, theta (T, {body.num_joints}, k) with at least one frame and "
            f"transl (T, 3), got {tuple(theta.shape)} and {tuple(transl.shape)}"
        )
    place = transl.detach().cpu().double()
    lost = ~(rotation.isfinite().all(dim=(1, 2, 3)) & place.isfinite().all(dim=1))
    if lost.any():
        first = int(lost.nonzero()[0, 0])
        raise ValueError(
            f"{int(lost.sum())} of {frames} frames are not finite, the first is {first}: "
            "flowprior.fitting.fit_sequence fills gaps"
        )
    if betas is not None and betas.ndim != 1:
        raise ValueError(
            f"a motion has one shape, betas (B,), got {tuple(betas.shape)}; average those of its "
            "frames"
        )
    still = torch.eye(3).expand(1, body.num_joints, 3, 3).to(body.faces.device)
    own = None if betas is None else betas.detach().to(body.faces.device, torch.float32)
    rest = body(still, own).joints[0].cpu().double().numpy()
    coefficients = np.zeros(0) if betas is None else betas.detach().cpu().double().numpy()
    turn = _TO_Y[up] if to == "y" else _TO_Y["z"].T @ _TO_Y[up]
    turned = rotation.numpy().copy()
    turned[:, 0] = turn @ turned[:, 0]
    # The root turns about its own position in the rest pose.
    moved = (rest[0] + place.numpy()) @ turn.T - rest[0]
    return Clip(turned, moved, rest, coefficients, float(fps))


def require_rate(fps: float) -> None:
    """Check a frame rate.

    Raises:
        ValueError: It is not positive and finite.
    """
    if not (isinstance(fps, (int, float)) and 0 < fps < math.inf):
        raise ValueError(f"fps must be positive and finite, got {fps!r}")


def as_columns(values: ArrayLike, digits: int) -> str:
    """Numbers (rows, columns) as lines of text with a fixed number of digits."""
    rows = np.round(np.asarray(values, np.float64), digits) + 0.0  # without -0
    return "\n".join(" ".join(f"{value:.{digits}f}" for value in row) for row in rows.tolist())
