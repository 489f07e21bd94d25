"""``flowprior fit --sequence``: consecutive frames, people as tracks, smoothed motions."""

import argparse
import json
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowprior.body import BodyModel
from flowprior.command import options
from flowprior.command.images import write_images
from flowprior.command.progress import Progress
from flowprior.command.run_folder import FITS_FILE, PARTS, RunFolder
from flowprior.command.sighting_part import SightingPart
from flowprior.command.sources import Pictures, Source, Video, photos_of
from flowprior.files.video_file import video_rate
from flowprior.files.whole_file import write_whole
from flowprior.fitting import SequenceOptions
from flowprior.keypoint_files.tracks import FrameNames, link_people, usable_ids
from flowprior.results import Fits, write_amass, write_animated_glb, write_bvh
from flowprior.results.bodies import EMBEDDED, body_of
from flowprior.results.estimator import Sighting
from flowprior.results.motion.speed import implausible_speed
from flowprior.results.sequences import SequenceEstimator, TrackFrames
from flowprior.rotations import rotvec_to_matrix
from flowprior.view.page import write_page

__all__ = ["add_options", "fit", "require_sequence", "settings"]

EXPORTS = ("bvh", "amass", "glb")
SHORTEST_S = 0.2
"""Shorter tracks are mistakes of the detector."""
IMAGES_AT_ONCE = 32


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--sequence`` and what belongs to it."""
    group = parser.add_argument_group(
        "sequences", "For videos, and for folders whose images or files are frames of a video."
    )
    group.add_argument(
        "--sequence",
        action="store_true",
        help="the images are consecutive frames: people become tracks, and neighbouring frames "
        "help each other",
    )
    group.add_argument(
        "--fps",
        type=options.positive_number,
        metavar="F",
        help="frames per second of a folder (default for videos: that of the file)",
    )
    group.add_argument(
        "--smoothing",
        type=options.positive_number,
        metavar="X",
        help="strength: 4 expects accelerations half as large, 0.25 twice as large and keeps more "
        "of fast contacts (default: 1)",
    )
    group.add_argument(
        "--lag",
        type=options.natural,
        metavar="N",
        help="use at most N later frames, as in live use (default: all)",
    )
    group.add_argument(
        "--export",
        nargs="+",
        choices=EXPORTS,
        default=[],
        metavar="FORMAT",
        help=f"write the motion of each track to motion/: {', '.join(EXPORTS)}",
    )


def require_sequence(args: argparse.Namespace) -> None:
    """Check the options of sequences.

    Raises:
        ValueError: One is given without ``--sequence``.
    """
    given = [name for name in ("fps", "smoothing", "lag", "export") if getattr(args, name)]
    if args.lag == 0:
        given.append("lag")
    if given and not args.sequence:
        raise ValueError(f"--{given[0]} needs --sequence")
    if args.sequence and args.hands:
        raise ValueError("--hands: sequences are fitted without fingers")


def settings(args: argparse.Namespace, source: Source) -> dict[str, Any]:
    """What determines the results of a sequence, for JSON; nothing for others.

    Raises:
        ValueError: The frame rate is unknown.
    """
    if not args.sequence:
        return {}
    return {
        "sequence": {
            "fps": _rate(args, source),
            "smoothing": args.smoothing or 1.0,
            "lag": args.lag,
        }
    }


def fit(
    args: argparse.Namespace, source: Source, device: torch.device, chosen: dict[str, Any]
) -> int:
    """Fit everybody; returns the exit code.

    Args:
        args: The options.
        source: The frames.
        device: Device of the computation.
        chosen: What determines the results.
    """
    fps = _rate(args, source)
    body = options.body_from(args.body)
    folder = RunFolder(args.out, chosen, fresh=args.fresh)
    if folder.complete:
        print(f"{args.out} is complete already; --fresh repeats it", file=sys.stderr)
        fits = Fits.load(args.out)
    else:
        try:
            _read(args, source, folder)
            estimator = SequenceEstimator(
                args.prior,
                body,
                fps=fps,
                body_name=EMBEDDED if args.body is None else args.body.name,
                num_samples=args.samples,
                within_mm=args.within,
                seed=args.seed,
                lag=args.lag,
                options=SequenceOptions(smoothing=args.smoothing or 1.0),
                device=device,
            )
            fits = _fit_tracks(args, source, folder, estimator)
            _write_images(args, fits, body)
        except KeyboardInterrupt:
            print(
                f"\nflowprior: interrupted; {folder.images} frames are read, the same command goes "
                "on",
                file=sys.stderr,
            )
            return 130
    if len(fits):
        _export(args, source, fits, body)
        if "page" not in args.skip:
            write_page(fits, args.out / "index.html", body=body, title=args.input.name)
    if not folder.complete:
        folder.finish(source.faults)
    print(_summary(fits, args))
    if folder.faults:
        for fault in folder.faults[:5]:
            print(f"flowprior: {fault}", file=sys.stderr)
        print("flowprior: some files could not be read; run.json names them", file=sys.stderr)
        return 3
    return 0


def _rate(args: argparse.Namespace, source: Source) -> float:
    """Frames per second of the frames that are used."""
    if args.fps is not None:
        rate = float(args.fps)
        return rate / args.every if isinstance(source, Video) else rate
    if isinstance(source, Video):
        return video_rate(source.path) / args.every
    raise ValueError(f"{args.input} does not say how many frames it has per second: give --fps")


def _read(args: argparse.Namespace, source: Source, folder: RunFolder) -> None:
    """Store the people of all frames."""
    progress = Progress(source.images, quiet=args.quiet)
    progress.resume(folder.images, folder.people)
    if folder.done and not args.quiet:
        print(f"resuming after {folder.images} frames", file=sys.stderr)
    try:
        for chunk in source.chunks(args.batch, folder.done):
            folder.save_part(chunk.number, SightingPart(chunk.people), chunk.images, chunk.faults)
            progress.add(chunk.images, len(chunk.people))
    finally:
        progress.close()


def _fit_tracks(
    args: argparse.Namespace, source: Source, folder: RunFolder, estimator: SequenceEstimator
) -> Fits:
    """Fit all tracks, of which finished ones are kept, and write them to one file."""
    people = SightingPart.joined([SightingPart.load(file) for file in folder.parts()]).people
    names = FrameNames(_names(source, people.image))
    frame = np.array([names.number[name] for name in people.image], np.int64)
    track = usable_ids(people.track, frame)
    by = "the file" if track is not None else "the places of their keypoints"
    if track is None:
        track = link_people(people.keypoints_2d, frame, estimator.fps)
    numbers, short = _long_enough(track, frame, estimator.fps)
    if not args.quiet:
        left = f", {short} shorter than {SHORTEST_S:g} s left out" if short else ""
        print(f"{len(numbers)} tracks, from {by}{left}", file=sys.stderr)
    parts: list[Fits] = []
    times: list[NDArray[np.int64]] = []
    for place, number in enumerate(numbers):
        file = folder.path / PARTS / f"track_{number:06d}.npz"
        rows = np.flatnonzero(track == number)
        rows = rows[np.argsort(frame[rows], kind="stable")]
        if not file.exists():
            estimator(_frames_of(people, frame, rows, names, place)).save(file)
        parts.append(Fits.load(file))
        times.append(frame[rows[0]] + np.arange(len(parts[-1])))
        if not args.quiet:
            print(f"track {place}: {len(parts[-1])} frames", file=sys.stderr)
    if not parts:
        fits = estimator.empty(people.skeleton)
    else:
        fits = Fits.joined(parts)
        fits = fits[np.lexsort((fits.person, np.concatenate(times)))]
    fits.save(folder.path / FITS_FILE)
    return fits


def _names(source: Source, images: list[str]) -> list[str]:
    """Names of all frames, also of those without people where the source has them."""
    if isinstance(source, Video):
        return [source.name(frame) for frame in range(source.images)]
    if isinstance(source, Pictures):
        return list(source.names)
    return list(dict.fromkeys(images))


def _long_enough(
    track: NDArray[np.int64], frame: NDArray[np.int64], fps: float
) -> tuple[list[int], int]:
    """The tracks that last long enough, and the number of the others."""
    everybody = np.unique(track).tolist()
    frames = int(np.ptp(frame)) + 1 if len(frame) else 0
    least = min(round(SHORTEST_S * fps), frames)
    long = [one for one in everybody if np.ptp(frame[track == one]) + 1 >= least]
    return long, len(everybody) - len(long)


def _frames_of(
    people: Sighting,
    frame: NDArray[np.int64],
    rows: NDArray[np.intp],
    names: FrameNames,
    track: int,
) -> TrackFrames:
    """The frames of one track, from its first to its last."""
    start, stop = int(frame[rows[0]]), int(frame[rows[-1]]) + 1
    paths = {int(frame[row]): path for row, path in enumerate(people.image_path)}
    keypoints = np.zeros((stop - start, *people.keypoints_2d.shape[1:]), np.float32)
    keypoints[frame[rows] - start] = people.keypoints_2d[rows]
    return TrackFrames(
        [names.name(each) for each in range(start, stop)],
        [paths.get(each, "") for each in range(start, stop)],
        keypoints,
        people.skeleton,
        np.median(people.image_size[rows], axis=0).astype(np.float32),
        float(np.median(people.focal_px[rows])),
        track,
    )


def _write_images(args: argparse.Namespace, fits: Fits, body: BodyModel | None) -> None:
    """Write the files of all frames."""
    if {"json", "overlays", "meshes"} <= set(args.skip):
        return
    images, body = fits.images, body_of(fits, body)
    rows_of: dict[str, list[int]] = {}
    for row, image in enumerate(fits.image.tolist()):
        rows_of.setdefault(image, []).append(row)
    progress = Progress(len(images), quiet=args.quiet)
    for start in range(0, len(images), IMAGES_AT_ONCE):
        some = images[start : start + IMAGES_AT_ONCE]
        rows = [row for image in some for row in rows_of[image]]
        write_images(
            args.out,
            fits[rows],
            body,
            photos_of(fits.image[rows], fits.image_path[rows]),
            args.skip,
        )
        progress.add(len(some), len(rows))
    progress.close()


def _export(args: argparse.Namespace, source: Source, fits: Fits, body: BodyModel | None) -> None:
    """Write the motion of each track in the chosen formats, and what they are."""
    folder = args.out / "motion"
    if args.export:
        folder.mkdir(exist_ok=True)
    assert fits.fps is not None
    body = body_of(fits, body)
    frame_of = FrameNames(_names(source, fits.images)).number
    listed = []
    for number in np.unique(fits.person).tolist():
        one = fits[fits.person == number]
        theta, transl, betas = (
            torch.from_numpy(value) for value in (one.rotations, one.transl, one.betas[0])
        )
        motion = (theta, transl, body, betas, fits.fps)
        name, start = f"track_{number}", frame_of[str(one.image[0])]
        if "bvh" in args.export:
            write_bvh(folder / f"{name}.bvh", *motion)
        if "amass" in args.export:
            write_amass(folder / f"{name}.npz", *motion)
        if "glb" in args.export:
            write_animated_glb(folder / f"{name}.glb", *motion, name=name, start=start / fits.fps)
        fault = implausible_speed(rotvec_to_matrix(theta), transl, fits.fps)
        if fault is not None:
            print(f"flowprior: track {number}: {fault}", file=sys.stderr)
        listed.append(
            {
                "track": number,
                "first_image": str(one.image[0]),
                "start_s": start / fits.fps,
                "frames": len(one),
                "filled_in": int((one.status == "filled_in").sum()),
            }
        )
    if args.export:
        text = json.dumps({"fps": fits.fps, "tracks": listed}, indent=2) + "\n"
        write_whole(folder / "tracks.json", text.encode())


def _summary(fits: Fits, args: argparse.Namespace) -> str:
    if not len(fits):
        return f"no people found; {args.out}/run.json has the details"
    tracks, frames = len(np.unique(fits.person)), len(fits.images)
    filled = int((fits.status == "filled_in").sum())
    y = np.where(fits.keypoints_2d[..., 2] > 0, fits.keypoints_2d[..., 1], np.nan)
    seen = np.isfinite(fits.reprojection_px)
    height = np.nanmax(y[seen], axis=1) - np.nanmin(y[seen], axis=1)
    share = np.median(fits.reprojection_px[seen] / np.maximum(height, 1))
    lines = [
        f"{tracks} {'person' if tracks == 1 else 'people'} in {frames} frames at {fits.fps:g} per "
        f"second, {filled} frames filled in; keypoints are met to {100 * share:.1f} % of the "
        "person's height (median)",
        f"results: {args.out / 'fits.npz'}",
    ]
    if args.export:
        lines.append(f"motions: {args.out / 'motion'}")
    if (args.out / "index.html").exists():
        lines.append(f"open in a browser: {args.out / 'index.html'}")
    return "\n".join(lines)
