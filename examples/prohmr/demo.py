r"""Show the posterior of a model for photographs: mode, samples, spread of each limb.

    python -m examples.prohmr.demo PHOTOS --checkpoint model.safetensors
    python -m examples.prohmr.demo PHOTOS --checkpoint prohmr.pt --keypoints OPENPOSE \
        --body SMPL_NEUTRAL.pkl --regressor SMPL_to_J19.pkl --fit

Boxes surround the keypoints of OpenPose or COCO (--keypoints), or come from a table (--boxes, lines
of ``image,x,y,width,height`` in pixels); without either, each image shows one person. The image and
the number of the person in it name the output files. Original checkpoints load directly. --fit also
fits a body to the keypoints, with the model's posterior as the prior, and draws it beside the
regression.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.command_line import DEVICES, device_of, fail, interruptible
from examples.data.annotations import Annotations, prohmr_rows
from examples.data.boxes import read_boxes
from examples.data.columns import Columns
from examples.data.images import ImageDataset, collate, decode
from examples.fitting.choices import to_body_25
from examples.fitting.outputs import fits_to_arrays, person_report
from examples.pictures.canvas import save_image, side_by_side
from examples.pictures.meshes import body_views, uncertainty_colours, write_glb
from examples.pictures.style import MODE, SAMPLES
from examples.pinhole import flip_yz
from examples.prohmr.fit_arguments import add_fit_arguments, fit_options
from examples.prohmr.fits import FEWEST_KEYPOINTS, ImageFitter, Seen
from examples.prohmr.judging import crop_batch
from examples.prohmr.model import load_model
from examples.prohmr.pictures import FITTED, SIDE_PX, fit_picture, person_picture
from examples.prohmr.train import load_body
from examples.whole_files import prepare_folder, write_text
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.files.report import Report
from flowprior.fitting import Fits
from flowprior.keypoint_files.detections import read_detections
from flowprior.keypoint_files.image_names import (
    IMAGE_SUFFIXES,
    file_label,
    locate_image,
    number_people,
)
from flowprior.prior.posterior import PosePosterior
from flowprior.skeleton import SMPL_24

__all__ = ["Uncertainty", "find_people", "main", "measure_uncertainty"]

ENLARGE = 1.2
LIMBS = {
    f"{side} {limb}": tuple(SMPL_24.index(f"{side}_{joint}") for joint in joints)
    for limb, joints in (("arm", ("elbow", "wrist")), ("leg", ("knee", "ankle")))
    for side in ("left", "right")
} | {"head": (SMPL_24.index("head"),)}
LEAST_M, MOST_M = 0.0, 0.25  # range of the colours


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Spread of the samples of one person.

    Attributes:
        limbs_mm: By limb, the standard deviation of its joints relative to the pelvis,
            millimetres.
        vertices: (V,) the standard deviation of each vertex, metres.
        entropy_nats: Entropy of the posterior.
    """

    limbs_mm: dict[str, float]
    vertices: Tensor
    entropy_nats: float


@torch.no_grad()
def measure_uncertainty(
    posterior: PosePosterior,
    betas: Tensor,
    body: BodyModel,
    *,
    samples: int = 100,
    generator: torch.Generator | None = None,
) -> Uncertainty:
    """Measure the spread of samples of one person.

    Args:
        posterior: A posterior with batch size 1.
        betas: (1, 10).
        body: On the same device.
        samples: Number of samples.
        generator: Random generator.
    """
    posed = body(posterior.sample(samples, generator=generator), betas)
    root = posed.joints[0, :, :1]

    def spread(points: Tensor) -> Tensor:
        return (points - root).var(dim=0).sum(dim=-1).sqrt()

    joints = spread(posed.joints[0])
    limbs = {name: 1000 * float(joints[list(rows)].mean()) for name, rows in LIMBS.items()}
    return Uncertainty(limbs, spread(posed.vertices[0]), float(posterior.entropy().reshape(-1)[0]))


