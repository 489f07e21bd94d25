"""Contexts of a motion prior, number by number against an independent computation."""

import math

import pytest
import torch
from torch import Tensor

from flowprior import rotations
from flowprior.prior import So3Space
from flowprior.prior.evidence import Evidence
from flowprior.prior.motion_context import CORRECTION, SPEED, MotionContext, MotionHead, Past

BATCH = (2, 3)
JOINTS = 24
HANDS = (22, 23)
MOVING = [joint for joint in range(JOINTS) if joint not in HANDS]
FPS = 25.0


def space(joints: int = JOINTS) -> So3Space:
    return So3Space(joints, "columns")


def clip(*batch: int, joints: int = JOINTS, dtype: torch.dtype = torch.float64) -> Tensor:
    """Two random poses (*batch, 2, J, 3, 3), a few tenths of a radian apart."""
    draw = torch.Generator().manual_seed(0)
    first = torch.randn(*batch, joints, 3, generator=draw, dtype=torch.float64)
    turn = 0.2 * torch.randn(*batch, joints, 3, generator=draw, dtype=torch.float64)
    first = rotations.rotvec_to_matrix(first)
    return torch.stack((first, first @ rotations.rotvec_to_matrix(turn)), dim=-4).to(dtype)


def points(*batch: int) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    found = torch.randn(*batch, JOINTS, 3, generator=draw, dtype=torch.float64)
    found[..., 5, 1] = torch.nan
    return found


def keypoints(*batch: int) -> Tensor:
    draw = torch.Generator().manual_seed(2)
    where = 100 * torch.rand(*batch, 17, 2, generator=draw, dtype=torch.float64)
    return torch.cat((where, torch.ones_like(where[..., :1])), dim=-1)


