"""Public functions of rotations, spaces and metrics are as accurate under autocast as without."""

import inspect

import pytest
import torch

from flowprior import metrics, rotations
from flowprior.metrics import calibration, errors
from flowprior.metrics import protocols as evaluation
from flowprior.prior.encoder import ContextEncoder
from flowprior.prior.spaces import SPACES, make_space

MATRIX = rotations.rotvec_to_matrix(torch.linspace(-2, 2, 36).view(4, 3, 3))
ROT6D = rotations.matrix_to_rot6d(MATRIX)
JOINTS = torch.linspace(-1, 1, 60).sin().view(4, 5, 3)
SAMPLES = torch.linspace(0, 9, 360).sin().view(4, 6, 5, 3)

ARGUMENTS = {
    "rot6d_to_matrix": (ROT6D + 0.1,),
    "matrix_to_rot6d": (MATRIX,),
    "rotvec_to_matrix": (JOINTS,),
    "matrix_to_rotvec": (MATRIX,),
    "matrix_to_chart": (MATRIX,),
    "chart_to_matrix": (JOINTS,),
    "wrap_chart": (4 * JOINTS,),
    "geodesic_distance": (MATRIX, MATRIX.flip(0)),
    "mean_rotation": (MATRIX,),
    "orthogonality_loss": (ROT6D + 0.1,),
    "matching_layouts": (ROT6D,),
    "mpjpe": (JOINTS, JOINTS.flip(0)),
    "pa_mpjpe": (JOINTS, JOINTS.flip(0)),
    "pve": (JOINTS, JOINTS.flip(0)),
    "best_of_n": (JOINTS[..., 0], 3),
    "quantise": (SAMPLES, 2),
    "sample_diversity": (SAMPLES, torch.ones(4, 5)),
    "consistency_2d": (SAMPLES[..., :2], JOINTS[..., :2], torch.ones(4, 5)),
    "latent_pit": (JOINTS,),
    "coverage": (torch.linspace(0, 1, 9),),
    "calibration_error": (torch.linspace(0, 1, 21).square(),),
    "expected_calibration_error": (SAMPLES, JOINTS),
    "energy_score": (SAMPLES, JOINTS),
    "sample_spread": (SAMPLES,),
}


def public_functions():
    for module in (rotations, calibration, errors):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield name, value


FUNCTIONS = dict(public_functions())


def tensors(answer):
    if isinstance(answer, tuple):
        return list(answer)
    return [answer.coverage] if isinstance(answer, metrics.JointCalibration) else [answer]


def assert_same(actual, expected):
    for ours, theirs in zip(tensors(actual), tensors(expected), strict=True):
        if not isinstance(ours, torch.Tensor):
            assert ours == theirs
            continue
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, dtype):
    if name == "quantise":
        pytest.importorskip("sklearn")
    expected = FUNCTIONS[name](*ARGUMENTS[name])
    with torch.autocast("cpu", dtype):
        assert_same(FUNCTIONS[name](*ARGUMENTS[name]), expected)


@pytest.mark.parametrize("name", SPACES)
def test_spaces(name):
    space = make_space(name, 3, "columns")
    forms = [JOINTS[:, :3]] if name == "points" else [JOINTS[:, :3], MATRIX, ROT6D]
    for theta in forms:
        x = space.to_vector(theta)
        centre = space.centre(space.as_pose(theta).flip(0))
        around = space.to_vector(theta, centre)
        expected = [x, around, space.to_pose(x), space.to_pose(x, centre), space.settled(x)]
        with torch.autocast("cpu", torch.bfloat16):
            actual = [
                space.to_vector(theta),
                space.to_vector(theta, centre),
                space.to_pose(x),
                space.to_pose(x, centre),
                space.settled(x),
            ]
        assert_same(tuple(actual), tuple(expected))


def test_protocols():
    protocol = evaluation.PROTOCOLS["Human3.6M lifting"]
    pred, target = torch.randn(2, 3, 17, 3)
    expected = protocol.errors(pred, target)
    with torch.autocast("cpu", torch.bfloat16):
        actual = protocol.errors(pred, target)
    assert_same(tuple(actual.values()), tuple(expected.values()))


def test_the_encoder_of_contexts():
    encoder, context = ContextEncoder(4, 8, 1), torch.randn(5, 4)
    expected = encoder(context)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(encoder(context), expected)


@pytest.mark.parametrize("name", [name for name in rotations.__all__ if name in FUNCTIONS])
def test_inference_mode_does_not_forbid_later_gradients(name):
    if name == "matching_layouts":
        pytest.skip("no tensor")
    arguments = [each.clone().requires_grad_() for each in ARGUMENTS[name]]
    with torch.inference_mode():
        FUNCTIONS[name](*arguments)
    FUNCTIONS[name](*arguments).sum().backward()
    assert all(each.grad.isfinite().all() for each in arguments)
