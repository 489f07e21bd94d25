import numpy as np
import pytest

from examples.data.lifting_pairs import fit_stats
from examples.data.prohmr_lifting import inspect, matches, read_prohmr_lifting
from flowprior.skeleton import PROHMR_LIFTING_2D
from tests.examples.data.lifting_files import prohmr_lifting_arrays

IN_IMAGE = [*range(13), 14, 16, 17, 18]
IN_SPACE = [*range(13), 16, 17, 18]


def write(path, arrays):
    np.savez(path, **arrays)
    return path


def test_the_joints_that_prohmr_takes(tmp_path):
    arrays = prohmr_lifting_arrays()
    pairs, report = read_prohmr_lifting(write(tmp_path / "h36m_train.npz", arrays))
    assert report.clean
    assert (report.rows, report.kept, len(pairs)) == (8, 8, 8)
    np.testing.assert_allclose(
        pairs.keypoints_2d, arrays["extra_keypoints_2d"][:, IN_IMAGE], rtol=1e-6
    )
    joints = arrays["extra_keypoints_3d"][..., :3]
    np.testing.assert_allclose(
        pairs.target, joints[:, IN_SPACE] - joints[:, [14]], rtol=1e-5, atol=1e-6
    )
    assert pairs.root is None
    assert pairs.views().relative.shape == (8, 16, 3)
    stats = fit_stats(pairs.keypoints_2d, PROHMR_LIFTING_2D)
    assert stats.mean.shape == stats.std.shape == (17, 2)


def test_faults_are_counted(tmp_path):
    arrays = prohmr_lifting_arrays()
    image, space = arrays["extra_keypoints_2d"], arrays["extra_keypoints_3d"]
    space[0, 4, 3] = 0
    space[1, 4, 0] = np.nan
    space[2] *= 1000
    space[3, 13, 3] = 0  # the top of the head: not one of the 17
    image[4, 0, 1] = np.inf
    image[5, 1, 2] = -0.5
    image[6, :, 2] = 0
    image[7, 2, 2] = 0  # not detected: no fault
    pairs, report = read_prohmr_lifting(write(tmp_path / "x.npz", arrays))
    np.testing.assert_array_equal(pairs.frame, [3, 4, 5, 7])
    assert (report.rows, report.kept) == (8, 4)
    assert {reason: finding.examples for reason, finding in report.left_out.items()} == {
        "3D joint missing, of NaN, or beyond 100 m, millimetres perhaps": [
            "view 0",
            "view 1",
            "view 2",
        ],
        "no 2D keypoint": ["view 6"],
    }
    assert {reason: finding.examples for reason, finding in report.ignored.items()} == {
        "NaN or infinity in a 2D keypoint": ["view 4, keypoint 0 right_ankle_lsp"],
        "confidence of a 2D keypoint below 0 or above 1.5": ["view 5, keypoint 1 right_knee_lsp"],
    }
    assert pairs.keypoints_2d[1, 0].tolist() == [0, 0, 0]
    assert pairs.keypoints_2d[2, 1, 2] == pairs.keypoints_2d[3, 2, 2] == 0
    assert np.isfinite(pairs.keypoints_3d).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra_keypoints_2d": np.zeros((8, 25, 3))}, r"shape \(N, 19, 3\)"),
        ({"extra_keypoints_3d": np.zeros((7, 19, 4))}, r"shape \(8, 19, 4\)"),
        ({"extra_keypoints_3d": None}, "expected the key extra_keypoints_3d, found extra_keyp"),
    ],
)
def test_other_content_is_refused(tmp_path, changes, message):
    path = write(tmp_path / "x.npz", prohmr_lifting_arrays(**changes))
    with pytest.raises(ValueError, match=message):
        read_prohmr_lifting(path)


def test_other_units_are_refused(tmp_path):
    arrays = prohmr_lifting_arrays()
    arrays["extra_keypoints_2d"][..., :2] /= 1000
    path = write(tmp_path / "x.npz", arrays)
    with pytest.raises(ValueError, match=r"x\.npz: 2D keypoints .* pixels are expected"):
        read_prohmr_lifting(path)


def test_matches_and_inspect(tmp_path):
    path = write(tmp_path / "x.npz", prohmr_lifting_arrays())
    assert matches(path)
    assert inspect(path).kind == "ProHMR lifting keypoints"
    # With images it is a file of annotations first, though lifting reads it all the same.
    images = write(tmp_path / "y.npz", prohmr_lifting_arrays(imgname=np.array(["a.jpg"] * 8)))
    assert not matches(images)
    assert len(read_prohmr_lifting(images)[0]) == 8
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "nowhere.npz")
