"""One page with the fits of all images, opened from disk or mailed: `write_page`.

The page contains its photos, meshes and program, and refuses to load anything else. Its 3D view is
a renderer of our own for WebGL 2, ``static/scene.js``: shaded triangles and a camera that orbits a
point are all that bodies need. three.js would add a megabyte to each page, a bundler to the tools
and an upgrade every month; the scene that ``viser`` records has no sliders.
"""

import base64
import html
import json
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprior.body import BodyModel
from flowprior.files.whole_file import whole_file
from flowprior.results import Fits
from flowprior.results.bodies import body_of
from flowprior.results.colours import UNKNOWN
from flowprior.skeleton import BODY_25, shared_joints
from flowprior.view.colours import HEX_STOPS, Scale, confidence_scale, hex_colour
from flowprior.view.held_hands import BODY_JOINTS
from flowprior.view.meshes import STEP_M, pack, poses_of
from flowprior.view.photos import photo_jpeg, smaller_jpeg
from flowprior.view.skinned import can_pose, packed_rotations, skin_data

__all__ = ["write_page"]

COLOURS = {
    "fit": "#e8488a",
    "samples": ["#7a4fb5", "#eeb11d"],
    "other": "#b9bcc6",
    "bone": "#3b3e47",
}
"""The fit is pink and samples are purple and yellow, as in all pictures of the library."""

SPREAD = Scale(0.0, 200.0, "Spread of the samples at each point of the surface, mm")
SEEN = 0.1
"""Keypoints with a lower confidence were not used and are not drawn."""
IMAGES_PER_SECOND = 5
"""Of images that are no sequence."""
SIDES = ("left", "right")


@dataclass(frozen=True)
class Detail:
    """How much a page contains.

    Args:
        samples: Largest number of samples per person.
        photo_px: Largest width or height of a photo, pixels.
    """

    samples: int
    photo_px: int

    def at_most(self, other: "Detail") -> "Detail":
        """The smaller of both in each respect."""
        return Detail(min(self.samples, other.samples), min(self.photo_px, other.photo_px))


LESS = (Detail(8, 1024), Detail(4, 800), Detail(2, 640), Detail(0, 480))
"""What a page is reduced to, in this order, where it would be too large."""


def write_page(
    fits: Fits,
    path: str | os.PathLike[str],
    *,
    body: BodyModel | None = None,
    title: str = "Fitted bodies",
    num_samples: int = 16,
    photo_px: int = 1024,
    max_megabytes: float = 20.0,
) -> int:
    """Write one HTML page that shows fits: photos, bodies in 3D, samples, uncertainty.

    The images of a sequence play at its frame rate. For bodies without pose-dependent offsets the
    page then contains poses instead of vertices: about 5 kB per person and frame with 16 samples.

    The page needs neither a server nor a network. Its 3D view needs WebGL 2, which all browsers
    have had since 2022; without it the rest of the page works.

    Args:
        fits: The people. Photos are read from ``fits.image_path``; images without one are shown
            as keypoints and joints only, as are those whose photo has been moved.
        path: The page, in an existing folder.
        body: The body of the fits; needed unless it is the embedded one.
        title: Title of the page.
        num_samples: Largest number of samples per person.
        photo_px: Largest width or height of a photo in the page, pixels.
        max_megabytes: The page is reduced to this size, of 10^6 bytes, with fewer samples and
            smaller photos; if that does not suffice, it is larger. Mail servers usually accept
            attachments of 20 MB.

    Returns:
        Size of the page in bytes.

    Raises:
        ImportError: There are photos, and Pillow is not installed.
        ValueError: The body does not fit.
        OSError: The page cannot be written.
    """
    body = body_of(fits, body)
    full = Detail(min(num_samples, fits.samples.shape[1]), photo_px)
    photos = {name: photo_jpeg(name, photo_px) for name in set(fits.image_path.tolist())}
    page = _page(fits, body, title, full, photos).encode()
    limit, whole = max_megabytes * 1e6, len(page)
    for detail in dict.fromkeys(full.at_most(less) for less in LESS):
        if len(page) <= limit:
            break
        # Pages that would still be too large need not be made.
        last = detail == full.at_most(LESS[-1])
        if last or _expected(detail, full, whole, photos) <= limit:
            page = _page(fits, body, title, detail, photos).encode()
    with whole_file(path) as partial:
        partial.write_bytes(page)
    return len(page)


