"""``flowprior fit``: photos, videos or keypoints to bodies with uncertainty."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flowprior.body import BodyModel
from flowprior.command import options, sequence
from flowprior.command.images import write_images
from flowprior.command.progress import Progress
from flowprior.command.run_folder import RunFolder
from flowprior.command.sources import Camera, Source, open_source
from flowprior.detect import DETECTORS, open_detector
from flowprior.files.model_folder import BUNDLED
from flowprior.fitting.whole_body_pose import has_fingers
from flowprior.results import CONFIDENCE_DISTANCE_MM, Fits
from flowprior.results.bodies import EMBEDDED, body_of
from flowprior.results.estimator import Estimator
from flowprior.view.page import write_page

if TYPE_CHECKING:
    from flowprior.command.options import Verbs

__all__ = ["add_parser"]

OUTPUTS = ("json", "overlays", "meshes", "page")


def add_parser(verbs: "Verbs") -> None:
    """Add the verb to the command line."""
    parser = options.verb(
        verbs,
        "fit",
        run,
        "fit bodies to photos, a video or 2D keypoints",
        "Fit a body to every person and measure the uncertainty of each joint. INPUT is a photo, a "
        "video, a folder of photos, or 2D keypoints: files or folders of OpenPose, COCO, ViTPose, "
        "AlphaPose, MMPose or MediaPipe results, recognised by their content. Photos and videos "
        "need a detector, see --detector.",
        "Written to --out: fits.npz (everything), people/ (a JSON file per person), overlays/ "
        "(pictures with joints coloured by confidence), meshes/ (GLB), index.html (everything in "
        "one page that can be mailed), run.json. Ctrl-C keeps what is finished; the same command "
        "resumes.",
    )
    parser.add_argument("input", type=Path, metavar="INPUT")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    options.add_prior(parser)
    options.add_body(parser)
    options.add_hands(parser)
    options.add_keypoints(parser)
    options.add_camera(parser)
    parser.add_argument(
        "--detector",
        choices=DETECTORS,
        default="auto",
        help="detector for photos and videos (default: one that is installed)",
    )
    parser.add_argument(
        "--detector-python",
        type=Path,
        metavar="FILE",
        help="Python interpreter of MediaPipe's environment (default: $FLOWPRIOR_MEDIAPIPE_PYTHON)",
    )
    parser.add_argument(
        "--every",
        type=options.positive,
        default=1,
        metavar="N",
        help="use every Nth frame of a video",
    )
    options.add_samples(parser, 16)
    parser.add_argument(
        "--within",
        type=float,
        default=CONFIDENCE_DISTANCE_MM,
        metavar="MM",
        help="a joint's confidence is the probability that it lies within this "
        "distance of its estimate (default: %(default)g mm)",
    )
    parser.add_argument(
        "--batch",
        type=options.positive,
        default=16,
        metavar="N",
        help="images that are fitted and stored together (default: %(default)s)",
    )
    parser.add_argument(
        "--skip",
        choices=OUTPUTS,
        action="append",
        default=[],
        metavar="OUTPUT",
        help=f"do not write one of {', '.join(OUTPUTS)}; may be repeated",
    )
    parser.add_argument("--fresh", action="store_true", help="replace the results of another run")
    sequence.add_options(parser)
    options.add_device(parser)
    options.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Fit everybody; returns the exit code."""
    device = options.device_from(args.device)
    sequence.require_sequence(args)
    if not args.within > 0:
        raise ValueError(f"--within must be above 0, got {args.within:g}")
    if device.type == "cpu":
        torch.set_num_threads(1)  # small matrices lose with more

    def detector() -> Any:  # noqa: ANN401, a Detector
        found = open_detector(args.detector, device=device, python=args.detector_python)
        if not args.quiet:
            print(f"detector: {found.name}", file=sys.stderr)
        return found

    source = open_source(
        args.input,
        Camera(args.focal, args.image_size),
        detector,
        frames=args.out / "frames",
        images=args.images,
        skeleton=args.skeleton,
        every=args.every,
        hands=args.hands is not False and not args.sequence,
    )
    if not args.quiet:
        print("\n".join(source.notes()), file=sys.stderr)
    try:
        if args.sequence:
            return sequence.fit(args, source, device, _settings(args, source))
        return _fit(args, source, device)
    finally:
        source.close()


