r"""Evaluate a model by the paper's protocols: the mode, and the best of n samples.

    python -m examples.prohmr.evaluate --checkpoint outputs/prohmr/model.safetensors
    python -m examples.prohmr.evaluate --checkpoint prohmr.pt --data FOLDER --samples 4096 \
        --body SMPL_NEUTRAL.pkl --regressor SMPL_to_J19.pkl --fit

Original checkpoints load directly. For n below --samples, k-means reduces the samples to n, as in
the paper; the table also shows the best of the first n.

--fit also fits a body to the 2D keypoints of every image, with the model's posterior as the prior,
and refines groups of views jointly. key=value changes a weight: pose, shape, sigma or use_hips of
fits to keypoints; views.consistency, views.pose, views.keypoints or views.shape of refinement.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from torch import Tensor

from examples.command_line import DEVICES, device_of, fail, interruptible, natural, positive
from examples.data import annotations, view_groups
from examples.data.ambiguous import cut_limbs
from examples.data.annotations import Annotations
from examples.data.datasets import DATASETS, dataset_info
from examples.data.images import ImageBatch, ImageDataset
from examples.prohmr.fit_arguments import add_fit_arguments, fit_options
from examples.prohmr.fits import ImageFitter, judge_fits, judge_views
from examples.prohmr.judging import HIDDEN, batches_of, judge_batch
from examples.prohmr.model import ProHMR, load_model
from examples.prohmr.pictures import sheets_of_fits
from examples.prohmr.sources import locate
from examples.prohmr.tables import (
    GROUPS,
    Evaluation,
    fitting_table,
    regression_table,
    views_table,
)
from examples.prohmr.train import load_body
from examples.whole_files import prepare_folder, write_text
from flowprior.body import BodyModel
from flowprior.files.report import Report
from flowprior.metrics import Tally
from flowprior.metrics.protocols import PROTOCOLS, Protocol
from flowprior.skeleton import PROHMR_44, PROHMR_EVAL_14

__all__ = ["evaluate", "main", "mean_pose_errors"]

QUANTISED = (5, 10, 25)
SHOWN = 8


@dataclass(frozen=True, eq=False)
class Opened:
    """An opened data set.

    Attributes:
        dataset: Its images; groups contribute one image per view.
        groups: For each person in several views, the rows of the views; None without groups.
        report: Content and faults of the file.
    """

    dataset: ImageDataset
    groups: Sequence[Sequence[int]] | None
    report: Report

    def groups_in(self, batch: ImageBatch) -> list[list[int]]:
        """The groups of a batch, by rows of the batch; a batch contains whole groups only."""
        place = {row: number for number, row in enumerate(batch.idx.tolist())}
        found = [[place[row] for row in group if row in place] for group in self.groups or ()]
        return [group for group in found if group]


def protocol_of(name: str) -> Protocol:
    """The protocol of a data set; by default the 14 joints of 3DPW."""
    if name.upper().replace("_", "-") in DATASETS:
        info = dataset_info(name)
        return Protocol(info.name, PROHMR_44, info.joints or PROHMR_EVAL_14, info.pelvis)
    return PROTOCOLS["3DPW"]


def open_dataset(folder: Path, name: str, *, cut: bool = False) -> Opened:
    """Open one data set.

    Args:
        folder: The folder of all data.
        name: As in `examples.prohmr.sources.locate`.
        cut: Whether to cut limbs off, see `examples.data.ambiguous`.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It is unreadable.
    """
    file, images = locate(folder, name)
    if file.suffix == ".pkl":
        views, report = view_groups.read(file)
        ends = [0, *accumulate(map(len, views))]
        groups = [range(start, stop) for start, stop in pairwise(ends)]
        people = Annotations.concatenate(views)
    else:
        people, report = annotations.read(file)
        groups = None
    return Opened(ImageDataset(cut_limbs(people) if cut else people, images), groups, report)


def fits_hips(name: str) -> bool:
    """Whether fits to a data set use the hips: if they are ground truth, as in rendered images."""
    if name.upper().replace("_", "-") in DATASETS:
        return bool(dataset_info(name).fits_hips)
    return True


def evaluate(
    model: ProHMR,
    body: BodyModel,
    folder: Path,
    name: str,
    *,
    samples: int = 4096,
    quantised: Sequence[int] = (),
    fitter: ImageFitter | None = None,
    cut: bool = False,
    images: int = 0,
    batch_size: int = 16,
    block: int = 64,
    workers: int = 0,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a model on a data set.

    Args:
        model: In evaluation mode.
        body: The body, on the same device.
        folder: The folder of all data.
        name: As in `examples.prohmr.sources.locate`.
        samples: Samples per image, including the mode.
        quantised: Numbers of clusters for k-means.
        fitter: Fits to the keypoints of every image, and refines groups of views; None for no fits.
        cut: Whether to cut limbs off, see `examples.data.ambiguous`.
        images: Largest number of images, evenly spaced; 0 for all.
        batch_size: Images per batch.
        block: Samples per image at a time.
        workers: Number of decoding processes.
        seed: Seed of the samples.

    Returns:
        The results.

    Raises:
        FileNotFoundError: The data does not exist.
        ValueError: The data is unreadable.
    """
    opened = open_dataset(folder, name, cut=cut)
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    tally, looked_at = Tally(), 0
    counts = sorted({n for n in (1, *QUANTISED, 100, samples) if n <= samples})
    protocol = protocol_of(name)
    for batch in batches_of(
        opened.dataset, batch_size, images=images, workers=workers, groups=opened.groups
    ):
        batch = batch.to(device)
        judged = judge_batch(
            model,
            body,
            batch,
            protocol,
            counts=counts,
            quantised=[n for n in quantised if n < samples],
            block=block,
            generator=generator,
        )
        values = judged.values
        if fitter is not None:
            values |= judge_fits(model, fitter, batch, protocol)
            if opened.groups is not None:
                values |= judge_views(model, fitter, batch, opened.groups_in(batch), protocol)
        groups = [GROUPS[int(hidden >= HIDDEN)] for hidden in judged.hidden.tolist()]
        tally.add(values, groups)
        looked_at += len(batch)
    shown = f"{name}, cut" if cut else name
    return Evaluation(shown, protocol, looked_at, tally, opened.report)


