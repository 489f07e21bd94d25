"""Draw the picture of docs/data/crops.md: one person, cropped and augmented.

Run as ``python docs/drawings/crops_picture.py``.

The person is the embedded body in front of a drawn wall, so no photograph is needed.
"""

import math
from pathlib import Path

import numpy as np
import roma
import torch
from matplotlib.patches import Polygon

from examples.data.crop_augmentation import Augmentation, draw_augmentation
from examples.data.crops import CROP_PX, MEAN, STD, Labels, Regions, make_crops, to_pixels
from examples.data.procedural import sample_angles, to_rotation_vectors
from examples.pictures import Camera, gallery_picture, lay_over, overlay_bodies, overlay_keypoints
from examples.pictures.canvas import PixelCanvas
from flowprior.body import BodyModel
from flowprior.skeleton import BODY_25

PICTURE = Path(__file__).parents[1] / "_static" / "crops.png"

SHRINK = 3  # the image is shown that many times smaller
WIDTH, HEIGHT = SHRINK * 280, SHRINK * 224
HORIZON = 400
CAMERA = Camera(980.0, (WIDTH / 2, 338.0), (0.25, 0.2, 4.0))
POSE, SEED = 12, 7
MANNEQUIN = "#a9adb8"


def room() -> np.ndarray:
    """A wall with a window and a tiled floor (H, W, 3), which make rotations and flips visible."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    wall = np.stack([206 - 0.03 * x, 211 - 0.035 * x, 208 - 0.02 * x], axis=-1)
    depth = 1 / np.maximum(y - HORIZON, 1)
    tiles = (np.floor((x - WIDTH / 2) * depth * 4) + np.floor(440 * depth)) % 2
    floor = np.where(tiles[..., None] > 0, (168, 152, 134), (150, 133, 116))
    image = np.where(y[..., None] > HORIZON + 9, floor, wall)
    image[HORIZON : HORIZON + 10] = (235, 235, 232)
    image[60:240, 80:210] = (120, 120, 120)
    image[67:233, 87:203] = (168, 205, 235)
    image[67:233, 142:148] = image[147:153, 87:203] = (120, 120, 120)
    return image.astype(np.uint8)


def scene() -> tuple[np.ndarray, Labels, torch.Tensor, torch.Tensor]:
    """The image, the labels of the person in it, and the box: centre (1, 2), side (1,)."""
    body = BodyModel()
    angles = sample_angles(40, np.random.default_rng(2))[POSE : POSE + 1]
    theta = to_rotation_vectors(angles, np.array([-25.0]))
    # From y up to the camera's y down.
    half_turn = torch.tensor([[math.pi, 0.0, 0.0]])
    theta[:, 0] = roma.rotvec_composition([half_turn, theta[:, 0]])
    image = overlay_bodies(room(), body(theta).vertices[0].numpy(), body.faces.numpy(), CAMERA,
                           colours=MANNEQUIN)  # fmt: skip
    keypoints_3d = body.keypoints(theta)
    pixels = torch.from_numpy(CAMERA.project(keypoints_3d.numpy())).float()
    seen = torch.ones(1, 44, 1)
    labels = Labels(
        # The camera's pixels start at a corner, the crops' at a centre.
        torch.cat([pixels - 0.5, seen], dim=-1),
        torch.cat([keypoints_3d, seen], dim=-1),
        theta[:, 0],
        theta[:, 1:].flatten(1),
        torch.zeros(1, 10),
    )
    low, high = pixels.amin(dim=1), pixels.amax(dim=1)
    return image, labels, (low + high) / 2, 1.2 * (high - low).amax(dim=-1)


def with_keypoints(image: np.ndarray, keypoints_2d: torch.Tensor) -> np.ndarray:
    """OpenPose's part of keypoints (44, 3) in pixels over an image."""
    points = keypoints_2d[:25].double().numpy()
    points[:, :2] += 0.5
    return overlay_keypoints(np.ascontiguousarray(image), points, BODY_25)


def overview(
    image: np.ndarray, keypoints_2d: torch.Tensor, crop_from_image: torch.Tensor
) -> np.ndarray:
    """The image made small, with the person's keypoints and the outline of a crop."""
    height, width = HEIGHT // SHRINK, WIDTH // SHRINK
    small = image.reshape(height, SHRINK, width, SHRINK, 3).mean(axis=(1, 3)).astype(np.uint8)
    corners = torch.tensor([[[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]])
    outline = to_pixels(corners, crop_from_image)[0].numpy() / SHRINK
    canvas = PixelCanvas(width, height)
    canvas.ax.add_patch(Polygon(outline, fill=False, edgecolor="white", linewidth=1.6))
    scale = torch.tensor([1 / SHRINK, 1 / SHRINK, 1.0])
    return lay_over(with_keypoints(small, keypoints_2d * scale), canvas.pixels())


def main(path: Path = PICTURE) -> None:
    image, labels, center, box_size = scene()
    count = 9
    drawn = draw_augmentation(count, torch.Generator().manual_seed(SEED))
    rows = {
        name: torch.cat([nothing, value[1:]])
        for (name, value), nothing in zip(
            vars(drawn).items(), vars(Augmentation.none(1)).values(), strict=True
        )
    }
    # The last two are extreme crops whatever was drawn, at the hips and at the shoulders.
    rows["extreme"] = torch.arange(count) >= count - 2
    rows["extreme_choice"][-2:] = torch.tensor([0.3, 0.8])
    crops = make_crops(
        Regions.whole(
            torch.from_numpy(image).permute(2, 0, 1).expand(count, -1, -1, -1),
            center.expand(count, -1),
            box_size.expand(count),
        ),
        Labels(
            **{name: each.expand(count, *each.shape[1:]) for name, each in vars(labels).items()}
        ),
        Augmentation(**rows),
        antialias=True,
    )
    mean, std = (255 * torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    shown = (crops.images * std + mean).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    keypoints = crops.labels.keypoints_2d
    keypoints[..., :2] = CROP_PX * (keypoints[..., :2] + 0.5)
    pictures = [with_keypoints(crop, points) for crop, points in zip(shown, keypoints, strict=True)]
    names = ["crop", *(f"augmented {number}" for number in range(1, count - 2))]
    names += ["cut at the hips", "cut at the shoulders"]
    gallery_picture(
        path,
        {
            "image": overview(image, labels.keypoints_2d[0], crops.crop_from_image[:1]),
            **dict(zip(names, pictures, strict=True)),
        },
        title="One person, cropped and augmented",
        note="Left limbs are blue, right ones orange: in a mirror image left has become right.",
        columns=5,
    )


if __name__ == "__main__":
    main()
