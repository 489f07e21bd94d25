"""The people of all images with their uncertainty, as ``fits.npz`` stores them: `Fits`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprior.body.kinds import KINDS, BodyKind
from flowprior.files.numpy_file import read_npz
from flowprior.files.whole_file import whole_file
from flowprior.skeleton import SKELETONS, Skeleton

__all__ = ["CONFIDENCE_DISTANCE_MM", "Fits", "keypoint_set_name", "named_keypoint_set"]

CONFIDENCE_DISTANCE_MM = 100.0
"""Distance of the confidence of a joint unless the user gives another."""

Array = NDArray[Any]

# Shape per person, in letters: J joints, P of them below the root and not of hands or face, K
# keypoints, B shape coefficients, S samples.
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "image": (),
    "image_path": (),
    "image_size": (2,),
    "person": (),
    "focal_px": (),
    "centre_px": (2,),
    "global_orient": (1, 3),
    "body_pose": ("P", 3),
    "betas": ("B",),
    "transl": (3,),
    "joints": ("J", 3),
    "keypoints_2d": ("K", 3),
    "joint_std_mm": ("J",),
    "joint_radius_50_mm": ("J",),
    "joint_radius_90_mm": ("J",),
    "joint_confidence": ("J",),
    "rotation_std_deg": ("J",),
    "rotation_radius_90_deg": ("J",),
    "joint_direction": ("J", 3),
    "samples": ("S", "J", 3),
    "reprojection_px": (),
    "log_prob": (),
    "status": (),
}
# Of bodies with fingers only, and of those with a face.
_HANDS: dict[str, tuple[int | str, ...]] = {
    "left_hand_pose": (15, 3),
    "right_hand_pose": (15, 3),
    "hands": (2,),
}
_FACE: dict[str, tuple[int | str, ...]] = {
    "jaw_pose": (1, 3),
    "leye_pose": (1, 3),
    "reye_pose": (1, 3),
}
_MORE: dict[str, dict[str, tuple[int | str, ...]]] = {
    "smpl": {},
    "smplh": _HANDS,
    "smplx": _HANDS | _FACE,
}
_TEXT = ("hands", "image", "image_path", "status")
_SINGLE = ("body", "keypoint_set", "confidence_distance_mm")


@dataclass(frozen=True)
class Fits:
    """N people in all images together, one row each.

    The camera of each image is a pinhole camera of the whole image without distortion: a point
    (x, y, z) in metres appears at ``focal_px * (x, y) / z + centre_px``. Positions are metres in
    its frame: x right, y down, z forward. NaN stands for what is unknown, such as the uncertainty
    of a person who could not be fitted.

    The body has J joints in the order of ``smplx``: 24 of SMPL, 52 of SMPL-H (also the embedded
    body with hands) or 55 of SMPL-X. Poses are stored in the parts that ``smplx`` takes, see
    `rotation_vectors`.

    Args:
        image: (N,) text, name of the image or frame relative to the input.
        image_path: (N,) text, path of the picture; "" without one.
        image_size: (N, 2) width and height, pixels.
        person: (N,) whole numbers, index within the image, or track number.
        focal_px: (N,) focal length, pixels.
        centre_px: (N, 2) principal point, pixels.
        global_orient: (N, 1, 3) rotation vector of the root in the camera's frame, radians.
        body_pose: (N, 23, 3) rotation vectors of the other joints relative to their parents; with
            fingers (N, 21, 3), up to the wrists.
        betas: (N, B) shape coefficients of the body.
        transl: (N, 3) translation, metres.
        joints: (N, J, 3) joints of the body, metres.
        keypoints_2d: (N, K, 3) detected keypoints, x and y in pixels and confidence.
        joint_std_mm: (N, J) standard deviation of each joint's position relative to the pelvis.
        joint_radius_50_mm: (N, J) the joint lies within this distance with a probability of 50 %.
        joint_radius_90_mm: (N, J) the same for 90 %.
        joint_confidence: (N, J) probability that the joint lies within
            ``confidence_distance_mm`` of its estimate.
        rotation_std_deg: (N, J) root mean square angle of each rotation, relative to its parent.
        rotation_radius_90_deg: (N, J) angle that is not exceeded with a probability of 90 %.
        joint_direction: (N, J, 3) unit vector along which the joint is least certain.
        samples: (N, S, J, 3) rotation vectors of posterior samples, in the order of `rotations`.
        reprojection_px: (N,) mean distance between fitted and detected keypoints, weighted by
            confidence, pixels.
        log_prob: (N,) log-density of the pose under the posterior, nats.
        status: (N,) text, how each fit ended, such as "converged".
        body: "embedded", or the name of the body's file.
        keypoint_set: Name of the joint set of ``keypoints_2d``, such as "coco_17".
        confidence_distance_mm: Distance of ``joint_confidence``.
        left_hand_pose: (N, 15, 3) rotation vectors of the fingers in MANO's order, zero for a flat
            hand; None unless the body has fingers.
        right_hand_pose: (N, 15, 3) the same for the right hand.
        hands: (N, 2) text, "fitted" or "at rest" for the left and the right hand: a hand is at rest
            where its keypoints were not seen, and its uncertainty is that of the prior. None unless
            the body has fingers.
        jaw_pose: (N, 1, 3) rotation vector of the jaw, at rest; None unless the body is SMPL-X.
        leye_pose: (N, 1, 3) the same for the left eye.
        reye_pose: (N, 1, 3) the same for the right eye.
        fps: Frames per second of a sequence, whose images are frames and whose people are tracks;
            None for images that have nothing to do with each other.

    Raises:
        ValueError: An array has another shape, or the joint set is unknown.
    """

    image: Array
    image_path: Array
    image_size: Array
    person: Array
    focal_px: Array
    centre_px: Array
    global_orient: Array
    body_pose: Array
    betas: Array
    transl: Array
    joints: Array
    keypoints_2d: Array
    joint_std_mm: Array
    joint_radius_50_mm: Array
    joint_radius_90_mm: Array
    joint_confidence: Array
    rotation_std_deg: Array
    rotation_radius_90_deg: Array
    joint_direction: Array
    samples: Array
    reprojection_px: Array
    log_prob: Array
    status: Array
    body: str = "embedded"
    keypoint_set: str = "coco_17"
    confidence_distance_mm: float = CONFIDENCE_DISTANCE_MM
    left_hand_pose: Array | None = None
    right_hand_pose: Array | None = None
    hands: Array | None = None
    jaw_pose: Array | None = None
    leye_pose: Array | None = None
    reye_pose: Array | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        people = len(np.atleast_1d(self.image))
        kind = self.kind
        more = _MORE[kind.model_type]
        given = [name for name in _HANDS | _FACE if getattr(self, name) is not None]
        if given != list(more):
            wanted_parts = ", ".join(more) or "no parts of hands and face"
            raise ValueError(
                f"{kind.num_joints} joints are those of {kind.name}: expected {wanted_parts}, got "
                f"{', '.join(given) or 'none'}"
            )
        below = kind.parts["body_pose"]
        sizes = {"J": kind.num_joints, "P": below.stop - below.start}
        for name, shape in (_SHAPES | more).items():
            value = np.asarray(getattr(self, name))
            if name in _TEXT:
                value = value.astype(np.str_)
            elif name == "person":
                value = value.astype(np.int64)
            else:
                value = value.astype(np.float32)
            object.__setattr__(self, name, value)
            wanted = [people, *(_size(part, axis, value, sizes) for axis, part in enumerate(shape))]
            if list(value.shape) != wanted:
                letters = ", ".join(map(str, ("N", *shape)))
                raise ValueError(
                    f"expected {name} of shape ({letters}) with N = {people}, got {value.shape}"
                )
        if self.skeleton.num_joints != self.keypoints_2d.shape[1]:
            raise ValueError(
                f"{self.keypoint_set} has {self.skeleton.num_joints} keypoints, but keypoints_2d "
                f"has {self.keypoints_2d.shape[1]}"
            )

    def __len__(self) -> int:
        return len(self.image)

    @property
    def skeleton(self) -> Skeleton:
        """Joint set of ``keypoints_2d``."""
        return named_keypoint_set(self.keypoint_set)

    @property
    def kind(self) -> BodyKind:
        """The body model whose joints the fits have: SMPL, SMPL-H or SMPL-X."""
        count = np.shape(self.joints)[1] if np.ndim(self.joints) == 3 else 0
        kinds = [KINDS[name] for name in _MORE]
        for kind in kinds:
            if kind.num_joints == count:
                return kind
        known = " or ".join(f"{kind.num_joints} ({kind.name})" for kind in kinds)
        raise ValueError(
            f"expected joints of shape (N, J, 3) with J = {known}, got {np.shape(self.joints)}"
        )

    @property
    def rotations(self) -> Array:
        """(N, J, 3) rotation vectors of all joints, in the order of the body model."""
        return np.concatenate([getattr(self, name) for name in self.kind.parts], axis=1)

    def rotation_vectors(self) -> dict[str, Array]:
        """The parameters as ``smplx`` takes them.

        Returns:
            ``global_orient`` (N, 3), ``body_pose`` (N, 69) or (N, 63), and with fingers
            ``left_hand_pose`` and ``right_hand_pose`` (N, 45), for SMPL-X also ``jaw_pose``,
            ``leye_pose`` and ``reye_pose`` (N, 3), rotation vectors in radians; ``betas`` (N, B)
            and ``transl`` (N, 3) metres. A model with fingers needs ``flat_hand_mean=True`` and
            ``use_pca=False``, because zero is the flat hand.
        """
        found = {name: getattr(self, name).reshape(len(self), -1) for name in self.kind.parts}
        return found | {"betas": self.betas, "transl": self.transl}

    @property
    def images(self) -> list[str]:
        """Names of the images, in the order of their first person."""
        return list(dict.fromkeys(self.image.tolist()))

    def __getitem__(self, rows: Array | slice | Sequence[int]) -> "Fits":
        """The people ``rows``: a slice, a mask (N,) or indices."""
        single: dict[str, Any] = {name: getattr(self, name) for name in (*_SINGLE, "fps")}
        return Fits(**{name: getattr(self, name)[rows] for name in self._arrays}, **single)

    @property
    def _arrays(self) -> tuple[str, ...]:
        """Names of the arrays with a row per person."""
        return (*_SHAPES, *_MORE[self.kind.model_type])

    @staticmethod
    def joined(parts: Sequence["Fits"]) -> "Fits":
        """The people of several parts, which agree in everything that is no row.

        Raises:
            ValueError: There is no part, or the parts differ in their body, joint set, distance of
                the confidence or numbers of coefficients or samples.
        """
        if not parts:
            raise ValueError("expected at least one part, got none")
        for name in (*_SINGLE, "fps"):
            found = {getattr(part, name) for part in parts}
            if len(found) > 1:
                raise ValueError(f"the parts differ in {name}: {', '.join(map(str, found))}")
        names = parts[0]._arrays
        if any(part._arrays != names for part in parts):
            bodies = sorted({part.kind.name for part in parts})
            raise ValueError(f"the parts differ in the body: {', '.join(bodies)}")
        single: dict[str, Any] = {name: getattr(parts[0], name) for name in (*_SINGLE, "fps")}
        rows: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in names
        }
        return Fits(**rows, **single)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` file atomically; it contains no pickles.

        Beside the arrays of this class it has ``joint_names`` (J,) and ``model_type``, the name of
        the body model in ``smplx``.

        Raises:
            OSError: The file cannot be written.
        """
        arrays: dict[str, Any] = {
            field.name: np.asarray(getattr(self, field.name))
            for field in fields(self)
            if getattr(self, field.name) is not None
        }
        arrays["joint_names"] = np.array(self.kind.skeleton.joint_names)
        arrays["model_type"] = np.array(self.kind.model_type)
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Fits":
        """Read a file written by `save`, executing nothing from it.

        Args:
            path: The file, or a folder that contains ``fits.npz``.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is damaged, lacks arrays, or holds arrays of other shapes.
        """
        path = Path(path)
        if path.is_dir():
            if not (path / "fits.npz").exists():
                raise FileNotFoundError(
                    f"{path} contains no fits.npz: expected a folder that flowprior fit has written"
                )
            path = path / "fits.npz"
        found = read_npz(path)
        missing = [name for name in (*_SHAPES, *_SINGLE) if name not in found]
        if missing:
            raise ValueError(
                f"{path} lacks {', '.join(missing)}; expected the file that flowprior fit writes"
            )
        try:
            single: dict[str, Any] = {
                "body": str(found["body"]),
                "keypoint_set": str(found["keypoint_set"]),
                "confidence_distance_mm": float(np.asarray(found["confidence_distance_mm"])),
                "fps": None if found.get("fps") is None else float(np.asarray(found["fps"])),
            }
            rows: dict[str, Any] = {
                name: np.asarray(found[name])
                for name in (*_SHAPES, *_HANDS, *_FACE)
                if name in found
            }
            return cls(**rows, **single)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def keypoint_set_name(skeleton: Skeleton) -> str:
    """Name of a joint set as `Fits` writes it: "coco_17" for "COCO-17"."""
    return skeleton.name.lower().replace("-", "_").replace(" ", "_")


def named_keypoint_set(name: str) -> Skeleton:
    """The joint set with a name of `keypoint_set_name`.

    Raises:
        ValueError: There is none.
    """
    known = {keypoint_set_name(each): each for each in SKELETONS.values()}
    if name not in known:
        raise ValueError(f"no keypoint set {name!r}; known sets: {', '.join(known)}")
    return known[name]


def _size(part: int | str, axis: int, value: Array, sizes: dict[str, int]) -> int:
    """Expected length of an axis; a letter means that of the first array that has it."""
    if isinstance(part, int):
        return part
    return sizes.setdefault(part, value.shape[axis + 1] if value.ndim > axis + 1 else -1)
