"""Fit everybody of a large set of keypoints, on one machine or a cluster.

    python -m examples.fitting.annotate INPUT OUTPUT

INPUT is a shard or a folder of shards: ``.npz``, ``.parquet``, folders of OpenPose's JSON; see
`shards`. OUTPUT becomes a folder of parquet files, one for each chunk of people, with SMPL
parameters and the quality of every fit, and ``report.json``. Files are written atomically, so the
command can be stopped or killed at any time and started again: it fits what is missing, and tries
damaged shards again. Ray Data spreads the chunks over the processes of this machine, or of the
cluster that ``RAY_ADDRESS`` names, which must see the same folders; with ``--workers 0`` this
process fits all of them without Ray.
"""

import argparse
import hashlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from examples.command_line import DEVICES, device_of, fail, interruptible, natural, positive
from examples.fitting.choices import (
    KINDS,
    WEIGHTS,
    add_prior_argument,
    model_folder,
    open_priors,
)
from examples.fitting.outputs import fits_to_arrays
from examples.fitting.shards import Chunk, People, chunks_of, read_chunk
from examples.training.settings import with_overrides
from examples.whole_files import prepare_folder, write_json, write_text
from flowprior.body import BodyModel
from flowprior.files.whole_file import whole_file
from flowprior.fitting import CROP_PX, KeypointWeights, check_focal, fit_keypoints
from flowprior.skeleton import BODY_25

__all__ = ["Annotator", "main"]

FLAT = ("global_orient", "body_pose", "betas", "transl", "principal_point_px", "joints")
SETTINGS_FILE = "settings.json"
UNREADABLE = "shard that cannot be read"
RAY_STARTS = 10
"""Number of attempts to start Ray, each with Ray's limit of 30 s."""
RAY_WAITS = {
    "RAY_gcs_server_port_wait_time_s": "600",
    "RAY_worker_register_timeout_seconds": "600",
}
"""Ray's time limits in seconds, for machines on which importing PyTorch takes a minute."""


