"""Answer the standard tasks with the priors of the library, and draw a picture of each.

    python -m examples.tasks.demo --out outputs/demo

Generation, completion, inverse kinematics, lifting from 2D keypoints, denoising and interpolation.
Nothing is trained. The poses are samples of the priors; figures on recorded poses of other people
are on the model cards.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.command_line import fail, interruptible, natural
from examples.pictures import (
    MODE,
    SAMPLES,
    TRUTH,
    body_views,
    gallery_picture,
    overlay_keypoints,
    upright_vertices,
)
from examples.pictures.style import Image
from examples.whole_files import prepare_folder, write_json
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.fitting import DEFAULT_PRIOR, denoise, fit_keypoints, interpolate, inverse_kinematics
from flowprior.keypoints import example_keypoints
from flowprior.prior.posterior import PosePrior
from flowprior.skeleton import COCO_17, SMPL_24

__all__ = ["TASKS", "Demo", "main"]

BODY_PRIOR = "flowprior/body-pose"
FIVE = ("head", "left_wrist", "right_wrist", "left_ankle", "right_ankle")
ARMS = ("collar", "shoulder", "elbow", "wrist")
NOISE = math.radians(15)


class Demo:
    """The tasks, each of which writes one picture and returns its figures.

    Args:
        out: Folder of the pictures.
        people: Prior over the 24 joints of people seen by a camera.
        body_pose: Prior over the 23 joints below the root.
    """

    def __init__(self, out: Path, people: PosePrior, body_pose: PosePrior) -> None:
        self.out, self.people, self.body_pose = out, people, body_pose
        self.body = BodyModel()
        self.faces = self.body.faces.numpy()
        self.marginal = body_pose.given()
        self.poses = self.marginal.sample(8)

    def generation(self) -> dict[str, float]:
        """Samples of the marginal, with their log-densities."""
        log_prob = self.marginal.log_prob(self.poses)
        images = self.views(self.poses, SAMPLES[0])
        captions = [f"{value:.0f} nats" + " " * row for row, value in enumerate(log_prob.tolist())]
        self._write(
            "generation", dict(zip(captions, images, strict=True)), "log-density", columns=4
        )
        return {"entropy_nats": float(self.marginal.entropy())}

    def completion(self) -> dict[str, float]:
        """Samples of both arms, the other joints known."""
        pose = self.poses[0]
        known = torch.ones(23, dtype=torch.bool)
        known[
            [SMPL_24.index(f"{side}_{name}") - 1 for side in ("left", "right") for name in ARMS]
        ] = 0
        posterior = self.body_pose.given(rotations=pose, known=known)
        theta = torch.cat([pose[None], posterior.mode()[None], posterior.sample(5)])
        colours = [TRUTH, MODE, *[SAMPLES[0]] * 5]
        names = ["original", "most likely", *(f"sample {row}" for row in range(1, 6))]
        self._write("completion", dict(zip(names, self.views(theta, colours), strict=True)),
                    "both arms are unknown, all other joints are kept exactly")  # fmt: skip
        return {"entropy_nats": float(posterior.entropy())}

    def inverse_kinematics(self) -> dict[str, float]:
        """All joints, then five of them."""
        target = self.joints(self.poses)
        everything = inverse_kinematics(self.body_pose, target)
        some = torch.full_like(target, torch.nan)
        five = [SMPL_24.index(name) for name in FIVE]
        some[:, five] = target[:, five]
        few = inverse_kinematics(self.body_pose, some[:1])
        samples = self.body_pose.given(joints_3d=some[0]).sample(3)
        theta = torch.cat([self.poses[:1], everything.theta[:1], few.theta, samples])
        names = (
            "original",
            "from all joints",
            "from five points",
            "sample 1",
            "sample 2",
            "sample 3",
        )
        colours = (TRUTH, MODE, MODE, *[SAMPLES[0]] * 3)
        self._write("inverse_kinematics", dict(zip(names, self.views(theta, colours), strict=True)),
                    "five points: wrists, ankles and head")  # fmt: skip
        return {
            "all_joints_error_mm": float(everything.error_mm.mean()),
            "five_points_error_mm": float(few.error_mm.mean()),
        }

    def lifting(self) -> dict[str, float]:
        """2D keypoints, one arm of the second person hidden."""
        keypoints = example_keypoints().repeat(2, 1, 1)
        hidden = [COCO_17.index(name) for name in ("right_elbow", "right_wrist")]
        keypoints[1, hidden, 2] = 0
        posterior = self.people.given(keypoints_2d=keypoints)
        modes, samples = posterior.mode(), posterior.sample(5)
        fits = fit_keypoints(keypoints, posterior, image_size=(340, 480), focal_px=600)
        around = upright_vertices(self.body, torch.cat([modes, samples.flatten(0, 1)]))
        images = {}
        for row, name in enumerate(("all seen", "right forearm hidden")):
            paper = np.full((480, 340, 3), 245, np.uint8)
            images[name] = overlay_keypoints(paper, keypoints[row].numpy(), COCO_17)[::2, ::2]
            for what, theta, look in (
                ("mode", modes[row], {"colours": MODE}),
                ("samples", samples[row], {"colours": [SAMPLES[0]] * 5, "alphas": 0.4}),
            ):
                vertices = upright_vertices(self.body, theta)
                images[f"{what}, {name}"] = body_views(
                    vertices, self.faces, views=("front", "side"), height=240, around=around, **look
                )
        self._write("lifting", images, "from the camera and from the side", columns=3)
        joints = self.body.keypoints(posterior.sample(200), SMPL_24)
        joints = joints - joints[:, :, :1]
        spread = (joints - joints.mean(dim=1, keepdim=True)).norm(dim=-1).mean(dim=1)
        wrist = SMPL_24.index("right_wrist")
        return {
            "spread_of_seen_wrist_cm": 100 * float(spread[0, wrist]),
            "spread_of_hidden_wrist_cm": 100 * float(spread[1, wrist]),
            "fit_error_px": float(fits.error_px.mean()),
        }

    def denoising(self) -> dict[str, float]:
        """Poses whose joints are turned at random."""
        turn = NOISE * torch.randn(*self.poses.shape[:2], 3)
        turn[:, 21:] = 0  # the hands are at rest
        matrix = rotations.rot6d_to_matrix(self.poses) @ rotations.rotvec_to_matrix(turn)
        noisy = rotations.matrix_to_rot6d(matrix)
        clean = denoise(self.body_pose, noisy, NOISE)
        target = self.joints(self.poses)
        error = [
            1000 * float((self.joints(theta) - target).norm(dim=-1).mean())
            for theta in (noisy, clean)
        ]
        theta = torch.stack([self.poses[:2], noisy[:2], clean[:2]], dim=1).flatten(0, 1)
        names = [f"{what} {row}" for row in (1, 2) for what in ("original", "noisy", "denoised")]
        colours = [TRUTH, SAMPLES[1], MODE] * 2
        self._write("denoising", dict(zip(names, self.views(theta, colours), strict=True)),
                    "noise of 15 degrees about each axis")  # fmt: skip
        return {"noisy_error_mm": error[0], "denoised_error_mm": error[1]}

    def interpolation(self) -> dict[str, float]:
        """A path between two poses."""
        path = interpolate(self.body_pose, self.poses[0], self.poses[1], 8)
        names = ["start", *(f"{row}/7" for row in range(1, 7)), "end"]
        self._write("interpolation", dict(zip(names, self.views(path, SAMPLES[0]), strict=True)),
                    "through the latent space; both ends are exact")  # fmt: skip
        return {"lowest_log_density_nats": float(self.marginal.log_prob(path).min())}

    def joints(self, theta: Tensor) -> Tensor:
        """Joints (..., 24, 3) of poses (..., 23, 6) in the frame of the root, metres."""
        root = theta.new_tensor([1.0, 0, 0, 0, 1, 0]).expand(*theta.shape[:-2], 1, 6)
        found = self.body.keypoints(torch.cat([root, theta], dim=-2), SMPL_24)
        return found - found[..., :1, :]

    def views(self, theta: Tensor, colours: str | Sequence[str]) -> list[Image]:
        """Pictures of poses (n, J, 6) from the front, in one frame."""
        vertices = upright_vertices(self.body, theta)
        shades = [colours] * len(vertices) if isinstance(colours, str) else colours
        return [
            body_views(
                each, self.faces, views=("front",), colours=shade, height=240, around=vertices
            )
            for each, shade in zip(vertices, shades, strict=True)
        ]

    def _write(
        self, name: str, images: dict[str, Image], note: str, columns: int | None = None
    ) -> None:
        title = name.replace("_", " ").capitalize()
        gallery_picture(self.out / f"{name}.png", images, title=title, note=note, columns=columns)


TASKS = ("generation", "completion", "inverse_kinematics", "lifting", "denoising", "interpolation")
"""Names of the tasks, methods of `Demo` and pictures."""


@interruptible("some pictures are missing")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tasks; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.tasks.demo",
        description="Answer the standard tasks with the priors of the library.",
        epilog="Written to --out: a picture of each task, and results.json.",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), metavar="DIR")
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of the samples")
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # small matrices lose with more, above all where cores are shared
    try:
        prepare_folder(args.out)
        (args.out / "results.json").unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        return fail(error)
    start = time.perf_counter()
    people, body_pose = (
        ConditionalPosePrior.from_pretrained(name).freeze() for name in (DEFAULT_PRIOR, BODY_PRIOR)
    )
    results: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        demo = Demo(args.out, people, body_pose)
        for name in TASKS:
            began = time.perf_counter()
            figures = getattr(demo, name)()
            results[name] = {**figures, "seconds": round(time.perf_counter() - began, 1)}
            shown = ", ".join(
                f"{key.replace('_', ' ')} {value:.1f}" for key, value in figures.items()
            )
            print(f"{name.replace('_', ' ')}: {shown}", flush=True)
    write_json(args.out / "results.json", results)
    print(f"{time.perf_counter() - start:.0f} s; the pictures are in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
