"""Damage valid files of every format at random and read them.

    python -m tools.fuzz_files --mutants 4000

A reader must return, or raise ValueError or OSError with the name of the file. It must raise no
other exception, use at most 20 s and 1 GB of additional memory, execute nothing from the file and
not crash. The number of a mutant determines its content; ``--only N`` repeats one mutant.
"""

import argparse
import functools
import io
import json
import os
import pickle
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
import types
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
import torch

from examples.data import registry
from examples.data.images import decode
from examples.data.mocap import read_motion
from examples.fitting.shards import chunks_of, read_chunk
from examples.lifting.config import CONFIGS, Config
from examples.prohmr.demo import find_people
from examples.training.settings import read_settings
from flowprior import ConditionalPosePrior
from flowprior.body.arrays import read_body, read_regressor
from flowprior.keypoint_files.detections import read_detections
from flowprior.prohmr import load_prior, to_state_dict
from flowprior.skeleton import H36M_17, MANO_16, SMPL_24, SMPLX_55, Skeleton

__all__ = ["SOURCES", "Source", "attempt", "main", "make_sources", "mutant"]

SECONDS = 20
BYTES = 2**30
VERTICES = 40
# Extreme values of the number types that occur in the formats.
NUMBERS = [
    *(struct.pack("<i", n) for n in (-1, 0, 1, 2**31 - 1, -(2**31))),
    *(struct.pack(">i", n) for n in (1, 2**16, 2**31 - 1)),
    *(struct.pack("<q", n) for n in (-1, 2**40, 2**63 - 1)),
    *(struct.pack("<d", x) for x in (float("nan"), float("inf"), 1e300)),
]
WORDS = [
    *(b"null", b"[]", b"{}", b"-1", b"1e999", b"NaN", b"true", b'"x"', b"99999999999999999999"),
    *(b"[[[[", b"}", b",", b'"', b"&a [*a]", b"!!binary x", b"\xff\xfe", b"\0", b"inf", b";"),
]


@dataclass(frozen=True)
class Source:
    """A valid file.

    Args:
        name: Name of the file.
        content: Content of the file.
        read: Reader of this kind of file.
    """

    name: str
    content: bytes
    read: Callable[[Path], object]


