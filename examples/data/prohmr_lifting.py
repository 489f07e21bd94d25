"""ProHMR's files for its lifting model ("ProSkeleton").

``skeleton_dataset.py`` of ``nkolot/ProHMR`` takes 17 of the 19 extra keypoints in the image and 17
of the 19 in space, the pelvis being the origin of the latter.
"""

from pathlib import Path

import numpy as np

from examples.data.files import npz_keys, number_array, numbered
from examples.data.lifting_pairs import LiftingPairs
from flowprior.files.numpy_file import read_npz
from flowprior.files.report import Report
from flowprior.keypoint_files.people import FARTHEST_M, clean_keypoints, joint_places
from flowprior.keypoints import LEAST_CONF
from flowprior.skeleton import PROHMR_19, PROHMR_LIFTING_2D, mapping

__all__ = ["inspect", "matches", "read_prohmr_lifting"]

KEYS = ("extra_keypoints_2d", "extra_keypoints_3d")


def matches(path: Path) -> bool:
    """Whether a file is for lifting only: keypoints without names of images."""
    keys = npz_keys(path)
    return keys >= set(KEYS) and "imgname" not in keys


def inspect(path: Path) -> Report:
    """Read a whole source and report its content and faults.

    Args:
        path: As for `read_prohmr_lifting`.

    Returns:
        The report.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file does not have this format.
    """
    return read_prohmr_lifting(path)[1]


def read_prohmr_lifting(path: Path | str) -> tuple[LiftingPairs, Report]:
    """Read the keypoints for lifting from ProHMR's annotations.

    Args:
        path: An ``.npz`` file with ``extra_keypoints_2d`` (N, 19, 3) in pixels and
            ``extra_keypoints_3d`` (N, 19, 4) in metres, camera frame, with confidences; with or
            without names of images.

    Returns:
        The views, both sets of keypoints in the order of `PROHMR_LIFTING_2D`; ``target`` is in that
        of `PROHMR_LIFTING_3D`. And the report: views that lack a 3D joint or all 2D keypoints are
        left out.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file does not have this format.
    """
    path = Path(path)
    content = read_npz(path, (*KEYS, "imgname"))
    joints = list(mapping(PROHMR_19, PROHMR_LIFTING_2D))
    in_image = number_array(content, KEYS[0], (None, PROHMR_19.num_joints, 3), path)
    rows = len(in_image)
    in_space = number_array(content, KEYS[1], (rows, PROHMR_19.num_joints, 4), path)
    report = Report(str(path), "ProHMR lifting keypoints", unit="view", rows=rows)

    space = in_space[:, joints].astype(np.float64)
    known = (np.abs(space[..., :3]) < FARTHEST_M).all(axis=-1) & (space[..., 3] > 0)
    usable = np.asarray(known.all(axis=1))
    report.leave_out(
        f"3D joint missing, of NaN, or beyond {FARTHEST_M:g} m, millimetres perhaps",
        numbered("view", ~usable),
    )
    kept = np.flatnonzero(usable)
    place = joint_places(numbered("view", kept), PROHMR_LIFTING_2D)
    image = clean_keypoints(in_image[kept][:, joints], place, report)
    seen = (image[..., 2] > LEAST_CONF).any(axis=1)
    report.leave_out("no 2D keypoint", numbered("view", kept[~seen]))
    image, kept = image[seen], kept[seen]
    report.kept = len(kept)

    space = space[kept, :, :3]
    space -= space[:, [PROHMR_LIFTING_2D.root]]
    unknown = np.full(len(kept), "")
    return (
        LiftingPairs(
            image,
            space.astype(np.float32),
            PROHMR_LIFTING_2D,
            PROHMR_LIFTING_2D,
            None,
            None,
            unknown,
            unknown,
            unknown,
            unknown,
            kept,
        ),
        report,
    )
