"""What the model sees in images: the mode and samples over the crop, and from the side."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.data.crops import MEAN, STD
from examples.data.images import ImageBatch
from examples.data.weak_perspective import FOCAL_PX, crop_translation
from examples.pictures.images import save_image, side_by_side
from examples.pictures.meshes import body_views
from examples.pictures.rendering import Camera, overlay_bodies
from examples.pictures.style import MODE, SAMPLES
from examples.prohmr.judging import crop_batch
from examples.prohmr.model import Prediction, ProHMR
from flowprior.body import BodyModel

__all__ = ["crop_camera", "crop_picture", "person_picture", "sheet_of_predictions"]

Picture = NDArray[np.uint8]

SIDE_PX = 224


def crop_picture(crop: Tensor, side: int = SIDE_PX) -> Picture:
    """A normalised crop (3, S, S) as a picture (side, side, 3)."""
    mean, std = (crop.new_tensor(each)[:, None, None] for each in (MEAN, STD))
    pixels = (255 * (crop.float() * std + mean)).round().clamp(0, 255).byte()
    image = pixels.permute(1, 2, 0).cpu().numpy()
    how = cv2.INTER_CUBIC if side > len(image) else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, (side, side), interpolation=how), np.uint8)


def crop_camera(camera: Tensor, side: int = SIDE_PX) -> Camera:
    """The weak perspective (3,) of a crop, as a camera over a picture of it."""
    x, y, depth = (float(value) for value in crop_translation(camera.detach().double().cpu()))
    # Labels count from the centre of the first pixel, cameras from its edge.
    middle = side / 2 + 0.5
    return Camera(FOCAL_PX * side / 224, (middle, middle), (x, y, depth))


@torch.no_grad()
def person_picture(
    crop: Tensor,
    prediction: Prediction,
    row: int,
    body: BodyModel,
    *,
    samples: int = 6,
    generator: torch.Generator | None = None,
) -> Picture:
    """One person: the crop, the mode over it, samples over it, and all of them from the side.

    Args:
        crop: (3, S, S), normalised.
        prediction: Of a batch.
        row: Which of the batch.
        body: On the device of the prediction.
        samples: How many.
        generator: Source of the samples.

    Returns:
        (224, W, 3) uint8.
    """
    image = crop_picture(crop)
    posterior = prediction.posterior.prior(prediction.context[row : row + 1])
    theta = torch.cat(
        [posterior.mode()[:, None], posterior.sample(samples, generator=generator)], dim=1
    )
    vertices = body(theta, prediction.betas[row : row + 1]).vertices[0].double().cpu().numpy()
    faces = body.faces.cpu().numpy()
    camera = crop_camera(prediction.camera[row])
    colours = [SAMPLES[index % len(SAMPLES)] for index in range(samples)]
    upright = vertices * np.array([1.0, -1.0, -1.0])
    behind = body_views(
        upright[1:], faces, views=("side",), colours=colours, alphas=0.35, height=SIDE_PX,
        around=upright,
    )  # fmt: skip
    side = body_views(
        upright[0], faces, views=("side",), colours=MODE, height=SIDE_PX, background=behind,
        around=upright,
    )  # fmt: skip
    panels = [image]
    # A camera that training has not settled yet may see nothing at all.
    if camera.translation[2] + vertices[..., 2].min() > 0:
        panels.append(overlay_bodies(image, vertices[0], faces, camera, colours=MODE))
        panels.append(
            overlay_bodies(image, vertices[1:], faces, camera, colours=colours, alphas=0.4)
        )
    else:
        panels += [image, image]
    return side_by_side([*panels, _widened(side, SIDE_PX)])


def sheet_of_predictions(
    path: Path, model: ProHMR, body: BodyModel, images: ImageBatch, people: int = 8
) -> None:
    """Write a picture of the first people of a batch, two in a row.

    Args:
        path: The file to make, in a folder that is made too.
        model: In evaluation mode.
        body: On its device.
        images: On its device.
        people: How many.
    """
    crops = crop_batch(images, model.size)
    generator = torch.Generator(crops.images.device).manual_seed(0)
    with torch.no_grad():
        prediction = model(crops.images)
    rows = [
        person_picture(crops.images[row], prediction, row, body, generator=generator)
        for row in range(min(people, len(images)))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(path, _grid(rows, columns=2))


def _widened(picture: Picture, width: int) -> Picture:
    """Paper on both sides, or the middle, so that all are of one width."""
    missing = max(0, width - picture.shape[1])
    picture = np.pad(
        picture, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)), constant_values=255
    )
    start = (picture.shape[1] - width) // 2
    return picture[:, start : start + width]


def _grid(pictures: Sequence[Picture], columns: int) -> Picture:
    filled = [*pictures]
    while len(filled) % columns:
        filled.append(np.full_like(filled[0], 255))
    rows = [side_by_side(filled[i : i + columns], gap=8) for i in range(0, len(filled), columns)]
    return np.concatenate(rows)