def context_of(kinds: tuple[str, ...], rest: tuple[int, ...] = HANDS) -> MotionContext:
    return MotionContext(space(), kinds, rest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_velocities_are_those_of_the_joints(dtype: torch.dtype) -> None:
    poses = clip(*BATCH, dtype=dtype)
    past = context_of(()).past(poses, FPS, torch.zeros((), dtype=dtype))
    assert past.last.dtype == past.velocity.dtype == dtype
    assert past.moving.dtype == torch.bool
    assert past.seconds == 1 / FPS
    torch.testing.assert_close(past.last, poses[..., 1, :, :, :], atol=1e-6, rtol=0)
    for index in torch.cartesian_prod(*map(torch.arange, BATCH)).tolist():
        first, last = poses[tuple(index)].double()
        turn = rotations.matrix_to_rotvec(first.transpose(1, 2) @ last)
        atol = 1e-4 if dtype == torch.float32 else 1e-9
        torch.testing.assert_close(
            past.velocity[tuple(index)].double(), turn * FPS, atol=atol, rtol=0
        )
    assert past.moving.shape == BATCH
    assert past.moving.all()


def test_a_pose_alone_or_after_a_missing_one_does_not_move() -> None:
    poses = clip(*BATCH)
    reader, like = context_of(()), poses.new_zeros(())
    one = reader.past(poses[..., 1:, :, :, :], FPS, like)
    assert not one.moving.any()
    assert one.moving.shape == BATCH
    assert not one.velocity.any()
    assert one.velocity.shape == (*BATCH, JOINTS, 3)
    both = rotations.matrix_to_rot6d(poses).clone()
    both[1, 2, 0, 7, 3] = torch.nan
    some = reader.past(both, FPS, like)
    expected = torch.ones(BATCH, dtype=torch.bool)
    expected[1, 2] = False
    assert torch.equal(some.moving, expected)
    assert not some.velocity[1, 2].any()
    assert some.velocity[expected].abs().amin() > 0


@pytest.mark.parametrize("rest", [(), HANDS, (3, 22)])
@pytest.mark.parametrize(
    "kinds", [(), ("joints_3d",), ("keypoints_2d",), ("joints_3d", "keypoints_2d")]
)
def test_numbers_stand_in_a_fixed_order(kinds: tuple[str, ...], rest: tuple[int, ...]) -> None:
    reader = context_of(kinds, rest)
    moving = [joint for joint in range(JOINTS) if joint not in rest]
    assert reader.moving == moving
    poses = clip(*BATCH)
    past = reader.past(poses, FPS, poses.new_zeros(()))
    up = torch.randn(*BATCH, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    given = {"joints_3d": points(*BATCH), "keypoints_2d": keypoints(*BATCH)}
    numbers = reader.numbers(past, up, **{name: given[name] for name in kinds})
    assert numbers.shape == (*BATCH, reader.features)
    for index in torch.cartesian_prod(*map(torch.arange, BATCH)).tolist():
        at = tuple(index)
        last, root = past.last[at], past.last[at][0]
        parts = [
            past.velocity[at][moving].flatten() / SPEED,
            torch.ones(1, dtype=torch.float64),
            rotations.matrix_to_rot6d(last[moving[1:]]).flatten(),
            root.T @ up[at] / up[at].norm(),
            torch.ones(1, dtype=torch.float64),
            torch.tensor([math.log(30 / FPS)], dtype=torch.float64),
        ]
        if kinds:
            evidence = Evidence(kinds, space())
            told = {name: given[name][at] for name in kinds}
            if "joints_3d" in told:
                told["joints_3d"] = told["joints_3d"] @ root
            parts.append(evidence.context(**told))
        if "keypoints_2d" in kinds:
            parts += [rotations.matrix_to_rot6d(root), torch.ones(1, dtype=torch.float64)]
        torch.testing.assert_close(numbers[at], torch.cat(parts), atol=1e-9, rtol=0)


def test_what_is_unknown_is_zero_with_its_flag() -> None:
    reader = context_of(("keypoints_2d", "joints_3d"))
    poses = clip(*BATCH)
    past = reader.past(poses, FPS, poses.new_zeros(()))
    nothing = reader.numbers(past)
    start = 3 * len(MOVING) + 1 + 6 * (len(MOVING) - 1)
    assert not nothing[..., start : start + 4].any()
    assert not nothing[..., start + 5 :].any()
    up = torch.tensor([0.0, -2.0, 0.0], dtype=torch.float64).repeat(*BATCH, 1)
    up[0, 1, 2] = torch.nan
    some = reader.numbers(past, up)[..., start : start + 4]
    assert torch.equal(some[..., 3], (~up.isnan().any(dim=-1)).double())
    assert not some[0, 1].any()
    torch.testing.assert_close(some[1, 2, :3], -past.last[1, 2, 0, 1])
    shared = reader.numbers(past, up[1, 2])[..., start : start + 4]
    torch.testing.assert_close(shared[1], some[1])
    assert (shared[..., 3] == 1).all()
    # Seen from a camera, one keypoint is enough for the orientation to count.
    seen = torch.zeros(*BATCH, 17, 3, dtype=torch.float64)
    seen[0, 0] = keypoints()
    seen[1, 1, :2] = keypoints()[:2]
    tail = reader.numbers(past, keypoints_2d=seen)[..., -7:]
    expected = torch.zeros(BATCH, dtype=torch.float64)
    expected[0, 0] = expected[1, 1] = 1
    assert torch.equal(tail[..., 6], expected)
    assert torch.equal(tail[0, 0, :6], rotations.matrix_to_rot6d(past.last[0, 0, 0]))
    assert not tail[1, 0].any()


def test_gravity_of_no_length_is_no_direction() -> None:
    reader = context_of(())
    past = reader.past(clip(), FPS, torch.zeros((), dtype=torch.float64))
    start = 3 * len(MOVING) + 1 + 6 * (len(MOVING) - 1)
    found = reader.numbers(past, torch.zeros(3))[start : start + 4]
    assert found.tolist() == [0, 0, 0, 1]
    small = reader.numbers(past, torch.tensor([0.0, 2e-6, 0.0]))[start : start + 3]
    torch.testing.assert_close(small, past.last[0, 1].double(), atol=1e-6, rtol=0)


def test_numbers_do_not_depend_on_the_axes_of_the_root() -> None:
    reader = context_of(("joints_3d",))
    turn = rotations.rotvec_to_matrix(torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64))
    poses = clip(*BATCH)
    turned = poses.clone()
    turned[..., 0, :, :] = turn @ poses[..., 0, :, :]
    up, seen = torch.tensor([0.2, -1.0, 0.1], dtype=torch.float64), points(*BATCH)
    like = poses.new_zeros(())
    one = reader.numbers(reader.past(poses, FPS, like), up, joints_3d=seen)
    other = reader.numbers(reader.past(turned, FPS, like), turn @ up, joints_3d=seen @ turn.T)
    torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda c: c.past(clip(joints=23), FPS, clip()), "theta"),
        (lambda c: c.past(clip()[0], FPS, clip()), r"^previous must be .* \(\.\.\., 2, 24, k\)"),
        (lambda c: c.past(clip()[[0, 0, 1]], FPS, clip()), r"got \(3, 24, 3, 3\)"),
        (lambda c: c.past(clip() * torch.inf, FPS, clip()), "the last pose holds NaN or infinity"),
        (lambda c: c.numbers(c.past(clip(), FPS, clip()), torch.zeros(4)), r"^up .* got \(4,\)"),
        (
            lambda c: c.numbers(c.past(clip(), FPS, clip()), joints_3d=points()),
            "^this prior was not trained with joints_3d$",
        ),
        (lambda c: MotionContext(space(), ("rotations",), ()), "takes keypoints_2d and joints_3d"),
    ],
)
def test_bad_input(act, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        act(context_of(()))


def test_what_is_no_tensor_is_named() -> None:
    reader = context_of(())
    with pytest.raises(TypeError, match=r"^previous\b[^?]"):
        reader.past(clip().numpy(), FPS, clip())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^up\b[^?]"):
        reader.numbers(reader.past(clip(), FPS, clip()), [0.0, 1.0, 0.0])  # type: ignore[arg-type]


def test_head_adds_a_correction_that_grows_with_time() -> None:
    torch.manual_seed(0)
    head = MotionHead(10, 5, [0, 2, 3], 8, num_blocks=2).double().eval()
    assert len(head.blocks) == 2
    assert len(MotionHead(10, 5, [0], 8).blocks) == 1
    assert not head.correction(torch.randn(4, 10).double(), 0.1).any()
    assert head.output.bias is None
    assert head.direct.bias is None
    for value in head.parameters():
        value.data.normal_()
    context = torch.randn(*BATCH, 10, dtype=torch.float64)
    found = head.correction(context, 0.1)
    assert found.shape == (*BATCH, 5, 3)
    assert not found[..., [1, 4], :].any()
    for index in torch.cartesian_prod(*map(torch.arange, BATCH)).tolist():
        row = context[tuple(index)][None]
        hidden = head.input(row)
        for block in head.blocks:
            hidden = block(hidden)
        moved = head.output(hidden.clamp(min=0)) + head.direct(row)
        expected = CORRECTION * 3**1.5 * moved.reshape(3, 3)
        torch.testing.assert_close(found[tuple(index)][[0, 2, 3]], expected)
    velocity = torch.randn(*BATCH, 5, 3, dtype=torch.float64)
    past = Past(torch.eye(3), velocity, torch.ones(BATCH, dtype=torch.bool), 0.1)
    torch.testing.assert_close(head(context, past), 0.1 * velocity + found)


def test_a_head_has_at_least_one_hidden_feature() -> None:
    assert MotionHead(4, 3, [0], 1).input.out_features == 1
    with pytest.raises(ValueError, match=r"^head_features\b[^?]"):
        MotionHead(4, 3, [0], 0)
