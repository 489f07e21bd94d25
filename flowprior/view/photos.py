"""Photos of fits: read, turned upright as the keypoints are, and made smaller."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprior._optional import import_optional

__all__ = ["photo_array", "photo_jpeg"]

QUALITY = 80


def photo_jpeg(path: str, size: tuple[float, float], longest: int) -> bytes | None:
    """A photo as a small JPEG file.

    Args:
        path: The picture; "" for none.
        size: Width and height of the image that the keypoints refer to, pixels.
        longest: Largest width or height of the result, pixels.

    Returns:
        The bytes of the file; None if there is no such picture.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: The file is not a picture.
    """
    picture = _read(path, size, longest)
    if picture is None:
        return None
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def photo_array(path: str, size: tuple[float, float], longest: int) -> NDArray[np.uint8] | None:
    """A photo as an array (H, W, 3); arguments and errors as for `photo_jpeg`."""
    picture = _read(path, size, longest)
    return None if picture is None else np.array(picture)


def _read(path: str, size: tuple[float, float], longest: int) -> Any:  # noqa: ANN401, optional
    """The picture in RGB, at most ``longest`` pixels wide and high; None without one."""
    if not path or not Path(path).is_file():
        return None
    images, ops = (
        import_optional(module, purpose="A view of photos", package="pillow", extra="view")
        for module in ("PIL.Image", "PIL.ImageOps")
    )
    try:
        with images.open(path) as file:
            wide = (file.width > file.height) == (size[0] > size[1])
            file.draft("RGB", (longest, longest))  # reads a large JPEG at a fraction of its size
            # A camera held upright may store a turned picture and say so. Keypoints refer to one
            # of the two; the size that they came with says to which.
            picture = file if wide else ops.exif_transpose(file)
            picture = picture.convert("RGB")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    picture.thumbnail((longest, longest))
    return picture