def mean_pose_errors(
    train: Annotations, test: Annotations, protocol: Protocol
) -> Mapping[str, float]:
    """Errors of a constant prediction: the mean of the training set's keypoints.

    Args:
        train: People to average, if all evaluated 3D keypoints are annotated.
        test: People to evaluate, under the same condition.
        protocol: The evaluated joints.

    Returns:
        "mpjpe_mm" and "pa_mpjpe_mm"; NaN if nobody has 3D keypoints.
    """

    def usable(rows: Annotations) -> Tensor:
        points = torch.from_numpy(rows.keypoints_3d)
        seen = (points[:, [*protocol.joints, protocol.root], -1] > 0).all(dim=1)
        points = points[seen, :, :3]
        return points - points[:, [protocol.root]]

    mean, truth = usable(train).mean(dim=0, keepdim=True), usable(test)
    if not len(truth) or not bool(mean.isfinite().all()):
        return {"mpjpe_mm": math.nan, "pa_mpjpe_mm": math.nan}
    errors = protocol.errors(mean.expand_as(truth), truth)
    return {f"{name}_mm": 1000 * float(error.mean()) for name, error in errors.items()}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.prohmr.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Files in --out: evaluation.json and evaluation.md; with --fit pictures too.\n"
        "Exit code: 0 done, 1 a data set could not be evaluated, 2 bad arguments or data.",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--own-backbone", metavar="MODULE:FUNCTION", help="your backbone of the checkpoint"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("outputs/prohmr/data"),
        metavar="PATH",
        help="the folder of the data sets (%(default)s)",
    )
    parser.add_argument(
        "--datasets",
        nargs="+",
        metavar="NAME",
        help="data sets (default: test, or all of the paper's that exist)",
    )
    parser.add_argument("--samples", type=int, default=4096, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--quantised", type=int, nargs="*", default=list(QUANTISED), metavar="N", help="(5 10 25)"
    )
    parser.add_argument(
        "--images", type=natural, default=0, metavar="N", help="largest number of images; 0 for all"
    )
    parser.add_argument(
        "--cut",
        action="store_true",
        help="shrink the boxes to cut limbs off, as in ambiguous Human3.6M",
    )
    add_fit_arguments(parser)
    parser.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="(%(default)s)"
    )
    parser.add_argument("--workers", type=natural, default=0, metavar="N", help="(%(default)s)")
    parser.add_argument("--body", default="embedded", metavar="FILE", help="(%(default)s)")
    parser.add_argument("--regressor", default="none", metavar="FILE", help="SMPL_to_J19.pkl")
    parser.add_argument(
        "--mean-of",
        default="train",
        metavar="NAME",
        help="the data set whose mean pose is the baseline, if it exists (%(default)s)",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/prohmr"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    return parser.parse_intermixed_args(argv)


@interruptible("no table was written")
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; returns the exit code."""
    args = parse_args(argv)
    known = ("test", "views", *(info.name for info in DATASETS.values() if info.joints))
    names = args.datasets or [
        name for name in (*known, "MANNEQUIN") if locate(args.data, name)[0].exists()
    ]
    try:
        device = device_of(args.device)
        if args.samples < 1 or min(args.quantised, default=1) < 1:
            raise ValueError("expected --samples and --quantised from 1 up")
        if not names:
            raise FileNotFoundError(f"{args.data} has no data set to evaluate on")
        options = fit_options(args, use_hips=False)
        model = load_model(args.checkpoint, device, own_backbone=args.own_backbone)
        body = load_body(args.body, args.regressor).to(device)
    except (OSError, ValueError) as error:
        return fail(error)
    quantised = [n for n in args.quantised if n < args.samples]
    done: list[Evaluation] = []
    results: dict[str, object] = {"checkpoint": str(args.checkpoint), "samples": args.samples}
    if args.fit:
        words = dataclasses.asdict(options)
        del words["keypoints"]["use_hips"]  # one per data set
        results["fit"] = words
    failed = False
    for name in names:
        start = time.perf_counter()
        fitter = None
        if args.fit:
            fitter = ImageFitter(model, body, fit_options(args, use_hips=fits_hips(name)))
        try:
            each = evaluate(
                model,
                body,
                args.data,
                name,
                samples=args.samples,
                quantised=quantised,
                fitter=fitter,
                cut=args.cut,
                images=args.images,
                batch_size=args.batch_size,
                workers=args.workers,
                seed=args.seed,
            )
        except (OSError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        if not each.report.clean:
            print(each.report, file=sys.stderr)
        if fitter is not None:
            draw_fits(args, name, model, fitter)
        done.append(each)
        entry = each.as_dict() | {"seconds": round(time.perf_counter() - start, 1)}
        entry["mean_pose"] = _baseline(args.data, args.mean_of, name)
        if fitter is not None:
            entry["use_hips"] = fitter.options.keypoints.use_hips
        results[each.dataset] = entry
        print(_summary(each, entry))
    if not done:
        return 2
    tables = (regression_table(done, args.samples, quantised), fitting_table(done))
    text = "\n\n".join(filter(None, (*tables, views_table(done))))
    prepare_folder(args.out)
    write_text(args.out / "evaluation.json", json.dumps(results, indent=2) + "\n")
    write_text(args.out / "evaluation.md", text + "\n")
    print(text)
    return int(failed)


def draw_fits(args: argparse.Namespace, name: str, model: ProHMR, fitter: ImageFitter) -> None:
    """Draw the first people of a data set before and after fitting."""
    opened = open_dataset(args.data, name, cut=args.cut)
    device = next(model.parameters()).device
    batch = next(batches_of(opened.dataset, SHOWN, groups=opened.groups)).to(device)
    prepare_folder(args.out)
    sheets_of_fits(args.out, fitter, model, batch, opened.groups_in(batch), name)


def _baseline(folder: Path, train: str, test: str) -> Mapping[str, float] | None:
    try:
        known, judged = (open_dataset(folder, name).dataset for name in (train, test))
    except (OSError, ValueError):
        return None
    return mean_pose_errors(known.annotations, judged.annotations, protocol_of(test))


def _summary(each: Evaluation, entry: Mapping[str, object]) -> str:
    lines = [f"{each.dataset}: {each.images} images, {each.protocol.name}"]
    for name in (
        *("mode_mpjpe_mm", "best_of_100_mpjpe_mm", "fit_mpjpe_mm", "together_mpjpe_mm"),
        *("nll_nats", "entropy_nats"),
    ):
        if each.tally.count(name):
            means = each.tally.group_means(name)
            parts = ", ".join(f"{group} {means[group]:.1f}" for group in GROUPS if group in means)
            lines.append(f"  {name}: {each.tally.mean(name):.1f} ({parts})")
    baseline = entry["mean_pose"]
    if isinstance(baseline, dict):
        lines.append(f"  mean pose: {baseline['mpjpe_mm']:.1f} mm MPJPE")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
