"""One body pose from several views whose cameras nobody knows.

    python -m examples.fitting.multiview --data left.json front.json right.json --prior DIR

Every file is one view: keypoints of one person, OpenPose's or COCO's. Without ``--data`` people of
the embedded poses are seen from four sides each. Rotations of the body must agree between the
views, the root is free in each; ``keypoints=1`` adds the keypoints' own terms, and with them one
shape for all views.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.arguments import positive
from examples.data.detections import read_detections
from examples.data.poses import load_poses
from examples.fitting.cameras import Cameras
from examples.fitting.choices import PriorFolder, cameras_for, to_body_25
from examples.fitting.keypoint_fit import first_translation
from examples.fitting.multiview_objective import MultiviewObjective, MultiviewWeights, mean_rotation
from examples.fitting.objective import KeypointObjective
from examples.fitting.people import (
    FOCAL_PX,
    IMAGE_PX,
    UPRIGHT,
    People,
    detect,
    hide,
    photograph_bodies,
)
from examples.fitting.pose_variables import PoseVariables
from examples.fitting.settings import overridden
from examples.fitting.solver import Solution, minimize
from examples.pictures import MODE, body_views, gallery_picture, write_glb
from examples.pictures.style import Image
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.metrics import mpjpe, pa_mpjpe
from flowprior.skeleton import BODY_25

__all__ = ["REFINED", "Refined", "main", "refine"]

REFINED = "#55a868"  # green, as in the paper's figure 5
EMBEDDED_PEOPLE = 3
EMBEDDED_VIEWS = 4


@dataclass(frozen=True)
class Refined:
    """G people after all of their views have been considered together.

    Args:
        theta: (G, V, 24, 3, 3) rotations in each view, the root seen from its camera.
        body_pose: (G, 23, 3, 3) the mean rotations of the body.
        betas: (G, 10) one shape.
        transl: (G, V, 3) metres, in each camera's frame.
        first: (G, V, 24, 3, 3) rotations before, the prior's mode in each view.
        disagreement: (G, 2) mean angle of the views from their mean rotation, before and after,
            radians.
        mask: (G, V) bool, which views there are.
        solution: How the solver ended.
    """

    theta: Tensor
    body_pose: Tensor
    betas: Tensor
    transl: Tensor
    first: Tensor
    disagreement: Tensor
    mask: Tensor
    solution: Solution


def refine(
    body: BodyModel,
    keypoints: Tensor,
    cameras: Cameras,
    pose: PoseVariables,
    groups: Sequence[Sequence[int]],
    *,
    betas: Tensor | None = None,
    weights: MultiviewWeights | None = None,
    max_iterations: int = 200,
    tolerance: float = 1e-7,
) -> Refined:
    """Refine the poses of people seen in several views each.

    Args:
        body: The body.
        keypoints: (N, 25, 3) of all views in BODY-25 order, pixels and confidence.
        cameras: Of the N views.
        pose: Of the N views: latents of a prior over all 24 joints.
        groups: For each person, the numbers of its views.
        betas: (N, 10) regressed from each view; the mean body if None.
        weights: What counts how much.
        max_iterations: Most steps.
        tolerance: Relative fall of the objective over one step that is none.

    Returns:
        The people.

    Raises:
        ValueError: The prior leaves the root out, or shapes do not fit.
    """
    if pose.free_root:
        raise ValueError("several views need a prior over all 24 joints, the root among them")
    start = pose.start(len(keypoints))
    place = first_translation(body, keypoints, BODY_25, cameras, pose, start, betas)
    views = KeypointObjective(body, keypoints, BODY_25, cameras, pose, place, betas)
    objective = MultiviewObjective(views, groups, weights)
    x = objective.start()
    solution = minimize(objective, x, max_iterations=max_iterations, tolerance_value=tolerance)

    @torch.no_grad()
    def read(numbers: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        parts = views.parts(objective.unpack(numbers).flatten(0, 1), objective.index.flatten())
        below, root = objective.body_rotations(parts.theta)
        mean = mean_rotation(below.transpose(1, 2), objective.mask[:, None])
        angle = rotations.geodesic_distance(below, mean[:, None]).mean(dim=-1)
        apart = (objective.mask * angle).sum(dim=1) / objective.mask.sum(dim=1)
        transl = parts.transl.unflatten(0, (-1, objective.most_views))
        return torch.cat([root, below], dim=2), mean, apart, transl

    first, _, before, _ = read(x)
    theta, mean, after, transl = read(solution.x)
    return Refined(
        theta=theta,
        body_pose=mean,
        betas=solution.x[:, -10:],
        transl=transl,
        first=first,
        disagreement=torch.stack([before, after], dim=1),
        mask=objective.mask > 0,
        solution=solution,
    )


def embedded_views(
    rotvecs: Tensor, body: BodyModel, views: int, generator: torch.Generator
) -> tuple[People, Tensor]:
    """People (B, 24, 3), each from several sides, and what a detector saw: (B V, 25, 3)."""
    people = photograph_bodies(rotvecs.repeat_interleave(views, dim=0), body, generator, shape=0.0)
    lost = hide(people.keypoints, generator, truncated=0.4, limb=0.4)
    return people, detect(people.keypoints, lost, generator)


@torch.no_grad()
def view_errors(
    theta: Tensor, truth: Tensor, body: BodyModel, betas: Tensor | None = None
) -> tuple[float, float]:
    """MPJPE and that after alignment over all views, millimetres.

    Args:
        theta: (N, 24, 3, 3).
        truth: (N, 24, 3) joints, camera frame.
        body: The body.
        betas: (N, 10).
    """
    joints = body(theta, betas).joints
    error = mpjpe(joints - joints[:, :1], truth - truth[:, :1])
    return 1000 * float(error.mean()), 1000 * float(pa_mpjpe(joints, truth).mean())


@torch.no_grad()
def draw(refined: Refined, person: int, body: BodyModel, path: Path) -> None:
    """The paper's figure 5: what each view says alone, in pink, and together, in green."""
    pictures: dict[str, Image] = {}
    faces = body.faces.numpy()
    views = refined.mask[person].nonzero()[:, 0].tolist()
    for title, theta, colour in (
        ("alone", refined.first, MODE),
        ("together", refined.theta, REFINED),
    ):
        for view in views:
            posed = body(theta[person, view][None], refined.betas[person][None])
            vertices = (posed.vertices[0] - posed.joints[0, :1]).numpy() * np.array(UPRIGHT)
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
        prog="python -m examples.fitting.multiview",
        description="One body pose from several views whose cameras nobody knows.",
    )
    parser.add_argument("--data", type=Path, nargs="+", metavar="FILE", help="keypoints of "
                        "each view, or poses with --evaluate; embedded if left out")  # fmt: skip
    parser.add_argument("--evaluate", type=int, metavar="N", help="judge on N held-out poses")
    parser.add_argument("--views", type=int, default=EMBEDDED_VIEWS, metavar="N", help="of these")
    parser.add_argument("--prior", type=Path, default=Path("outputs/fitting/priors"), metavar="DIR")
    parser.add_argument("--body", type=Path, metavar="FILE", help="SMPL file; embedded if left out")
    parser.add_argument("--steps", type=positive, default=200, metavar="N", help="most iterations")
    parser.add_argument("--out", type=Path, default=Path("outputs/fitting/multiview"),
                        metavar="DIR")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="weights")
    return parser.parse_intermixed_args(argv)


