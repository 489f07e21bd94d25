r"""Evaluate a model to the paper's protocols: the mode, and the best of n samples.

    python -m examples.prohmr.evaluate --checkpoint outputs/prohmr/model.safetensors
    python -m examples.prohmr.evaluate --checkpoint prohmr.pt --data FOLDER --samples 4096 \
        --body SMPL_NEUTRAL.pkl --regressor SMPL_to_J19.pkl

A checkpoint of the original loads as it is. For n below --samples, the samples are reduced to n by
k-means, as in the paper; the best of the first n stands beside it.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from examples.data import multiview
from examples.data.annotations import Annotations
from examples.data.datasets import DATASETS, dataset_info
from examples.data.images import ImageDataset
from examples.data.report import Report
from examples.prohmr.judging import HIDDEN, batches_of, judge_batch
from examples.prohmr.model import ProHMR, load_model
from examples.prohmr.published import published
from examples.prohmr.sources import locate, read_dataset
from examples.prohmr.train import load_body
from examples.training.checkpoints import write_text
from flowprior.body import BodyModel
from flowprior.evaluation import PROTOCOLS, Protocol
from flowprior.metrics import Tally
from flowprior.skeleton import PROHMR_44, PROHMR_EVAL_14

__all__ = ["Evaluation", "evaluate", "main", "mean_pose_errors", "table"]

QUANTISED = (5, 10, 25)
GROUPS = ("clear", "occluded")


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on one data set.

    Attributes:
        dataset: Its name.
        protocol: Which joints were judged.
        images: How many were looked at.
        tally: All figures, by whether limbs are hidden.
        report: What was found in the file.
    """

    dataset: str
    protocol: Protocol
    images: int
    tally: Tally
    report: Report

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        names = sorted({metric for metric, _ in self.tally.counts})
        return {
            "protocol": self.protocol.name,
            "images": self.images,
            "judged": {name: self.tally.count(name) for name in names},
            "all": {name: self.tally.mean(name) for name in names},
            **{
                group: {
                    name: means[group]
                    for name in names
                    if group in (means := self.tally.group_means(name))
                }
                for group in GROUPS
            },
        }


def protocol_of(name: str) -> Protocol:
    """The protocol of a data set; the 14 joints of 3DPW's for those that have none."""
    if name.upper().replace("_", "-") in DATASETS:
        info = dataset_info(name)
        return Protocol(info.name, PROHMR_44, info.joints or PROHMR_EVAL_14, info.pelvis)
    return PROTOCOLS["3DPW"]


def open_dataset(folder: Path, name: str) -> tuple[ImageDataset, Report]:
    """One data set, the views of groups one by one.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It cannot be read.
    """
    file, images = locate(folder, name)
    if file.suffix == ".pkl":
        groups, report = multiview.read(file)
        return ImageDataset(Annotations.concatenate(groups), images), report
    return read_dataset(folder, name)


def evaluate(
    model: ProHMR,
    body: BodyModel,
    folder: Path,
    name: str,
    *,
    samples: int = 4096,
    quantised: Sequence[int] = (),
    images: int = 0,
    batch_size: int = 16,
    block: int = 64,
    workers: int = 0,
    seed: int = 0,
) -> Evaluation:
    """Judge a model on a data set.

    Args:
        model: In evaluation mode.
        body: On the same device.
        folder: The folder of all data.
        name: As in `examples.prohmr.sources.locate`.
        samples: Of each image, the mode among them.
        quantised: Numbers to reduce them to by k-means.
        images: How many images at most, evenly chosen; 0 for all.
        batch_size: Images at a time.
        block: Samples of each at a time.
        workers: Processes that decode.
        seed: Of the samples.

    Returns:
        The figures.

    Raises:
        FileNotFoundError: The data is not there.
        ValueError: It cannot be read.
    """
    dataset, report = open_dataset(folder, name)
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    tally, looked_at = Tally(), 0
    counts = sorted({n for n in (1, *QUANTISED, 100, samples) if n <= samples})
    protocol = protocol_of(name)
    for batch in batches_of(dataset, batch_size, images=images, workers=workers):
        judged = judge_batch(
            model,
            body,
            batch.to(device),
            protocol,
            counts=counts,
            quantised=[n for n in quantised if n < samples],
            block=block,
            generator=generator,
        )
        groups = [GROUPS[int(hidden >= HIDDEN)] for hidden in judged.hidden.tolist()]
        tally.add(judged.values, groups)
        looked_at += len(batch)
    return Evaluation(name, protocol, looked_at, tally, report)


