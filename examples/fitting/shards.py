"""Readers of large data sets: shards of several formats, divided into chunks.

A data set is a shard or a folder of shards of these formats:

* ``.npz`` files with ``body_keypoints_2d`` (N, 25, 3), as in ProHMR, or ``keypoints_2d`` (N, K, 3)
  of a detector; optionally ``imgname``, ``image_size`` (N, 2), and the outputs ``context`` (N, C)
  and ``betas`` (N, 10) of a network, as `examples.prohmr.contexts` writes them;
* ``.parquet`` files with a column ``keypoints_2d`` of 3 K numbers and optionally ``image_name``,
  ``person``, ``width`` and ``height``;
* folders of OpenPose's JSON.

A chunk is a range of rows of one shard, identified by its name. A damaged shard affects its own
people only: reading its chunks raises ValueError. If even its number of rows cannot be read, it is
a single chunk of unknown length.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from examples.data.files import npz_keys
from examples.fitting.choices import to_body_25
from flowprior.files.limits import require_regular
from flowprior.files.numpy_file import read_npz
from flowprior.files.report import Report
from flowprior.keypoint_files.detections import read_detections
from flowprior.keypoint_files.openpose import OPENPOSE_SUFFIX
from flowprior.keypoint_files.people import clean_keypoints, joint_places
from flowprior.keypoints import LEAST_CONF
from flowprior.skeleton import BODY_25, COCO_17, COCO_18

__all__ = ["Chunk", "People", "chunks_of", "read_chunk"]

SETS = {skeleton.num_joints: skeleton for skeleton in (BODY_25, COCO_18, COCO_17)}
# The columns of an archive and their kinds of dtype.
_COLUMNS = (
    ("imgname", "USO"),
    ("image_names", "USO"),
    ("person", "iu"),
    ("image_size", "fiu"),
    ("context", "fiu"),
    ("betas", "fiu"),
)
_PARQUET_COLUMNS = ("keypoints_2d", "image_name", "person", "width", "height")
FEWEST = 3
"""Least number of keypoints of a person; with fewer, the camera is undetermined."""


@dataclass(frozen=True)
class Chunk:
    """Rows of a shard.

    Args:
        shard: The file or folder.
        name: Name that is unique in the data set and valid as a file name.
        start: First row; for a folder of JSON the first file.
        stop: The row after the last; 0 if the number of rows cannot be read.
    """

    shard: str
    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class People:
    """The usable people of a chunk.

    Args:
        row: (N,) row in the shard; for a folder of JSON the number of the file.
        image_names: (N,) str.
        person: (N,) int64.
        keypoints: (N, 25, 3) BODY-25, pixels and confidence.
        image_size: (N, 2) pixels; NaN where unknown.
        report: Counts and examples of people that were left out.
        context: (N, C) contexts of a network, if the shard has them.
        betas: (N, 10) shape regressed by the same network.
    """

    row: NDArray[np.int64]
    image_names: NDArray[np.str_]
    person: NDArray[np.int64]
    keypoints: NDArray[np.float32]
    image_size: NDArray[np.float32]
    report: Report
    context: NDArray[np.float32] | None = None
    betas: NDArray[np.float32] | None = None


def chunks_of(path: Path, size: int) -> list[Chunk]:
    """Divide a data set into chunks.

    Args:
        path: A shard, or a folder with shards anywhere below it.
        size: Maximum number of rows of a chunk.

    Raises:
        FileNotFoundError: There is nothing at ``path``, or no shard below it.
        ValueError: No shard can be read; a chunk size is not positive.
    """
    if size < 1:
        raise ValueError(f"a chunk has at least 1 row, got {size}")
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    shards = _shards(path)
    if not shards:
        raise FileNotFoundError(f"no .npz, .parquet or *{OPENPOSE_SUFFIX} in or below {path}")
    found: list[Chunk] = []
    faults = []
    for shard in shards:
        label = shard.relative_to(path).as_posix() if shard != path else shard.name
        label = label.replace("%", "%25").replace("/", "%2F") or "json"
        try:
            with _naming(shard):
                rows = _rows(shard)
        except ValueError as error:
            faults.append(error)
            found.append(Chunk(str(shard), f"{label}-unreadable", 0, 0))
            continue
        for start in range(0, rows, size):
            stop = min(start + size, rows)
            found.append(Chunk(str(shard), f"{label}-{start:09d}-{stop:09d}", start, stop))
    if len(faults) == len(shards):
        raise faults[0]
    return found


@contextlib.contextmanager
def _naming(shard: Path) -> Iterator[None]:
    """Convert errors while reading a shard to ValueError with its name."""
    try:
        yield
    # On damaged bytes zipfile, zlib, numpy and pyarrow raise almost anything.
    except Exception as error:
        fault = f"{type(error).__name__}: {error!s:.300}"
        if isinstance(error, ValueError) and str(shard) in str(error):
            fault = str(error)
        else:
            fault = f"{shard}: not a shard of keypoints, or a damaged one ({fault})"
        raise ValueError(fault) from error


def _shards(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = [file for file in sorted(path.rglob("*")) if file.suffix in (".npz", ".parquet")]
    folders = sorted({file.parent for file in path.rglob(f"*{OPENPOSE_SUFFIX}")})
    return files + folders


def _rows(shard: Path) -> int:
    if shard.is_dir():
        return len(_json_files(shard))
    if shard.suffix == ".parquet":
        require_regular(shard)
        try:
            return int(pq.ParquetFile(shard).metadata.num_rows)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ValueError(f"{shard}: not a parquet file, or a damaged one ({error})") from error
    if shard.suffix == ".npz":
        return len(_npz(shard)[0])
    return 1


def _json_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{OPENPOSE_SUFFIX}"))


@functools.lru_cache(maxsize=1)  # the chunks of a shard mostly come one after the other
def _npz(shard: Path) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    keys, kinds = ("body_keypoints_2d", "keypoints_2d"), dict(_COLUMNS)
    content = read_npz(shard, (*keys, *kinds))
    key = next((key for key in keys if key in content), None)
    if key is None:
        found = ", ".join(sorted(npz_keys(shard))) or "none"
        raise ValueError(f"{shard}: neither body_keypoints_2d nor keypoints_2d among {found}")
    if "context" not in content:
        content.pop("betas", None)  # regressed; in files of annotations they are the truth
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in content.items():
        array = value if isinstance(value, np.ndarray) else np.asarray(None)
        if array.ndim == 0 or array.dtype.kind not in kinds.get(name, "fiu"):
            raise ValueError(f"{shard}: {name} is no array of the kind that is expected")
        arrays[name] = array
    if arrays.get("image_size", arrays[key]).shape == (2,):  # one for all images
        arrays["image_size"] = np.tile(arrays["image_size"], (len(arrays[key]), 1))
    lengths = {
        name: len(array) for name, array in arrays.items() if name not in keys or name == key
    }
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{shard}: the columns are of different lengths: {lengths}")
    return arrays[key], {name: arrays[name] for name in arrays if name not in keys}


def read_chunk(chunk: Chunk) -> People:
    """Read the people of a chunk; those who cannot be fitted are left out and reported.

    Raises:
        ValueError: The shard cannot be read; the message names it.
    """
    with _naming(Path(chunk.shard)):
        if not chunk.stop:
            _rows(Path(chunk.shard))  # raises the reason
            raise ValueError("it could not be read when the work began")
        return _read(chunk)


def _read(chunk: Chunk) -> People:
    shard, rows = Path(chunk.shard), slice(chunk.start, chunk.stop)
    if shard.is_dir() or shard.suffix == ".json":
        return _read_json(shard, rows)
    count = chunk.stop - chunk.start
    sizes = np.full((count, 2), np.nan, np.float32)
    context = betas = None
    if shard.suffix == ".npz":
        everything, extra = _npz(shard)
        values = everything[rows]
        names = extra.get("imgname", extra.get("image_names"))
        given = None if names is None else [_text(name) for name in names[rows]]
        person = extra["person"][rows] if "person" in extra else np.zeros(count, np.int64)
        if "image_size" in extra:
            sizes = extra["image_size"][rows].astype(np.float32)
        context, betas = (_evidence(shard, extra, name, rows) for name in ("context", "betas"))
    else:
        columns = _parquet(shard, rows)
        if "keypoints_2d" not in columns:
            raise ValueError(f"{shard}: no column keypoints_2d among {', '.join(columns)}")
        try:
            values = _stacked(columns["keypoints_2d"])
            # A person without a number has their image to themselves.
            person = np.array([n or 0 for n in columns.get("person", [0] * count)], np.int64)
            if "width" in columns and "height" in columns:
                sizes = np.array([columns["width"], columns["height"]], np.float32).T
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{shard}: a column holds no numbers ({error})") from error
        given = None if "image_name" not in columns else list(map(_text, columns["image_name"]))
    numbers = np.arange(chunk.start, chunk.stop)
    labels = np.array(given or [f"row {number}" for number in numbers], np.str_)
    report = Report(str(shard), "keypoints", unit="person", rows=count)
    return _usable(numbers, labels, person.astype(np.int64), values, sizes, report, context, betas)


def _parquet(shard: Path, rows: slice) -> dict[str, list[Any]]:
    """Rows of a table, with empty arrays for missing columns."""
    require_regular(shard)
    try:
        table = pq.read_table(shard, page_checksum_verification=True)
        table = table.slice(rows.start, rows.stop - rows.start)
        return {
            name: table[name].to_pylist() if name in _PARQUET_COLUMNS else []
            for name in table.column_names
        }
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{shard}: not a parquet file, or a damaged one ({error})") from error


def _evidence(
    shard: Path, columns: dict[str, NDArray[Any]], name: str, rows: slice
) -> NDArray[np.float32] | None:
    """Rows (n, C) of a column; None if there is none."""
    if name not in columns:
        return None
    array = columns[name][rows]
    if array.ndim != 2 or len(array) != rows.stop - rows.start:
        raise ValueError(f"{shard}: expected {name} (N, C), got {columns[name].shape}")
    return np.asarray(array, np.float32)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _stacked(listed: list[Any]) -> NDArray[np.float32]:
    """Reshape rows of numbers to (N, J, 3), with NaN for rows of an unusual length."""
    flat = [np.asarray(row, np.float32).ravel() if row else np.zeros(0) for row in listed]
    lengths = [len(row) for row in flat if len(row) in {3 * joints for joints in SETS}]
    length = max(set(lengths), key=lengths.count) if lengths else 3 * BODY_25.num_joints
    empty = np.full(length, np.nan, np.float32)
    stacked = np.array([row if len(row) == length else empty for row in flat], np.float32)
    return stacked.reshape(len(flat), -1, 3)


def _read_json(shard: Path, rows: slice) -> People:
    files = _json_files(shard)[rows] if shard.is_dir() else [shard]
    report = Report(str(shard), "OpenPose detections", unit="person")
    parts = []
    numbers: list[int] = []
    for number, file in enumerate(files, start=rows.start):
        try:
            people, found = read_detections(file, hands=False)
        except (OSError, ValueError, RecursionError) as error:
            report.rows += 1
            report.leave_out("file that cannot be read", [f"{file.name}: {error}"])
            continue
        report.absorb(found)
        parts.append((people, to_body_25(people.keypoints_2d, people.skeleton)))
        numbers += [number] * len(people)
    empty = np.zeros((0, BODY_25.num_joints, 3), np.float32)
    names = np.concatenate([np.zeros(0, np.str_), *(p.image_names for p, _ in parts)])
    person = np.concatenate([np.zeros(0, np.int64), *(p.person for p, _ in parts)])
    keypoints = np.concatenate([empty, *(k for _, k in parts)])
    sizes = np.full((len(names), 2), np.nan, np.float32)
    return _usable(np.array(numbers, np.int64), names, person, keypoints, sizes, report)


def _usable(
    row: NDArray[np.int64],
    names: NDArray[np.str_],
    person: NDArray[np.int64],
    values: NDArray[Any],
    sizes: NDArray[np.float32],
    report: Report,
    context: NDArray[np.float32] | None = None,
    betas: NDArray[np.float32] | None = None,
) -> People:
    if values.ndim != 3 or values.shape[1] not in SETS or values.shape[2] != 3:
        raise ValueError(
            f"{report.source}: expected keypoints (N, 25, 3), (N, 18, 3) or (N, 17, 3), got "
            f"{values.shape}"
        )
    skeleton = SETS[values.shape[1]]
    places = [f"{name}, person {number}" for name, number in zip(names, person, strict=True)]
    cleaned = clean_keypoints(values, joint_places(places, skeleton), report)
    keypoints = to_body_25(cleaned, skeleton)
    enough = np.asarray((keypoints[..., 2] > LEAST_CONF).sum(axis=1) >= FEWEST)
    listed = np.array(places, object)
    report.leave_out(f"fewer than {FEWEST} keypoints", listed[~enough])
    seen = keypoints[..., 2:] > LEAST_CONF
    high = np.where(seen, keypoints[..., :2], -np.inf).max(axis=1, initial=-1e9)
    low = np.where(seen, keypoints[..., :2], np.inf).min(axis=1, initial=1e9)
    wide = np.asarray((high - low).max(axis=1) > 1)
    report.leave_out("all keypoints in one place", listed[enough & ~wide])
    kept = enough & wide
    for evidence in (context, betas):
        if evidence is not None:
            finite = np.isfinite(evidence).all(axis=1)
            report.leave_out("context or betas not finite", listed[kept & ~finite])
            kept &= finite
    report.kept = int(kept.sum())
    return People(
        row[kept],
        names[kept],
        person[kept],
        keypoints[kept],
        sizes[kept],
        report,
        None if context is None else context[kept],
        None if betas is None else betas[kept],
    )
