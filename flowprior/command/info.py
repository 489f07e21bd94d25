"""``flowprior info``: describe a model, a checkpoint, fits or a file of keypoints."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flowprior import CheckpointError, ConditionalPosePrior
from flowprior.command.descriptions import describe_fits, describe_motion_prior, describe_prior
from flowprior.command.options import add_keypoints, verb
from flowprior.files.model_folder import BUNDLED
from flowprior.keypoint_files import read_detections
from flowprior.keypoint_files.openpose import openpose_files
from flowprior.prior import MotionPrior
from flowprior.prohmr import load_prior
from flowprior.results import Fits

if TYPE_CHECKING:
    from flowprior.command.options import Verbs

__all__ = ["add_parser"]


def add_parser(verbs: "Verbs") -> None:
    """Add the verb to the command line."""
    parser = verb(
        verbs,
        "info",
        run,
        "describe a model, a checkpoint, fits or a file of keypoints",
        "Describe a flowprior model (a file, a folder, or the name of one that ships with the "
        "package), a ProHMR checkpoint, the results of flowprior fit, or a file or folder of 2D "
        "keypoints.",
    )
    parser.add_argument("file", type=Path, metavar="FILE|DIR|NAME")
    add_keypoints(parser)


def run(args: argparse.Namespace) -> int:
    """Print the description; returns the exit code."""
    file = args.file
    if file.as_posix() in BUNDLED:
        print(_described(file.as_posix(), BUNDLED[file.as_posix()]))
    elif file.is_dir() and (file / "fits.npz").exists():
        print(describe_fits(Fits.load(file), file / "fits.npz"))
    elif file.is_dir() and (file / "config.json").exists():
        print(_described(file.as_posix(), file))
    elif openpose_files(file) if file.is_dir() else file.suffix == ".json":
        print(read_detections(file, args.images, skeleton=args.skeleton)[1])
    elif file.suffix == ".npz":
        print(describe_fits(Fits.load(file), file))
    else:
        print(describe_prior(_prior(file), file))
    return 0


def _described(name: str, folder: Path) -> str:
    """The description of a prior in a folder, of poses or of motions."""
    try:
        return describe_prior(ConditionalPosePrior.from_pretrained(name), folder)
    except CheckpointError as no_pose_prior:
        try:
            return describe_motion_prior(MotionPrior.from_pretrained(name), folder)
        except CheckpointError:
            raise no_pose_prior from None


def _prior(file: Path) -> ConditionalPosePrior:
    try:
        return ConditionalPosePrior.load(file)
    except CheckpointError as not_ours:
        try:
            return load_prior(file)
        except CheckpointError as not_original:
            raise CheckpointError(f"{not_ours}; nor a ProHMR checkpoint: {not_original}") from None