def find_people(
    images: Path, keypoints: Path | None = None, boxes: Path | None = None
) -> tuple[Annotations, NDArray[np.int64], Report]:
    """Find the people in photographs.

    Args:
        images: A folder of images, or one image.
        keypoints: A path for `flowprior.keypoint_files.detections.read_detections`.
        boxes: A path for `examples.data.boxes.read_boxes`.

    Returns:
        A row for each person, the number of each in its image, and the report.

    Raises:
        FileNotFoundError: A path does not exist, or there is no image.
        ValueError: A file is invalid, or both files are passed.
    """
    if keypoints is not None and boxes is not None:
        raise ValueError("expected --keypoints or --boxes, got both")
    if not images.exists():
        raise FileNotFoundError(f"no such file or folder: {images}")
    folder = images if images.is_dir() else images.parent
    points = numbers = None
    if keypoints is not None:
        found, report = read_detections(keypoints, folder, hands=False)
        names = found.image_names.tolist()
        centers, sizes = found.center, found.box_size
        rows = [
            (name, *center, size) for name, center, size in zip(names, centers, sizes, strict=True)
        ]
        points, numbers = to_body_25(found.keypoints_2d, found.skeleton), found.person
    elif boxes is not None:
        listed, report = read_boxes(boxes)
        rows = [
            (
                locate_image(folder, box.image),
                box.x + box.width / 2,
                box.y + box.height / 2,
                ENLARGE * max(box.width, box.height),
            )
            for box in listed
        ]
    else:
        report = Report(str(images), "images", unit="person")
        rows = _whole_images(images, report)
    columns: dict[str, object] = {
        "imgname": [name for name, *_ in rows],
        "center": np.array([[x, y] for _, x, y, _ in rows], np.float32).reshape(-1, 2),
        "scale": np.array([size for *_, size in rows], np.float32),
    }
    if points is not None:
        columns["body_keypoints_2d"] = points
    people = prohmr_rows(Columns(columns, str(images)), Report("", ""))
    person = number_people(people.imgname) if numbers is None else numbers
    if images.is_file():
        wanted = people.imgname == images.name
        people, person = people[wanted], person[wanted]
    return people, person, report


def _whole_images(images: Path, report: Report) -> list[tuple[str, float, float, float]]:
    files = sorted(images.iterdir()) if images.is_dir() else [images]
    rows = []
    for file in files:
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        report.rows += 1
        try:
            height, width = decode(file, oriented=True).shape[:2]
        except (OSError, ValueError) as error:
            report.leave_out("cannot be decoded", [f"{file.name} ({error})"])
            continue
        report.kept += 1
        rows.append((file.name, width / 2, height / 2, float(max(width, height))))
    if not report.rows:
        raise FileNotFoundError(f"no image in {images}")
    return rows


