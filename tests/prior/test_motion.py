"""Tests of the motion prior: densities, rollouts, files."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowprior import CheckpointError, ConditionalPosePrior
from flowprior.prior import MotionPrior
from flowprior.rotations import (
    LOG_CHART_VOLUME,
    chart_to_matrix,
    geodesic_distance,
    matrix_to_chart,
    matrix_to_rotvec,
    rot6d_to_matrix,
    rotvec_to_matrix,
)

UP = torch.tensor([0.0, -1.0, 0.0])


def make(**changes: object) -> MotionPrior:
    """A small prior with random weights that depends on everything."""
    torch.manual_seed(0)
    options: dict[str, object] = {
        "head_features": 8,
        "encoder_features": 8,
        "hidden_features": 8,
        "num_steps": 2,
    }
    prior = MotionPrior(**{**options, **changes})  # type: ignore[arg-type]
    with torch.no_grad():
        for value in prior.parameters():
            value.add_(0.1 * torch.randn(value.shape))
        for name, buffer in prior.named_buffers():
            if name.endswith("initialized"):
                buffer.fill_(value=True)
    return prior.eval()


def poses(*batch: int, seed: int = 0, joints: int = 24) -> Tensor:
    """Rotations (*batch, T, J, 3, 3) that change by a tenth of a radian from pose to pose."""
    generator = torch.Generator().manual_seed(seed)
    lead = batch[:-1]
    start = 0.5 * torch.randn(*lead, 1, joints, 3, generator=generator)
    speed = 0.1 * torch.randn(*lead, 1, joints, 3, generator=generator)
    time = torch.arange(batch[-1], dtype=torch.float32)[:, None, None]
    return rotvec_to_matrix(start) @ rotvec_to_matrix(speed * time)


def test_untrained_prior_expects_constant_velocity() -> None:
    clip = poses(5, 3)
    mode = rot6d_to_matrix(MotionPrior().eval()(clip[:, :2], fps=30.0).mode())
    assert geodesic_distance(mode, clip[:, 2])[:, :22].max() < 2e-3
    assert geodesic_distance(mode[:, 22:], torch.eye(3)).max() < 1e-3


def test_without_a_velocity_an_untrained_prior_expects_no_motion() -> None:
    clip = poses(5, 2)
    before = clip.clone()
    before[:, 0] = torch.nan
    prior = MotionPrior().eval()
    for previous in (clip[:, 1:], before):
        mode = rot6d_to_matrix(prior(previous, fps=30.0).mode())
        assert geodesic_distance(mode, clip[:, 1])[:, :22].max() < 1e-3


def test_density_is_the_jacobian_of_the_latents() -> None:
    prior = make(rest_joints=(), joints=3).double()
    clip = poses(3, joints=3).double()
    posterior = prior(clip[:2], fps=20.0)
    z = 0.3 * torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mode = rot6d_to_matrix(posterior.mode())

    def latent(u: Tensor) -> Tensor:
        return posterior.encode(mode @ chart_to_matrix(u.reshape(3, 3)))

    theta = rot6d_to_matrix(posterior.decode(z))
    # The chart keeps volume, so its own vectors are coordinates.
    u = matrix_to_chart(mode.mT @ theta).flatten()
    jacobian = torch.autograd.functional.jacobian(latent, u)
    assert isinstance(jacobian, Tensor)
    base = prior.step.flow.base.log_prob(z)
    expected = base + torch.linalg.slogdet(jacobian).logabsdet + 3 * LOG_CHART_VOLUME
    torch.testing.assert_close(posterior.log_prob(theta), expected, rtol=1e-9, atol=1e-9)


def test_density_of_a_clip_is_the_sum_of_its_conditionals() -> None:
    prior, clip = make().double(), poses(2, 6).double()
    expected = prior(clip[:, :1], fps=30.0, up=UP).log_prob(clip[:, 1])
    for t in range(2, 6):
        expected = expected + prior(clip[:, t - 2 : t], fps=30.0, up=UP).log_prob(clip[:, t])
    torch.testing.assert_close(prior.log_prob(clip, fps=30.0, up=UP), expected)
    alone = [prior.log_prob(each, fps=30.0, up=UP) for each in clip]
    torch.testing.assert_close(torch.stack(alone), expected)


def test_gaps_begin_a_new_run() -> None:
    prior, clip = make().double(), poses(1, 9).double()[0]
    missing = clip.clone()
    missing[4] = torch.nan
    found = prior.frame_log_prob(missing, fps=30.0)
    assert (found == 0).tolist() == [True, False, False, False, True, True, False, False, False]
    parts = prior.log_prob(clip[:4], fps=30.0) + prior.log_prob(clip[5:], fps=30.0)
    torch.testing.assert_close(found.sum(), parts)
    valid = torch.arange(9) != 4
    torch.testing.assert_close(prior.frame_log_prob(clip, fps=30.0, valid=valid), found)


@pytest.mark.parametrize("frames", [0, 1])
def test_clips_without_a_step_have_density_one(frames: int) -> None:
    clip = poses(2, 3)[:, :frames]
    assert make().log_prob(clip, fps=30.0).tolist() == [0.0, 0.0]
    assert make().log_prob(poses(0, 3), fps=30.0).shape == (0,)


def test_density_does_not_depend_on_the_direction_a_person_faces() -> None:
    prior, clip = make().double(), poses(1, 5).double()[0]
    yaw = rotvec_to_matrix(torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64))
    turned = clip.clone()
    turned[:, 0] = yaw @ turned[:, 0]
    here, there = (prior.log_prob(each, fps=30.0, up=UP) for each in (clip, turned))
    torch.testing.assert_close(here, there)
    # With the person lying down, gravity is another one.
    fallen = clip.clone()
    fallen[:, 0] = rotvec_to_matrix(torch.tensor([1.5, 0.0, 0.0]).double()) @ fallen[:, 0]
    assert (prior.log_prob(fallen, fps=30.0, up=UP) - here).abs() > 1e-3
    torch.testing.assert_close(prior.log_prob(fallen, fps=30.0), prior.log_prob(clip, fps=30.0))


def test_rollouts_are_seeded_and_independent_of_the_batch() -> None:
    prior, start = make(), poses(3, 2)

    def roll(previous: Tensor, temperature: float = 1.0, number: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        return prior.rollout(
            previous, 4, number, fps=15.0, temperature=temperature, generator=generator
        )

    motions = roll(start)
    assert motions.shape == (3, 2, 4, 24, 6)
    assert torch.equal(motions, roll(start))
    assert (motions[:, 0] - motions[:, 1]).abs().max() > 1e-3
    still = roll(start, temperature=0.0)
    torch.testing.assert_close(still[:, 0], still[:, 1])
    torch.testing.assert_close(roll(start[1], 0.0), still[1])
    mode = prior(start, fps=15.0).mode()
    torch.testing.assert_close(still[:, 0, 0], mode)
    assert roll(start, number=0).shape == (3, 0, 4, 24, 6)
    assert prior.rollout(start, 0, 2, fps=15.0).shape == (3, 2, 0, 24, 6)
    assert roll(start[:0]).shape == (0, 2, 4, 24, 6)


def test_rollouts_follow_evidence_of_their_frames() -> None:
    prior = make(evidence=("joints_3d",))
    joints = torch.randn(3, 5, 24, 3, generator=torch.Generator().manual_seed(0))
    start = poses(3, 2)
    found = prior.rollout(start, 5, 2, fps=30.0, temperature=0.0, joints_3d=joints)
    first = prior(start, fps=30.0, joints_3d=joints[:, 0]).mode()
    torch.testing.assert_close(found[:, 1, 0], first)
    other = prior.rollout(start, 5, 2, fps=30.0, temperature=0.0)
    assert (found - other).abs().max() > 1e-3
    with pytest.raises(ValueError, match="must have 4 frames"):
        prior.rollout(start, 4, 2, fps=30.0, joints_3d=joints)


def test_keypoints_of_the_camera_are_seen_from_the_orientation() -> None:
    prior = make(evidence=("keypoints_2d",))
    keypoints = torch.cat([100 * torch.rand(2, 17, 2), torch.ones(2, 17, 1)], dim=-1)
    clip = poses(2, 2)
    seen = prior(clip, fps=30.0, keypoints_2d=keypoints).mode()
    assert (seen - prior(clip, fps=30.0).mode()).abs().max() > 1e-4
    nothing = torch.zeros(2, 17, 3)
    torch.testing.assert_close(
        prior(clip, fps=30.0, keypoints_2d=nothing).mode(), prior(clip, fps=30.0).mode()
    )


def test_training_improves_the_mode_and_the_density() -> None:
    torch.manual_seed(0)
    prior = MotionPrior(head_features=16, encoder_features=16, hidden_features=16, num_steps=2)
    generator = torch.Generator().manual_seed(0)
    start, speed = 0.5 * torch.randn(2, 200, 24, 3, generator=generator)
    speed = 0.1 * speed
    first = rotvec_to_matrix(start)
    second = first @ rotvec_to_matrix(speed)
    third = second @ rotvec_to_matrix(0.5 * speed)  # everybody slows down
    third[:, 22:] = torch.eye(3)
    previous = torch.stack([first, second], dim=1)
    optimizer = torch.optim.AdamW(prior.parameters(), 3e-3)
    history = []
    for _ in range(60):
        nll = prior.nll(third, previous, fps=30.0, generator=generator)
        angle = prior.mode_loss(third, previous, fps=30.0)
        optimizer.zero_grad()
        (nll + 100 * angle).backward()
        optimizer.step()
        history.append((nll.item(), angle.item()))
    assert history[-1][0] < history[0][0] - 20
    assert history[-1][1] < 0.7 * history[0][1]
    prior.eval()
    temperature = prior.calibrate(third, previous, fps=30.0)
    assert 0.3 < temperature < 3


def test_likelihood_does_not_train_the_head() -> None:
    prior = make().train()
    clip = poses(8, 3)
    prior.nll(clip[:, 2], clip[:, :2], fps=30.0).backward()
    assert all(each.grad is None for each in prior.head.parameters())
    prior.mode_loss(clip[:, 2], clip[:, :2], fps=30.0).backward()
    assert all(each.grad is not None for each in prior.head.parameters())


def test_files(tmp_path: Path) -> None:
    prior, clip = make(evidence=("joints_3d",), rates=(10, 25)), poses(2, 4)
    prior.provenance = {"data": "none"}
    prior.save(tmp_path / "motion.safetensors")
    prior.save_pretrained(tmp_path / "folder")
    for loaded in (
        MotionPrior.load(tmp_path / "motion.safetensors"),
        MotionPrior.from_pretrained(tmp_path / "folder"),
    ):
        assert loaded.config == prior.config
        assert loaded.rates == (10.0, 25.0)
        assert loaded.provenance == {"data": "none"}
        assert not loaded.training
        assert torch.equal(loaded.log_prob(clip, fps=20.0), prior.log_prob(clip, fps=20.0))
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "from flowprior.prior import MotionPrior" in card
    assert "24 joint rotations on SO(3) given the two poses before" in card
    with pytest.raises(CheckpointError):
        ConditionalPosePrior.load(tmp_path / "motion.safetensors")
    ConditionalPosePrior(0, hidden_features=8).save(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="is not a motion prior"):
        MotionPrior.load(tmp_path / "other.safetensors")


def test_frozen_copy_agrees_and_cannot_be_trained(tmp_path: Path) -> None:
    prior, clip = make(), poses(2, 5)
    frozen = prior.freeze()
    torch.testing.assert_close(
        frozen.log_prob(clip, fps=30.0), prior.log_prob(clip, fps=30.0), rtol=1e-4, atol=1e-3
    )
    assert isinstance(prior.step, ConditionalPosePrior)
    with pytest.raises(TypeError, match="frozen"):
        frozen.nll(clip[:, 2], clip[:, :2], fps=30.0)
    with pytest.raises(TypeError, match="frozen"):
        frozen.calibrate(clip[:, 2], clip[:, :2], fps=30.0)
    with pytest.raises(TypeError, match="frozen"):
        frozen.save(tmp_path / "frozen.safetensors")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda prior, clip: prior(clip[:, :3], fps=30.0), "the last one or two poses"),
        (lambda prior, clip: prior(clip[:, :2], fps=60.0), "7.5 to 30 frames per second, got 60"),
        (lambda prior, clip: prior(clip[:, :2], fps=math.nan), "got nan"),
        (lambda prior, clip: prior(clip[:, :2] * math.nan, fps=30.0), "the last pose holds NaN"),
        (lambda prior, clip: prior(clip[:, :2, :22], fps=30.0), "22 joints"),
        (lambda prior, clip: prior(clip[:, :2], fps=30.0, up=torch.ones(2)), "direction"),
        (
            lambda prior, clip: prior(clip[:, :2], fps=30.0, joints_3d=torch.zeros(2, 24, 3)),
            "not trained with joints_3d",
        ),
        (lambda prior, clip: prior.rollout(clip[:, :2], -1, fps=30.0), "frames must be"),
        (lambda prior, clip: prior.rollout(clip[:, :2], 1, -1, fps=30.0), "num_samples must be"),
        (
            lambda prior, clip: prior.rollout(clip[:, :2], 1, fps=30.0, temperature=-1.0),
            "temperature",
        ),
        (
            lambda prior, clip: prior.log_prob(clip, fps=30.0, valid=torch.ones(3).bool()),
            r"valid must be \(2, 4\)",
        ),
        (lambda prior, clip: prior.log_prob(clip[0, 0], fps=30.0), "clip must be"),
    ],
)
def test_bad_input(call, message: str) -> None:  # type: ignore[no-untyped-def]
    prior, clip = make(), poses(2, 4)
    with pytest.raises(ValueError, match=message):
        call(prior, clip)


def test_arrays_are_not_tensors() -> None:
    with pytest.raises(TypeError, match="previous must be a tor"):
        make()(poses(2, 2).numpy(), fps=30.0)
    with pytest.raises(TypeError, match="clip must be a tor"):
        make().log_prob(poses(2, 2).numpy(), fps=30.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"rates": (30, 10)}, {"rates": (0, 10)}, {"head_features": 0}])
def test_bad_options(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"rates|head_features"):
        make(**changes)
    with pytest.raises(ValueError, match="keypoints_2d and joints_3d"):
        make(evidence=("rotations",))


def test_velocities_are_those_of_each_joint() -> None:
    prior, clip = make(), poses(4, 2)
    past = prior.context.past(clip, 12.0, clip)
    turn = matrix_to_rotvec(clip[:, 0].mT @ clip[:, 1])
    torch.testing.assert_close(past.velocity, 12 * turn)
    assert past.moving.all()


@pytest.mark.parametrize("evidence", [(), ("joints_3d",), ("keypoints_2d", "joints_3d")])
@torch.no_grad()
def test_each_clip_has_its_own_densities(evidence: tuple[str, ...]) -> None:
    """Several batch axes against single clips, and the loss against geodesic distances."""
    prior = make(evidence=evidence).double()
    clips = poses(2, 3, 5).double()
    noise = torch.Generator().manual_seed(1)
    given = {
        "joints_3d": torch.randn(2, 3, 5, 24, 3, generator=noise).double(),
        "keypoints_2d": torch.cat(
            (100 * torch.rand(2, 3, 5, 17, 2, generator=noise), torch.ones(2, 3, 5, 17, 1)), dim=-1
        ).double(),
    }
    told = {name: given[name] for name in evidence}
    last = {name: value[..., 2, :, :] for name, value in told.items()}
    up = UP.double()
    whole = prior.frame_log_prob(clips, fps=25.0, up=up, **told)
    for frames in (2, 3):
        short = {name: value[:, :, :frames] for name, value in told.items()}
        found = prior.frame_log_prob(clips[:, :, :frames], fps=25.0, up=up, **short)
        torch.testing.assert_close(found, whole[..., :frames])
    assert whole[..., 1:].abs().amin() > 0
    posterior = prior(clips[:, :, :2], fps=25.0, up=up, **last)
    step = posterior.log_prob(clips[:, :, 2])
    mode, distances = posterior.mode(), []
    for row in range(2):
        for column in range(3):
            at = (row, column)
            one = {name: value[at] for name, value in told.items()}
            torch.testing.assert_close(
                prior.frame_log_prob(clips[at], fps=25.0, up=up, **one), whole[at]
            )
            now = {name: value[at] for name, value in last.items()}
            alone = prior(clips[at][:2], fps=25.0, up=up, **now)
            torch.testing.assert_close(alone.log_prob(clips[at][2]), step[at])
            torch.testing.assert_close(alone.mode(), mode[at])
            away = geodesic_distance(rot6d_to_matrix(alone.mode()), clips[at][2])[:22]
            distances.append(2 * (away / 2).sin())
    loss = prior.mode_loss(clips[:, :, 2], clips[:, :, :2], fps=25.0, up=up, **last)
    assert loss.item() == pytest.approx(torch.stack(distances).mean().item(), rel=1e-3)
    assert repr(prior) == f"MotionPrior(joints=24, rates=(7.5, 30.0), evidence={evidence})"
