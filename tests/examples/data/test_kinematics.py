import numpy as np
import pytest
import torch

from examples.data.kinematics import REST_OFFSETS, joints17_from_matrices, joints17_from_rotations
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.skeleton import H36M_17, SMPL_24

INDEX = {name: joint for joint, name in enumerate(H36M_17.joint_names)}


def bone_lengths(joints):
    parents, children = np.array(H36M_17.bones).T
    return np.linalg.norm(joints[:, children] - joints[:, parents], axis=-1)


def rotvecs(**joints):
    pose = torch.zeros(1, SMPL_24.num_joints, 3, dtype=torch.float64)
    for name, rotvec in joints.items():
        pose[0, SMPL_24.joint_names.index(name)] = torch.tensor(rotvec, dtype=torch.float64)
    return pose


def test_rest_pose_is_symmetric_upright_and_faces_forwards():
    rest = joints17_from_rotations(rotvecs())[0]
    mirrored = rest[list(H36M_17.flip)] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(rest, mirrored)
    assert rest[0].tolist() == [0, 0, 0]
    heights = [rest[INDEX[name], 1] for name in ("left_foot", "hip", "spine", "nose", "head")]
    assert heights == sorted(heights)
    assert rest[INDEX["left_wrist"], 0] > 0.5  # the left side is at +x
    assert rest[INDEX["nose"], 2] > rest[INDEX["thorax"], 2]
    assert 1.5 < rest[INDEX["head"], 1] - rest[INDEX["left_foot"], 1] < 1.8


def test_bending_a_knee_moves_that_foot_backwards():
    rest = joints17_from_rotations(rotvecs())[0]
    bent = joints17_from_rotations(rotvecs(left_knee=[torch.pi / 2, 0, 0]))[0]
    moved = [n for n, j in INDEX.items() if (bent[j] - rest[j]).norm() > 1e-9]
    assert moved == ["left_foot"]
    assert bent[INDEX["left_foot"], 2] < -0.4
    torch.testing.assert_close(bent[INDEX["left_foot"], 1], rest[INDEX["left_knee"], 1] + 0.04)


def test_the_left_arm_hangs_with_a_negative_turn_about_z():
    hanging = joints17_from_rotations(rotvecs(left_shoulder=[0, 0, -torch.pi / 2]))[0]
    shoulder, wrist = hanging[INDEX["left_shoulder"]], hanging[INDEX["left_wrist"]]
    torch.testing.assert_close(shoulder[1] - wrist[1], torch.tensor(0.528).double())


def test_root_turns_everything():
    pose = rotvecs(left_knee=[1.0, 0, 0], neck=[0.2, 0.3, 0], right_elbow=[0, 1.0, 0])
    turned = pose.clone()
    turned[0, 0] = torch.tensor([0.0, torch.pi / 2, 0])
    before, after = joints17_from_rotations(pose), joints17_from_rotations(turned)
    x, y, z = before.unbind(-1)
    torch.testing.assert_close(after, torch.stack([z, y, -x], dim=-1))


def test_rotations_keep_bones_and_offsets_scale_them():
    generator = torch.Generator().manual_seed(0)
    pose = torch.randn(20, 24, 3, generator=generator, dtype=torch.float64)
    small = 0.8 * torch.tensor(REST_OFFSETS, dtype=torch.float64)
    joints = joints17_from_rotations(pose)
    torch.testing.assert_close(joints17_from_rotations(pose, small), 0.8 * joints)
    rigid = [  # bones within one rigid part
        child
        for child, name in enumerate(H36M_17.joint_names)
        if name.endswith(("knee", "foot", "hip", "elbow", "wrist", "head")) and child
    ]
    lengths = torch.from_numpy(bone_lengths(joints.numpy())[:, [c - 1 for c in rigid]])
    assert lengths.std(dim=0).max() < 1e-12


def test_wrong_shape():
    with pytest.raises(ValueError, match=r"\(\.\.\., 24, 3\), got \(5, 72\)"):
        joints17_from_rotations(torch.zeros(5, 72))


def test_limbs_point_where_those_of_the_embedded_body_do():
    rest = BodyModel()(torch.zeros(24, 3)).joints
    for joint, name in enumerate(SMPL_24.joint_names):
        if name.endswith(("knee", "ankle", "elbow", "wrist")):
            bone = rest[joint] - rest[SMPL_24.parents[joint]]
            cosine = torch.cosine_similarity(bone, torch.tensor(REST_OFFSETS[joint]), dim=0)
            assert cosine > np.cos(np.radians(1.5))


def test_limbs_of_motion_capture_point_where_it_says(mocap_file):
    with np.load(mocap_file) as file:
        pose = torch.from_numpy(file["poses"][::997]).reshape(-1, 24, 3)
        truth = torch.from_numpy(file["joints17"][::997])
    joints = joints17_from_rotations(pose)
    for parent, child in H36M_17.bones:
        if H36M_17.joint_names[child].endswith(("knee", "foot", "elbow", "wrist")):
            cosine = torch.cosine_similarity(
                joints[:, child] - joints[:, parent], truth[:, child] - truth[:, parent], dim=-1
            )
            assert cosine.min() > np.cos(np.radians(3.0))


def test_joints_are_exact_under_autocast():
    pose = torch.randn(3, 24, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        joints = joints17_from_rotations(pose)
    assert torch.equal(joints, joints17_from_rotations(pose))


def test_matrices_are_posed_as_their_rotation_vectors():
    rotvecs = 0.7 * torch.randn(3, 2, 24, 3, generator=torch.Generator().manual_seed(0))
    found = joints17_from_matrices(rotations.rotvec_to_matrix(rotvecs))
    torch.testing.assert_close(found, joints17_from_rotations(rotvecs))
    with pytest.raises(ValueError, match=r"matrices of shape \(\.\.\., 24, 3, 3\)"):
        joints17_from_matrices(rotvecs)
