"""Photos of fits, made smaller."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprior._optional import import_optional
from flowprior.files.picture_file import read_picture

__all__ = ["photo_array", "photo_jpeg", "smaller_jpeg"]

QUALITY = 80


def photo_array(path: str, longest: int) -> NDArray[np.uint8] | None:
    """A photo, turned upright.

    Args:
        path: The picture; "" for none.
        longest: Largest width or height of the result, pixels.

    Returns:
        (H, W, 3); None without a picture, also where it has been moved or cannot be read.

    Raises:
        ImportError: Pillow is not installed.
    """
    if not path:
        return None
    try:
        return read_picture(path, longest=longest)
    except (OSError, ValueError):
        return None


def photo_jpeg(path: str, longest: int) -> bytes | None:
    """A photo as a JPEG file; arguments, None and errors as for `photo_array`."""
    photo = photo_array(path, longest)
    if photo is None:
        return None
    return _encoded(_pillow().fromarray(photo))


def smaller_jpeg(jpeg: bytes, longest: int) -> bytes:
    """A JPEG file of at most ``longest`` pixels of width and height; unchanged if it is."""
    picture = _pillow().open(io.BytesIO(jpeg))
    if max(picture.size) <= longest:
        return jpeg
    picture.thumbnail((longest, longest))
    return _encoded(picture)


def _encoded(picture: Any) -> bytes:  # noqa: ANN401, Pillow is optional
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _pillow() -> Any:  # noqa: ANN401, Pillow is optional
    return import_optional("PIL.Image", purpose="A page", package="pillow", extra="fit")