def mean_pose_errors(
    train: Annotations, test: Annotations, protocol: Protocol
) -> Mapping[str, float]:
    """What saying the same for every image is worth: the mean of the training set's keypoints.

    Args:
        train: Whose mean it is, of those with all judged 3D keypoints.
        test: Whose errors, likewise.
        protocol: Which joints are judged.

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


def table(evaluations: Sequence[Evaluation], samples: int, quantised: Sequence[int]) -> str:
    """The figures in the paper's layout, published ones beside them, as Markdown.

    Args:
        evaluations: One for each data set.
        samples: As in `evaluate`.
        quantised: As in `evaluate`.
    """
    lines = [
        "| data set | answer | MPJPE, mm | published | PA-MPJPE, mm | published |",
        "|---|---|---|---|---|---|",
    ]
    for each in evaluations:
        rows = [("mode", "mode", 0)]
        rows += [(f"best of {n}, k-means", f"best_of_{n}_quantised", n) for n in quantised]
        rows += [(f"best of {samples}", f"best_of_{samples}", samples)]
        for shown, name, n in rows:
            cells = []
            for metric in ("mpjpe", "pa_mpjpe"):
                value = each.tally.mean(f"{name}_{metric}_mm")
                others = published(each.dataset.upper(), metric, n)
                cells.append("-" if math.isnan(value) else f"{value:.1f}")
                cells.append(
                    ", ".join(f"{f.method} {f.value_mm:g} ({f.source})" for f in others) or "-"
                )
            lines.append(f"| {each.dataset} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.prohmr.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Written to --out: evaluation.json and evaluation.md.\n"
        "Exit code: 0 done, 1 a data set could not be evaluated, 2 bad arguments or data.",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
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
        help="which; if left out, test, or all of the paper's that are there",
    )
    parser.add_argument("--samples", type=int, default=4096, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--quantised", type=int, nargs="*", default=list(QUANTISED), metavar="N", help="(5 10 25)"
    )
    parser.add_argument("--images", type=int, default=0, metavar="N", help="at most; 0 for all")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="(%(default)s)")
    parser.add_argument("--body", default="embedded", metavar="FILE", help="(%(default)s)")
    parser.add_argument("--regressor", default="none", metavar="FILE", help="SMPL_to_J19.pkl")
    parser.add_argument(
        "--mean-of",
        default="train",
        metavar="NAME",
        help="the data set whose mean pose is the baseline, where it is there (%(default)s)",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/prohmr"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; returns the exit code."""
    args = parse_args(argv)
    device = "cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu"
    names = args.datasets or [
        name
        for name in ("test", *(info.name for info in DATASETS.values() if info.joints), "MANNEQUIN")
        if locate(args.data, name)[0].exists()
    ]
    try:
        if args.device == "cuda" and device == "cpu":
            raise ValueError("--device cuda: this PyTorch finds no GPU")
        if args.samples < 1 or min(args.quantised, default=1) < 1:
            raise ValueError("expected --samples and --quantised from 1 up")
        if not names:
            raise FileNotFoundError(f"{args.data} has no data set to evaluate on")
        model = load_model(args.checkpoint, device)
        body = load_body(args.body, args.regressor).to(device)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    quantised = [n for n in args.quantised if n < args.samples]
    done: list[Evaluation] = []
    results: dict[str, object] = {"checkpoint": str(args.checkpoint), "samples": args.samples}
    failed = False
    for name in names:
        start = time.perf_counter()
        try:
            each = evaluate(
                model,
                body,
                args.data,
                name,
                samples=args.samples,
                quantised=quantised,
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
        done.append(each)
        entry = each.as_dict() | {"seconds": round(time.perf_counter() - start, 1)}
        entry["mean_pose"] = _baseline(args.data, args.mean_of, name)
        results[name] = entry
        print(_summary(each, entry))
    if not done:
        return 2
    text = table(done, args.samples, quantised)
    args.out.mkdir(parents=True, exist_ok=True)
    write_text(args.out / "evaluation.json", json.dumps(results, indent=2) + "\n")
    write_text(args.out / "evaluation.md", text + "\n")
    print(text)
    return int(failed)


def _baseline(folder: Path, train: str, test: str) -> Mapping[str, float] | None:
    try:
        known, judged = open_dataset(folder, train)[0], open_dataset(folder, test)[0]
    except (OSError, ValueError):
        return None
    return mean_pose_errors(known.annotations, judged.annotations, protocol_of(test))


def _summary(each: Evaluation, entry: Mapping[str, object]) -> str:
    lines = [f"{each.dataset}: {each.images} images, {each.protocol.name}"]
    for name in ("mode_mpjpe_mm", "best_of_100_mpjpe_mm", "nll_nats", "entropy_nats"):
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
