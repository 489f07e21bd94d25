"""Tests of the motion prior as a term of sequence fits."""

import pytest
import torch
from torch import Tensor

from flowprior.fitting import SequenceOptions, fit_sequence
from flowprior.fitting.sequence.motion_term import MotionTerm
from flowprior.fitting.sequence.normal import NormalEquations
from flowprior.prior import ConditionalPosePrior, MotionPrior
from flowprior.rotations import geodesic_distance, rotvec_to_matrix

JOINTS = tuple(range(22))


def motion_prior(*, context: bool) -> MotionPrior:
    torch.manual_seed(0)
    prior = MotionPrior(
        head_features=8, encoder_features=8, hidden_features=8, num_steps=2, base="normal"
    )
    with torch.no_grad():
        for name, value in prior.named_parameters():
            value.add_(0.1 * torch.randn(value.shape))
            if not context and "context_weight" in name:
                value.zero_()
        for name, buffer in prior.named_buffers():
            if name.endswith("initialized"):
                buffer.fill_(value=True)
        if not context:  # neither the head nor the flow depends on the past
            prior.head.output.weight.zero_()
            prior.head.direct.weight.zero_()
    return prior.double().eval()


def clip(frames: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    speed = 0.1 * torch.randn(1, 24, 3, generator=generator, dtype=torch.float64)
    start = 0.5 * torch.randn(1, 24, 3, generator=generator, dtype=torch.float64)
    shake = 0.05 * torch.randn(frames, 24, 3, generator=generator, dtype=torch.float64)
    time = torch.arange(frames, dtype=torch.float64)[:, None, None]
    pose = rotvec_to_matrix(start) @ rotvec_to_matrix(speed * time) @ rotvec_to_matrix(shake)
    pose[:, 22:] = torch.eye(3, dtype=torch.float64)
    return pose[None]


def half_square(prior: MotionPrior, rotation: Tensor) -> Tensor:
    previous = torch.stack([rotation[:, :-2], rotation[:, 1:-1]], dim=2)
    z = prior(previous, fps=30.0).encode(rotation[:, 2:])
    return 0.5 * z.square().sum()


def test_gradient_is_that_of_half_the_squared_latents() -> None:
    prior, rotation = motion_prior(context=False), clip(5)
    move = torch.zeros(1, 5, 22, 3, dtype=torch.float64, requires_grad=True)
    moved = torch.cat([rotation[:, :, :22] @ rotvec_to_matrix(move), rotation[:, :, 22:]], dim=2)
    half_square(prior, moved).backward()
    system = NormalEquations(rotation, 1, 5, 69, 0, torch.zeros(1, dtype=torch.long), 1)
    MotionTerm(prior.freeze(), 30.0, 1.0).add_to(system, rotation, JOINTS)
    assert move.grad is not None
    expected = move.grad.flatten(start_dim=-2)
    assert expected.abs().max() > 1
    torch.testing.assert_close(system.gradient[..., :66], expected, rtol=1e-6, atol=1e-6)
    assert not system.gradient[..., 66:].any()


def test_matrix_is_that_of_gauss_newton() -> None:
    prior, rotation = motion_prior(context=False), clip(3)
    flat = rotation.reshape(3, 24, 3, 3)

    def latent(move: Tensor) -> Tensor:
        turned = flat[:, :22] @ rotvec_to_matrix(move.reshape(3, 22, 3))
        moved = torch.cat([turned, flat[:, 22:]], dim=1)
        return prior(moved[None, :2], fps=30.0).encode(moved[None, 2])[0]

    zero = torch.zeros(198, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(latent, zero)
    assert isinstance(jacobian, Tensor)
    expected = (jacobian.mT @ jacobian).reshape(3, 66, 3, 66)
    system = NormalEquations(rotation, 1, 3, 69, 0, torch.zeros(1, dtype=torch.long), 1)
    MotionTerm(prior.freeze(), 30.0, 2.0).add_to(system, rotation, JOINTS)
    found = {
        (0, 0): system.diagonal[0, 0],
        (1, 1): system.diagonal[0, 1],
        (2, 2): system.diagonal[0, 2],
        (1, 0): system.first[0, 0],
        (2, 1): system.first[0, 1],
        (2, 0): system.second[0, 0],
    }
    for (late, early), block in found.items():
        torch.testing.assert_close(
            block[:66, :66], 2 * expected[late, :, early], rtol=1e-6, atol=1e-6
        )


def test_shorter_windows_have_no_term() -> None:
    rotation = clip(2)
    system = NormalEquations(rotation, 1, 2, 69, 0, torch.zeros(1, dtype=torch.long), 1)
    MotionTerm(motion_prior(context=True).freeze(), 30.0, 1.0).add_to(system, rotation, JOINTS)
    assert not system.diagonal.any()


def test_fit_with_a_motion_prior_is_smoother() -> None:
    torch.manual_seed(0)
    pose = ConditionalPosePrior(0, joints=24, anchored=True, hidden_features=8, num_steps=1).eval()
    motion = motion_prior(context=True).float()
    truth = clip(20).float()[0]
    truth = truth[:1] @ rotvec_to_matrix(torch.linspace(0, 1, 20)[:, None, None].expand(20, 24, 3))
    noise = 0.1 * torch.randn(20, 24, 3, generator=torch.Generator().manual_seed(1))
    noisy = truth @ rotvec_to_matrix(noise)
    fits = [
        fit_sequence(
            pose,
            theta=noisy,
            fps=30,
            motion=motion,
            options=SequenceOptions(prior_weight=0.0, motion_weight=weight, smoothing=0.05),
        )
        for weight in (0.0, 1e3)
    ]
    bends = [
        geodesic_distance(fit.rotation[1:], fit.rotation[:-1])[:, :22].diff(dim=0).abs().mean()
        for fit in fits
    ]
    assert bends[1] < 0.8 * bends[0]


def test_other_rates_and_joints_are_errors() -> None:
    pose = ConditionalPosePrior(0, joints=24, anchored=True, hidden_features=8, num_steps=1).eval()
    theta = clip(4).float()[0]
    with pytest.raises(ValueError, match=r"7\.5 to 30 frames per second, got 60"):
        fit_sequence(pose, theta=theta, fps=60, motion=motion_prior(context=True).float())
    hand = MotionPrior(joints=15, rest_joints=(), hidden_features=8, num_steps=1)
    with pytest.raises(ValueError, match="24 joints, this has 15"):
        fit_sequence(pose, theta=theta, fps=30, motion=hand)
