"""Fit one body pose to several uncalibrated views.

    python -m examples.fitting.fit_views --data left.json front.json right.json --prior DIR

Each file contains one view: keypoints of one person in OpenPose's or COCO's format. Without
``--data``, people in embedded poses are seen in four views each. The rotations of the body must
agree between the views; the root is free in each. ``keypoints=1`` adds the reprojection errors, and
with them one shape for all views.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.command_line import fail, interruptible, positive
from examples.data.poses import load_poses
from examples.fitting.choices import (
    add_prior_argument,
    given_context,
    open_priors,
    to_body_25,
)
from examples.fitting.synthetic import (
    FOCAL_PX,
    IMAGE_PX,
    People,
    detect,
    hide,
    photograph_bodies,
)
from examples.pictures import MODE, body_views, gallery_picture, write_glb
from examples.pictures.style import Image
from examples.pinhole import flip_yz
from examples.training.settings import with_overrides
from examples.whole_files import prepare_folder, save_npz, write_json
from flowprior.body import BodyModel
from flowprior.fitting import MultiviewWeights, ViewFits, fit_views
from flowprior.keypoint_files.detections import read_detections
from flowprior.metrics import mpjpe, pa_mpjpe
from flowprior.skeleton import BODY_25

__all__ = ["REFINED", "main"]

REFINED = "#55a868"  # green, as in the paper's figure 5
EMBEDDED_PEOPLE = 3
EMBEDDED_VIEWS = 4


def embedded_views(
    rotvecs: Tensor, body: BodyModel, views: int, generator: torch.Generator
) -> tuple[People, Tensor]:
    """People in poses (B, 24, 3), each in several views, and their detections (B V, 25, 3)."""
    people = photograph_bodies(rotvecs.repeat_interleave(views, dim=0), body, generator, shape=0.0)
    lost = hide(people.keypoints, generator, truncated=0.4, limb=0.4)
    return people, detect(people.keypoints, lost, generator)


@torch.no_grad()
def view_errors(
    theta: Tensor, truth: Tensor, body: BodyModel, betas: Tensor | None = None
) -> tuple[float, float]:
    """MPJPE and PA-MPJPE over all views, millimetres.

    Args:
        theta: (N, 24, 3, 3) rotations.
        truth: (N, 24, 3) ground-truth joints, metres, camera frame.
        body: The body.
        betas: (N, 10) shape.
    """
    joints = body(theta, betas).joints
    error = mpjpe(joints - joints[:, :1], truth - truth[:, :1])
    return 1000 * float(error.mean()), 1000 * float(pa_mpjpe(joints, truth).mean())


@torch.no_grad()
def draw(refined: ViewFits, person: int, body: BodyModel, path: Path) -> None:
    """Draw each view alone, in pink, and the joint fit, in green, as in the paper's figure 5."""
    pictures: dict[str, Image] = {}
    faces = body.faces.numpy()
    views = refined.mask[person].nonzero()[:, 0].tolist()
    for title, theta, colour in (
        ("alone", refined.first, MODE),
        ("together", refined.theta, REFINED),
    ):
        for view in views:
            posed = body(theta[person, view][None], refined.betas[person][None])
            vertices = flip_yz((posed.vertices[0] - posed.joints[0, :1]).numpy())
            pictures[f"view {view + 1} {title}"] = body_views(
                vertices, faces, views=("front", "side"), colours=colour, height=230
            )
    before, after = torch.rad2deg(refined.disagreement[person]).tolist()
    gallery_picture(
        path,
        pictures,
        title=f"One person in {len(views)} views, each from the camera and from its side",
        note=f"Rotations differ from their mean by {before:.0f}° before and {after:.1f}° after.",
        columns=len(views),
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.fitting.fit_views",
        description="Fit one body pose to several uncalibrated views.",
    )
    parser.add_argument("--data", type=Path, nargs="+", metavar="FILE", help="keypoints of "
                        "each view, or poses with --evaluate; embedded if left out")  # fmt: skip
    parser.add_argument("--evaluate", type=int, metavar="N", help="judge on N held-out poses")
    parser.add_argument("--views", type=int, default=EMBEDDED_VIEWS, metavar="N", help="of these")
    add_prior_argument(parser)
    parser.add_argument("--context", type=Path, metavar="FILE", help="npz with context (N, C) and "
                        "perhaps betas (N, 10) of a network of your own")  # fmt: skip
    parser.add_argument("--body", type=Path, metavar="FILE", help="SMPL file; embedded if left out")
    parser.add_argument("--steps", type=positive, default=200, metavar="N", help="most iterations")
    parser.add_argument("--out", type=Path, default=Path("outputs/fitting/multiview"),
                        metavar="DIR")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="weights")
    return parser.parse_intermixed_args(argv)


