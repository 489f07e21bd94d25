"""Mistakes with the library: shapes, values, files."""

import contextlib
import functools
import os
import pickle
import resource
import signal
from pathlib import Path

import numpy as np
import torch

from flowprior import CheckpointError, ConditionalPosePrior, metrics, rotations
from flowprior.body import BodyModel
from flowprior.keypoints import example_keypoints, keypoint_context
from flowprior.prior.conditional import PATIENCE
from flowprior.prohmr import load_prior
from tests.tour.mistake import Mistake


def small(**options: object) -> ConditionalPosePrior:
    given = {"context_features": 8, "hidden_features": 8, "num_steps": 2, **options}
    return ConditionalPosePrior(**given).eval()


@functools.cache
def body() -> BodyModel:
    return BodyModel()


def poses(*batch: int) -> torch.Tensor:
    """Rotation vectors (*batch, 24, 3)."""
    return 0.3 * torch.randn(*batch, 24, 3, generator=torch.Generator().manual_seed(0))


def six(layout: str) -> torch.Tensor:
    return rotations.matrix_to_rot6d(rotations.rotvec_to_matrix(poses(5)), layout)


def with_nan(theta: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(theta.numel()).view(theta.shape) == 7, torch.nan, theta)


def train_without_the_head() -> None:
    prior = small().train()
    for _ in range(PATIENCE):
        prior.nll(THETA, CONTEXT)


CONTEXT = torch.zeros(5, 8)
THETA = six("columns")
POINTS = torch.linspace(-1, 1, 17)[:, None].expand(5, 17, 3)
HTML = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 39001280\n"


def written(name: str, content: str | bytes) -> Path:
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def archive(name: str, **arrays: object) -> Path:
    np.savez(name, **arrays)
    return Path(name)


def flame_file() -> Path:
    names = ("v_template", "shapedirs", "posedirs", "weights", "J_regressor", "f")
    arrays = {name: np.zeros((3, 3)) for name in names}
    tree = np.array([[-1, 0, 1, 1, 1], range(5)])
    return archive("generic_model.npz", kintree_table=tree, **arrays)


def lightning_file() -> Path:
    torch.save({"state_dict": {"encoder.weight": torch.zeros(3)}}, "last.ckpt")
    return Path("last.ckpt")


def safetensors_of_another() -> Path:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, "model.safetensors")
    return Path("model.safetensors")


def cut_in_half() -> Path:
    small().save("prior.safetensors")
    return written("prior.safetensors", Path("prior.safetensors").read_bytes()[:2000])


