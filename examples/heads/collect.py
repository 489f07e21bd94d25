r"""Run a frozen regressor over annotated images once, and cache features and answers.

    python -m examples.heads.collect DATA --regressor prohmr --checkpoint model.safetensors \
        --out outputs/heads/features.safetensors
    python -m examples.heads.collect DATA --regressor mine:hmr2 --out FEATURES.safetensors

DATA is a folder of data sets as for `examples.prohmr`: ``train.npz``, ``val.npz``, ``test.npz``
with ProHMR's keys, and ``images/``. A column ``subject`` names the person of each row. Your
function ``mine:hmr2`` loads a regressor with its own code and returns an
`examples.heads.regressors.FrozenRegressor`.

The same command continues an interrupted run. A set larger than --shard-gb is written as
FEATURES-00001-of-00003.safetensors, ...; the training program takes FEATURES.safetensors for both.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from examples.command_line import DEVICES, device_of, fail, interruptible, natural, positive
from examples.data.images import ImageBatch, ImageDataset
from examples.heads.features import (
    NOTHING,
    About,
    Features,
    read_about,
    read_features,
    shards,
    write_features,
)
from examples.heads.regressors import FrozenRegressor, fingerprint, open_regressor
from examples.prohmr.judging import batches_of, crop_batch, limbs_hidden
from examples.prohmr.sources import locate, read_dataset
from examples.whole_files import prepare_folder
from flowprior.files.numpy_file import read_npz
from flowprior.prior.heads import Tap

__all__ = ["collect", "main", "subjects_in"]

PART_ROWS = 2048


@torch.no_grad()
def collect(
    regressor: FrozenRegressor,
    dataset: ImageDataset,
    rows: Sequence[int],
    about: About,
    *,
    number: int = 0,
    subject: Tensor | None = None,
    batch_size: int = 32,
    workers: int = 0,
) -> tuple[Features, list[str]]:
    """Run a regressor over rows of a data set.

    Args:
        regressor: The regressor.
        dataset: The images.
        rows: Rows of the data set.
        about: The origin that is recorded.
        number: Number of the data set.
        subject: (N,) number of the subject of each row of the data set; None if unknown.
        batch_size: People per batch.
        workers: Number of decoding processes.

    Returns:
        The people that could be processed, in order, and the faults of the others.

    Raises:
        ValueError: If features or answers do not have one row for each person.
    """
    device = next(regressor.model.parameters()).device
    parts: list[Features] = []
    faults: list[str] = []
    batches = batches_of(dataset, batch_size, workers=workers, groups=[(row,) for row in rows])
    with regressor.tap() as opened:
        for batch in batches:
            faults += [fault for fault in batch.faults if fault]
            on_device = batch.to(device)
            part = _one_batch(regressor, opened, on_device, about, number, subject)
            kept = part.features.isfinite().all(dim=1) & part.answer.flatten(1).isfinite().all(1)
            lost = (batch.valid & ~kept).nonzero()[:, 0].tolist()
            faults += [f"{batch.imgname[row]}: its features are not finite" for row in lost]
            parts.append(part.take(kept & batch.valid))
    return Features.join(parts), faults


def _one_batch(
    regressor: FrozenRegressor,
    opened: Tap,
    batch: ImageBatch,
    about: About,
    number: int,
    subject: Tensor | None,
) -> Features:
    answer, features = regressor.answer(batch), opened.take()
    for name, value in (("answers", answer), ("features", features)):
        if len(value) != len(batch):
            raise ValueError(
                f"the regressor returned {len(value)} {name} for {len(batch)} people: give each "
                "box its own row"
            )
    hidden = limbs_hidden(crop_batch(batch, 64).labels)
    columns = {
        "features": features.flatten(1).float(),
        "answer": answer.float(),
        "truth": regressor.truth(batch).float(),
        "dataset": torch.full_like(batch.idx, number),
        "row": batch.idx,
        "subject": torch.full_like(batch.idx, NOTHING),
        "hidden": hidden.to(batch.idx),
    }
    if subject is not None:
        columns["subject"] = subject[batch.idx.cpu()]
    return Features(**{name: value.cpu() for name, value in columns.items()}, about=about)


def subjects_in(folder: Path, names: Sequence[str]) -> tuple[tuple[str, ...], list[Tensor | None]]:
    """The subjects of data sets.

    Returns:
        Their names, and for each data set their numbers (N,), None for one without subjects.
    """
    columns: list[list[str] | None] = []
    for name in names:
        file, _ = locate(folder, name)
        content = read_npz(file) if file.suffix == ".npz" else {}
        column = content.get("subject")
        columns.append(None if column is None else [str(each) for each in np.asarray(column)])
    known = sorted({name for column in columns if column is not None for name in column})
    numbers = {name: number for number, name in enumerate(known)}
    return tuple(known), [
        None if column is None else torch.tensor([numbers[name] for name in column])
        for column in columns
    ]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.heads.collect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit code: 0 done, 1 some images could not be used, 2 bad arguments or data.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="the folder of the data sets")
    parser.add_argument(
        "--datasets",
        nargs="+",
        default=["train", "val", "test"],
        metavar="NAME",
        help="(train val test)",
    )
    parser.add_argument(
        "--regressor", default="prohmr", metavar="NAME", help="prohmr or module:function"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of the regressor")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/heads/features.safetensors"), metavar="FILE"
    )
    parser.add_argument(
        "--images", type=natural, default=0, metavar="N", help="per data set; 0 for all"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="(%(default)s)"
    )
    parser.add_argument("--workers", type=natural, default=0, metavar="N", help="(%(default)s)")
    parser.add_argument("--shard-gb", type=float, default=2.0, metavar="GB", help="(%(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    return parser.parse_args(argv)


@interruptible("run the same command again to continue")
def main(argv: Sequence[str] | None = None) -> int:
    """Collect features; returns the exit code."""
    args = parse_args(argv)
    try:
        if args.out.suffix != ".safetensors":
            raise ValueError(f"--out {args.out}: expected a name that ends in .safetensors")
        if not args.shard_gb > 0:
            raise ValueError(f"--shard-gb must be positive, got {args.shard_gb}")
        device = device_of(args.device)
        regressor = open_regressor(args.regressor, args.checkpoint, device)
        sets = [read_dataset(args.data, name) for name in args.datasets]
        subjects, numbers = subjects_in(args.data, args.datasets)
        name = fingerprint(args.regressor, args.checkpoint)
        about = About(name, regressor.layer, tuple(args.datasets), subjects)
        folder = args.out.with_suffix(".parts")
        prepare_folder(folder)
        _require_same_run(folder, about)
        faults: list[str] = []
        work = [
            (number, first, rows)
            for number, (dataset, _) in enumerate(sets)
            for first, rows in _chunks(len(dataset), args.images)
        ]
        bar = tqdm(work, unit="part", disable=not sys.stderr.isatty(), ncols=88)
        for number, first, rows in bar:
            path = folder / f"{number:02d}-{first:08d}-{len(rows)}.safetensors"
            if path.exists():
                continue
            found, bad = collect(
                regressor,
                sets[number][0],
                rows,
                about,
                number=number,
                subject=numbers[number],
                batch_size=args.batch_size,
                workers=args.workers,
            )
            faults += bad
            write_features(path, found)
        for fault in faults[:10]:
            print(fault, file=sys.stderr)
        files = [folder / f"{n:02d}-{first:08d}-{len(rows)}.safetensors" for n, first, rows in work]
        people, width = _unite(args.out, files, args.shard_gb * 1e9)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        return fail(error)
    shutil.rmtree(folder)
    lost = sum(len(rows) for _, _, rows in work) - people
    print(
        f"{people} people with {width} features of layer {regressor.layer!r} in {args.out}; "
        f"{lost} could not be used"
    )
    return int(bool(lost))


def _chunks(total: int, most: int) -> list[tuple[int, list[int]]]:
    """Rows of a data set in pieces: all, or ``most`` evenly spaced ones."""
    count = min(most, total) if most else total
    rows = (np.arange(count) * total // max(count, 1)).tolist()
    return [(first, rows[first : first + PART_ROWS]) for first in range(0, count, PART_ROWS)]


def _require_same_run(folder: Path, about: About) -> None:
    for path in sorted(folder.glob("*.safetensors")):
        if read_about(path) != about:
            raise ValueError(
                f"{folder} holds parts of another run, with other data sets or another regressor: "
                "delete it, or choose another --out"
            )


def _unite(out: Path, files: Sequence[Path], most_bytes: float) -> tuple[int, int]:
    """Join parts into one file, or several if they are large; returns people and width."""
    groups = list(shards(files, most_bytes))
    people, width = 0, 0
    for number, group in enumerate(groups, 1):
        path = out
        if len(groups) > 1:
            path = out.with_name(f"{out.stem}-{number:05d}-of-{len(groups):05d}{out.suffix}")
        part = Features.join([read_features(file) for file in group])
        people, width = people + len(part), part.features.shape[1]
        write_features(path, part)
    if len(groups) > 1:  # an older, smaller set of the same name would be read instead
        out.unlink(missing_ok=True)
    return people, width


if __name__ == "__main__":
    sys.exit(main())
