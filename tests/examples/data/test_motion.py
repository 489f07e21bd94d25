import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples.data.motion import (
    LARGEST_ANGLE,
    check_rotvecs,
    frames_at_rate,
    parse_gender,
    unwind,
    z_up_to_y_up,
)
from flowprior.files.report import Report
from flowprior.rotations import rotvec_to_matrix


class TestFramesAtRate:
    @given(
        st.integers(0, 400),
        st.floats(0.5, 500),
        st.floats(0.5, 500),
    )
    def test_the_nearest_frame_to_every_beat(self, num_frames, frame_rate, rate_hz):
        kept = frames_at_rate(num_frames, frame_rate, rate_hz)
        assert (np.diff(kept) > 0).all()
        assert set(kept) <= set(range(num_frames))
        if frame_rate <= rate_hz:
            assert len(kept) == num_frames
        else:
            beats = np.arange(len(kept)) / rate_hz
            assert (np.abs(kept / frame_rate - beats) <= 0.5001 / frame_rate).all()
            # The next beat has no frame any more.
            assert len(kept) / rate_hz * frame_rate >= num_frames - 0.5001

    def test_the_rate_that_amass_has(self):
        np.testing.assert_array_equal(frames_at_rate(60, 120.00004577636719, 10), range(0, 60, 12))
        np.testing.assert_array_equal(frames_at_rate(13, 120.00004577636719, 10), [0, 12])
        # A step of 6 would be a frame behind after ten seconds.
        kept = frames_at_rate(700, 59.94, 10)
        assert list(kept[[1, 99, 100]]) == [6, 593, 599]

    @pytest.mark.parametrize("rates", [(0.0, 10), (-1.0, 10), (np.nan, 10), (np.inf, 10), (30, 0)])
    def test_rates_that_are_none(self, rates):
        with pytest.raises(ValueError, match="expected a positive"):
            frames_at_rate(5, *rates)


@pytest.mark.parametrize(
    ("value", "gender"),
    [
        ("female", "female"),
        (b"female", "female"),
        (np.array("male"), "male"),
        (np.array(b"male"), "male"),
        (np.array(["neutral"]), "neutral"),
        ("b'female'", "female"),
        ("F", "female"),
        (np.array(b"m"), "male"),
        ("unknown", None),
        (b"\xff\xfe", None),
        ("", None),
        ("b", None),
        (None, None),
        (3, None),
        (np.array(["male", "female"]), None),
        ({}, None),
    ],
)
def test_genders(value, gender):
    assert parse_gender(value) == gender


class TestRotvecs:
    @given(st.integers(0, 2**32 - 1))
    def test_unwinding_keeps_the_rotation(self, seed):
        rng = np.random.default_rng(seed)
        rotvecs = rng.normal(size=(20, 3)) * rng.uniform(0, 8, (20, 1))
        unwound = unwind(rotvecs)
        assert (np.linalg.norm(unwound, axis=-1) <= np.pi + 1e-12).all()
        before, after = (rotvec_to_matrix(torch.from_numpy(x)) for x in (rotvecs, unwound))
        torch.testing.assert_close(before, after)
        short = np.linalg.norm(rotvecs, axis=-1) < np.pi
        np.testing.assert_array_equal(unwound[short], rotvecs[short])

    def test_faults_are_counted_by_the_numbers_of_their_frames(self):
        rotvecs = np.full((6, 24, 3), 0.1, np.float32)
        rotvecs[1, 4, 2] = np.nan
        rotvecs[2, 0, 0] = -np.inf
        rotvecs[3, 7] = (0, 90, 0)  # degrees
        rotvecs[4, 2] = (0, 7, 0)
        rotvecs[5, 0] = (0, 3.5, 0)  # more than half a turn: common, and no fault
        report = Report("here", "poses", unit="frame")
        checked, usable = check_rotvecs(rotvecs, 10 * np.arange(6), report)
        np.testing.assert_array_equal(usable, [True, False, False, False, True, True])
        assert report.left_out["pose with NaN or infinity"].examples == ["frame 10", "frame 20"]
        reason = "rotation of more than two turns, degrees perhaps"
        assert report.left_out[reason].examples == ["frame 30"]
        assert report.ignored["whole turn in a rotation vector"].examples == ["frame 40, right_hip"]
        np.testing.assert_allclose(checked[4, 2], (0, 7 - 2 * np.pi, 0))
        np.testing.assert_allclose(checked[5, 0], (0, 3.5 - 2 * np.pi, 0))
        np.testing.assert_allclose(checked[0], 0.1, rtol=1e-6)
        assert np.isfinite(checked).all()

    def test_numbers_too_large_to_be_squared(self):
        rotvecs = np.full((1, 24, 3), 1e300)
        report = Report("here", "poses")
        checked, usable = check_rotvecs(rotvecs, np.arange(1), report)
        assert not usable.any()
        assert (checked == 0).all()
        assert LARGEST_ANGLE < 15

    def test_no_poses(self):
        report = Report("here", "poses")
        checked, usable = check_rotvecs(np.zeros((0, 24, 3)), np.arange(0), report)
        assert checked.shape == (0, 24, 3)
        assert usable.shape == (0,)
        assert report.clean


@given(st.integers(0, 2**32 - 1))
def test_a_posed_body_is_turned_as_a_whole(seed):
    """SMPL's rule, point = R (point at rest - pelvis) + pelvis + transl, in either world."""
    rng = np.random.default_rng(seed)
    rest, pelvis = rng.normal(size=(30, 3)), rng.normal(size=3)
    global_orient, transl = rng.normal(size=3), rng.normal(size=3)

    def posed(orient, move):
        return (
            (rest - pelvis) @ rotvec_to_matrix(torch.from_numpy(orient)).numpy().T + pelvis + move
        )

    x, y, z = posed(global_orient, transl).T
    turned = posed(*z_up_to_y_up(global_orient, transl, pelvis))
    np.testing.assert_allclose(turned, np.stack([x, z, -y], -1), atol=1e-12)
    # Without the pelvis all points are off by the same.
    off = posed(*z_up_to_y_up(global_orient, transl)) - turned
    np.testing.assert_allclose(off, np.broadcast_to(off[:1], off.shape), atol=1e-12)