@contextlib.contextmanager
def disk_full_after(size: int):
    """No file can grow beyond a size, as on a disk without room for more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def save_on_a_full_disk() -> None:
    old, new = small(), small(hidden_features=64)
    old.save("prior.safetensors")
    try:
        with disk_full_after(20_000):
            new.save("prior.safetensors")
    finally:
        kept = ConditionalPosePrior.load("prior.safetensors")
        assert torch.equal(kept.log_prob(THETA, CONTEXT), old.log_prob(THETA, CONTEXT))
        assert os.listdir() == ["prior.safetensors"]


MISTAKES: dict[str, list[Mistake]] = {
    "Shapes and types": [
        Mistake(
            "`prior.log_prob(theta.numpy(), context)`",
            lambda: small().log_prob(THETA.numpy(), CONTEXT),
            TypeError,
            ("theta", "ndarray", "torch.as_tensor"),
        ),
        Mistake(
            "`prior(context.tolist())`",
            lambda: small()(CONTEXT.tolist()),
            TypeError,
            ("context", "list", "torch.as_tensor"),
        ),
        Mistake(
            "`mpjpe` of NumPy arrays",
            lambda: metrics.mpjpe(np.zeros((5, 17, 3)), np.zeros((5, 17, 3))),
            TypeError,
            ("pred", "ndarray", "torch.as_tensor"),
        ),
        Mistake(
            "float64 input to a float32 prior",
            lambda: small().log_prob(THETA.double(), CONTEXT),
            ValueError,
            ("float64", "float32", "theta.float()", "model.double()"),
        ),
        Mistake(
            "an integer context",
            lambda: small()(torch.zeros(5, 8, dtype=torch.int64)),
            ValueError,
            ("floating point", "int64", "context.to(torch.float32)"),
        ),
        Mistake(
            "a context on another device",
            lambda: small()(CONTEXT.to("meta")),
            ValueError,
            ("on meta", "on cpu", "context.to('cpu')"),
        ),
        Mistake(
            "joints last: `(5, 6, 24)`",
            lambda: small().log_prob(THETA.mT, CONTEXT),
            ValueError,
            ("(5, 6, 24)", "(..., 24, 6)", "theta.mT"),
        ),
        Mistake(
            "samples before the batch: `(7, 5, 24, 6)`",
            lambda: small().log_prob(THETA.expand(7, 5, 24, 6), CONTEXT),
            ValueError,
            ("(7, 5)", "(5,)", "theta.transpose(0, 1)"),
        ),
        Mistake(
            "four poses for five contexts",
            lambda: small().log_prob(THETA[:4], CONTEXT),
            ValueError,
            ("(4,)", "(5,)"),
        ),
        Mistake(
            "a context with the wrong width",
            lambda: small()(torch.zeros(5, 2048)),
            ValueError,
            ("(..., 8)", "(5, 2048)"),
        ),
        Mistake(
            "no context: `prior.log_prob(theta)`",
            lambda: small().log_prob(THETA),
            ValueError,
            ("needs a context", "(..., 8)", "None"),
        ),
        Mistake(
            "a context for an unconditional prior",
            lambda: small(context_features=0)(CONTEXT),
            ValueError,
            ("context_features=0", "leave it out", "(5, 8)"),
        ),
        Mistake(
            "`prior.log_prob(context, theta)`",
            lambda: small().log_prob(CONTEXT, THETA),
            ValueError,
            ("theta first", "log_prob(theta, context)"),
        ),
        Mistake(
            "`prior.sample(100)`",
            lambda: small().sample(100),
            TypeError,
            ("context", "sample(context, 100)"),
        ),
        Mistake(
            "`prior.sample(context, -1)`",
            lambda: small().sample(CONTEXT, -1),
            ValueError,
            ("num_samples", "at least 0", "-1"),
        ),
        Mistake(
            "`prior.sample(context, 2.5)`",
            lambda: small().sample(CONTEXT, 2.5),
            ValueError,
            ("num_samples", "whole number", "2.5"),
        ),
        Mistake(
            "SMPL-X's 55 joints",
            lambda: small().log_prob(torch.zeros(5, 55, 3), CONTEXT),
            ValueError,
            ("(5, 55, 3)", "(..., 24, 3)", "55 joints (SMPL-X's)"),
        ),
        Mistake(
            "the 22 joints of an AMASS body",
            lambda: small().log_prob(torch.zeros(5, 22, 3), CONTEXT),
            ValueError,
            ("22 joints", "SMPL-X or SMPL-H", "without the hands"),
        ),
        Mistake(
            "`body_pose` alone: `(5, 69)`",
            lambda: small().log_prob(torch.zeros(5, 69), CONTEXT),
            ValueError,
            ("23 joints", "without global_orient"),
        ),
        Mistake(
            "flat rotation vectors: `(5, 72)`",
            lambda: small().log_prob(torch.zeros(5, 72), CONTEXT),
            ValueError,
            ("(5, 72)", "theta.unflatten(-1, (24, 3))"),
        ),
        Mistake(
            "quaternions: `(5, 24, 4)`",
            lambda: small().log_prob(torch.zeros(5, 24, 4), CONTEXT),
            ValueError,
            ("quaternions", "roma.unitquat_to_rotmat"),
        ),
        Mistake(
            "a centre of another number of joints",
            lambda: small()(CONTEXT, centre=torch.zeros(5, 22, 3)),
            ValueError,
            ("centre", "(5, 22, 3)", "(..., 24, 3)", "22 joints"),
        ),
        Mistake(
            "four centres for five contexts",
            lambda: small()(CONTEXT, centre=THETA[:4]),
            ValueError,
            ("centre", "(4,)", "(5,)", "one centre for each context"),
        ),
        Mistake(
            "`valid` with another batch shape",
            lambda: small().nll(THETA, CONTEXT, torch.ones(4)),
            ValueError,
            ("valid", "(4,)", "(5, 8)"),
        ),
        Mistake(
            "16 betas for a body with 10",
            lambda: body()(THETA, torch.zeros(5, 16)),
            ValueError,
            ("betas", "(5, 16)", "(10,)"),
        ),
    ],
    "Values, units and names": [
        Mistake(
            "NaN in θ",
            lambda: small().log_prob(with_nan(THETA), CONTEXT),
            ValueError,
            ("theta", "NaN", "1 of 720"),
        ),
        Mistake(
            "NaN in the centre",
            lambda: small()(CONTEXT, centre=with_nan(THETA)),
            ValueError,
            ("centre", "NaN", "1 of 720"),
        ),
        Mistake(
            "infinity in the context",
            lambda: small()(torch.full((5, 8), torch.inf)),
            ValueError,
            ("context", "infinity", "40 of 40"),
        ),
        Mistake(
            "6D vectors in another layout",
            lambda: small().log_prob(six("interleaved"), CONTEXT),
            UserWarning,
            ("'interleaved'", "'columns'", "layout='interleaved'", "rot6d_to_matrix"),
        ),
        Mistake(
            "degrees instead of radians",
            lambda: small().log_prob(torch.rad2deg(poses(5)), CONTEXT),
            UserWarning,
            ("radians", "four turns", "torch.deg2rad"),
        ),
        Mistake(
            "keypoints in millimetres",
            lambda: small(space="points", joints=17).log_prob(1000 * POINTS, CONTEXT),
            UserWarning,
            ("2000", "metres", "theta / 1000"),
        ),
        Mistake(
            "`transl` in millimetres",
            lambda: body()(THETA, transl=torch.tensor([0.0, 200.0, 4500.0])),
            UserWarning,
            ("4500", "metres", "transl / 1000"),
        ),
        Mistake(
            "2D keypoints from 0 to 1",
            lambda: keypoint_context(example_keypoints() / torch.tensor([340.0, 480.0, 1.0])),
            ValueError,
            ("normalised", "pixels", "pixel_keypoints"),
        ),
        Mistake(
            "scores of 2 to 7 as confidences",
            lambda: keypoint_context(
                torch.cat([example_keypoints()[:, :2], torch.linspace(2, 7, 17)[:, None]], dim=-1)
            ),
            ValueError,
            ("probabilities", "2 to 7"),
        ),
        Mistake(
            '`layout="zhou"`',
            lambda: small(layout="zhou"),
            ValueError,
            ("'columns'", "'interleaved'", "'rows'", "'zhou'"),
        ),
        Mistake(
            '`preset="original"`',
            lambda: small(preset="original"),
            ValueError,
            ("'default'", "'prohmr'", "'original'"),
        ),
        Mistake(
            '`coupling="glow"`',
            lambda: small(coupling="glow"),
            ValueError,
            ("'additive'", "'affine'", "'spline'", "'glow'"),
        ),
        Mistake(
            '`coupling="spline", anchored=True`',
            lambda: small(coupling="spline", anchored=True),
            ValueError,
            ("anchored flow", "'additive'", "'contracting'", "'none'", "'spline'"),
        ),
        Mistake(
            '`base="laplace"`',
            lambda: small(base="laplace"),
            ValueError,
            ("base", "'normal'", "'student_t'", "'laplace'"),
        ),
        Mistake(
            "training with `nll` alone, so that the head never learns",
            train_without_the_head,
            UserWarning,
            ("head", "not been trained", "prior.mode_loss(theta, context)", "prior.mode(context)"),
        ),
        Mistake(
            '`space="axis-angle"`',
            lambda: small(space="axis-angle"),
            ValueError,
            ("'rot6d'", "'so3'", "'points'", "'axis-angle'"),
        ),
        Mistake(
            "`smpl_params` of a prior over keypoints",
            lambda: small(space="points").smpl_params(torch.zeros(5, 24, 3)),
            ValueError,
            ("keypoints", "no joint rotations"),
        ),
    ],
    "Files": [
        Mistake(
            "a missing SMPL file",
            lambda: BodyModel("SMPL_NEUTRAL.pkl"),
            FileNotFoundError,
            ("SMPL_NEUTRAL.pkl", "smpl.is.tue.mpg.de", "BodyModel()"),
        ),
        Mistake(
            "a login page saved as an SMPL file",
            lambda: BodyModel(written("SMPL_NEUTRAL.pkl", HTML)),
            ValueError,
            ("SMPL_NEUTRAL.pkl", "web page", "log in"),
        ),
        Mistake(
            "a Git LFS pointer instead of the file",
            lambda: BodyModel(written("SMPL_NEUTRAL.npz", LFS)),
            ValueError,
            ("Git LFS", "git lfs pull"),
        ),
        Mistake(
            "an empty file",
            lambda: BodyModel(written("SMPL_NEUTRAL.pkl", "")),
            ValueError,
            ("is empty", "download"),
        ),
        Mistake(
            "SMPL's zip archive",
            lambda: BodyModel(written("SMPL_python_v.1.1.0.zip", b"PK")),
            ValueError,
            (".pkl or .npz", "SMPL_python_v.1.1.0.zip"),
        ),
        Mistake(
            "a FLAME file as a body",
            lambda: BodyModel(flame_file()),
            ValueError,
            ("is FLAME", "5 joints", "RigBody.from_body_models"),
        ),
        Mistake(
            "a file of poses as a body",
            lambda: BodyModel(archive("poses.npz", poses=np.zeros((9, 156)), trans=np.zeros(3))),
            ValueError,
            ("has poses", "(9, 156)", "BodyModel.pose"),
        ),
        Mistake(
            "a regressor file as SMPL",
            lambda: BodyModel(written("SMPL_to_J19.pkl", pickle.dumps({"J19": 1}))),
            ValueError,
            ("not a body model", "v_template", "missing", "found J19"),
        ),
        Mistake(
            "`load` of a Lightning checkpoint",
            lambda: ConditionalPosePrior.load(lightning_file()),
            CheckpointError,
            ("PyTorch checkpoint", "load_prior"),
        ),
        Mistake(
            "`prohmr.load_prior` of another model",
            lambda: load_prior(lightning_file()),
            CheckpointError,
            ("last.ckpt", "0 flows of ProHMR", "encoder.weight"),
        ),
        Mistake(
            "`load` of another library's safetensors",
            lambda: ConditionalPosePrior.load(safetensors_of_another()),
            CheckpointError,
            ("model.safetensors", "not a flowprior model"),
        ),
        Mistake(
            "`load` of a truncated file",
            lambda: ConditionalPosePrior.load(cut_in_half()),
            CheckpointError,
            ("prior.safetensors", "truncated"),
            foreign=r"(?<=\().*(?=\))",
        ),
        Mistake(
            "saving to a full disk",
            save_on_a_full_disk,
            OSError,
            ("prior.safetensors",),
            foreign=r"\[Errno.*(?=:)",
        ),
    ],
}
