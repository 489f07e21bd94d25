"""Fit everybody of a large set of keypoints, on one machine or a cluster.

    python -m examples.fitting.annotate INPUT OUTPUT --prior outputs/fitting/priors

INPUT is a shard or a folder of shards: ``.npz``, ``.parquet``, folders of OpenPose's JSON; see
`shards`. OUTPUT becomes a folder of parquet files, one for each chunk of people, with SMPL
parameters and the quality of every fit, and ``report.json``. A chunk's file appears whole or not at
all, so the command can be stopped or killed at any time and started again: it goes on with what is
missing. Ray Data spreads the chunks over the processes of this machine, or of the cluster that
``RAY_ADDRESS`` names, which must see the same folders.
"""

import argparse
import hashlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from examples.command_line import DEVICES, device_of, fail, interruptible, positive
from examples.data.focal_lengths import check_focal
from examples.fitting.cameras import CROP_PX
from examples.fitting.choices import KINDS, POSE_WEIGHTS, PriorFolder, cameras_for
from examples.fitting.keypoint_fit import fit_people
from examples.fitting.objective import KeypointWeights
from examples.fitting.outputs import fits_to_arrays
from examples.fitting.settings import overridden
from examples.fitting.shards import Chunk, People, chunks_of, read_chunk
from flowprior.body import BodyModel
from flowprior.skeleton import BODY_25

__all__ = ["Annotator", "main"]

FLAT = ("global_orient", "body_pose", "betas", "transl", "principal_point_px", "joints")
PARTIAL = ".partial"
SETTINGS_FILE = "settings.json"


class Annotator:
    """A worker: reads chunks, fits their people, writes their files.

    Args:
        output: The folder to write to.
        prior: The folder of priors.
        kind: Which of them.
        body: An SMPL file, or None for the embedded body.
        weights: Of the fit.
        steps: Most iterations.
        focal: Focal length in pixels of the crop, or of images whose size is known; 5000 if None.
        device: To fit on.
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
        self.priors = PriorFolder(Path(prior), self.device)
        self.kind, self.weights, self.steps, self.focal = kind, weights, steps, focal
        self.body = BodyModel(body).to(self.device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the chunks of a batch of rows; Ray Data's form of a worker."""
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
            # A shard that is damaged beyond its header costs its own people only.
            rows = chunk.stop - chunk.start
            report = {"rows": rows, "kept": 0, "left_out": {"shard that cannot be read": rows},
                      "examples": {"shard that cannot be read": [str(error)]}}  # fmt: skip
            table = None
        if table is not None:
            report["status"] = dict(Counter(table["status"].to_pylist()))
            partial = self.output / f"{chunk.name}.parquet{PARTIAL}{os.getpid()}"
            pq.write_table(table, partial)
            os.replace(partial, self.output / f"{chunk.name}.parquet")
        # Last: with it the chunk is done.
        partial = self.output / f"{chunk.name}.json{PARTIAL}{os.getpid()}"
        partial.write_text(json.dumps(report))
        os.replace(partial, self.output / f"{chunk.name}.json")
        return report

    def _fit(self, chunk: Chunk, people: People) -> pa.Table:
        keypoints = torch.from_numpy(people.keypoints).to(self.device)

        def given(array: np.ndarray | None) -> torch.Tensor | None:
            return None if array is None else torch.from_numpy(array).to(self.device)

        size = torch.from_numpy(people.image_size).to(self.device)
        cameras = cameras_for("full", keypoints, size, self.focal)
        fits = fit_people(
            self.body,
            keypoints,
            BODY_25,
            cameras,
            self.priors.variables(self.kind, keypoints, context=given(people.context)),
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
    """The chunks that are not done; leavings of a run that was killed are removed."""
    for leaving in output.glob(f"*{PARTIAL}*"):
        leaving.unlink()
    return [chunk for chunk in chunks if not (output / f"{chunk.name}.json").exists()]


def summarise(chunks: Sequence[Chunk], output: Path) -> dict[str, Any]:
    """What all chunks together hold."""
    total: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    status: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for chunk in chunks:
        report = json.loads((output / f"{chunk.name}.json").read_text())
        total.update(rows=report["rows"], kept=report["kept"])
        left_out.update(report["left_out"])
        status.update(report.get("status", {}))
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
    }


