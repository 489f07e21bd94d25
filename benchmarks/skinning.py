"""Time skinning against the package smplx: the same arrays, in one process, interleaved.

    python -m benchmarks.skinning --threads 1 --rounds 11

Three tasks: the 24 joints, OpenPose's 25 keypoints, the whole surface; each without gradients and
with gradients to rotations and shape. Two bodies: the embedded one, and arrays of SMPL's size with
pose corrections. smplx always poses the whole surface, because its keypoints are read from it.
Each round runs both once per case; the table has medians.
"""

import argparse
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.body.arrays import read_body
from flowprior.body.kinds import KINDS, BodyKind
from flowprior.skeleton import BODY_25, SMPL_24, SMPL_45, mapping

SMPL_VERTICES = 6890
BATCHES = (1, 64, 1024)


def arrays_of_smpls_size() -> dict[str, NDArray[Any]]:
    """Random arrays with SMPL's shapes and four weights per vertex."""
    rng = np.random.default_rng(0)
    weights = np.zeros((SMPL_VERTICES, 24))
    rows = np.arange(SMPL_VERTICES)[:, None]
    weights[rows, rng.integers(0, 24, (SMPL_VERTICES, 4))] = rng.random((SMPL_VERTICES, 4))
    regressor = rng.random((24, SMPL_VERTICES)) ** 20
    return {
        "v_template": rng.normal(size=(SMPL_VERTICES, 3)),
        "shapedirs": 0.05 * rng.normal(size=(SMPL_VERTICES, 3, 10)),
        "posedirs": 0.01 * rng.normal(size=(SMPL_VERTICES, 3, 207)),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, *SMPL_24.parents[1:]], range(24)], np.uint32),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "f": rng.integers(0, SMPL_VERTICES, (13776, 3)).astype(np.uint32),
    }


def bodies(name: str) -> tuple[BodyModel, Callable[[Tensor, Tensor], Any]]:
    """Our body and smplx's layer with the same arrays."""
    import smplx

    arrays: dict[str, NDArray[Any]]
    if name == "embedded":
        arrays, ours = read_body(None), BodyModel()
        numbers = dict(zip(KINDS["smpl"].smplx_names, arrays["vertex_ids"].tolist(), strict=True))
    else:
        arrays, numbers = arrays_of_smpls_size(), None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "smpl.npz"
            np.savez(path, **arrays)  # type: ignore[arg-type]
            ours = BodyModel(path)
    layer = smplx.SMPLLayer(
        model_path="",
        data_struct=types.SimpleNamespace(**arrays),
        dtype=torch.float32,
        vertex_ids=numbers,
        num_betas=10,
    )

    def theirs(matrix: Tensor, betas: Tensor) -> Any:  # noqa: ANN401, smplx has no types
        return layer(betas=betas, body_pose=matrix[:, 1:], global_orient=matrix[:, :1])

    return ours, theirs


def cases(name: str) -> dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]]:
    """Both implementations by task: rotations (N, 24, 3, 3) and betas (N, 10) -> points."""
    ours, theirs = bodies(name)
    openpose = list(mapping(SMPL_45, BODY_25))
    return {
        "joints": (
            lambda r, b: ours.keypoints(r, SMPL_24, betas=b),
            lambda r, b: theirs(r, b).joints[:, :24],
        ),
        "keypoints": (
            lambda r, b: ours.keypoints(r, BODY_25, betas=b),
            lambda r, b: theirs(r, b).joints[:, openpose],
        ),
        "surface": (
            lambda r, b: ours(r, b).vertices,
            lambda r, b: theirs(r, b).vertices,
        ),
    }


def seconds(call: Callable[..., Tensor], inputs: tuple[Tensor, Tensor], gradients: bool) -> float:
    """Time of one call."""
    leaves = tuple(x.detach().clone().requires_grad_(gradients) for x in inputs)
    start = time.perf_counter()
    with torch.set_grad_enabled(gradients):
        points = call(*leaves)
        if gradients:
            torch.autograd.grad(points.sum(), leaves)
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.skinning", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print("| body | task | people | gradients | ours, ms | smplx, ms | smplx / ours |")
    print("|---|---|---|---|---|---|---|")
    for body in ("embedded", "SMPL's size"):
        for task, pair in cases(body).items():
            for people in args.batches:
                turns = rotations.rotvec_to_matrix(0.5 * torch.randn(people, 24, 3))
                inputs = (turns, torch.randn(people, 10))
                for gradients in (False, True):
                    times: tuple[list[float], list[float]] = ([], [])
                    for _ in range(args.rounds + 1):
                        for taken, call in zip(times, pair, strict=True):
                            taken.append(seconds(call, inputs, gradients))
                    # The first round only warms up.
                    ours, theirs = (1000 * statistics.median(taken[1:]) for taken in times)
                    print(
                        f"| {body} | {task} | {people} | {'yes' if gradients else 'no'} "
                        f"| {ours:.2f} | {theirs:.2f} | {theirs / ours:.2f} |",
                        flush=True,
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
