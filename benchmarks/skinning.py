"""Time skinning against the package smplx: the same arrays, in one process, interleaved.

    python -m benchmarks.skinning --threads 1 --rounds 11
    python -m benchmarks.skinning --bodies smplh smplx mano

Three tasks: the joints, keypoints (OpenPose's 25, or the 21 of a hand), the whole surface; each
without gradients and with gradients to rotations and shape. The bodies: the embedded one, without
and with hands, and arrays of the size of SMPL, SMPL-H, SMPL-X and MANO with pose corrections.
smplx always poses the whole surface, because its keypoints are read from it. Each round runs both
once per case; the table has medians. With --cpu-time these are of the processor's time, which other
programs on a busy machine hardly change.
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
from flowprior.skeleton import BODY_25, HAND_21, mapping

BATCHES = (1, 64, 1024)
BODIES = ("embedded", "smpl")
EMBEDDED = {"embedded": "smpl", "embedded_hands": "smplh"}
LAYERS = {"smpl": "SMPLLayer", "smplh": "SMPLHLayer", "smplx": "SMPLXLayer", "mano": "MANOLayer"}


def arrays_of_official_size(kind: BodyKind) -> dict[str, NDArray[Any]]:
    """Random arrays with the shapes of a model and four weights per vertex."""
    rng = np.random.default_rng(0)
    count, joints = kind.num_vertices, kind.num_joints
    weights = np.zeros((count, joints))
    rows = np.arange(count)[:, None]
    weights[rows, rng.integers(0, joints, (count, 4))] = rng.random((count, 4))
    regressor = rng.random((joints, count)) ** 20
    columns = 20 if kind.num_landmarks else 10  # of the shape, and of the expression
    found = {
        "v_template": rng.normal(size=(count, 3)),
        "shapedirs": 0.05 * rng.normal(size=(count, 3, columns)),
        "posedirs": 0.01 * rng.normal(size=(count, 3, 9 * (joints - 1))),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "kintree_table": np.array(
            [[2**32 - 1, *kind.skeleton.parents[1:]], range(joints)], np.uint32
        ),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "f": rng.integers(0, count, (2 * count, 3)).astype(np.uint32),
    }
    for side in kind.hands:
        found |= {f"hands_mean{side}": np.zeros(45), f"hands_components{side}": np.eye(45)}
    if kind.num_landmarks:
        found["lmk_faces_idx"] = rng.integers(0, count, kind.num_landmarks)
        found["lmk_bary_coords"] = rng.dirichlet(np.ones(3), kind.num_landmarks)
    return found


def bodies(name: str) -> tuple[BodyModel, Callable[[Tensor, Tensor], Any]]:
    """Our body and smplx's layer with the same arrays."""
    import smplx

    kind = KINDS[EMBEDDED.get(name, name)]
    numbers = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{kind.model_type}.npz"
        if name in EMBEDDED:
            with_hands = name == "embedded_hands"
            arrays, ours = read_body(None, with_hands), BodyModel(hands=with_hands)
            for side in kind.hands:  # smplx reads them also where matrices are given
                arrays |= {f"hands_mean{side}": np.zeros(45), f"hands_components{side}": np.eye(45)}
            numbers = dict(zip(kind.smplx_names, arrays["vertex_ids"].tolist(), strict=True))
        else:
            arrays = arrays_of_official_size(kind)
            np.savez(path, **arrays)  # type: ignore[arg-type]
            ours = BodyModel(path, flip_shapedirs=False)
        # Its layer of SMPL-X reads files only.
        source: dict[str, Any] = {"model_path": str(path), "ext": "npz"}
        if not kind.num_landmarks:
            struct = types.SimpleNamespace(**arrays)
            source = {"model_path": "", "data_struct": struct, "vertex_ids": numbers}
        make = getattr(smplx, LAYERS[kind.model_type])
        layer = make(**source, dtype=torch.float32, num_betas=10)

    def theirs(matrix: Tensor, betas: Tensor) -> Any:  # noqa: ANN401, smplx has no types
        parts = {part: matrix[:, joints] for part, joints in kind.parts.items()}
        return layer(betas=betas, **parts)

    return ours, theirs


def cases(name: str) -> dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]]:
    """Both implementations by task: rotations (N, J, 3, 3) and betas (N, 10) -> points."""
    ours, theirs = bodies(name)
    joints = ours.num_joints
    found: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
        "joints": (
            lambda r, b: ours.keypoints(r, ours.skeleton, betas=b),
            lambda r, b: theirs(r, b).joints[:, :joints],
        ),
        "surface": (
            lambda r, b: ours(r, b).vertices,
            lambda r, b: theirs(r, b).vertices,
        ),
    }
    wanted = HAND_21 if name == "mano" else BODY_25
    kind = KINDS[ours.model_type]
    if wanted is BODY_25:
        chosen = list(mapping(kind.output, BODY_25))
        found["keypoints"] = (
            lambda r, b: ours.keypoints(r, BODY_25, betas=b),
            lambda r, b: theirs(r, b).joints[:, chosen],
        )
    else:  # smplx returns no fingertips
        order = list(mapping(kind.output, HAND_21))

        def hand(r: Tensor, b: Tensor) -> Tensor:
            out = theirs(r, b)
            tips = out.vertices[:, list(kind.surface)]
            return torch.cat([out.joints, tips], dim=1)[:, order]

        found["keypoints"] = (lambda r, b: ours.keypoints(r, HAND_21, betas=b), hand)
    return found


def seconds(
    call: Callable[..., Tensor],
    inputs: tuple[Tensor, Tensor],
    gradients: bool,
    clock: Callable[[], float],
) -> float:
    """Time of one call."""
    leaves = tuple(x.detach().clone().requires_grad_(gradients) for x in inputs)
    start = clock()
    with torch.set_grad_enabled(gradients):
        points = call(*leaves)
        if gradients:
            torch.autograd.grad(points.sum(), leaves)
    return clock() - start


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.skinning", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument(
        "--bodies", nargs="+", default=BODIES, choices=(*EMBEDDED, *KINDS), help="%(default)s"
    )
    parser.add_argument(
        "--cpu-time", action="store_true", help="measure the processor's time, with one thread"
    )
    args = parser.parse_args(argv)
    if args.cpu_time and args.threads > 1:
        parser.error("--cpu-time adds the times of all threads: --threads 1")
    clock = time.process_time if args.cpu_time else time.perf_counter
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print("| body | task | people | gradients | ours, ms | smplx, ms | smplx / ours |")
    print("|---|---|---|---|---|---|---|")
    for body in args.bodies:
        joints = KINDS[EMBEDDED.get(body, body)].num_joints
        for task, pair in cases(body).items():
            for people in args.batches:
                turns = rotations.rotvec_to_matrix(0.5 * torch.randn(people, joints, 3))
                inputs = (turns, torch.randn(people, 10))
                for gradients in (False, True):
                    times: tuple[list[float], list[float]] = ([], [])
                    for _ in range(args.rounds + 1):
                        for taken, call in zip(times, pair, strict=True):
                            taken.append(seconds(call, inputs, gradients, clock))
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
