import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.data.lifting_pairs import (
    LiftingPairs,
    LiftingStats,
    fit_stats,
    join_pairs,
    read_stats,
)
from flowprior.skeleton import H36M_17, LSP_14, PROHMR_LIFTING_2D


def pairs_of(rows, seed=0, skeleton=H36M_17):
    rng = np.random.default_rng(seed)
    keypoints = 500 + 100 * rng.normal(size=(rows, 17, 3))
    keypoints[..., 2] = 1
    names = np.array([f"row{row}" for row in range(rows)], dtype="<U8")
    return LiftingPairs(
        keypoints.astype(np.float32),
        rng.normal(size=(rows, 17, 3)).astype(np.float32),
        skeleton,
        skeleton,
        rng.normal(size=(rows, 3)).astype(np.float32),
        np.full((rows, 2), 1000, np.float32),
        names,
        names,
        names,
        names,
        np.arange(rows),
    )


def assert_same(first, second):
    for field in dataclasses.fields(LiftingPairs):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        if isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert ours == theirs


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_joining_undoes_selecting(sizes):
    whole = pairs_of(sum(sizes))
    ends = np.cumsum(sizes)
    parts = [whole[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    assert_same(join_pairs(parts), whole)


def test_pairs_that_cannot_be_joined():
    with pytest.raises(ValueError, match="got 0 of 0 kinds"):
        join_pairs([])
    with pytest.raises(ValueError, match="2 kinds: H36M-17 to H36M-17, PROHMR lifting 2D to"):
        join_pairs([pairs_of(2), pairs_of(2, skeleton=PROHMR_LIFTING_2D)])
    unrooted = dataclasses.replace(pairs_of(2), root=None)
    with pytest.raises(ValueError, match="2 kinds"):
        join_pairs([pairs_of(2), unrooted])
    assert join_pairs([unrooted, unrooted]).root is None


def test_views_of_other_joint_sets():
    pairs = pairs_of(3, skeleton=PROHMR_LIFTING_2D)
    views = pairs.views()
    names = {"hip": "pelvis_mpii", "left_foot": "left_ankle_lsp", "thorax": "neck_lsp"}
    for ours, theirs in names.items():
        joint, source = H36M_17.index(ours), PROHMR_LIFTING_2D.index(theirs)
        np.testing.assert_allclose(
            views.joints[:, joint], pairs.keypoints_3d[:, source] + pairs.root, atol=1e-6
        )
    joint, source = H36M_17.index("left_foot"), PROHMR_LIFTING_2D.index("left_ankle_lsp")
    np.testing.assert_array_equal(views.keypoints[:, joint], pairs.keypoints_2d[:, source, :2])
    assert views.visible[:, joint].all()
    fewer = dataclasses.replace(pairs, skeleton_3d=LSP_14, keypoints_3d=np.zeros((3, 14, 3)))
    with pytest.raises(ValueError, match="LSP-14 has no counterpart for hip"):
        fewer.views()


class TestStats:
    @given(st.integers(0, 2**32 - 1))
    def test_what_was_fitted_is_standardised(self, seed):
        rng = np.random.default_rng(seed)
        keypoints = pairs_of(50, seed).keypoints_2d
        keypoints[..., 2] = rng.random((50, 17)) < 0.7
        keypoints[:2, :, 2] = 1
        keypoints[keypoints[..., 2] == 0, :2] = 0  # as detectors write what they did not see
        stats = fit_stats(keypoints, H36M_17)
        seen = keypoints[..., 2] > 0
        standard = stats.standardise(keypoints)
        assert standard.dtype == np.float32
        for joint in range(17):
            rows = standard[seen[:, joint], joint]
            np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-4)
            np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-4)
        assert (standard[~seen] == 0).all()
        np.testing.assert_array_equal(stats.standardise(keypoints[7]), standard[7])

    def test_there_and_back_through_a_file(self, tmp_path):
        stats = fit_stats(pairs_of(20).keypoints_2d, H36M_17)
        path = tmp_path / "h36m_train_mean_stats.npz"
        stats.save(path)
        again = read_stats(path)
        np.testing.assert_array_equal(again.mean, stats.mean)
        np.testing.assert_array_equal(again.std, stats.std)
        with np.load(path) as file:
            assert sorted(file.files) == ["mean", "std"]
            assert file["mean"].shape == file["std"].shape == (17, 2)

    def test_keypoints_without_a_fit(self):
        keypoints = pairs_of(5).keypoints_2d
        keypoints[:, 4, 2] = 0
        keypoints[:, 7, 1] = 3
        with pytest.raises(ValueError, match="never so: left_hip, spine"):
            fit_stats(keypoints, H36M_17)
        with pytest.raises(ValueError, match=r"shape \(N, 17, 3\), got \(5, 17, 2\)"):
            fit_stats(keypoints[..., :2], H36M_17)
        with pytest.raises(ValueError, match="never so: hip, right_hip"):
            fit_stats(keypoints[:0], H36M_17)

    def test_keypoints_of_another_set(self):
        stats = LiftingStats(np.zeros((17, 2), np.float32), np.ones((17, 2), np.float32))
        with pytest.raises(ValueError, match=r"shape \(\.\.\., 17, 3\), got \(2, 16, 3\)"):
            stats.standardise(np.zeros((2, 16, 3), np.float32))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"mean": np.zeros((17, 2))}, "expected the key std, found mean"),
            ({"mean": np.zeros(34), "std": np.ones(34)}, r"mean to be numbers of shape \(N, 2\)"),
            ({"mean": np.zeros((17, 2)), "std": np.ones((16, 2))}, r"shape \(17, 2\)"),
            ({"mean": np.zeros((17, 2)), "std": np.zeros((17, 2))}, "positive std"),
            ({"mean": np.full((17, 2), np.nan), "std": np.ones((17, 2))}, "finite mean"),
        ],
    )
    def test_files_of_something_else(self, tmp_path, content, message):
        np.savez(tmp_path / "x.npz", **content)
        with pytest.raises(ValueError, match=message):
            read_stats(tmp_path / "x.npz")
