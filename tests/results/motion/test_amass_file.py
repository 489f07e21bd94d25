"""The npz files of AMASS: what programs expect in them, and files that are none."""

import numpy as np
import pytest
import torch

from flowprior.body import BodyModel
from flowprior.results import read_amass, write_amass
from flowprior.rotations import geodesic_distance, rotvec_to_matrix
from tests.results.motion.clips import motion, shape


@pytest.fixture(scope="module")
def bodies():
    return {24: BodyModel(), 52: BodyModel(hands=True)}


@pytest.mark.parametrize(("model", "joints"), [("smpl", 24), ("smplh", 52), ("smplx", 55)])
def test_keys_and_shapes(bodies, tmp_path, model, joints):
    """b3d_mocap_import#9 and SMPL_blender_addon#7: keys of both spellings, no object arrays."""
    theta, transl = motion(7)
    write_amass(tmp_path / "a.npz", theta, transl, bodies[24], shape(), 50, model=model)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    assert found["poses"].shape == (7, 3 * joints)
    assert found["trans"].shape == (7, 3)
    assert found["mocap_frame_rate"] == found["mocap_framerate"] == 50
    assert str(found["gender"]) == "neutral"  # bytes would be "b'neutral'"
    assert found["mocap_time_length"] == pytest.approx(0.14)
    assert not found["betas"].any()  # of the embedded body, SMPL has others
    assert all(value.dtype != object for value in found.values())
    body = found["poses"].reshape(7, joints, 3)
    rotation = rotvec_to_matrix(torch.from_numpy(body[:, 1:22]))
    assert geodesic_distance(rotation, theta[:, 1:22].double()).max() < 1e-3


def test_the_body_stands_on_its_feet_with_z_up(bodies, tmp_path):
    theta, transl = motion(5)
    write_amass(tmp_path / "a.npz", theta, transl, bodies[24], None, 30, model="smpl")
    read = read_amass(tmp_path / "a.npz")
    found = bodies[24](rotvec_to_matrix(read.theta), None, read.transl).joints
    given = bodies[24](theta, None, transl).joints
    expected = torch.stack([given[..., 0], given[..., 2], -given[..., 1]], dim=-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_fingers_keep_their_pose(bodies, tmp_path):
    theta, transl = motion(4, 52)
    for model in ("smplh", "smplx"):
        write_amass(tmp_path / model, theta, transl, bodies[52], None, 30, model=model)
        read = read_amass(tmp_path / model)
        fingers = rotvec_to_matrix(read.theta[:, -30:])
        torch.testing.assert_close(fingers, theta[:, 22:], atol=1e-5, rtol=0)
    assert not read.theta[:, 22:25].any()  # jaw and eyes


def test_betas_of_a_file_of_the_user_are_kept(bodies, tmp_path):
    body = BodyModel()
    body.name = "SMPL_NEUTRAL.npz"
    write_amass(tmp_path / "a.npz", *motion(3), body, shape(), 30, gender="female")
    read = read_amass(tmp_path / "a.npz")
    torch.testing.assert_close(read.betas, shape(), atol=1e-6, rtol=0)
    assert read.gender == "female"


@pytest.mark.parametrize("fps", [12.5, 60, 120])
def test_the_label_of_the_rate_is_kept(bodies, tmp_path, fps):
    """Motion-X#43: the same frames labelled 60 and 120."""
    write_amass(tmp_path / "a.npz", *motion(30, fps=60), bodies[24], None, fps)
    assert read_amass(tmp_path / "a.npz").fps == fps


def test_a_rate_that_makes_people_implausibly_fast_is_reported(bodies, tmp_path):
    """Motion-X#43."""
    write_amass(tmp_path / "a.npz", *motion(60, fps=30), bodies[24], None, 480)
    with pytest.warns(RuntimeWarning, match="at 480 frames per second, .* implausibly fast"):
        assert read_amass(tmp_path / "a.npz").fps == 480


def test_missing_keys_are_listed(tmp_path):
    """b3d_mocap_import#9, SMPL_blender_addon#7: an unknown file of poses."""
    np.savez(tmp_path / "a.npz", pred_pose=np.zeros((3, 72)), trans=np.zeros((3, 3)))
    message = (
        "lacks gender, betas, poses, mocap_frame_rate or mocap_framerate; it contains pred_pose, "
        "trans"
    )
    with pytest.raises(ValueError, match=message):
        read_amass(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": np.zeros((3, 66))}, r"72 \(smpl\) or 156 \(smplh\) or 165 \(smplx\), got"),
        ({"trans": np.zeros((2, 3))}, r"trans must be \(3, 3\)"),
        ({"betas": np.zeros((3, 10))}, "one shape for all frames"),
        ({"mocap_framerate": np.array(0.0)}, "fps must be positive"),
        ({"poses": np.array("no numbers")}, "poses must be an array of numbers"),
    ],
)
def test_other_shapes_are_named(tmp_path, changes, message):
    arrays = {
        "poses": np.zeros((3, 72)),
        "trans": np.zeros((3, 3)),
        "betas": np.zeros(10),
        "gender": np.array(b"male"),
        "mocap_framerate": np.array(30.0),
    }
    np.savez(tmp_path / "good.npz", **arrays)
    assert read_amass(tmp_path / "good.npz").gender == "male"
    np.savez(tmp_path / "bad.npz", **arrays | changes)
    with pytest.raises(ValueError, match=message):
        read_amass(tmp_path / "bad.npz")


def test_unknown_models_and_bodies(bodies, tmp_path):
    with pytest.raises(ValueError, match="model must be one of smpl, smplh, smplx"):
        write_amass(tmp_path / "a.npz", *motion(3), bodies[24], None, 30, model="star")