def describe_fit(fits: Fits, body: BodyModel) -> dict[str, Any]:
    """SMPL parameters and error of the first fit, for JSON.

    Args:
        fits: The fits.
        body: The body, on their device.
    """
    pose = rotations.matrix_to_rotvec(fits.theta[0])
    return {
        "global_orient": pose[0].tolist(),
        "body_pose": pose[1:].flatten().tolist(),
        **person_report(fits_to_arrays(fits, body), 0),
        "focal_px": float(fits.focal_px[0]),
        "principal_point_px": fits.principal_point_px[0].tolist(),
    }


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.prohmr.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Files in --out for each person: a picture, with --fit another of before and "
        "after,\na GLB file; and people.json.\n"
        "Exit code: 0 done, 1 some images could not be used, 2 bad arguments or data.",
    )
    parser.add_argument("images", type=Path, metavar="IMAGES", help="a folder or an image")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--own-backbone", metavar="MODULE:FUNCTION", help="your backbone of the checkpoint"
    )
    parser.add_argument("--keypoints", type=Path, metavar="PATH", help="OpenPose's or COCO's JSON")
    parser.add_argument("--boxes", type=Path, metavar="FILE", help="image,x,y,width,height")
    parser.add_argument("--samples", type=int, default=100, metavar="N", help="(%(default)s)")
    add_fit_arguments(parser)
    parser.add_argument("--body", default="embedded", metavar="FILE", help="(%(default)s)")
    parser.add_argument("--regressor", default="none", metavar="FILE", help="SMPL_to_J19.pkl")
    parser.add_argument("--out", type=Path, default=Path("outputs/prohmr/demo"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    return parser.parse_intermixed_args(argv)


@interruptible("pictures of the finished people are in --out")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    args = parse_args(argv)
    try:
        device = device_of(args.device)
        if args.samples < 2:
            raise ValueError(f"expected --samples from 2 up, got {args.samples}")
        options = fit_options(args, use_hips=False)
        if args.fit and args.keypoints is None:
            raise ValueError("--fit needs --keypoints to fit to")
        people, person, report = find_people(args.images, args.keypoints, args.boxes)
        folder = args.images if args.images.is_dir() else args.images.parent
        dataset = ImageDataset(people, folder, oriented=True)
        model = load_model(args.checkpoint, device, own_backbone=args.own_backbone)
        body = load_body(args.body, args.regressor).to(device)
        fitter = ImageFitter(model, body, options) if args.fit else None
    except (OSError, ValueError) as error:
        return fail(error)
    if not report.clean:
        print(report, file=sys.stderr)
    prepare_folder(args.out)
    entries: list[dict[str, object]] = []
    unused = len(report.left_out)
    for row in range(len(dataset)):
        item = dataset[row]
        name = file_label(str(people.imgname[row]), int(person[row]))
        if item["fault"]:
            print(f"{item['imgname']}: {item['fault']}", file=sys.stderr)
            unused += 1
            continue
        batch = collate([item]).to(device)
        crop = crop_batch(batch, model.size).images
        generator = torch.Generator(device).manual_seed(args.seed)
        try:
            with torch.no_grad():
                out = model(crop)
        except ValueError as error:  # non-finite features
            print(f"{name}: {error}", file=sys.stderr)
            unused += 1
            continue
        with torch.no_grad():
            mode = out.posterior.mode()
            few = out.posterior.sample(4, generator=generator)[0]
            posed = body(torch.cat([mode, few]), out.betas.expand(5, -1))
        sure = measure_uncertainty(
            out.posterior, out.betas, body, samples=args.samples, generator=generator
        )
        upright = flip_yz(posed.vertices.double().cpu().numpy())
        faces = body.faces.cpu().numpy()
        colours = uncertainty_colours(sure.vertices.double().cpu().numpy(), LEAST_M, MOST_M)
        coloured = body_views(
            upright[0], faces, views=("front", "side"), colours=colours, height=SIDE_PX
        )
        picture = person_picture(crop[0], out, 0, body, generator=generator)
        save_image(args.out / f"{name}.png", side_by_side([picture, coloured]))
        shown = {"mode": MODE, **{f"sample {i + 1}": SAMPLES[i % len(SAMPLES)] for i in range(4)}}
        fitted = {}
        if fitter is not None and fitter.countable(batch.keypoints_2d)[0] < FEWEST_KEYPOINTS:
            print(f"{name}: fewer than {FEWEST_KEYPOINTS} keypoints to fit to", file=sys.stderr)
            unused += 1
        elif fitter is not None:
            seen = Seen.of(batch)
            fits = fitter.fit(out, seen)
            fitted["fit"] = describe_fit(fits, body)
            drawn = fit_picture(crop[0], out, fits, 0, seen, body)
            save_image(args.out / f"{name}_fit.png", drawn)
            with torch.no_grad():
                body_of_fit = body(fits.theta, fits.betas).vertices.double().cpu().numpy()
            upright = np.concatenate([upright, flip_yz(body_of_fit)])
            shown["fit"] = FITTED
        write_glb(
            args.out / f"{name}.glb",
            upright,
            faces,
            colours=list(shown.values()),
            names=list(shown),
            spacing=1.2,
        )
        rotation = rotations.matrix_to_rotvec(model.prior.smpl_params(mode)["body_pose"][0])
        root = rotations.matrix_to_rotvec(model.prior.smpl_params(mode)["global_orient"][0])
        entries.append(
            {
                "image": item["imgname"],
                "person": int(person[row]),
                "box": [*people.center[row].tolist(), float(people.box_size[row])],
                "global_orient": root.flatten().tolist(),
                "body_pose": rotation.flatten().tolist(),
                "betas": out.betas[0].tolist(),
                "camera": out.camera[0].tolist(),
                "spread_mm": sure.limbs_mm,
                "entropy_nats": sure.entropy_nats,
                **fitted,
            }
        )
        limbs = ", ".join(f"{limb} {spread:.0f}" for limb, spread in sure.limbs_mm.items())
        print(f"{name}: spread in mm: {limbs}")
        if "fit" in fitted:
            print(f"{name}: keypoints met to {fitted['fit']['error_px']:.1f} px")
    write_text(args.out / "people.json", json.dumps(entries, indent=2) + "\n")
    print(f"{len(entries)} people; pictures and GLB files are in {args.out}")
    return 1 if unused else 0


if __name__ == "__main__":
    sys.exit(main())