def _expected(
    detail: Detail, full: Detail, whole: int, photos: Mapping[str, bytes | None]
) -> float:
    """About how many bytes a page in less detail has, from the size of the whole one."""
    pictures = 4 / 3 * sum(len(photo) for photo in photos.values() if photo)
    smaller = (detail.photo_px / full.photo_px) ** 2
    return pictures * smaller + (whole - pictures) * (detail.samples + 1) / (full.samples + 1)


def _page(
    fits: Fits, body: BodyModel, title: str, detail: Detail, photos: Mapping[str, bytes | None]
) -> str:
    """The text of a page."""
    static = files("flowprior.view") / "static"
    confidence = confidence_scale(fits.confidence_distance_mm)
    data = _data(fits, body, detail, confidence, photos)
    count = max((person["poses"] - 1 for person in data["people"] if person["mesh"]), default=0)
    left_out = f"; {count} of {fits.samples.shape[1]} samples" * (count < fits.samples.shape[1])
    texts = {
        "title": html.escape(title),
        "stops": ", ".join(HEX_STOPS),
        "confidence_label": html.escape(confidence.label),
        "confidence_ticks": _ticks(confidence),
        "spread_label": html.escape(SPREAD.label),
        "spread_ticks": _ticks(SPREAD),
        "distance": f"{fits.confidence_distance_mm:.0f}",
        "footer": html.escape(
            f"{_counted(fits)}{left_out}. Written by flowprior; "
            "everything on this page is in this file."
        ),
        # A closing tag within a string would end the script.
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    texts |= {
        name: (static / file).read_text(encoding="utf-8")
        for name, file in (
            ("css", "page.css"),
            ("scene", "scene.js"),
            ("skin", "skin.js"),
            ("page", "page.js"),
        )
    }
    head, *parts = (static / "page.html").read_text(encoding="utf-8").split("{{")
    filled = [head]
    for part in parts:  # one pass: what is filled in may itself contain braces
        name, _, rest = part.partition("}}")
        filled += [texts[name], rest]
    return "".join(filled)


def _data(
    fits: Fits,
    body: BodyModel,
    detail: Detail,
    confidence: Scale,
    photos: Mapping[str, bytes | None],
) -> dict[str, Any]:
    """Everything that ``page.js`` reads, as JSON holds it."""
    people = [_person(fits, row, body, detail) for row in range(len(fits))]
    images = []
    for name in fits.images:
        rows = np.flatnonzero(fits.image == name).tolist()
        first = rows[0]
        jpeg = photos[str(fits.image_path[first])]
        jpeg = jpeg and smaller_jpeg(jpeg, detail.photo_px)
        width, height = _canvas(fits, rows)
        photo = jpeg and f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
        images.append(
            {"name": name, "width": width, "height": height, "photo": photo, "people": rows}
        )
    faces = body.faces.cpu().numpy().astype("<u4")
    skeleton, joints = fits.skeleton, fits.kind.skeleton
    fine = [*range(BODY_JOINTS, joints.num_joints)] if fits.hands is not None else []
    knuckles = {side: joints.joint_names.index(f"{side}_middle1") for side in SIDES if fine}
    body_keypoints = shared_joints(skeleton, BODY_25)[0]
    return {
        "images": images,
        "people": people,
        "faces": base64.b64encode(zlib.compress(faces.tobytes(), 9)).decode("ascii"),
        "step_m": STEP_M,
        "joint_names": joints.joint_names,
        "parents": joints.parents,
        "fine_joints": fine,
        "hands": knuckles or None,
        "keypoint_names": skeleton.joint_names,
        "keypoint_bones": [
            [parent, joint] for joint, parent in enumerate(skeleton.parents) if parent >= 0
        ],
        "fine_keypoints": [
            place for place in range(skeleton.num_joints) if place not in body_keypoints
        ],
        "seen": SEEN,
        "distance_mm": float(fits.confidence_distance_mm),
        "confidence": {"certain": confidence.certain, "uncertain": confidence.uncertain},
        "spread": {"certain": SPREAD.certain, "uncertain": SPREAD.uncertain},
        "stops": HEX_STOPS,
        "unknown": hex_colour(UNKNOWN),
        "colours": COLOURS,
        "images_per_second": fits.fps or IMAGES_PER_SECOND,
        "skin": skin_data(fits, body) if can_pose(fits, body) else None,
    }


def _person(fits: Fits, row: int, body: BodyModel, detail: Detail) -> dict[str, Any]:
    """One person, as JSON holds them; without a mesh where there is no finite fit."""
    person: dict[str, Any] = {
        "person": int(fits.person[row]),
        "status": str(fits.status[row]),
        "keypoints": _numbers(np.nan_to_num(fits.keypoints_2d[row]), 2),
        "confidence": _numbers(fits.joint_confidence[row], 3),
        "std_mm": _numbers(fits.joint_std_mm[row], 1),
        "radius_50_mm": _numbers(fits.joint_radius_50_mm[row], 1),
        "radius_90_mm": _numbers(fits.joint_radius_90_mm[row], 1),
        "std_deg": _numbers(fits.rotation_std_deg[row], 1),
        "radius_90_deg": _numbers(fits.rotation_radius_90_deg[row], 1),
        "reprojection_px": _numbers(fits.reprojection_px[[row]], 2)[0],
        "log_prob": _numbers(fits.log_prob[[row]], 2)[0],
        "hands": None if fits.hands is None else fits.hands[row].tolist(),
        "mesh": None,
        "poses": 0,
    }
    poses = poses_of(fits, row, body, detail.samples)
    if poses is None:
        return person
    origin = np.round(poses.joints[0, 0].astype(np.float64), 4)
    depth = poses.joints[0, :, 2:]
    pixels = fits.focal_px[row] * poses.joints[0, :, :2] / depth + fits.centre_px[row]
    in_front = bool((depth > 0).all() and np.isfinite(pixels).all())
    placed = person | {
        "origin": origin.tolist(),
        "poses": len(poses.vertices),
        "points": _numbers(pixels, 1) if in_front else None,
    }
    if can_pose(fits, body):
        vectors = np.concatenate([fits.rotations[row][None], fits.samples[row][: detail.samples]])
        finite = np.isfinite(vectors).all(axis=(1, 2))
        return placed | {"mesh": packed_rotations(vectors[finite]), "joints": None}
    return placed | {
        "mesh": pack(poses.vertices, origin),
        "joints": np.rint(1000 * poses.joints).astype(int).reshape(len(poses.joints), -1).tolist(),
    }


def _canvas(fits: Fits, rows: list[int]) -> tuple[float, float]:
    """Width and height of the drawing of an image; where unknown, of what is drawn in it."""
    width, height = (float(value) for value in fits.image_size[rows[0]])
    if math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0:
        return width, height
    seen = fits.keypoints_2d[rows].reshape(-1, 3)
    seen = seen[(seen[:, 2] > SEEN) & np.isfinite(seen).all(axis=1)]
    far = seen[:, :2].max(axis=0, initial=1.0)
    return float(far[0]) * 1.1, float(far[1]) * 1.1


def _numbers(values: NDArray[Any], digits: int) -> list[Any]:
    """Rounded numbers as JSON holds them, None for NaN and infinity."""
    rounded = np.round(np.asarray(values, np.float64), digits)
    known = rounded.astype(object)
    known[~np.isfinite(rounded)] = None
    return known.tolist()


def _counted(fits: Fits) -> str:
    """How many people and images there are."""
    if fits.fps is None:
        return f"{len(fits)} people in {len(fits.images)} images"
    tracks = len(np.unique(fits.person))
    return f"{tracks} people in {len(fits.images)} frames at {fits.fps:g} per second"


def _ticks(scale: Scale) -> str:
    return "".join(f"<span>{html.escape(tick)}</span>" for tick in scale.ticks())
