"""Names of images: matching them between files, and file names for their people.

The path relative to a folder identifies an image, with the suffix: two cameras may have files of
the same name, and ``a.jpg``, ``a.png`` and ``a.b.png`` may lie side by side.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "IMAGE_SUFFIXES",
    "file_label",
    "image_label",
    "locate_image",
    "match_people",
    "number_people",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Suffixes of image files, in lower case."""

FORBIDDEN = re.compile(r'[%<>:"/\\|?*\x00-\x1f]')  # characters that a file system forbids
LONGEST = 150  # bytes of a name; file systems allow 255, of which suffixes take some


def image_label(image: str) -> str:
    """A unique label for the files of an image.

    Args:
        image: Path of the image, relative.

    Returns:
        The path in one file name, without a suffix of its own: ``left%2Fa.jpg``. The end of a long
        path, with its hash.
    """
    label = FORBIDDEN.sub(lambda match: f"%{ord(match[0]):02X}", image)
    if len(label.encode()) > LONGEST:
        digest = hashlib.sha256(image.encode()).hexdigest()[:16]
        label = f"{label.encode()[-LONGEST + 20 :].decode(errors='ignore')}~{digest}"
    return label


def file_label(image: str, person: int) -> str:
    """A unique label for the files of one person.

    Args:
        image: Path of the image, relative.
        person: Number of the person in the image.

    Returns:
        Path and number in one file name, without a suffix: ``left%2Fa.jpg_0``.
    """
    return f"{image_label(image)}_{person}"


def number_people(images: Iterable[str]) -> NDArray[np.int64]:
    """Number people within their images.

    Args:
        images: Image of each of N people.

    Returns:
        (N,) 0 for the first person of an image, 1 for the second, and so on.
    """
    seen: Counter[str] = Counter()
    numbers = []
    for image in images:
        numbers.append(seen[image])
        seen[image] += 1
    return np.array(numbers, np.int64)


def locate_image(folder: Path, name: str) -> str:
    """A name in this system's notation: with slashes if only that file exists.

    Args:
        folder: The folder that the name is relative to.
        name: A name from a file, perhaps written on Windows.
    """
    slashed = name.replace("\\", "/")
    return slashed if not (folder / name).is_file() and (folder / slashed).is_file() else name


def match_people(
    wanted: Sequence[tuple[str, int]], known: Sequence[tuple[str, int]], source: str
) -> list[int | None]:
    """Find people by image and number among others.

    Images match by their whole name. Keypoint files often omit suffix and folder; then the name
    matches the one image whose path ends with it.

    Args:
        wanted: Image and number of each of P people.
        known: Image and number of each of N people.
        source: Name of the file with the N people in messages.

    Returns:
        For each of the P people the index of the same person among the N, or None.

    Raises:
        ValueError: A name matches several images, or a person occurs twice.
    """
    rows: dict[tuple[str, int], list[int]] = {}
    for row, (image, number) in enumerate(known):
        rows.setdefault((_slashed(image), number), []).append(row)
    ends: dict[str, set[str]] = {}
    for image in {image for image, _ in rows}:
        parts = _bare(image).split("/")
        for first in range(len(parts)):
            ends.setdefault("/".join(parts[first:]), set()).add(image)
    images = {image for image, _ in rows}
    found: list[int | None] = []
    for given, number in wanted:
        image = _slashed(given)
        if image not in images and _bare(image) == image:
            fitting = ends.get(image, set())
            # A match of the whole path precedes a match of an end.
            fitting = {name for name in fitting if _bare(name) == image} or fitting
            if len(fitting) > 1:
                several = ", ".join(sorted(fitting)[:3])
                raise ValueError(
                    f"{source}: the image {given!r} may be any of {several}: name images by their "
                    "path in both files"
                )
            image = next(iter(fitting), image)
        places = rows.get((image, number), [])
        if len(places) > 1:
            raise ValueError(f"{source}: person {number} of {image} is there {len(places)} times")
        found.append(places[0] if places else None)
    taken = Counter(place for place in found if place is not None)
    for place, times in taken.items():
        if times > 1:
            image, number = known[place]
            raise ValueError(
                f"{source}: {times} people are all taken for person {number} of {image}"
            )
    return found


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _bare(name: str) -> str:
    """The name without the suffix of an image; other dots are part of the name."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name