def _fit(args: argparse.Namespace, source: Source, device: torch.device) -> int:
    body = options.body_from(args.body, hands=args.hands)
    if body is not None and not has_fingers(body) and source.has_fingers and not args.quiet:
        print(f"{body.name} has no fingers: their keypoints are ignored", file=sys.stderr)
    folder = RunFolder(args.out, _settings(args, source), fresh=args.fresh)
    progress = Progress(source.images, quiet=args.quiet)
    progress.resume(folder.images, folder.people)
    interrupted = False
    if folder.complete:
        print(f"{args.out} is complete already; --fresh repeats it", file=sys.stderr)
    else:
        estimator = Estimator(
            args.prior,
            body,
            body_name=EMBEDDED if args.body is None else args.body.name,
            hands=args.hands,
            num_samples=args.samples,
            within_mm=args.within,
            seed=args.seed,
            device=device,
        )
        if folder.done and not args.quiet:
            print(f"resuming after {folder.images} images", file=sys.stderr)
        try:
            for chunk in source.chunks(args.batch, folder.done):
                fits = estimator(chunk.people)
                write_images(args.out, fits, body_of(fits, body), chunk.photo, args.skip)
                folder.save_part(chunk.number, fits, chunk.images, chunk.faults)
                progress.add(chunk.images, len(fits))
        except KeyboardInterrupt:
            interrupted = True
        progress.close()
    fits_or_none = folder.join()
    if fits_or_none is None:
        if interrupted:
            print("flowprior: interrupted before the first images were finished", file=sys.stderr)
            return 130
        raise ValueError(f"{args.input}: no images")
    _write_page(args, fits_or_none, body)
    if interrupted:
        print(
            f"flowprior: interrupted; {folder.images} images are finished and in {args.out}, the "
            "same command goes on",
            file=sys.stderr,
        )
        return 130
    if not folder.complete:
        folder.finish(source.faults)
    print(_summary(fits_or_none, args.out))
    if folder.faults:
        for fault in folder.faults[:5]:
            print(f"flowprior: {fault}", file=sys.stderr)
        print("flowprior: some files could not be read; run.json names them", file=sys.stderr)
        return 3
    return 0


def _write_page(args: argparse.Namespace, fits: Fits, body: BodyModel | None) -> None:
    """Write ``index.html`` if somebody was found."""
    if "page" not in args.skip and len(fits):
        write_page(fits, args.out / "index.html", body=body, title=args.input.name)


def _settings(args: argparse.Namespace, source: Source) -> dict[str, Any]:
    """What determines the results, for JSON."""
    prior = args.prior
    if prior not in BUNDLED and Path(prior).exists():
        prior = str(Path(prior).resolve())
    return {
        "input": str(args.input.resolve()),
        "content": source.fingerprint,
        "prior": prior,
        "body": None if args.body is None else str(args.body.resolve()),
        "hands": args.hands,
        "focal": args.focal,
        "image_size": None if args.image_size is None else list(args.image_size),
        "detector": args.detector if source.kind in ("pictures", "video") else None,
        "samples": args.samples,
        "seed": args.seed,
        "within": args.within,
        "batch": args.batch,
        "skip": sorted(set(args.skip) - {"page"}),
        **sequence.settings(args, source),
    }


def _summary(fits: Fits, out: Path) -> str:
    number, images = len(fits), len(fits.images)
    people = f"{number} {'person' if number == 1 else 'people'}"
    people += f" in {images} {'image' if images == 1 else 'images'}"
    if not len(fits):
        return f"no people found; {out}/run.json has the details"
    fitted = np.isfinite(fits.transl).all(axis=1)
    if not fitted.any():
        return f"{people}, none of whom could be fitted"
    y = np.where(fits.keypoints_2d[fitted, :, 2] > 0, fits.keypoints_2d[fitted, :, 1], np.nan)
    height = np.nanmax(y, axis=1) - np.nanmin(y, axis=1)
    share = np.median(fits.reprojection_px[fitted] / np.maximum(height, 1))
    lost = f", {int((~fitted).sum())} without a fit" if not fitted.all() else ""
    hands = ""
    if fits.hands is not None:
        count = int((fits.hands == "fitted").sum())
        hands = f"; {count} of {fits.hands.size} hands fitted, the others at rest"
    lines = [
        f"{people}{lost}; keypoints are met to {100 * share:.1f} % of the person's height (median)"
        + hands,
        f"results: {out / 'fits.npz'}",
    ]
    if (out / "index.html").exists():
        lines.append(f"open in a browser: {out / 'index.html'}")
    return "\n".join(lines)