def make_sources() -> list[Source]:
    """Write a valid file of every kind and read its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            Source(name, _written(make, Path(folder, name)), read)
            for name, (make, read) in SOURCES.items()
        ]


def _written(make: Callable[[Path], object], path: Path) -> bytes:
    made = make(path)
    if isinstance(made, bytes):
        path.write_bytes(made)
    return path.read_bytes()


def _random() -> np.random.Generator:
    return np.random.default_rng(0)


def _prior() -> ConditionalPosePrior:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ConditionalPosePrior(
            3, hidden_features=4, num_steps=2, num_blocks=1, preset="prohmr"
        )


def _model(path: Path) -> bytes:
    """A model file whose header has a fixed order; safetensors writes it in any order."""
    _prior().save(path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def _body(chumpy: bool = False, skeleton: Skeleton = SMPL_24) -> dict[str, Any]:
    random = _random()
    joints = skeleton.num_joints
    arrays: dict[str, Any] = {
        "v_template": random.normal(size=(VERTICES, 3)),
        "shapedirs": random.normal(size=(VERTICES, 3, 10)),
        "posedirs": random.normal(size=(VERTICES, 3, 9 * (joints - 1))).astype(np.float32),
        "J_regressor": random.random((joints, VERTICES)),
        "kintree_table": np.array([[2**32 - 1, *skeleton.parents[1:]], range(joints)], np.uint32),
        "weights": random.random((VERTICES, joints)),
        "f": random.integers(0, VERTICES, (20, 3)).astype(np.uint32),
        "bs_style": "lbs",
    }
    for side in ("", "l", "r") if skeleton is not SMPL_24 else ():
        arrays |= {f"hands_mean{side}": np.zeros(45), f"hands_components{side}": np.eye(45)}
    if chumpy:
        kind = types.new_class("Ch")
        kind.__module__ = "chumpy.ch"
        module = types.ModuleType("chumpy.ch")
        module.Ch = kind  # type: ignore[attr-defined]
        sys.modules |= {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": module}
        made = kind()
        made.__dict__.update(x=arrays["v_template"], _dirty_vars=set())
        arrays["v_template"] = made
        arrays["J_regressor"] = scipy.sparse.csc_matrix(arrays["J_regressor"])
    return arrays


def _pickled(content: object, protocol: int) -> bytes:
    try:
        return pickle.dumps(content, protocol)
    finally:
        for name in ("chumpy", "chumpy.ch"):
            sys.modules.pop(name, None)


def _sequence() -> dict[str, Any]:
    random, frames = _random(), 4
    return {
        "sequence": "downtown",
        "poses": [random.normal(0, 0.4, (frames, 72))],
        "betas": [random.normal(size=10)],
        "genders": ["m"],
        "cam_poses": np.tile(np.eye(4), (frames, 1, 1)),
        "campose_valid": [np.ones(frames, int)],
        "poses2d": [random.uniform(0.2, 400, (frames, 3, 18))],
        "jointPositions": [random.normal(size=(frames, 72))],
    }


def _groups() -> list[dict[str, Any]]:
    random = _random()
    return [
        {
            "imgname": np.array(["0/0.jpg", "0/1.jpg"]),
            "center": random.uniform(100, 200, (2, 2)),
            "scale": random.uniform(150, 250, 2),
            "body_pose": random.normal(0, 0.4, (2, 72)),
            "has_body_pose": np.ones(2),
            "body_keypoints_2d": random.uniform(0.1, 300, (2, 25, 3)),
        }
    ]


def _npz(compressed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def _amass() -> bytes:
    poses = 0.05 * _random().normal(size=(6, 156))
    return _npz(
        poses=poses, trans=np.zeros((6, 3)), betas=np.zeros(16), gender="male", mocap_framerate=60.0
    )


def _split() -> bytes:
    return _npz(
        compressed=True,
        poses=np.zeros((6, 72), np.float32),
        joints17=_random().normal(size=(6, 17, 3)).astype(np.float32),
        split=np.array([0, 0, 0, 1, 2, 2], np.int8),
        subject=np.array([0, 0, 0, 1, 2, 2], np.int16),
        subject_names=np.array(["a", "b", "c"]),
    )


def _h36m() -> bytes:
    joints = _random().normal(size=(5, 32, 3)).astype(np.float32)
    return _npz(compressed=True, positions_3d={"S1": {"Walking": joints}})


def _annotations() -> bytes:
    return _npz(compressed=True, **_groups()[0])


def _points(joints: int) -> list[float]:
    points = _random().uniform(50, 250, (joints, 3))
    points[:, 2] = 0.9
    return [round(float(x), 2) for x in points.ravel()]


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def _coco() -> bytes:
    people = [
        {"id": n, "image_id": 1, "category_id": 1, "keypoints": _points(17), "bbox": [9, 9, 99, 99]}
        for n in range(3)
    ]
    category = {"id": 1, "name": "person", "keypoints": ["nose", "left_eye"]}
    images = [{"id": 1, "file_name": "a.jpg", "width": 320, "height": 280}]
    return _json({"images": images, "annotations": people, "categories": [category]})


def _openpose() -> bytes:
    return _json(
        {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": _points(25)}]}
    )


def _mediapipe() -> bytes:
    landmarks = [{"x": 0.5, "y": 0.1 * n, "z": 0.0, "visibility": 0.9} for n in range(33)]
    return _json({"pose_landmarks": landmarks, "width": 640, "height": 480})


def _image(suffix: str) -> bytes:
    small = _random().integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.imencode(suffix, cv2.resize(small, (64, 48)))[1].tobytes()


def _parquet(path: Path) -> None:
    keypoints = [_points(25) for _ in range(5)]
    table = pa.table({"keypoints_2d": keypoints, "image_name": list("abcde"), "person": [0] * 5})
    pq.write_table(table, path)


def _shard() -> bytes:
    keypoints = np.array([_points(25)] * 5).reshape(5, 25, 3)
    return _npz(
        keypoints_2d=keypoints, image_names=np.array(list("abcde")), person=np.zeros(5, int)
    )


def _read_shard(path: Path) -> object:
    return [read_chunk(chunk) for chunk in chunks_of(path, 3)]


def _survey(path: Path) -> object:
    return registry.survey([path])


def _found(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """A reader, preceded by the survey that identifies the format."""

    def both(path: Path) -> object:
        _survey(path)
        return read(path)

    return both


def _saved(legacy: bool) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = to_state_dict(_prior())
        content = {"state_dict": state, "epoch": 3, "hyper_parameters": {"a": [1, (2, 3)]}}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)

    return write


SOURCES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "model.safetensors": (_model, ConditionalPosePrior.load),
    "smpl.npz": (lambda _: _npz(**_body()), read_body),
    "smpl_0.pkl": (lambda _: _pickled(_body(), 0), read_body),
    "smpl_2.pkl": (lambda _: _pickled(_body(chumpy=True), 2), read_body),
    "smpl_5.pkl": (lambda _: _pickled(_body(), 5), read_body),
    "smplx.npz": (lambda _: _npz(**_body(skeleton=SMPLX_55)), read_body),
    "mano.pkl": (lambda _: _pickled(_body(chumpy=True, skeleton=MANO_16), 2), read_body),
    "prohmr.pt": (_saved(legacy=False), load_prior),
    "legacy.pt": (_saved(legacy=True), load_prior),
    "amass_poses.npz": (lambda _: _amass(), _found(read_motion)),
    "cmu_mocap.npz": (lambda _: _split(), _found(read_motion)),
    "h36m.npz": (lambda _: _h36m(), _survey),
    "annotations.npz": (lambda _: _annotations(), _survey),
    "3dpw.pkl": (lambda _: _pickled(_sequence(), 2), _survey),
    "views.pkl": (lambda _: _pickled(_groups(), 4), _survey),
    "coco.json": (lambda _: _coco(), _found(read_detections)),
    "a_keypoints.json": (lambda _: _openpose(), _found(read_detections)),
    "mediapipe.json": (lambda _: _mediapipe(), _found(read_detections)),
    "default.yaml": (
        lambda _: (CONFIGS / "default.yaml").read_bytes(),
        functools.partial(read_settings, Config),
    ),
    "image.png": (lambda _: _image(".png"), decode),
    "image.jpg": (lambda _: _image(".jpg"), decode),
    "boxes.csv": (
        lambda _: b"image,x,y,width,height\na.jpg,1,2,30,40\nb.jpg,5.5,6,70,80\n",
        lambda path: find_people(path.parent, boxes=path),
    ),
    "shard.parquet": (_parquet, _read_shard),
    "shard.npz": (lambda _: _shard(), _read_shard),
    "regressor.npy": (
        lambda path: np.save(path, _random().random((17, VERTICES))),
        lambda path: read_regressor(H36M_17.name, path, VERTICES),
    ),
}
"""Writer and reader of each kind of file, by file name."""


def mutant(number: int, sources: Sequence[Source]) -> tuple[Source, bytes]:
    """Generate a damaged file.

    Args:
        number: Number of the mutant; the same number gives the same file.
        sources: The valid files.

    Returns:
        The source and the bytes of the damaged file.
    """
    random = np.random.default_rng([2026, number])
    source = sources[number % len(sources)]
    content = bytearray(source.content)
    if content[:2] == b"PK" and random.random() < 0.6:
        return source, _zip_mutant(bytes(content), random)
    for _ in range(int(random.integers(1, 5))):
        content = _damaged(content, random, sources)
    if content[:4] == b"\x89PNG" and random.random() < 0.5:
        # A correct checksum, so that the decoder accepts the header.
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return source, bytes(content)


def _zip_mutant(content: bytes, random: np.random.Generator) -> bytes:
    """An archive with one damaged member and correct checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    chosen = int(random.integers(len(members)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index, (info, member) in enumerate(members):
            if index == chosen:
                # Damage the header or the pickle more often than the numbers.
                head = 128 if random.random() < 0.7 else len(member)
                damaged = _damaged(bytearray(member[:head]), random, ())
                member = bytes(damaged) + member[head:]
            archive.writestr(info.filename, member, info.compress_type)
    return buffer.getvalue()


def _damaged(
    content: bytearray, random: np.random.Generator, sources: Sequence[Source]
) -> bytearray:
    if not content:
        return bytearray(b"\0")
    start = int(random.integers(len(content)))
    # Damage headers more often than numbers.
    if random.random() < 0.4:
        start = int(random.integers(min(len(content), 200)))
    stop = min(len(content), start + int(2 ** random.uniform(0, 12)))
    kind = int(random.integers(9))
    if kind == 0:
        content[start] ^= 1 << int(random.integers(8))
    elif kind == 1:
        content[start] = int(random.integers(256))
    elif kind == 2:
        del content[start:stop]
    elif kind == 3:
        content[start:start] = content[start:stop] * int(random.integers(1, 20))
    elif kind == 4:
        del content[start:]
    elif kind == 5:
        number = NUMBERS[int(random.integers(len(NUMBERS)))]
        content[start : start + len(number)] = number
    elif kind == 6:
        word = WORDS[int(random.integers(len(WORDS)))]
        content[start : start + int(random.integers(0, 8))] = word
    elif kind == 7 and sources:
        other = sources[int(random.integers(len(sources)))].content
        place = int(random.integers(len(other)))
        content[start:stop] = other[place : place + stop - start]
    else:
        content[start:stop] = random.integers(0, 256, stop - start, dtype=np.uint8).tobytes()
    return content


def attempt(read: Callable[[Path], object], path: Path) -> str:
    """Read a file.

    Args:
        read: The reader.
        path: The file.

    Returns:
        "" if the file was read; the name of the exception if the reader rejected it correctly;
        otherwise a description that starts with "FAULT".
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except (ValueError, OSError) as error:
        said = str(error)
        if path.name not in said:
            return f"FAULT: no file name in {type(error).__name__}: {said[:300]}"
        if "MemoryError" in said or "bad_alloc" in said or "Insufficient memory" in said:
            return f"FAULT: out of memory: {said[:300]}"
        return type(error).__name__
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = [
            f"{Path(frame.filename).name}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if "site-packages" not in frame.filename
        ][-2:]
        return f"FAULT: {type(error).__name__}: {error!s:.200} at {where} in {last.name}"
    return ""


def _watch() -> None:
    """Exit if anything is executed or written, because only a file can have caused it."""
    forbidden = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class")

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in forbidden or (event == "open" and set("wax+") & set(str(args[1] or "r"))):
            os.write(2, f"forbidden: {event} {args!r:.200}\n".encode())
            os._exit(99)

    sys.addaudithook(hook)


def _work(numbers: Sequence[int], sources: Sequence[Source], folder: Path, answers: int) -> None:
    """Read mutants in a child process and write one line for each."""
    used = (
        int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        * resource.getpagesize()
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    watching = False
    for number in numbers:
        source, content = mutant(number, sources)
        path = folder / source.name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, content)
        os.close(descriptor)
        if not watching:
            # Read valid files first, so that all lazy imports happen now.
            for each in sources:
                whole = folder / each.name
                whole.write_bytes(each.content)
                attempt(each.read, whole)
                whole.unlink()
            path.write_bytes(content)
            os.write(answers, b"\n")
            watching = True
            _watch()
        start = time.perf_counter()
        said = attempt(source.read, path)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        line = json.dumps([number, source.name, said, seconds, peak])
        os.write(answers, line.encode() + b"\n")
        os.unlink(path)


def run(
    numbers: Sequence[int], sources: Sequence[Source], seconds: float = SECONDS
) -> Iterator[tuple[int, str, str, float, int]]:
    """Read mutants in a child process; start another after each mutant that ends it.

    Args:
        numbers: Numbers of the mutants.
        sources: The valid files.
        seconds: Time limit of a reader.

    Yields:
        Number, file name, result of `attempt`, seconds, and the child's peak memory in bytes.
    """
    left = list(numbers)
    while left:
        with tempfile.TemporaryDirectory() as folder:
            reader, writer = os.pipe()
            with warnings.catch_warnings():
                # The child needs no lock that threads of OpenCV or PyTorch may hold.
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                code = 1
                try:
                    os.close(reader)
                    _work(left, sources, Path(folder), writer)
                    code = 0
                finally:
                    os._exit(code)
            os.close(writer)
            hung = False
            with os.fdopen(reader, "rb", buffering=0) as answers:
                pending = b""
                patience = 10.0 * SECONDS  # the child first reads all valid files
                while left:
                    if not select.select([answers], [], [], patience)[0]:
                        hung = True
                        os.kill(child, signal.SIGKILL)
                        break
                    received = os.read(answers.fileno(), 65536)
                    if not received:
                        break
                    pending += received
                    *lines, pending = pending.split(b"\n")
                    for line in filter(None, lines):
                        yield tuple(json.loads(line))
                        left.pop(0)
                    patience = seconds
            _, status = os.waitpid(child, 0)
            if left:
                name = mutant(left[0], sources)[0].name
                what = "took too long" if hung else f"ended the process, status {status}"
                yield left.pop(0), name, f"FAULT: {what}", seconds, 0


def main(argv: Sequence[str] | None = None) -> int:
    """Read the mutants; returns 1 if there are faults."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz_files", description=__doc__)
    parser.add_argument("--mutants", type=int, default=4000, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first")
    parser.add_argument("--only", type=int, metavar="N", help="write one mutant to a file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    pa.set_cpu_count(1)
    sources = make_sources()
    if args.only is not None:
        source, content = mutant(args.only, sources)
        folder = Path(tempfile.mkdtemp())
        (folder / source.name).write_bytes(content)
        print(folder / source.name)
        source.read(folder / source.name)
        return 0
    for source in sources:
        with tempfile.TemporaryDirectory() as folder_name:
            whole = Path(folder_name, source.name)
            whole.write_bytes(source.content)
            said = attempt(source.read, whole)
            print(f"{source.name}: {len(source.content)} bytes, undamaged: {said or 'read'}")
    counts: Counter[str] = Counter()
    faults, slowest, largest = 0, 0.0, 0
    numbers = range(args.first, args.first + args.mutants)
    for number, name, said, seconds, peak in run(numbers, sources):
        counts[said.partition(":")[0] or "read"] += 1
        slowest, largest = max(slowest, seconds), max(largest, peak)
        if said.startswith("FAULT"):
            faults += 1
            print(f"{number} {name}: {said}", flush=True)
    print(
        f"{sum(counts.values())} mutants of {len(sources)} files: "
        + ", ".join(f"{kind} {count}" for kind, count in counts.most_common())
        + f"; slowest {slowest:.1f} s, peak memory {largest / 2**20:.0f} MiB"
    )
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
