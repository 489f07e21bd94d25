"""Where blocks are in a pose, what hands read of the arm, and mirrored hands, against loops."""

import pytest
import torch

from flowprior import rotations
from flowprior.prior.blocks.layout import PoseLayout
from flowprior.skeleton import SMPL_24

BATCH = (2, 3)
FLIP = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
LAYOUTS = ("columns", "rows", "interleaved")


def matrices(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return rotations.rotvec_to_matrix(torch.randn(*shape, 3, generator=draw).double())


def made(root: bool = True, layout: str = "columns", mirrored=("left_hand",)) -> PoseLayout:
    return PoseLayout(22 if root else 21, 2, layout, mirrored)


@pytest.mark.parametrize("root", [True, False])
def test_parts_follow_one_another(root):
    whole, count = made(root), 22 if root else 21
    assert whole.joints == whole.space.joints == count + 30
    assert whole.parts == {
        "body": slice(0, count),
        "left_hand": slice(count, count + 15),
        "right_hand": slice(count + 15, count + 30),
    }
    assert whole.rest.shape == (count + 30, 6)
    identity = rotations.matrix_to_rot6d(torch.eye(3))
    assert torch.equal(whole.rest, identity.expand(count + 30, 6))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_of_a_pose_and_back(layout):
    whole = made(layout=layout)
    matrix = matrices(*BATCH, 52)
    pose = rotations.matrix_to_rot6d(matrix, layout)
    for name, part in whole.parts.items():
        block = whole.to_block(name, pose[..., part, :])
        expected = matrix[..., part, :, :]
        if name == "left_hand":
            expected = FLIP @ expected @ FLIP
        if name == "body":
            rest = torch.eye(3).double().expand(*BATCH, 2, 3, 3)
            expected = torch.cat((expected, rest), dim=-3)
        torch.testing.assert_close(rotations.rot6d_to_matrix(block, layout), expected)
        assert block.dtype == torch.float64
        torch.testing.assert_close(whole.from_block(name, block), pose[..., part, :])


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("extra", [(), (4,), (4, 5)])
def test_hands_read_elbow_and_wrist_of_their_side(root, layout, extra):
    whole = made(root, layout)
    count = whole.parts["body"].stop
    matrix = matrices(*BATCH, *extra, count)
    body = rotations.matrix_to_rot6d(matrix, layout) * 1.7  # their length has no meaning
    context = torch.randn(*BATCH, 3, generator=torch.Generator().manual_seed(1)).double()
    for name, side in (("left_hand", "left"), ("right_hand", "right")):
        arm = [SMPL_24.index(f"{side}_{each}") - (22 - count) for each in ("elbow", "wrist")]
        turns = matrix[..., arm, :, :]
        if name == "left_hand":
            turns = FLIP @ turns @ FLIP
        expected = rotations.matrix_to_rot6d(turns).flatten(-2)
        alone = whole.hand_context(name, None, body, torch.Size(BATCH))
        torch.testing.assert_close(alone, expected)
        both = whole.hand_context(name, context, body, torch.Size(BATCH))
        assert both.shape == (*BATCH, *extra, 15)
        torch.testing.assert_close(both[..., 3:], expected)
        own = context.reshape(*BATCH, *(1,) * len(extra), 3).expand(*BATCH, *extra, 3)
        assert torch.equal(both[..., :3], own)
        shared = whole.hand_context(name, context[0, 0].float(), body, torch.Size(BATCH))
        assert torch.equal(shared[..., :3], context[0, 0].float().double().expand_as(own))


@pytest.mark.parametrize("root", [True, False])
def test_evidence_goes_to_the_blocks_it_is_about(root):
    whole = made(root)
    count = whole.parts["body"].stop
    matrix = matrices(*BATCH, whole.joints)
    known = torch.zeros(*BATCH, whole.joints, dtype=torch.bool)
    known[0, 1, 4] = known[1, 2, count + 16] = True
    found = whole.evidence(matrix, known, {})
    assert list(found) == ["body", "left_hand", "right_hand"]
    assert found["left_hand"] == {}
    assert set(found["body"]) == set(found["right_hand"]) == {"rotations", "known"}
    assert found["body"]["known"].shape == (*BATCH, count + 2)
    assert found["body"]["known"].nonzero().tolist() == [[0, 1, 4]]
    assert found["right_hand"]["known"].nonzero().tolist() == [[1, 2, 1]]
    torch.testing.assert_close(
        rotations.rot6d_to_matrix(found["body"]["rotations"])[0, 1, 4], matrix[0, 1, 4]
    )
    points = torch.randn(*BATCH, 21, 3)
    hands = whole.evidence(None, None, {"left_hand": points, "right_hand": points})
    assert hands["body"] == {}
    assert torch.equal(hands["right_hand"]["joints_3d"], points)
    assert torch.equal(hands["left_hand"]["joints_3d"][..., 0], -points[..., 0])
    assert torch.equal(hands["left_hand"]["joints_3d"][..., 1:], points[..., 1:])
    assert whole.evidence(None, None, {"left_hand": None}) == {name: {} for name in whole.parts}


def test_bad_evidence_is_named():
    whole = made()
    with pytest.raises(
        ValueError, match=r"^known says which rotations are known, but rotations is"
    ):
        whole.evidence(None, torch.ones(52, dtype=torch.bool), {})
    for name in ("left_hand", "right_hand"):
        with pytest.raises(TypeError, match=rf"^{name}_joints_3d must be a torch\.Tensor"):
            whole.evidence(None, None, {name: [0.0]})
