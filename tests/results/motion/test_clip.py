"""Checks that all files of motions share: shapes, rates, gaps, one shape per person."""

import numpy as np
import pytest
import torch

from flowprior.body import BodyModel
from flowprior.results import write_amass, write_animated_glb, write_bvh
from flowprior.results.motion.clip import clip_of
from flowprior.rotations import matrix_to_rot6d, matrix_to_rotvec
from tests.results.motion.clips import motion, shape

WRITERS = [write_bvh, write_amass, write_animated_glb]


@pytest.fixture(scope="module")
def body():
    return BodyModel()


@pytest.mark.parametrize(("up", "to"), [("-y", "y"), ("y", "y"), ("z", "y"), ("-y", "z")])
def test_what_is_up_stays_up_and_what_is_right_stays_right(body, up, to):
    theta, transl = motion(5)
    clip = clip_of(theta, transl, body, shape(), 30, up, to)
    given = body(theta, shape(), transl).joints.numpy()
    turned = body(
        torch.from_numpy(clip.rotation).float(), shape(), torch.from_numpy(clip.transl).float()
    ).joints.numpy()
    height = {"-y": -given[..., 1], "y": given[..., 1], "z": given[..., 2]}[up]
    np.testing.assert_allclose(turned[..., "xyz".index(to)], height, atol=1e-5)
    np.testing.assert_allclose(turned[..., 0], given[..., 0], atol=1e-5)
    np.testing.assert_allclose(clip.root, turned[:, 0], atol=1e-5)


def test_every_form_of_theta_is_the_same_motion(body):
    theta, transl = motion(4)
    one = clip_of(theta, transl, body, None, 30)
    for form in (matrix_to_rotvec(theta), matrix_to_rot6d(theta)):
        other = clip_of(form, transl, body, None, 30)
        np.testing.assert_allclose(other.rotation, one.rotation, atol=1e-5)


def test_quaternions_keep_their_sign_along_time(body):
    """The trap of glTF: q and -q are one rotation, but between them, players turn the long way."""
    theta, transl = motion(200, fps=20)
    clip = clip_of(theta, transl, body, None, 20)
    assert ((clip.quaternions[1:] * clip.quaternions[:-1]).sum(axis=-1) > 0.5).all()
    assert (clip.quaternions[:, 0, 3] < 0).any()  # a person who turns around several times
    assert (clip.quaternions[:, 0, 3] > 0).any()


@pytest.mark.parametrize("write", WRITERS)
class TestBadInput:
    def test_a_shape_per_frame(self, body, tmp_path, write):
        """sam-body4d#6: people whose shape changes from frame to frame."""
        theta, transl = motion(4)
        with pytest.raises(ValueError, match=r"one shape, betas \(B,\), got \(4, 10\)"):
            write(tmp_path / "file", theta, transl, body, torch.zeros(4, 10), 30)

    @pytest.mark.parametrize("fps", [0, -30.0, float("nan"), float("inf"), "30"])
    def test_rates_that_are_none(self, body, tmp_path, write, fps):
        with pytest.raises(ValueError, match="fps must be positive and finite"):
            write(tmp_path / "file", *motion(4), body, None, fps)

    def test_gaps(self, body, tmp_path, write):
        theta, transl = motion(6)
        theta[3:5] = torch.nan
        with pytest.raises(ValueError, match="2 of 6 frames are not finite, the first is 3"):
            write(tmp_path / "file", theta, transl, body, None, 30)
        assert not (tmp_path / "file").exists()

    def test_other_shapes(self, body, tmp_path, write):
        theta, transl = motion(6)
        with pytest.raises(ValueError, match=r"expected one motion, theta \(T, 24, k\)"):
            write(tmp_path / "file", theta, transl[:5], body, None, 30)
        with pytest.raises(ValueError, match="expected one motion"):
            write(tmp_path / "file", theta[:0], transl[:0], body, None, 30)
        with pytest.raises(TypeError, match="transl must be a tensor, got ndarray"):
            write(tmp_path / "file", theta, transl.numpy(), body, None, 30)

    def test_an_unknown_axis(self, body, tmp_path, write):
        with pytest.raises(ValueError, match="up must be one of -y, y, z"):
            write(tmp_path / "file", *motion(4), body, None, 30, up="x")
