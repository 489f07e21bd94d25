import pytest
import torch

from examples.data.augment import (
    SEGMENT_TURNS,
    mirror,
    mirror_rotvecs,
    turn_segments,
    vary_bones,
)
from examples.data.kinematics import joints17_from_rotations
from examples.data.poses import load_poses
from flowprior import rotations
from flowprior.skeleton import H36M_17, SMPL_24


@pytest.fixture(scope="module")
def poses():
    return torch.from_numpy(load_poses().test).double()


def test_mirror_exchanges_sides(poses):
    mirrored = mirror(poses)
    torch.testing.assert_close(mirror(mirrored), poses)
    left = H36M_17.joint_names.index("left_wrist")
    right = H36M_17.joint_names.index("right_wrist")
    torch.testing.assert_close(mirrored[:, left, 1:], poses[:, right, 1:])
    torch.testing.assert_close(mirrored[:, left, 0], -poses[:, right, 0])


def test_mirrored_rotations_are_those_of_the_mirrored_joints():
    rotvecs = torch.randn(20, 24, 3)
    mirrored = mirror_rotvecs(rotvecs)
    torch.testing.assert_close(mirror_rotvecs(mirrored), rotvecs)
    torch.testing.assert_close(
        joints17_from_rotations(mirrored), mirror(joints17_from_rotations(rotvecs))
    )


def bones(joints):
    parents, children = torch.tensor(H36M_17.bones).T
    return joints[:, children] - joints[:, parents]


def test_varied_bones_keep_their_directions_and_the_two_sides_their_symmetry(poses):
    varied = vary_bones(poses, torch.Generator().manual_seed(0))
    before, after = bones(poses), bones(varied)
    torch.testing.assert_close(
        torch.nn.functional.normalize(before, dim=-1), torch.nn.functional.normalize(after, dim=-1)
    )
    assert varied[:, 0].abs().max() == 0
    factor = after.norm(dim=-1) / before.norm(dim=-1)
    other_side = [partner - 1 for partner in H36M_17.flip[1:]]
    torch.testing.assert_close(factor, factor[:, other_side])
    log = factor.log()
    person = log.mean(dim=1, keepdim=True)
    assert log.std() == pytest.approx((0.03**2 + 0.03**2) ** 0.5, rel=0.05)
    assert (log - person).std() == pytest.approx(0.03, rel=0.1)
    torch.testing.assert_close(vary_bones(poses, stature=0, proportions=0), poses)


def world(local):
    """World rotations (B, 24, 3, 3) of local ones."""
    turned = [local[:, 0]]
    for parent, child in SMPL_24.bones:
        assert child == len(turned)
        turned.append(turned[parent] @ local[:, child])
    return torch.stack(turned, dim=1)


def test_segments_turn_about_their_own_axes_as_far_as_the_table_says():
    generator = torch.Generator().manual_seed(0)
    bend = 0.4 * torch.randn(4000, 24, 3, generator=generator, dtype=torch.float64)
    local = rotations.rotvec_to_matrix(bend)
    turned = turn_segments(local, 2.0, generator)
    # The turn of a segment is seen in its own frame, and moves no other segment.
    turn = rotations.matrix_to_rotvec(world(local).mT @ world(turned)).rad2deg()
    size = turn.square().mean(dim=0).sqrt()
    torch.testing.assert_close(size, 2 * SEGMENT_TURNS.double(), rtol=0.06, atol=1e-5)
    torch.testing.assert_close(turn_segments(local, 0.0), local, rtol=0, atol=1e-12)
