"""Annotated people in images, from the ``.npz`` files of ProHMR and SPIN.

Both formats end up as `Annotations`: boxes in pixels, poses as rotation vectors in radians, the 44
keypoints of `flowprior.skeleton.PROHMR_44` in pixels and in metres. The formats follow
``prohmr/datasets/image_dataset.py`` of ``nkolot/ProHMR`` and ``datasets/base_dataset.py``
of ``nkolot/SPIN``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.data.columns import BoolArray, Columns, FloatArray, TextArray
from examples.data.files import npz_keys
from examples.data.motion import LARGEST_ANGLE
from flowprior.files.numpy_file import read_npz
from flowprior.files.report import Report
from flowprior.keypoint_files.people import clean_keypoints, joint_places
from flowprior.keypoints import LEAST_CONF
from flowprior.skeleton import BODY_25, PROHMR_19, PROHMR_44, SMPL_24

__all__ = [
    "PROHMR_KEYS",
    "SPIN_KEYS",
    "Annotations",
    "image_root",
    "inspect",
    "matches",
    "prohmr_rows",
    "read",
    "sift",
]

BOX_KEYS = ("imgname", "center", "scale")
PROHMR_KEYS = (
    "body_pose",
    "has_body_pose",
    "betas",
    "has_betas",
    "body_keypoints_2d",
    "extra_keypoints_2d",
    "body_keypoints_3d",
    "extra_keypoints_3d",
)
"""Keys of ProHMR's files beside the box, each of which may be missing."""

SPIN_KEYS = ("pose", "shape", "has_smpl", "part", "openpose", "S")
"""Keys of SPIN's files beside the box, each of which may be missing."""

# BEDLAM's and CameraHMR's files have a box and a shape too, but none of these.
SPIN_ONLY = {"pose", "part", "openpose", "S"}

GENDERS = {short: name for name in ("male", "female", "neutral") for short in (name, name[0])}
GENDERS[""] = "neutral"
BODY_JOINTS = slice(1, 15)  # neck, limbs and hips of BODY_25
SPIN_FACE = [
    BODY_25.index(name) for name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
]

SOME_IMAGES = 50
SMALLEST_BOX_PX = 8.0
LARGEST_BOX_PX = 10_000.0


