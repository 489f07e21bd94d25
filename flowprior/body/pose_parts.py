"""The parts of a pose under the names of ``smplx``, and the two conventions for hands.

A pose is one rotation per joint; zero is the template of the file, with **flat hands**. ``smplx``
splits it into ``global_orient``, ``body_pose``, ``left_hand_pose`` and so on, and by default adds
the file's mean pose of the hands to their rotation vectors, so that zero is a relaxed hand
(``flat_hand_mean=False``). It also accepts coefficients of the file's principal components instead
of rotation vectors. Files of AMASS use the flat convention, those of InterHand2.6M the other.
"""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowprior import rotations
from flowprior._checks import require_tensor
from flowprior.body.kinds import BodyKind

__all__ = ["PoseParts"]

ADVICE = {
    "mean": "pass flat_hand_mean=True if zero is the flat hand in your poses, as in those of "
    "AMASS, or load a file of SMPL-H with mano=(MANO_LEFT, MANO_RIGHT)",
    "components": "pass the 45 numbers of rotation vectors, or load a file of SMPL-H with "
    "mano=(MANO_LEFT, MANO_RIGHT)",
}


class PoseParts(nn.Module):
    """Joins and splits poses of one body model.

    Args:
        kind: The model.
        arrays: Arrays of its file, with the means and components of the hands if it has them.
        name: Name of the body, for error messages.
    """

    def __init__(self, kind: BodyKind, arrays: Mapping[str, NDArray[Any]], name: str) -> None:
        super().__init__()
        self.kind, self.name = kind, name
        self._hand_of = {part: side for side, part in kind.hands.items()}
        for side in kind.hands:
            for what in ("mean", "components"):
                array = arrays.get(f"hands_{what}{side}")
                value = None if array is None else torch.from_numpy(array.copy()).float()
                self.register_buffer(f"{what}{side}", value, persistent=False)

    def hand_mean(self, part: str) -> Tensor:
        """The file's mean pose (45,) of a hand; ValueError if it has none."""
        return self._array("mean", part)

    def hand_components(self, part: str) -> Tensor:
        """The file's principal components (n, 45) of a hand; ValueError if it has none."""
        return self._array("components", part)

    def _array(self, what: str, part: str) -> Tensor:
        side = self._hand_of[part]
        value = getattr(self, f"{what}{side}")
        if not isinstance(value, Tensor):
            raise ValueError(f"{self.name} has no hands_{what}{side}: {ADVICE[what]}")
        return value

    def join(
        self, parts: Mapping[str, Tensor | None], flat_hand_mean: bool, use_pca: bool | None
    ) -> Tensor:
        """As :meth:`flowprior.body.BodyModel.pose`."""
        given = {name: value for name, value in parts.items() if value is not None}
        odd = [name for name in given if name not in self.kind.parts]
        if odd:
            raise ValueError(
                f"{self.name} is {self.kind.name}, which has no {', '.join(odd)}; its parts are "
                f"{', '.join(self.kind.parts)}"
            )
        read = {
            name: self._read(name, value, flat_hand_mean, use_pca) for name, value in given.items()
        }
        matrices = any(_is_matrices(value, self.kind.parts[n]) for n, value in read.items())
        like = next(iter(read.values()), self._default())
        pieces = []
        for name, joints in self.kind.parts.items():
            value = read.get(name)
            if value is None:
                value = like.new_zeros(joints.stop - joints.start, 3)
                if name in self._hand_of and not flat_hand_mean:
                    value = self.hand_mean(name).to(like).unflatten(-1, (-1, 3))
            if matrices and not _is_matrices(value, joints):
                value = rotations.rotvec_to_matrix(value)
            pieces.append(value)
        event = 3 if matrices else 2
        try:
            batch = torch.broadcast_shapes(*(piece.shape[:-event] for piece in pieces))
        except RuntimeError:
            shapes = ", ".join(f"{n} {tuple(value.shape)}" for n, value in given.items())
            raise ValueError(f"the parts of the pose have different batches: {shapes}") from None
        return torch.cat([piece.expand(*batch, *piece.shape[-event:]) for piece in pieces], -event)

    def split(self, theta: Tensor, flat_hand_mean: bool) -> dict[str, Tensor]:
        """As :meth:`flowprior.body.BodyModel.split`, of rotation vectors (..., J, 3)."""
        found = {}
        for name, joints in self.kind.parts.items():
            part = theta[..., joints, :].flatten(-2)
            if name in self._hand_of and not flat_hand_mean:
                part = part - self.hand_mean(name).to(part)
            found[name] = part
        return found

    def _default(self) -> Tensor:
        mean = next((buffer for buffer in self.buffers()), None)
        return torch.zeros(0) if mean is None else mean

    def _read(self, name: str, value: Tensor, flat_hand_mean: bool, use_pca: bool | None) -> Tensor:
        """Rotation vectors (..., n, 3) or matrices (..., n, 3, 3) of one part."""
        require_tensor(name, value)
        joints = self.kind.parts[name]
        count = joints.stop - joints.start
        if _is_matrices(value, joints):
            return value
        is_hand = name in self._hand_of
        flat = value.flatten(-2) if value.shape[-2:] == (count, 3) else value
        width = flat.shape[-1] if flat.ndim else 0
        if is_hand and (width < 3 * count if use_pca is None else use_pca):
            components = self.hand_components(name).to(flat)
            if not 0 < width <= len(components):
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}; {self.name} has {len(components)} "
                    "components of this hand"
                )
            flat = flat @ components[:width]
        elif width != 3 * count:
            hint = f", up to {3 * count} PCA coefficients" if is_hand else ""
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}; accepted are rotation vectors "
                f"(..., {3 * count}) or (..., {count}, 3) and matrices (..., {count}, 3, 3){hint}"
            )
        if is_hand and not flat_hand_mean:
            flat = flat + self.hand_mean(name).to(flat)
        return flat.unflatten(-1, (count, 3))


def _is_matrices(value: Tensor, joints: slice) -> bool:
    return value.shape[-3:] == (joints.stop - joints.start, 3, 3)