def check_settings(output: Path, settings: dict[str, Any]) -> None:
    """Refuse to mix fits of different settings in one folder; ValueError if they differ."""
    file = output / SETTINGS_FILE
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    if not file.exists():
        partial = output / f"{SETTINGS_FILE}{PARTIAL}{os.getpid()}"
        partial.write_text(text)
        os.replace(partial, file)
    elif file.read_text() != text:
        raise ValueError(
            f"{output} holds fits of other settings or another input, see {file}: choose another "
            "folder, or the same settings to go on"
        )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.fitting.annotate", description=__doc__.splitlines()[0],
        epilog="Exit code: 0 done, 2 bad arguments or data, 130 interrupted.",
    )  # fmt: skip
    parser.add_argument("input", type=Path, metavar="INPUT", help="a shard, or a folder of them")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder, made if missing")
    parser.add_argument("--prior", type=Path, default=Path("outputs/fitting/priors"), metavar="DIR")
    parser.add_argument("--kind", choices=KINDS, default="conditional", help="which of its priors")
    parser.add_argument("--body", type=Path, metavar="FILE", help="SMPL file; embedded if left out")
    parser.add_argument("--focal", type=float, metavar="PX", help="focal length (default: 5000)")
    parser.add_argument("--chunk", type=int, default=256, metavar="N", help="people (or JSON "
                        "files) fitted and written at once")  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core "
                        "or GPU of the cluster)")  # fmt: skip
    parser.add_argument("--steps", type=positive, default=150, metavar="N", help="most iterations")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="weights")
    return parser.parse_intermixed_args(argv)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Fit what is missing; returns the report."""
    if args.focal is not None:
        check_focal(args.focal, CROP_PX, source="--focal")
    cuda = device_of(args.device).type == "cuda"
    weights = overridden(KeypointWeights(pose=POSE_WEIGHTS[args.kind]), args.settings)
    chunks = chunks_of(args.input, args.chunk)
    PriorFolder(args.prior, torch.device("cpu"))  # says at once if it is missing
    args.output.mkdir(parents=True, exist_ok=True)
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
    if left:
        _spread(left, weights, args, cuda)
    report = summarise(chunks, args.output)
    (args.output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _spread(left: Sequence[Chunk], weights: KeypointWeights, args: argparse.Namespace,
            cuda: bool) -> None:  # fmt: skip
    import ray
    import ray.data

    # Workers import this code from where it lies, whatever folder they start in.
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        logging_level=logging.ERROR,
        log_to_driver=False,
        include_dashboard=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
        ignore_reinit_error=True,
    )
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        workers = args.workers or max(1, int(resources.get("GPU" if cuda else "CPU", 1)))
        workers = min(workers, len(left))
        rows = ray.data.from_items([vars(chunk) for chunk in left], override_num_blocks=len(left))
        done = rows.map_batches(
            Annotator,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=0 if cuda else 1,
            num_gpus=1 if cuda else 0,
            fn_constructor_kwargs={
                "output": str(args.output.resolve()),
                "prior": str(args.prior.resolve()),
                "kind": args.kind,
                "body": None if args.body is None else str(args.body.resolve()),
                "weights": weights,
                "steps": args.steps,
                "focal": args.focal,
                "device": "cuda" if cuda else "cpu",
            },
        )
        pause = 0.1 if sys.stderr.isatty() else 10.0
        with tqdm(total=len(left), unit="chunk", mininterval=pause, ncols=88) as bar:
            people = 0
            for row in done.iter_rows():
                people += int(row["kept"])
                bar.update()
                bar.set_postfix_str(f"{people} people", refresh=False)
    finally:
        ray.shutdown()


def _fingerprint(folder: Path) -> str:
    """A short hash of the files of a folder."""
    digest = hashlib.sha256()
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
