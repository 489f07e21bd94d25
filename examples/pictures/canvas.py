"""Pictures as arrays of pixels: overlays, rows, captions, files.

Pixel coordinates are continuous: x from 0 at the left edge to the width at the right, y downwards,
so that the centre of an image is half its size.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure

from examples.pictures.saving import save_figure
from examples.pictures.style import STYLE, UNCERTAINTY, Image
from flowprior.files.whole_file import whole_file

__all__ = [
    "PixelCanvas",
    "check_image",
    "gallery_picture",
    "lay_over",
    "save_image",
    "side_by_side",
]


class PixelCanvas:
    """Matplotlib axes that draw on a transparent image.

    Args:
        width: Pixels across.
        height: Pixels down.
    """

    def __init__(self, width: int, height: int) -> None:
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        figure.patch.set_alpha(0.0)
        self.canvas = FigureCanvasAgg(figure)
        self.ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self.ax.axis("off")

    def pixels(self) -> Image:
        """The drawing, (height, width, 4) RGBA, uint8, on a transparent background."""
        self.canvas.draw()  # type: ignore[no-untyped-call]
        return np.array(self.canvas.buffer_rgba())  # type: ignore[no-untyped-call]


def check_image(image: Image) -> Image:
    """Return an image (H, W, 3) uint8; raises ValueError for anything else."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise ValueError(
            f"expected an RGB image (H, W, 3) of uint8, got {image.shape} of {image.dtype}"
        )
    return image


def lay_over(image: Image, layer: Image) -> Image:
    """Lay a layer with transparency over an image.

    Args:
        image: (H, W, 3) RGB, uint8.
        layer: (H, W, 4) RGBA, uint8, the colour not multiplied by alpha.

    Returns:
        (H, W, 3) RGB, uint8; where the layer is fully transparent, the image's own pixels.

    Raises:
        ValueError: A shape or dtype is wrong, or the sizes differ.
    """
    image = check_image(image)
    if layer.shape != (*image.shape[:2], 4) or layer.dtype != np.uint8:
        raise ValueError(
            f"expected an RGBA layer {(*image.shape[:2], 4)} of uint8, "
            f"got {layer.shape} of {layer.dtype}"
        )
    alpha = layer[..., 3:].astype(np.float32) / 255
    mixed = alpha * layer[..., :3] + (1 - alpha) * image
    return np.rint(mixed).astype(np.uint8)


def side_by_side(images: Sequence[Image], background: str = "white", gap: int = 0) -> Image:
    """Set images side by side, each centred in the height of the tallest.

    Args:
        images: (H_i, W_i, 3) each, uint8.
        background: Colour of uncovered pixels.
        gap: Pixels between two images.

    Returns:
        (max H_i, sum of W_i + gaps, 3) uint8.

    Raises:
        ValueError: There is no image, or one is not (H, W, 3) of uint8.
    """
    if not images:
        raise ValueError("expected at least one image")
    images = [check_image(image) for image in images]
    height = max(image.shape[0] for image in images)
    width = sum(image.shape[1] for image in images) + gap * (len(images) - 1)
    strip = np.empty((height, width, 3), np.uint8)
    strip[:] = np.rint(255 * np.array(to_rgb(background)))
    left = 0
    for image in images:
        top = (height - image.shape[0]) // 2
        strip[top : top + image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1] + gap
    return strip


def save_image(path: Path, image: Image) -> None:
    """Write an image (H, W, 3) uint8 to a file atomically, PNG or JPEG by its suffix."""
    path = Path(path)
    with whole_file(path) as partial:
        matplotlib.image.imsave(
            partial, check_image(image), format=path.suffix[1:].lower() or "png"
        )


def gallery_picture(
    path: Path,
    images: Mapping[str, Image],
    *,
    title: str,
    note: str = "",
    columns: int | None = None,
    scale: tuple[str, float, float] | None = None,
) -> None:
    """Captioned images in rows, under one headline.

    Args:
        path: The PNG file to write.
        images: Caption and (H, W, 3) uint8 of each, in reading order.
        title: Headline.
        note: A line below it.
        columns: Images per row; all in one row by default.
        scale: Label, low and high end of a colour bar for spreads; None for no bar.

    Raises:
        ValueError: There is no image, or one is not (H, W, 3) of uint8.
    """
    if not images:
        raise ValueError("expected at least one image")
    names, pixels = list(images), [check_image(image) for image in images.values()]
    columns = min(columns or len(names), len(names))
    rows = [range(len(names))[start : start + columns] for start in range(0, len(names), columns)]
    gap, caption, head, margin = 12, 26, 74 if note else 52, 14
    heights = [max(pixels[index].shape[0] for index in row) for row in rows]
    widths = [sum(pixels[index].shape[1] for index in row) + gap * (len(row) - 1) for row in rows]
    bar = 96 if scale else 0
    width = max(*widths, 11 * len(title), 8 * len(note)) + 2 * margin + bar
    height = head + sum(heights) + caption * len(rows) + margin
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        top = head
        for row, row_height in zip(rows, heights, strict=True):
            left = margin
            for index in row:
                w = pixels[index].shape[1]
                x, y = (left + w / 2) / width, 1 - (top + caption / 2) / height
                figure.text(x, y, names[index], ha="center", va="center", fontsize=9.5)
                figure.figimage(pixels[index], left, height - top - caption - row_height)
                left += w + gap
            top += row_height + caption
        if scale:
            label, low, high = scale
            tall = 0.6 * sum(heights)
            right = margin + max(widths) + 20
            box = (right / width, (margin + 30) / height, 14 / width, tall / height)
            mappable = ScalarMappable(Normalize(low, high), UNCERTAINTY)
            figure.colorbar(mappable, cax=figure.add_axes(box), label=label)
        x = margin / width
        figure.text(x, 1 - 26 / height, title, fontsize=13, fontweight="bold", va="center")
        figure.text(x, 1 - 54 / height, note, fontsize=9, color="#5a5a63", va="center")
        save_figure(path, figure)
