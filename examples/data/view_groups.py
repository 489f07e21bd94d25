"""Groups of annotations: one person in simultaneous views of several cameras.

ProHMR evaluates multi-view refinement on pickled lists of the Mannequin Challenge and Human3.6M
(``prohmr/datasets/batched_image_dataset.py`` of ``nkolot/ProHMR``). `group` builds such groups from
any annotations whose image names identify the moment.
"""

import re
from collections.abc import Callable, Hashable
from itertools import pairwise
from pathlib import Path
from typing import TypeGuard

import numpy as np

from examples.data.annotations import BOX_KEYS, Annotations, prohmr_rows, sift
from examples.data.columns import Columns
from flowprior.files.numpy_file import read_pickle
from flowprior.files.report import Report

__all__ = ["group", "inspect", "matches", "read", "same_moment"]

BOX_FACTOR = 1.2
KIND = "ProHMR multi-view groups"

# The camera in S9_Posing.60457274_000001.jpg, S1/Seq1/imageFrames/video_3/frame_000001.jpg.
_CAMERA = re.compile(r"(?<=\.)\d{8}(?=_\d+\.\w+$)|(?<=/video_)\d+(?=/[^/]+$)")


def read(path: Path | str, images: Path | None = None) -> tuple[list[Annotations], Report]:
    """Read a pickled list with a dictionary for each group of views.

    The dictionaries have the keys of ProHMR's ``.npz`` files, with an entry for each view, but the
    side of the box is 1.2 times ``scale``. Unlike the original, this also reads the 2D keypoints,
    and 3D keypoints of which only the body or only the extra part exists.

    Unusable views are removed from their group and count as ignored values. Groups without a
    usable view are left out.

    Args:
        path: The ``.pkl`` file.
        images: The folder that ``imgname`` is relative to; images are not looked for if None.

    Returns:
        The usable views of each group, and the report.

    Raises:
        FileNotFoundError: The file or the folder ``images`` does not exist.
        ValueError: The file is damaged, not such a list, or a column has a wrong shape.
    """
    path = Path(path)
    content = read_pickle(path)
    if not isinstance(content, list) or not any(map(_is_group, content)):
        raise ValueError(
            f"{path}: expected a list of dictionaries with the keys {', '.join(BOX_KEYS)}, "
            f"found {_described(content)}"
        )
    report = Report(str(path), KIND, "group", rows=len(content))
    views = Report(str(path), KIND, "view")
    groups = []
    for number, columns in enumerate(content):
        if not _is_group(columns):
            report.leave_out("no dictionary with a box", [f"group {number}"])
            groups.append(Annotations.empty())
            continue
        source, place = f"{path}, group {number}", f"view {{}} of group {number}".format
        groups.append(prohmr_rows(Columns(columns, source, place), views, enlarge=BOX_FACTOR))
    first = np.cumsum([0, *map(len, groups)])

    def place_of(row: int) -> str:
        number = int(np.searchsorted(first, row, side="right")) - 1
        return f"view {row - first[number]} of group {number}"

    rows, keep = sift(Annotations.concatenate(groups), views, images, place_of)
    ends = np.concatenate([[0], np.cumsum(keep)])[first]
    left = [rows[start:stop] for start, stop in pairwise(ends)]
    report.leave_out(
        "no view that can be used",
        (
            f"group {number}"
            for number, views_left in enumerate(left)
            if not len(views_left) and _is_group(content[number])
        ),
    )
    kept = [views_left for views_left in left if len(views_left)]
    report.kept = len(kept)
    report.facts["views"] = f"{len(keep)}, {len(rows)} usable"
    report.facts |= {
        name if name == "images" else f"views {name}": fact for name, fact in views.facts.items()
    }
    report.ignored = {f"view with {why}": found for why, found in views.left_out.items()}
    report.ignored |= views.ignored
    return kept, report


def matches(path: Path) -> bool:
    """Whether a file is a pickled list of groups of views."""
    if path.suffix != ".pkl" or not path.is_file():
        return False
    try:
        content = read_pickle(path)
    except ValueError:
        return False
    return isinstance(content, list) and any(map(_is_group, content))


def inspect(path: Path, images: Path | None = None) -> Report:
    """The report of `read` on a file."""
    return read(path, images)[1]


def _is_group(columns: object) -> TypeGuard[dict[str, object]]:
    return isinstance(columns, dict) and columns.keys() >= set(BOX_KEYS)


def _described(content: object) -> str:
    if not isinstance(content, list):
        return f"a {type(content).__name__}"
    if not content:
        return "an empty list"
    if not isinstance(content[0], dict):
        return f"a list that starts with a {type(content[0]).__name__}"
    return f"a list that starts with the keys {', '.join(sorted(map(str, content[0])))}"


def same_moment(imgname: str) -> str:
    """The part of an image name that all cameras share at one moment, for `group`.

    Args:
        imgname: Name of an image of Human3.6M, ``S9_Posing.60457274_000001.jpg``, or of
            MPI-INF-3DHP's training set, ``S1/Seq1/imageFrames/video_3/frame_000001.jpg``.

    Returns:
        The name without its camera.

    Raises:
        ValueError: The name contains no camera.
    """
    moment, cameras = _CAMERA.subn("*", imgname)
    if not cameras:
        raise ValueError(
            "expected an image name with a camera in it, as S9_Posing.60457274_000001.jpg of "
            f"Human3.6M or video_3/frame_000001.jpg of MPI-INF-3DHP, got {imgname!r}"
        )
    return moment


def group(
    annotations: Annotations, key: Callable[[str], Hashable] = same_moment, fewest: int = 2
) -> tuple[list[Annotations], Report]:
    """Group the views of one person at one moment.

    Args:
        annotations: People in images, one in each.
        key: Maps an image name to the part that its views share.
        fewest: Groups with fewer views are left out, as are groups with an image twice, whose
            people are ambiguous.

    Returns:
        The groups, in the order of their first rows, and the report.

    Raises:
        ValueError: ``key`` raises it.
    """
    rows_of: dict[Hashable, list[int]] = {}
    for row, name in enumerate(annotations.imgname.tolist()):
        rows_of.setdefault(key(name), []).append(row)
    report = Report("annotations", "views of one moment", "group", rows=len(rows_of))
    groups = []
    for moment, rows in rows_of.items():
        views = annotations[rows]
        if len(views) < fewest:
            report.leave_out(f"fewer than {fewest} views", [str(moment)])
        elif len(set(views.imgname.tolist())) < len(views):
            report.leave_out("several people in one image", [str(moment)])
        else:
            groups.append(views)
    report.kept = len(groups)
    return groups, report
