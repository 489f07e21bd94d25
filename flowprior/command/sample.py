"""``flowprior sample``: poses from a prior, given keypoints or nothing."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flowprior import rotations
from flowprior.command import options
from flowprior.command.sources import Camera, Keypoints
from flowprior.files.whole_file import whole_file
from flowprior.results.estimator import Estimator

if TYPE_CHECKING:
    from flowprior.command.options import Verbs

__all__ = ["add_parser"]


def add_parser(verbs: "Verbs") -> None:
    """Add the verb to the command line."""
    parser = options.verb(
        verbs,
        "sample",
        run,
        "sample poses given 2D keypoints, or from the prior alone",
        "Draw poses from the posterior of each person given 2D keypoints, without a fit; or from "
        "the prior alone if there is no INPUT.",
        "Written to --out: an .npz file with rotvecs (N, S, J, 3) in radians, mode (N, J, 3), "
        "log_prob (N, S) in nats, image and person (N,). Without INPUT, N is 1.",
    )
    parser.add_argument(
        "input", type=Path, nargs="?", metavar="INPUT", help="2D keypoints, as for flowprior fit"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .npz file")
    options.add_prior(parser)
    options.add_keypoints(parser)
    options.add_samples(parser, 16)
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    options.add_device(parser)
    options.add_quiet(parser)


@torch.no_grad()
def run(args: argparse.Namespace) -> int:
    """Draw the samples; returns the exit code."""
    if args.out.exists() and not args.force:
        raise FileExistsError(f"{args.out} exists; --force replaces it")
    device = options.device_from(args.device)
    estimator = Estimator(args.prior, device=device)
    generator = torch.Generator(device).manual_seed(args.seed)
    image, person = np.array([""], np.str_), np.zeros(1, np.int64)
    if args.input is None:
        evidence = estimator.prior.evidence
        posterior = estimator.prior.given() if evidence is not None else estimator.prior(None)
        posterior = posterior.expand(torch.Size([1]))
    else:
        source = Keypoints(args.input, Camera(), args.images, args.skeleton, hands=False)
        if not args.quiet:
            print(source.report, file=sys.stderr)
        chunks = [chunk.people for chunk in source.chunks(max(1, source.images), ())]
        if not chunks:
            raise ValueError(f"{args.input}: no people")
        (people,) = chunks
        posterior = estimator.posterior(people).expand(torch.Size([len(people)]))
        image, person = np.array(people.image, np.str_), people.person
    samples, log_prob = posterior.sample_and_log_prob(args.samples, generator=generator)
    arrays: dict[str, Any] = {
        "image": image,
        "person": person,
        "rotvecs": _rotvecs(estimator, samples),
        "mode": _rotvecs(estimator, posterior.mode()),
        "log_prob": log_prob.cpu().numpy(),
    }
    with whole_file(args.out) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{args.samples} samples of {len(person)} posteriors: {args.out}")
    return 0


def _rotvecs(estimator: Estimator, theta: torch.Tensor) -> np.ndarray[Any, Any]:
    matrix = estimator.space.to_matrix(theta)
    return rotations.matrix_to_rotvec(matrix).cpu().numpy()
