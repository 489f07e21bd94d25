"""Fit bodies to detected 2D keypoints.

    python -m examples.fitting.fit --data keypoints.json --out DIR

Reads OpenPose's JSON, one file or a folder, or COCO's, annotations or results. Without ``--data``
four people in embedded poses are fitted. ``key=value`` changes a weight: ``pose=16`` is ProHMR's.
"""

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from examples.command_line import DEVICES, device_of, fail, interruptible, natural, positive
from examples.data.images import decode
from examples.data.poses import load_poses
from examples.fitting.choices import (
    KINDS,
    WEIGHTS,
    add_prior_argument,
    given_context,
    open_priors,
    to_body_25,
)
from examples.fitting.outputs import fit_picture, fits_to_arrays, write_bodies, write_fits
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX, detect, hide, photograph_bodies
from examples.pictures import save_image
from examples.pictures.style import Image
from examples.training.settings import with_overrides
from examples.whole_files import prepare_folder
from flowprior.body import BodyModel
from flowprior.fitting import (
    FRAMES,
    ONE_STAGE,
    SMPLIFY_STAGES,
    check_focal,
    fit_keypoints,
)
from flowprior.keypoint_files.detections import read_detections
from flowprior.keypoint_files.image_names import file_label
from flowprior.keypoint_files.people import Detections
from flowprior.skeleton import BODY_25

__all__ = ["image_of", "main"]

SCHEDULES = {"one": ONE_STAGE, "smplify": SMPLIFY_STAGES}
EMBEDDED_PEOPLE = 4


def embedded_people(body: BodyModel, seed: int) -> Detections:
    """Simulated detections of a few people in embedded poses."""
    generator = torch.Generator().manual_seed(seed)
    rotvecs = torch.from_numpy(load_poses(None, seed).rotvecs("test"))
    rows = torch.randint(len(rotvecs), (EMBEDDED_PEOPLE,), generator=generator)
    people = photograph_bodies(rotvecs[rows], body, generator)
    seen = detect(people.keypoints, hide(people.keypoints, generator), generator).numpy()
    names = np.array([f"person{row}" for row in range(EMBEDDED_PEOPLE)])
    low, high = seen[..., :2].min(axis=1), seen[..., :2].max(axis=1)
    return Detections(
        names,
        np.zeros(EMBEDDED_PEOPLE, np.int64),
        seen,
        BODY_25,
        (low + high) / 2,
        (high - low).max(axis=1),
        None,
    )


def image_of(people: Detections, row: int) -> Image | None:
    """The image (H, W, 3) of a person, RGB; None if there is none or it cannot be decoded."""
    if people.image_dir is None:
        return None
    try:
        return decode(people.image_dir / str(people.image_names[row]), oriented=True)
    except (OSError, ValueError):
        return None