@dataclass(frozen=True)
class Annotations:
    """N people in images, as columns.

    Args:
        imgname: (N,) str, paths relative to a folder of images.
        center: (N, 2) float32, middle of the box, pixels.
        box_size: (N,) float32, side of the square box, pixels.
        global_orient: (N, 3) float32, rotation vectors in the camera frame, radians.
        body_pose: (N, 69) float32, rotation vectors of SMPL's 23 body joints.
        betas: (N, 10) float32.
        has_body_pose: (N,) bool, whether ``global_orient`` and ``body_pose`` are annotated.
        has_betas: (N,) bool.
        keypoints_2d: (N, 44, 3) float32, pixels and confidence, `PROHMR_44`.
        keypoints_3d: (N, 44, 4) float32, metres in the camera frame and confidence.
        gender: (N,) str, "male", "female" or "neutral".

    Raises:
        ValueError: A column has another shape.
    """

    imgname: TextArray
    center: FloatArray
    box_size: FloatArray
    global_orient: FloatArray
    body_pose: FloatArray
    betas: FloatArray
    has_body_pose: BoolArray
    has_betas: BoolArray
    keypoints_2d: FloatArray
    keypoints_3d: FloatArray
    gender: TextArray

    def __post_init__(self) -> None:
        shapes = {
            "center": (2,),
            "global_orient": (3,),
            "body_pose": (69,),
            "betas": (10,),
            "keypoints_2d": (PROHMR_44.num_joints, 3),
            "keypoints_3d": (PROHMR_44.num_joints, 4),
        }
        for field in fields(self):
            column: NDArray[np.generic] = getattr(self, field.name)
            expected = (len(self.imgname), *shapes.get(field.name, ()))
            if column.shape != expected:
                raise ValueError(f"expected {field.name} of shape {expected}, got {column.shape}")

    def __len__(self) -> int:
        return len(self.imgname)

    def __getitem__(self, rows: int | slice | Sequence[int] | NDArray[np.generic]) -> "Annotations":
        """Some of the rows, selected as in an array; an index alone gives one row."""
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        return Annotations(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def __iter__(self) -> Iterator["Annotations"]:
        return (self[row] for row in range(len(self)))

    @staticmethod
    def concatenate(parts: Iterable["Annotations"]) -> "Annotations":
        """Concatenate the rows of several; an empty sequence gives no rows."""
        parts = [Annotations.empty(), *parts]
        return Annotations(
            **{
                f.name: np.concatenate([getattr(p, f.name) for p in parts])
                for f in fields(parts[0])
            }
        )

    @staticmethod
    def empty() -> "Annotations":
        """No rows."""
        return prohmr_rows(Columns({"imgname": []}, ""), Report("", ""))


def read(
    path: Path | str, images: Path | None = None, keep_body_3d: bool = False
) -> tuple[Annotations, Report]:
    """Read an ``.npz`` annotation file of ProHMR or SPIN, identified by its keys.

    ProHMR's has boxes in pixels and keypoints in two parts. SPIN's has boxes in units of 200
    pixels; the first 19 of the 24 joints of ``part`` and ``S`` are ProHMR's extra keypoints, the
    other 5, of the face, are taken where OpenPose saw none of its own.

    Rows without a usable box and rows whose image is missing are left out. Unusable keypoints,
    poses and betas are marked as not annotated.

    Args:
        path: The file.
        images: The folder that ``imgname`` is relative to; None does not check for images.
        keep_body_3d: Keep the confidences of ``body_keypoints_3d`` at neck, limbs and hips (joints
            1 to 14). By default they are 0, as in ProHMR: there these joints and the extra ones of
            the data sets lie in different places.

    Returns:
        The rows that can be used, and the report.

    Raises:
        FileNotFoundError: The file or the folder ``images`` does not exist.
        ValueError: It is no ``.npz`` file, neither of the formats, or a column has a wrong shape.
    """
    path = Path(path)
    content = read_npz(path)
    kind = _format(path, frozenset(content))
    columns = Columns(content, str(path))
    report = Report(str(path), f"{kind} annotations", "person", rows=len(columns))
    if kind == "SPIN":
        rows = _spin_rows(columns, report)
    else:
        rows = prohmr_rows(columns, report)
        if not keep_body_3d:
            rows.keypoints_3d[:, BODY_JOINTS, -1] = 0
    if columns.unread:
        report.facts["not read"] = ", ".join(columns.unread)
    kept, _ = sift(rows, report, images)
    return kept, report


def matches(path: Path) -> bool:
    """Whether a file has the keys of ProHMR's or SPIN's annotations."""
    return path.is_file() and _known_format(npz_keys(path)) is not None


def inspect(path: Path, images: Path | None = None) -> Report:
    """The report of `read` on a file."""
    return read(path, images)[1]


def _known_format(keys: frozenset[str]) -> str | None:
    if not keys.issuperset(BOX_KEYS):
        return None
    if not keys.isdisjoint(PROHMR_KEYS) or keys <= {*BOX_KEYS, "gender"}:
        return "ProHMR"
    return "SPIN" if not keys.isdisjoint(SPIN_ONLY) else None


def _format(path: Path, keys: frozenset[str]) -> str:
    kind = _known_format(keys)
    if kind is None:
        raise ValueError(
            f"{path}: expected the keys {', '.join(BOX_KEYS)} and some of ProHMR's "
            f"({', '.join(PROHMR_KEYS)}) or SPIN's ({', '.join(SPIN_KEYS)}), "
            f"found {', '.join(sorted(keys)) or 'none'}"
        )
    return kind


def prohmr_rows(columns: Columns, report: Report, enlarge: float = 1.0) -> Annotations:
    """Convert columns with ProHMR's names; checks their shapes only.

    Args:
        columns: The columns; missing ones become zeros, or "not annotated".
        report: Receives flags that are neither 0 nor 1, and of poses and betas without flags.
        enlarge: Factor of the boxes.

    Raises:
        ValueError: A column has a wrong shape.
    """
    pose = columns.numbers("body_pose", 72)
    for key in ("body_pose", "betas"):
        if key in columns and f"has_{key}" not in columns:
            # As ProHMR does, silently.
            report.ignore(f"{key} without has_{key}", map(columns.place, range(len(columns))))
    return Annotations(
        imgname=columns.text("imgname"),
        center=columns.numbers("center", 2),
        box_size=enlarge * columns.largest("scale"),
        global_orient=pose[:, :3],
        body_pose=pose[:, 3:],
        betas=columns.numbers("betas", 10),
        has_body_pose=columns.flags("has_body_pose", report) & ("body_pose" in columns),
        has_betas=columns.flags("has_betas", report) & ("betas" in columns),
        keypoints_2d=np.concatenate(
            [
                columns.numbers("body_keypoints_2d", BODY_25.num_joints, 3),
                columns.numbers("extra_keypoints_2d", PROHMR_19.num_joints, 3),
            ],
            axis=1,
        ),
        keypoints_3d=np.concatenate(
            [
                columns.numbers("body_keypoints_3d", BODY_25.num_joints, 4),
                columns.numbers("extra_keypoints_3d", PROHMR_19.num_joints, 4),
            ],
            axis=1,
        ),
        gender=columns.text("gender"),
    )


def _spin_rows(columns: Columns, report: Report) -> Annotations:
    has_pose = np.full(len(columns), "pose" in columns)
    has_betas = np.full(len(columns), "shape" in columns)
    if "has_smpl" in columns:
        flags = columns.flags("has_smpl", report)
        has_pose, has_betas = has_pose & flags, has_betas & flags
    pose = columns.numbers("pose", 72)
    points_3d = columns.numbers("S", 24, 4)
    return Annotations(
        imgname=columns.text("imgname"),
        center=columns.numbers("center", 2),
        box_size=200 * columns.largest("scale"),
        global_orient=pose[:, :3],
        body_pose=pose[:, 3:],
        betas=columns.numbers("shape", 10),
        has_body_pose=has_pose,
        has_betas=has_betas,
        keypoints_2d=_spin_keypoints(
            columns.numbers("openpose", BODY_25.num_joints, 3), columns.numbers("part", 24, 3)
        ),
        keypoints_3d=_spin_keypoints(
            np.zeros((len(columns), BODY_25.num_joints, 4), np.float32), points_3d
        ),
        gender=columns.text("gender"),
    )


def _spin_keypoints(openpose: FloatArray, joints: FloatArray) -> FloatArray:
    """BODY-25 and SPIN's 24 as PROHMR-44."""
    face = joints[:, PROHMR_19.num_joints :]
    unseen = openpose[:, SPIN_FACE, -1:] == 0
    openpose[:, SPIN_FACE] = np.where(unseen, face, openpose[:, SPIN_FACE])
    return np.concatenate([openpose, joints[:, : PROHMR_19.num_joints]], axis=1)


def sift(
    rows: Annotations,
    report: Report,
    images: Path | None = None,
    place: Callable[[int], str] = "row {}".format,
) -> tuple[Annotations, BoolArray]:
    """Leave out unusable rows, and mark unusable values as not annotated.

    Args:
        rows: The rows of a file, unchecked.
        report: Receives everything that is not used, of how many rows are, and of what they have.
        images: The folder with the images; None does not check for them.
        place: Name of a row in the report, by its index.

    Returns:
        The usable rows, and the mask (N,) of them among all rows.

    Raises:
        FileNotFoundError: The folder ``images`` does not exist.
    """
    keep = np.ones(len(rows), np.bool_)

    def leave_out(reason: str, bad: BoolArray) -> None:
        report.leave_out(reason, map(place, np.flatnonzero(keep & bad).tolist()))
        keep[bad] = False

    leave_out("no image name", rows.imgname == "")
    if images is not None:
        root = image_root(images, rows.imgname)
        report.facts["images"] = str(root)
        names, of_row = np.unique(rows.imgname, return_inverse=True)
        there = np.array([(root / name).is_file() for name in names], np.bool_)
        leave_out("image missing", ~there[of_row])
    box = np.column_stack([rows.center, rows.box_size])
    leave_out("NaN or infinity in the box", ~_finite(box))
    for reason, bad in (
        ("box of no size", rows.box_size <= 0),
        (
            f"box of less than {SMALLEST_BOX_PX:g} pixels (is its unit 200 pixels?)",
            rows.box_size < SMALLEST_BOX_PX,
        ),
        (
            f"box of more than {LARGEST_BOX_PX:g} pixels (are its pixels taken for units of 200?)",
            rows.box_size > LARGEST_BOX_PX,
        ),
    ):
        leave_out(reason, np.asarray(bad, np.bool_))
    left = np.flatnonzero(keep)
    rows = rows[left]

    def ignore(reason: str, bad: BoolArray) -> None:
        report.ignore(reason, map(place, left[bad].tolist()))

    joint_of = joint_places([place(int(row)) for row in left], PROHMR_44)
    pose = np.concatenate([rows.global_orient, rows.body_pose], axis=1)
    sound, betas_sound = _finite(pose), _finite(rows.betas)
    ignore("NaN or infinity in the pose", rows.has_body_pose & ~sound)
    ignore("NaN or infinity in the betas", rows.has_betas & ~betas_sound)
    turns = np.linalg.norm(pose.reshape(-1, SMPL_24.num_joints, 3).astype(np.float64), axis=-1)
    wild = sound & np.asarray((turns > LARGEST_ANGLE).any(axis=1))
    ignore("rotation of more than two turns (is its unit degrees?)", rows.has_body_pose & wild)
    sound &= ~wild
    pose = np.where(sound[:, None], pose, 0)

    genders = [GENDERS.get(name.lower()) for name in rows.gender.tolist()]
    ignore("unknown gender, taken as neutral", np.array([g is None for g in genders], np.bool_))
    kept = Annotations(
        imgname=rows.imgname,
        center=rows.center,
        box_size=rows.box_size,
        global_orient=pose[:, :3],
        body_pose=pose[:, 3:],
        betas=np.where(betas_sound[:, None], rows.betas, 0),
        has_body_pose=rows.has_body_pose & sound,
        has_betas=rows.has_betas & betas_sound,
        keypoints_2d=clean_keypoints(rows.keypoints_2d, joint_of, report),
        keypoints_3d=clean_keypoints(rows.keypoints_3d, joint_of, report, "3D"),
        gender=np.array([g or "neutral" for g in genders], np.str_),
    )
    report.kept += len(kept)
    for name, having in (
        ("with a pose", kept.has_body_pose),
        ("with betas", kept.has_betas),
        ("with 2D keypoints", (kept.keypoints_2d[..., -1] > LEAST_CONF).any(axis=1)),
        ("with 3D keypoints", (kept.keypoints_3d[..., -1] > 0).any(axis=1)),
    ):
        report.facts[name] = str(np.count_nonzero(having))
    return kept, keep


def _finite(values: FloatArray) -> BoolArray:
    """Whether each vector (..., k) is finite, (...)."""
    return np.asarray(np.isfinite(values).all(axis=-1))


def image_root(images: Path, imgname: TextArray) -> Path:
    """The folder that names of images are relative to.

    ProHMR's preparation of Human3.6M names ``images/S9_...jpg`` and its configuration a folder that
    ends in ``images`` too. So if images are not in the folder, but in its parent, the parent is
    the root.

    Args:
        images: The folder that the user passed.
        imgname: (N,) names.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of images: {images}")
    some = imgname[:: max(1, len(imgname) // SOME_IMAGES)]
    if not any((images / name).is_file() for name in some):
        above = images.resolve().parent
        if any((above / name).is_file() for name in some):
            return above
    return images
