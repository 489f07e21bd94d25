"""What the model sees in images: the mode and samples over the crop, and from the side; fits."""

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
from examples.fitting.outputs import mark
from examples.pictures.images import save_image, side_by_side
from examples.pictures.meshes import body_views
from examples.pictures.rendering import Camera, overlay_bodies
from examples.pictures.style import MODE, SAMPLES
from examples.prohmr.fits import FEWEST_KEYPOINTS, ImageFitter, Seen
from examples.prohmr.judging import crop_batch
from examples.prohmr.model import Prediction, ProHMR
from flowprior.body import BodyModel
from flowprior.fitting import Fits
from flowprior.keypoints import LEAST_CONF

__all__ = [
    "FITTED",
    "crop_camera",
    "crop_picture",
    "fit_picture",
    "person_picture",
    "sheet_of_predictions",
    "sheets_of_fits",
    "views_picture",
]

Picture = NDArray[np.uint8]

SIDE_PX = 224
FITTED = "#55a868"  # green, as in the paper's figure 10


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


@torch.no_grad()
def fit_picture(
    crop: Tensor, prediction: Prediction, fits: Fits, row: int, seen: Seen, body: BodyModel
) -> Picture:
    """One person before and after a fit: the paper's figure 10.

    Args:
        crop: (3, S, S), normalised.
        prediction: Of a batch.
        fits: Of the same batch.
        row: Which of the batch.
        seen: The same batch.
        body: On the device of the prediction.

    Returns:
        (224, W, 3) uint8: the crop with the keypoints, the regression and the fit over it, both
        from the side.
    """
    image = crop_picture(crop)
    zoom = SIDE_PX / float(seen.box_size[row])
    corner = seen.center[row] - seen.box_size[row] / 2
    keypoints = seen.keypoints_2d[row]
    places = (keypoints[keypoints[:, 2] > LEAST_CONF, :2] - corner) * zoom
    after = _camera_of_fit(
        fits.focal_px[row], fits.principal_point_px[row], fits.transl[row], seen, row
    )
    one = slice(row, row + 1)
    mode = prediction.posterior.mode()[one]
    panels, sides = [mark(image, places.cpu().numpy())], []
    for theta, betas, camera, colour in (
        (mode, prediction.betas[one], crop_camera(prediction.camera[row]), MODE),
        (fits.theta[one], fits.betas[one], after, FITTED),
    ):
        vertices = body(theta, betas).vertices[0].double().cpu().numpy()
        panels.append(_overlay(image, vertices, body, camera, colour))
        sides.append(_from_the_side(vertices, body, colour))
    return side_by_side([*panels, *sides])


@torch.no_grad()
def views_picture(
    crops: Tensor, prediction: Prediction, fitter: ImageFitter, seen: Seen
) -> Picture:
    """One person in several views, each alone and all together: the paper's figure 5.

    Args:
        crops: (V, 3, S, S), normalised.
        prediction: Of the views.
        fitter: Of the model.
        seen: The views.

    Returns:
        (H, W, 3) uint8: a column for each view, with the crop, the regression over it and from the
        side, and the same of the one body of all views.
    """
    with torch.enable_grad():
        refined = fitter.refine(prediction, seen, [range(len(crops))])
    cameras = fitter.cameras(seen)
    placed = fitter.options.views.keypoints > 0
    mode = prediction.posterior.mode()
    columns = []
    for view, crop in enumerate(crops):
        image = crop_picture(crop)
        regressed = crop_camera(prediction.camera[view])
        found = _camera_of_fit(
            cameras.focal_px[view],
            cameras.principal_point_px[view],
            refined.transl[0, view],
            seen,
            view,
        )
        one = slice(view, view + 1)
        column = [image]
        for theta, betas, camera, colour in (
            (mode[one], prediction.betas[one], regressed, MODE),
            # Without terms of the keypoints, nothing has moved anybody.
            (refined.together[0, one], refined.betas, found if placed else regressed, FITTED),
        ):
            vertices = fitter.body(theta, betas).vertices[0].double().cpu().numpy()
            column.append(_overlay(image, vertices, fitter.body, camera, colour))
            column.append(_from_the_side(vertices, fitter.body, colour))
        columns.append(np.concatenate(column))
    return side_by_side(columns, gap=8)


def _camera_of_fit(
    focal_px: Tensor, principal_px: Tensor, transl: Tensor, seen: Seen, row: int
) -> Camera:
    """A camera of an image, over the picture of the crop."""
    zoom = SIDE_PX / float(seen.box_size[row])
    corner = seen.center[row] - seen.box_size[row] / 2
    across, down = ((principal_px - corner) * zoom + 0.5).tolist()
    x, y, depth = transl.tolist()
    return Camera(float(focal_px) * zoom, (across, down), (x, y, depth))


def _overlay(
    image: Picture, vertices: NDArray[np.float64], body: BodyModel, camera: Camera, colour: str
) -> Picture:
    # A camera that training has not settled yet may see nothing at all.
    if camera.translation[2] + vertices[:, 2].min() <= 0:
        return image
    return overlay_bodies(image, vertices, body.faces.cpu().numpy(), camera, colours=colour)


def _from_the_side(vertices: NDArray[np.float64], body: BodyModel, colour: str) -> Picture:
    upright = vertices * np.array([1.0, -1.0, -1.0])
    faces = body.faces.cpu().numpy()
    picture = body_views(upright, faces, views=("side",), colours=colour, height=SIDE_PX)
    return _widened(picture, SIDE_PX)


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


def sheets_of_fits(
    out: Path,
    fitter: ImageFitter,
    model: ProHMR,
    images: ImageBatch,
    groups: Sequence[Sequence[int]],
    name: str,
    people: int = 6,
) -> None:
    """Write ``fits_NAME.png`` and, of the first two people in several views, ``views_NAME.png``.

    Args:
        out: An existing folder.
        fitter: Of the model.
        model: In evaluation mode.
        images: On its device.
        groups: For each person in several views the rows of these.
        name: Of the data set.
        people: How many fits to draw, of those who have keypoints.
    """
    crops = crop_batch(images, model.size).images
    seen = Seen.of(images)
    some = (images.valid & (fitter.countable(seen.keypoints_2d) >= FEWEST_KEYPOINTS)).nonzero()
    rows = some[:people, 0]
    with torch.no_grad():
        context = model(crops).context
    if len(rows):
        prediction = model.predict(context[rows])
        fits = fitter.fit(prediction, seen[rows])
        pictures = [
            fit_picture(crops[row], prediction, fits, place, seen[rows], fitter.body)
            for place, row in enumerate(rows.tolist())
        ]
        save_image(out / f"fits_{name}.png", _grid(pictures, columns=1))
    pictures = []
    for group in groups[:2]:
        views = torch.tensor([row for row in group if images.valid[row]], device=crops.device)
        if len(views):
            with torch.no_grad():
                prediction = model.predict(context[views])
            pictures.append(views_picture(crops[views], prediction, fitter, seen[views]))
    if pictures:
        save_image(out / f"views_{name}.png", side_by_side(pictures, gap=24))


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
