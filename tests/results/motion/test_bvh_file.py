"""BVH, opened by bvhio: its joints are those of the body, upright, at the right time."""

import warnings

import numpy as np
import pytest
import torch

from flowprior.body import BodyModel
from flowprior.results import write_bvh
from flowprior.results.motion.bvh_file import _require_offsets
from flowprior.results.motion.clip import clip_of
from tests.results.motion.clips import motion, shape

UPRIGHT = np.array([1, -1, -1])  # camera to y up


@pytest.fixture(scope="module")
def bvhio():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own import of PyGLM
        return pytest.importorskip("bvhio", reason="bvhio opens BVH")


@pytest.fixture(scope="module")
def bodies():
    return {24: BodyModel(), 52: BodyModel(hands=True)}


def joints_in(bvhio, path, names):
    """(frames, J, 3) positions of the joints in a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = bvhio.readAsBvh(str(path)).FrameCount
        root = bvhio.readAsHierarchy(str(path))
        found = np.zeros((frames, len(names), 3))
        for frame in range(frames):
            root.loadPose(frame)
            for joint, _, _ in root.layout():
                found[frame, names.index(joint.Name)] = list(joint.PositionWorld)
    return found


@pytest.mark.parametrize(("joints", "order"), [(24, "ZXY"), (24, "XYZ"), (52, "ZYX")])
def test_joints_are_those_of_the_body(bvhio, bodies, tmp_path, joints, order):
    """smpl2bvh#4 (order of the joints), #11 (upside down), sam-3d-body#94 (rest orientations).

    The offsets are those of the actual shape, and the root is at J0 + transl.
    """
    theta, transl = motion(4, joints)
    body = bodies[joints]
    write_bvh(tmp_path / "a.bvh", theta, transl, body, shape(), 30, order=order)
    found = joints_in(bvhio, tmp_path / "a.bvh", body.joint_names)
    expected = body(theta, shape(), transl).joints.numpy() * UPRIGHT
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_people_stand_upright_and_face_the_camera(bvhio, bodies, tmp_path):
    """smpl2bvh#11."""
    theta = torch.eye(3).repeat(1, 24, 1, 1)
    theta[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # faces a camera, y down
    write_bvh(tmp_path / "a.bvh", theta, torch.tensor([[0.0, 0.2, 3.0]]), bodies[24], None, 25)
    names = bodies[24].joint_names
    found = joints_in(bvhio, tmp_path / "a.bvh", names)[0]
    at = {name: found[names.index(name)] for name in names}
    assert at["head"][1] > at["pelvis"][1] + 0.3 > at["left_foot"][1] + 0.9
    assert at["left_foot"][2] > at["left_ankle"][2] + 0.05  # towards +z
    assert at["left_wrist"][0] > at["right_wrist"][0] + 1


@pytest.mark.parametrize("fps", [0.5, 10, 23.976, 29.97, 120, 1000])
def test_any_positive_rate(bvhio, bodies, tmp_path, fps):
    """SMPL-to-FBX#14 (glitches below 24), Motion-X#43 (the label of the rate is kept)."""
    write_bvh(tmp_path / "a.bvh", *motion(3), bodies[24], None, fps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = bvhio.readAsBvh(str(tmp_path / "a.bvh"))
    assert read.FrameCount == 3
    assert read.FrameTime * fps == pytest.approx(1, abs=1e-8)


def test_angles_do_not_jump(bodies, tmp_path):
    """A person who turns around several times."""
    theta, transl = motion(150, fps=20)
    write_bvh(tmp_path / "a.bvh", theta, transl, bodies[24], None, 20)
    lines = (tmp_path / "a.bvh").read_text().split("Frame Time:")[1].splitlines()[1:]
    angles = np.array([[float(value) for value in line.split()[3:]] for line in lines])
    assert angles.shape == (150, 72)
    assert np.ptp(angles[:, 2]) > 900
    assert np.isfinite(angles).all()
    assert np.abs(np.diff(angles[:, :3], axis=0)).max() < 10


def test_a_body_at_rest_has_no_nan(bodies, tmp_path):
    """smpl2bvh.py divides by the angle of a rotation."""
    still = torch.zeros(2, 24, 3)
    write_bvh(tmp_path / "a.bvh", still, torch.zeros(2, 3), bodies[24], None, 30, up="y")
    text = (tmp_path / "a.bvh").read_text()
    assert "nan" not in text.lower()
    assert text.splitlines()[-1].split()[3:] == ["0.000000"] * 72


def test_centimetres(bvhio, bodies, tmp_path):
    theta, transl = motion(1)
    for name, scale in (("m", 1), ("cm", 100)):
        write_bvh(tmp_path / name, theta, transl, bodies[24], None, 30, scale=scale)
    metres, centimetres = (
        joints_in(bvhio, tmp_path / name, bodies[24].joint_names) for name in ("m", "cm")
    )
    np.testing.assert_allclose(centimetres, 100 * metres, atol=1e-3)
    with pytest.raises(ValueError, match="scale must be above 0"):
        write_bvh(tmp_path / "no", theta, transl, bodies[24], None, 30, scale=0)


def test_joints_with_a_rest_orientation_are_refused(bodies):
    """sam-3d-body#94: a rig whose joints have axes of their own at rest."""
    body = bodies[24]
    clip = clip_of(*motion(2), body, None, 30)

    class Turned:
        name, faces, skeleton = "turned rig", body.faces, body.skeleton

        def __call__(self, theta, betas, transl):
            axes = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
            return body(axes @ theta @ axes.T, betas, transl)

    with pytest.raises(ValueError, match=r"joints of turned rig do not follow .* mm away"):
        _require_offsets(Turned(), clip, body.parents)