def image_sizes(people: Detections) -> NDArray[np.float32] | None:
    """(N, 2) width and height of the images, NaN where there is none; None without any image."""
    sizes: dict[str, tuple[float, float]] = {}
    for row, name in enumerate(people.image_names.tolist()):
        if name not in sizes:
            image = image_of(people, row)
            unknown = (math.nan, math.nan)
            sizes[name] = unknown if image is None else (image.shape[1], image.shape[0])
    found = np.array([sizes[name] for name in people.image_names.tolist()], np.float32)
    return found if np.isfinite(found).any() else None


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.fitting.fit",
        description="Fit bodies to detected 2D keypoints.",
        epilog="Written to --out: fits.npz (SMPL parameters), report.json (each person), "
        "bodies.glb, and pictures. Exit code: 0 done, 2 bad arguments or data, 130 interrupted.",
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="keypoints; embedded if left out")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images")
    parser.add_argument("--skeleton", metavar="NAME", help="joint set of the keypoints, such as "
                        "BODY-25B (default: by their names or number)")  # fmt: skip
    add_prior_argument(parser)
    parser.add_argument("--kind", choices=KINDS, default="conditional", help="which of its priors")
    parser.add_argument("--context", type=Path, metavar="FILE", help="npz with context (N, C) and "
                        "perhaps betas (N, 10) of a network of your own")  # fmt: skip
    parser.add_argument("--body", type=Path, metavar="FILE", help="SMPL file; embedded if left out")
    parser.add_argument("--frame", choices=FRAMES, default=None, help="default: full for people "
                        "whose image is there, else crop")  # fmt: skip
    parser.add_argument("--focal", type=float, metavar="PX", help="focal length in pixels of the "
                        "image, or of the crop (default: 5000)")  # fmt: skip
    parser.add_argument("--free-focal", action="store_true", help="fit the focal length too")
    parser.add_argument("--theta", action="store_true", help="fit theta, not a flow's latent")
    parser.add_argument("--stages", choices=SCHEDULES, default="one", help="schedule")
    parser.add_argument("--steps", type=positive, default=150, metavar="N", help="of each stage")
    parser.add_argument("--restarts", type=natural, default=0, metavar="N", help="further "
                        "descents, each from the best so far with the pose kicked")  # fmt: skip
    parser.add_argument("--pictures", type=natural, default=20, metavar="N", help="most pictures")
    parser.add_argument("--out", type=Path, default=Path("outputs/fitting/fit"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the embedded people")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="weights")
    return parser.parse_intermixed_args(argv)


def run(args: argparse.Namespace, device: torch.device) -> None:
    """Read, fit and write everything."""
    if args.focal is not None:
        check_focal(args.focal, source="--focal")
    body = BodyModel(args.body).to(device)
    if args.data is None:
        people, found = embedded_people(body.cpu(), args.seed), None
        body = body.to(device)
        sizes: NDArray[np.float32] | None = np.full((len(people), 2), IMAGE_PX, np.float32)
        focal = FOCAL_PX if args.focal is None else args.focal
    else:
        people, found = read_detections(args.data, args.images, skeleton=args.skeleton, hands=False)
        sizes, focal = None, args.focal
    if found is not None:
        print(found)
    context = betas = None
    if args.context is not None:
        places = list(zip(people.image_names.tolist(), people.person.tolist(), strict=True))
        evidence, rows = given_context(args.context, places, device)
        if len(rows) < len(people):
            lost = len(people) - len(rows)
            print(f"{lost} people are left out: no context that is finite in {args.context}")
        people, context, betas = people[rows], evidence.context, evidence.betas
    if not len(people):
        raise ValueError(f"{args.data}: no people to fit")
    unread = 0
    if args.data is not None:
        sizes = image_sizes(people)
        if people.image_dir is not None:
            unread = len(people) if sizes is None else int(np.isnan(sizes).any(axis=1).sum())
    if unread:
        print(
            f"{unread} of {len(people)} people are fitted in the camera of their crop: their "
            f"images in {people.image_dir} cannot be decoded",
            file=sys.stderr,
        )
    seen = to_body_25(people.keypoints_2d, people.skeleton)
    keypoints = torch.from_numpy(seen).to(device)
    weights = with_overrides(WEIGHTS[args.kind], args.settings)
    priors = open_priors(args.prior, device)
    pose = priors.variables(args.kind, keypoints, theta=args.theta, context=context)
    frame = args.frame or ("crop" if sizes is None else "full")
    size = None if sizes is None else torch.from_numpy(sizes).to(device)
    start = time.perf_counter()
    fits = fit_keypoints(
        keypoints,
        pose,
        body=body,
        skeleton=BODY_25,
        image_size=size,
        focal_px=focal,
        frame=frame,
        betas=betas,
        weights=weights,
        stages=SCHEDULES[args.stages],
        free_focal=args.free_focal,
        max_iterations=args.steps,
        restarts=args.restarts,
    )
    seconds = time.perf_counter() - start

    prepare_folder(args.out)
    arrays = fits_to_arrays(fits, body)
    names = [str(name) for name in people.image_names]
    facts = {
        "prior": args.kind,
        "frame": frame,
        "images_not_decoded": unread,
        "weights": dataclasses.asdict(weights),
        "seconds": round(seconds, 2),
        "left_out": {
            reason: finding.count for reason, finding in (found.left_out if found else {}).items()
        },
    }
    write_fits(args.out, arrays, names, people.person, facts)
    labels = [f"{name}, {person}" for name, person in zip(names, people.person, strict=True)]
    write_bodies(args.out / "bodies.glb", fits, body, labels)
    for row in range(min(args.pictures, len(people))):
        picture = fit_picture(fits, row, body, seen[row], image_of(people, row))
        label = file_label(names[row], int(people.person[row]))
        save_image(args.out / f"{label}.png", picture)
    print(
        f"{len(people)} people in {seconds:.1f} s: {fits.solution.counts()}; keypoints met to "
        f"{float(np.median(arrays['error_px'])):.1f} px (median); results are in {args.out}"
    )


@interruptible("no results were written")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the fit; returns the exit code."""
    args = parse_args(argv)
    # The matrices of a few people are too small for more, and threads that wait for each other
    # take ten times as long.
    torch.set_num_threads(1)
    try:
        run(args, device_of(args.device))
    except (OSError, ValueError) as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