def run(args: argparse.Namespace) -> None:
    """Read, refine and write everything."""
    weights = overridden(MultiviewWeights(), args.settings)
    body = BodyModel(args.body)
    priors = PriorFolder(args.prior, torch.device("cpu"))
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
        size = torch.full((len(keypoints), 2), IMAGE_PX)
    else:
        seen = []
        for path in args.data:
            found, report = read_detections(path)
            print(report)
            if len(found) != 1:
                raise ValueError(f"{path}: expected one person in each view, found {len(found)}")
            seen.append(to_body_25(found.keypoints_2d, found.skeleton))
        keypoints = torch.from_numpy(np.concatenate(seen))
        groups = [list(range(len(seen)))]
    frame = "crop" if people is None else "full"
    cameras = cameras_for(frame, keypoints, size, None if people is None else FOCAL_PX)
    pose = priors.variables("conditional", keypoints)
    start = time.perf_counter()
    refined = refine(
        body, keypoints, cameras, pose, groups, weights=weights, max_iterations=args.steps
    )
    seconds = time.perf_counter() - start

    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        args.out / "people.npz",
        global_orient=refined.theta[:, :, :1].numpy(),
        body_pose=refined.body_pose.numpy(),
        betas=refined.betas.numpy(),
        transl=refined.transl.numpy(),
        views=refined.mask.numpy(),
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
        fused = torch.cat(
            [
                refined.theta[:, :, :1],
                refined.body_pose[:, None].expand(-1, args.views, -1, -1, -1),
            ],
            dim=2,
        )
        naive = mean_rotation(refined.first.transpose(1, 2))[:, 1:]
        averaged = torch.cat(
            [refined.first[:, :, :1], naive[:, None].expand(-1, args.views, -1, -1, -1)], dim=2
        )
        for name, theta in (
            ("alone", refined.first),
            ("averaged", averaged),
            ("together", fused),
        ):
            error, aligned = view_errors(theta.flatten(0, 1), people.joints, body, betas)
            results[name] = {"mpjpe_mm": round(error, 1), "pa_mpjpe_mm": round(aligned, 1)}
            print(f"{name}: MPJPE {error:.1f} mm, aligned {aligned:.1f} mm")
    (args.out / "report.json").write_text(json.dumps(results, indent=2) + "\n")
    for person in range(min(len(groups), EMBEDDED_PEOPLE)):
        draw(refined, person, body, args.out / f"person{person}.png")
    upright = _upright_bodies(refined, body)
    write_glb(args.out / "bodies.glb", upright, body.faces.numpy(), spacing=1.2)
    print(f"{len(groups)} people in {seconds:.1f} s; results are in {args.out}")


@torch.no_grad()
def _upright_bodies(refined: Refined, body: BodyModel) -> np.ndarray:
    theta = torch.cat([refined.theta[:, 0, :1], refined.body_pose], dim=1)
    posed = body(theta, refined.betas)
    vertices: np.ndarray = (posed.vertices - posed.joints[:, :1]).numpy() * np.array(UPRIGHT)
    return vertices[:20]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the refinement; returns the exit code."""
    args = parse_args(argv)
    torch.set_num_threads(1)
    try:
        run(args)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
