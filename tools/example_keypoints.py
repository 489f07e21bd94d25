"""Write ``examples/keypoints/people.json``, the keypoints that ``make demo`` fits.

    python -m tools.example_keypoints

Three images: somebody of `flowprior.keypoints.example_keypoints`; the same with a hidden forearm;
and four bodies in embedded poses, which stand on one floor in front of one camera.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.data.poses import load_poses
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.fitting import facing
from flowprior.keypoints import example_keypoints
from flowprior.skeleton import COCO_17

OUT = Path(__file__).parents[1] / "examples" / "keypoints" / "people.json"
GROUP = (1280, 720)
FOCAL_PX = 1000.0
CAMERA_HEIGHT_M = 1.35
PLACES_M = ((-2.0, 5.4), (-0.75, 4.9), (0.65, 6.0), (2.1, 5.2))  # x and z of each
HEADINGS = (35.0, -20.0, 10.0, -50.0)
NOISE_PX = 1.5


def group(seed: int = 4) -> Tensor:
    """Keypoints (4, 17, 3) of four people in front of one camera, with a detector's noise."""
    generator = torch.Generator().manual_seed(seed)
    poses = torch.from_numpy(load_poses(None, 0).rotvecs("test"))
    rows = torch.randint(len(poses), (len(PLACES_M),), generator=generator)
    matrix = rotations.rotvec_to_matrix(poses[rows])
    matrix[:, 0] = rotations.rot6d_to_matrix(facing(torch.tensor(HEADINGS)))
    betas = torch.randn(len(rows), 10, generator=generator)
    body = BodyModel()
    lowest = body(matrix, betas).vertices[..., 1].amax(dim=1)  # y points down
    transl = torch.tensor([[x, 0.0, z] for x, z in PLACES_M])
    transl[:, 1] = CAMERA_HEIGHT_M - lowest
    points = body.keypoints(matrix, COCO_17, betas) + transl[:, None]
    pixels = FOCAL_PX * points[..., :2] / points[..., 2:] + torch.tensor(GROUP) / 2
    pixels = pixels + NOISE_PX * torch.randn(pixels.shape, generator=generator)
    conf = torch.rand((*pixels.shape[:2], 1), generator=generator) * 0.3 + 0.7
    return torch.cat([pixels, conf], dim=-1)


def content() -> dict[str, Any]:
    """The file: COCO annotations."""
    seen = example_keypoints()
    hidden = seen.clone()
    hidden[[COCO_17.index(f"right_{name}") for name in ("elbow", "wrist")]] = 0
    images = [
        {"id": 1, "file_name": "person.png", "width": 340, "height": 480},
        {"id": 2, "file_name": "hidden_forearm.png", "width": 340, "height": 480},
        {"id": 3, "file_name": "group.png", "width": GROUP[0], "height": GROUP[1]},
    ]
    people = [(1, seen), (2, hidden), *((3, each) for each in group())]
    annotations = [
        {
            "id": row + 1,
            "image_id": image,
            "category_id": 1,
            "num_keypoints": int((points[:, 2] > 0).sum()),
            "keypoints": [round(float(value), 2) for value in points.flatten()],
        }
        for row, (image, points) in enumerate(people)
    ]
    category = {"id": 1, "name": "person", "keypoints": list(COCO_17.joint_names)}
    return {"images": images, "annotations": annotations, "categories": [category]}


def main() -> int:
    """Write the file; returns the exit code."""
    OUT.write_text(json.dumps(content(), indent=1) + "\n", encoding="utf-8")
    print(OUT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