class Annotator:
    """A worker that reads chunks, fits their people and writes the results.

    Args:
        output: Output folder.
        prior: Name or folder of the prior, see `open_priors`.
        kind: Kind of prior, one of `KINDS`.
        body: SMPL file, or None for the embedded body.
        weights: Weights of the fit.
        steps: Maximum number of iterations.
        focal: Focal length in pixels of the crop, or of images with known size; 5000 if None.
        device: Device of the fits.
    """

    def __init__(
        self,
        output: str,
        prior: str,
        kind: str,
        body: str | None,
        weights: KeypointWeights,
        steps: int,
        focal: float | None,
        device: str,
    ) -> None:
        torch.set_num_threads(1)
        self.output = Path(output)
        self.device = torch.device(device)
        self.priors = open_priors(prior, self.device)
        self.kind, self.weights, self.steps, self.focal = kind, weights, steps, focal
        self.body = BodyModel(body).to(self.device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Process a batch of chunks; the interface of Ray Data."""
        done: dict[str, list[Any]] = {"name": [], "kept": [], "rows": []}
        for shard, name, start, stop in zip(
            batch["shard"], batch["name"], batch["start"], batch["stop"], strict=True
        ):
            report = self.annotate(Chunk(str(shard), str(name), int(start), int(stop)))
            done["name"].append(str(name))
            done["kept"].append(report["kept"])
            done["rows"].append(report["rows"])
        return {key: np.array(values) for key, values in done.items()}

    def annotate(self, chunk: Chunk) -> dict[str, Any]:
        """Read, fit and write one chunk; returns its report."""
        try:
            people = read_chunk(chunk)
            report = {
                "rows": people.report.rows,
                "kept": people.report.kept,
                "left_out": {k: f.count for k, f in people.report.left_out.items()},
                "examples": {k: f.examples for k, f in people.report.left_out.items()},
            }
            table = self._fit(chunk, people) if len(people.row) else None
        except ValueError as error:
            # A damaged shard costs its own people only.
            rows = chunk.stop - chunk.start
            report = {
                "rows": rows,
                "kept": 0,
                "left_out": {UNREADABLE: rows} if rows else {},
                "examples": {UNREADABLE: [str(error)]},
                "unreadable": {chunk.shard: str(error)},
            }
            table = None
        if table is not None:
            report["status"] = dict(Counter(table["status"].to_pylist()))
            with whole_file(self.output / f"{chunk.name}.parquet") as partial:
                pq.write_table(table, partial)
        # Last: with it the chunk is done.
        write_json(self.output / f"{chunk.name}.json", report)
        return report

    def _fit(self, chunk: Chunk, people: People) -> pa.Table:
        keypoints = torch.from_numpy(people.keypoints).to(self.device)

        def given(array: np.ndarray | None) -> torch.Tensor | None:
            return None if array is None else torch.from_numpy(array).to(self.device)

        size = torch.from_numpy(people.image_size).to(self.device)
        fits = fit_keypoints(
            keypoints,
            self.priors.variables(self.kind, keypoints, context=given(people.context)),
            body=self.body,
            skeleton=BODY_25,
            image_size=size,
            focal_px=self.focal,
            betas=given(people.betas),
            weights=self.weights,
            max_iterations=self.steps,
        )
        arrays = fits_to_arrays(fits, self.body)
        columns: dict[str, Any] = {
            "shard": [chunk.shard] * len(people.row),
            "row": people.row,
            "image_name": people.image_names.tolist(),
            "person": people.person,
        }
        for name in FLAT:
            flat = arrays[name].reshape(len(people.row), -1).astype(np.float32)
            columns[name] = pa.FixedSizeListArray.from_arrays(flat.ravel(), flat.shape[1])
        for name in ("focal_px", "objective", "pose_penalty", "error_px", "error", "iterations"):
            columns[name] = arrays[name]
        columns["status"] = arrays["status"].tolist()
        return pa.table(columns)


def pending(chunks: Sequence[Chunk], output: Path) -> list[Chunk]:
    """Chunks that have no report or whose shard could not be read."""

    def is_done(chunk: Chunk) -> bool:
        file = output / f"{chunk.name}.json"
        return file.exists() and "unreadable" not in json.loads(file.read_text(encoding="utf-8"))

    return [chunk for chunk in chunks if not is_done(chunk)]


def summarise(chunks: Sequence[Chunk], output: Path) -> dict[str, Any]:
    """Combine the reports of all chunks."""
    total: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    status: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    unreadable: dict[str, str] = {}
    for chunk in chunks:
        report = json.loads((output / f"{chunk.name}.json").read_text(encoding="utf-8"))
        total.update(rows=report["rows"], kept=report["kept"])
        left_out.update(report["left_out"])
        status.update(report.get("status", {}))
        unreadable.update(report.get("unreadable", {}))
        for reason, places in report["examples"].items():
            known = examples.setdefault(reason, [])
            known += places[: 3 - len(known)]
    return {
        "chunks": len(chunks),
        "people": total["rows"],
        "fitted": total["kept"],
        "left_out": dict(left_out),
        "examples": examples,
        "status": dict(status),
        "unreadable": unreadable,
    }


def check_settings(output: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError if the folder contains fits with other settings."""
    file = output / SETTINGS_FILE
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    if not file.exists():
        write_text(file, text)
    elif file.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{output} holds fits of other settings or another input, see {file}: choose another "
            "folder, or the same settings to go on"
        )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.fitting.annotate", description=__doc__.splitlines()[0],
        epilog="Exit code: 0 done, 1 done but for shards that cannot be read, 2 bad arguments or "
        "data, 130 interrupted.",
    )  # fmt: skip
    parser.add_argument("input", type=Path, metavar="INPUT", help="a shard, or a folder of them")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder, made if missing")
    add_prior_argument(parser)
    parser.add_argument("--kind", choices=KINDS, default="conditional", help="which of its priors")
    parser.add_argument("--body", type=Path, metavar="FILE", help="SMPL file; embedded if left out")
    parser.add_argument("--focal", type=float, metavar="PX", help="focal length (default: 5000)")
    parser.add_argument("--chunk", type=int, default=256, metavar="N", help="people (or JSON "
                        "files) fitted and written at once")  # fmt: skip
    parser.add_argument("--workers", type=natural, metavar="N", help="processes of Ray (default: "
                        "one per core or GPU of the cluster); 0 to fit in this one, without "
                        "Ray")  # fmt: skip
    parser.add_argument("--steps", type=positive, default=150, metavar="N", help="most iterations")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="weights")
    return parser.parse_intermixed_args(argv)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Fit what is missing; returns the report."""
    if args.focal is not None:
        check_focal(args.focal, CROP_PX, source="--focal")
    cuda = device_of(args.device).type == "cuda"
    weights = with_overrides(WEIGHTS[args.kind], args.settings)
    chunks = chunks_of(args.input, args.chunk)
    open_priors(args.prior, torch.device("cpu"))  # says at once if it is missing
    prepare_folder(args.output)
    check_settings(
        args.output,
        {
            "input": str(args.input.resolve()),
            "prior": _fingerprint(args.prior),
            "kind": args.kind,
            "body": None if args.body is None else str(args.body.resolve()),
            "focal": args.focal,
            "chunk": args.chunk,
            "steps": args.steps,
            "weights": vars(weights),
        },
    )
    left = pending(chunks, args.output)
    print(f"{len(chunks)} chunks, {len(chunks) - len(left)} done before", flush=True)
    worker = {
        "output": str(args.output.resolve()),
        # Workers may start in another folder.
        "prior": str(Path(args.prior).resolve()) if Path(args.prior).is_dir() else args.prior,
        "kind": args.kind,
        "body": None if args.body is None else str(args.body.resolve()),
        "weights": weights,
        "steps": args.steps,
        "focal": args.focal,
        "device": "cuda" if cuda else "cpu",
    }
    pause = 0.1 if sys.stderr.isatty() else 10.0
    with tqdm(total=len(left), unit="chunk", mininterval=pause, ncols=88) as bar:
        people = 0
        for kept in _kept(left, worker, args.workers, cuda) if left else ():
            people += kept
            bar.update()
            bar.set_postfix_str(f"{people} people", refresh=False)
    report = summarise(chunks, args.output)
    write_json(args.output / "report.json", report)
    return report


def _kept(
    left: Sequence[Chunk], worker: dict[str, Any], workers: int | None, cuda: bool
) -> Iterator[int]:
    """Fit chunks; yields the number of fitted people of each, in any order."""
    if workers == 0:
        threads = torch.get_num_threads()
        one = Annotator(**worker)
        try:
            for chunk in left:
                yield int(one.annotate(chunk)["kept"])
        finally:
            torch.set_num_threads(threads)
    else:
        yield from _spread(left, worker, workers, cuda)


def _start_ray() -> None:
    """Connect to the cluster of ``RAY_ADDRESS``, or start Ray here, however long that takes."""
    import ray

    # Workers import this code from where it lies, whatever folder they start in.
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    for name, seconds in RAY_WAITS.items():
        os.environ.setdefault(name, seconds)
    for trial in range(1, RAY_STARTS + 1):
        try:
            ray.init(
                # Not the cluster that /tmp/ray names: it may be what a killed program left.
                address=os.environ.get("RAY_ADDRESS") or "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                include_dashboard=False,
                runtime_env={"env_vars": {"PYTHONPATH": path}},
                ignore_reinit_error=True,
            )
        except Exception as error:  # of several classes, Exception itself among them
            if "timed out" not in str(error).lower():
                raise
            ray.shutdown()
            if trial == RAY_STARTS:
                raise TimeoutError(
                    f"Ray did not start in {RAY_STARTS} attempts ({error}); --workers 0 fits "
                    "without it"
                ) from error
            print("Ray is slow to start; waiting for it", file=sys.stderr)
        else:
            return


def _spread(
    left: Sequence[Chunk], worker: dict[str, Any], workers: int | None, cuda: bool
) -> Iterator[int]:
    import ray
    import ray.data

    _start_ray()
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        workers = workers or max(1, int(resources.get("GPU" if cuda else "CPU", 1)))
        workers = min(workers, len(left))
        rows = ray.data.from_items([vars(chunk) for chunk in left], override_num_blocks=len(left))
        done = rows.map_batches(
            Annotator,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=0 if cuda else 1,
            num_gpus=1 if cuda else 0,
            fn_constructor_kwargs=worker,
        )
        for row in done.iter_rows():
            yield int(row["kept"])
    finally:
        ray.shutdown()


def _fingerprint(prior: str) -> str:
    """A short hash of the files of a prior."""
    digest = hashlib.sha256()
    folder = model_folder(prior) or Path(prior)
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".npz"):
            digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@interruptible("the same command goes on from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code."""
    args = parse_args(argv)
    try:
        report = run(args)
    except (OSError, ValueError) as error:
        return fail(error)
    print(
        f"{report['fitted']} of {report['people']} people fitted, "
        f"{sum(report['left_out'].values())} left out; see {args.output / 'report.json'}"
    )
    for fault in report["unreadable"].values():
        print(f"not read: {fault}", file=sys.stderr)
    return 1 if report["unreadable"] else 0


if __name__ == "__main__":
    sys.exit(main())
