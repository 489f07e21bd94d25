"""Pictures on disk: pixels as the camera was held, their size, and the focal length in EXIF."""

import contextlib
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowprior._optional import import_optional
from flowprior.files.file_kind import not_the_file
from flowprior.files.limits import Refusal, require_pixels, require_regular
from flowprior.files.whole_file import whole_file

__all__ = ["PICTURE_SUFFIXES", "Pixels", "picture_facts", "read_picture", "write_picture"]

Pixels: TypeAlias = NDArray[np.uint8]
"""A picture (H, W, 3) of red, green and blue."""

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Suffixes of picture files, in lower case."""

_FILM_DIAGONAL_MM = math.hypot(36, 24)
_EXIF, _FOCAL_35MM = 0x8769, 0xA405


def read_picture(path: str | os.PathLike[str], *, longest: int = 0) -> Pixels:
    """Read a picture, turned as EXIF says.

    Args:
        path: The file.
        longest: Largest width or height, pixels; larger pictures are made smaller. 0 for any.

    Returns:
        (H, W, 3) red, green and blue.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: Pillow is not installed.
        ValueError: The file is no picture, is damaged, or is too large to be decoded safely.
    """
    with _opened(path) as picture:
        if longest:
            picture.draft("RGB", (longest, longest))  # decodes a large JPEG at a fraction
        upright = _pillow("PIL.ImageOps").exif_transpose(picture).convert("RGB")
        if longest:
            upright.thumbnail((longest, longest))
        return np.asarray(upright, np.uint8).copy()


def picture_facts(path: str | os.PathLike[str]) -> tuple[tuple[int, int], float | None]:
    """Size and focal length of a picture, without decoding its pixels.

    Args:
        path: The file.

    Returns:
        Width and height in pixels, as the camera was held; the focal length in pixels according to
        EXIF's 35 mm equivalent, None without it.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: Pillow is not installed.
        ValueError: The file is no picture, is damaged, or is too large.
    """
    with _opened(path) as picture:
        width, height = picture.size
        exif = picture.getexif()
        if exif.get(0x0112, 1) in (5, 6, 7, 8):  # stored on its side
            width, height = height, width
        equivalent = exif.get_ifd(_EXIF).get(_FOCAL_35MM)
    focal = None
    if isinstance(equivalent, int | float) and 5 <= equivalent <= 2000:
        focal = float(equivalent) / _FILM_DIAGONAL_MM * math.hypot(width, height)
    return (int(width), int(height)), focal


def write_picture(path: str | os.PathLike[str], pixels: Pixels, *, longest: int = 0) -> None:
    """Write a picture in the format of its suffix.

    Args:
        path: The file.
        pixels: (H, W, 3).
        longest: Largest width or height, pixels; larger pictures are made smaller. 0 for any.

    Raises:
        ImportError: Pillow is not installed.
        OSError: The file cannot be written.
    """
    picture = _pillow("PIL.Image").fromarray(pixels)
    if longest:
        picture.thumbnail((longest, longest))
    target = Path(path)
    kind = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(target.suffix.lower(), "PNG")
    with whole_file(target) as partial, partial.open("wb") as file:
        picture.save(file, kind, **({"quality": 88} if kind == "JPEG" else {}))


@contextlib.contextmanager
def _opened(given: str | os.PathLike[str]) -> Iterator[Any]:
    """An open Pillow image; errors name the file."""
    path = Path(given)
    images = _pillow("PIL.Image")
    size = require_regular(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit of flowprior.files.limits applies
            with images.open(path) as picture:
                width, height = picture.size
                require_pixels(width, height, size)
                yield picture
    except Refusal as refusal:
        raise ValueError(f"{path} {refusal}") from None
    # On damaged files, Pillow raises almost anything.
    except Exception as error:
        found = not_the_file(path)
        if found and "image" not in found:
            raise ValueError(f"{path} is not a picture: it {found}") from error
        raise ValueError(f"{path} is not a picture, or a damaged one ({error!s:.200})") from error


def _pillow(module: str) -> Any:  # noqa: ANN401, Pillow is optional
    return import_optional(module, purpose="Reading pictures", package="pillow", extra="fit")