def run(args: argparse.Namespace) -> None:
    """Read, refine and write everything."""
    weights = with_overrides(MultiviewWeights(), args.settings)
    body = BodyModel(args.body)
    priors = open_priors(args.prior, torch.device("cpu"))
    people: People | None = None
    size = None
    if args.data is None or args.evaluate:
        source = None if args.data is None else args.data[0]
        held_out = torch.from_numpy(load_poses(source, args.seed).rotvecs("test"))
        count = args.evaluate or EMBEDDED_PEOPLE
        rows = torch.linspace(0, len(held_out) - 1, count).round().long()
        generator = torch.Generator().manual_seed(args.seed)
        people, keypoints = embedded_views(held_out[rows], body, args.views, generator)
        groups = torch.arange(len(keypoints)).reshape(-1, args.views).tolist()
        names = [(f"view{row}", 0) for row in range(len(keypoints))]
        size = (IMAGE_PX, IMAGE_PX)
    else:
        seen, names = [], []
        common = os.path.commonpath([path.resolve().parent for path in args.data])
        for path in args.data:
            found, report = read_detections(path, hands=False)
            print(report)
            if len(found) != 1:
                raise ValueError(f"{path}: expected one person in each view, found {len(found)}")
            seen.append(to_body_25(found.keypoints_2d, found.skeleton))
            # Cameras may have files of the same names: their folders tell them apart.
            camera = path.resolve().parent.relative_to(common)
            names.append(((camera / str(found.image_names[0])).as_posix(), int(found.person[0])))
        keypoints = torch.from_numpy(np.concatenate(seen))
        groups = [list(range(len(seen)))]
    context = betas = None
    if args.context is not None:
        evidence, known = given_context(args.context, names, torch.device("cpu"))
        if len(known) < len(names):
            raise ValueError(f"{args.context} has no context of {len(names) - len(known)} views")
        context, betas = evidence.context, evidence.betas
    pose = priors.variables("conditional", keypoints, context=context)
    start = time.perf_counter()
    refined = fit_views(
        keypoints,
        pose,
        groups,
        body=body,
        skeleton=BODY_25,
        image_size=size,
        focal_px=None if people is None else FOCAL_PX,
        betas=betas,
        weights=weights,
        max_iterations=args.steps,
    )
    seconds = time.perf_counter() - start

    prepare_folder(args.out)
    save_npz(
        args.out / "people.npz",
        {
            "global_orient": refined.theta[:, :, :1].numpy(),
            "body_pose": refined.body_pose.numpy(),
            "betas": refined.betas.numpy(),
            "transl": refined.transl.numpy(),
            "views": refined.mask.numpy(),
        },
    )
    results = {
        "people": len(groups),
        "weights": dataclasses.asdict(weights),
        "seconds": round(seconds, 2),
        "status": refined.solution.counts(),
        "disagreement_degrees": torch.rad2deg(refined.disagreement).tolist()[:20],
    }
    if people is not None:
        betas = refined.betas.repeat_interleave(args.views, dim=0)
        for name, theta in (
            ("alone", refined.first),
            ("averaged", refined.averaged),
            ("together", refined.together),
        ):
            error, aligned = view_errors(theta.flatten(0, 1), people.joints, body, betas)
            results[name] = {"mpjpe_mm": round(error, 1), "pa_mpjpe_mm": round(aligned, 1)}
            print(f"{name}: MPJPE {error:.1f} mm, aligned {aligned:.1f} mm")
    write_json(args.out / "report.json", results)
    for person in range(min(len(groups), EMBEDDED_PEOPLE)):
        draw(refined, person, body, args.out / f"person{person}.png")
    upright = _upright_bodies(refined, body)
    write_glb(args.out / "bodies.glb", upright, body.faces.numpy(), spacing=1.2)
    print(f"{len(groups)} people in {seconds:.1f} s; results are in {args.out}")


@torch.no_grad()
def _upright_bodies(refined: ViewFits, body: BodyModel) -> np.ndarray:
    theta = torch.cat([refined.theta[:, 0, :1], refined.body_pose], dim=1)
    posed = body(theta, refined.betas)
    vertices: np.ndarray = flip_yz((posed.vertices - posed.joints[:, :1]).numpy())
    return vertices[:20]


@interruptible("results may be incomplete")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the refinement; returns the exit code."""
    args = parse_args(argv)
    torch.set_num_threads(1)
    try:
        run(args)
    except (OSError, ValueError) as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
