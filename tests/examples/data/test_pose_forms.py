"""Poses of every encoding are read correctly, or the error names the encoding."""

import numpy as np
import pytest
import roma
import torch

from examples.data.amass import read_amass
from examples.data.mocap import read_prohmr_mocap, read_split_poses
from examples.data.pose_forms import read_rotations, to_rotvecs
from flowprior import rotations
from tests.examples.data.motion_files import prohmr_mocap_arrays, smplh_arrays, split_arrays, write

FRAMES = 12
WIDTHS = {22: "SMPL-X body", 24: "SMPL", 52: "SMPL-H", 55: "SMPL-X"}


def rotvecs(joints, frames=FRAMES):
    return 0.3 * np.random.default_rng(joints).normal(size=(frames, joints, 3))


def encoded(vectors, encoding):
    matrices = rotations.rotvec_to_matrix(torch.from_numpy(vectors))
    return {
        "vectors": lambda: torch.from_numpy(vectors),
        "matrices": lambda: matrices,
        "columns": lambda: rotations.matrix_to_rot6d(matrices),
        "rows": lambda: rotations.matrix_to_rot6d(matrices, "rows"),
        "interleaved": lambda: rotations.matrix_to_rot6d(matrices, "interleaved"),
        "quaternions": lambda: roma.rotvec_to_unitquat(torch.from_numpy(vectors)),
    }[encoding]().numpy()


def shaped(array, flat, dtype):
    return (array.reshape(len(array), -1) if flat else array).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "by joint"])
@pytest.mark.parametrize("joints", WIDTHS)
@pytest.mark.parametrize("encoding", ["vectors", "matrices"])
def test_vectors_and_matrices_are_read(encoding, joints, flat, dtype):
    vectors = rotvecs(joints)
    content = {"poses": shaped(encoded(vectors, encoding), flat, dtype)}
    found = to_rotvecs(read_rotations(content, "poses", "x.npz"))
    np.testing.assert_allclose(found, vectors, atol=1e-5)


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "by joint"])
@pytest.mark.parametrize("joints", WIDTHS)
@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("columns", "6D vectors"),
        ("rows", "6D vectors"),
        ("interleaved", "6D vectors"),
        ("quaternions", "quaternions"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_by_its_name(encoding, name, joints, flat):
    content = {"poses": shaped(encoded(rotvecs(joints), encoding), flat, np.float32)}
    with pytest.raises(ValueError, match=f"x.npz: .* look like {name} of {joints} joints. Convert"):
        read_rotations(content, "poses", "x.npz")


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (63, "21 joints without the root"),
        (69, "23 joints without the root"),
        (144, "as wide as the 6D vectors of 24 joints, but it does not hold any"),
        (216, "as wide as the rotation matrices of 24 joints, but it does not hold any"),
        (75, "rotation vectors of 25 joints"),
        (67, "not a multiple of 3"),
        (0, "0 joints"),
    ],
)
def test_other_widths_are_refused(width, words):
    poses = 0.1 * np.random.default_rng(0).normal(size=(5, width))
    with pytest.raises(ValueError, match=words):
        read_rotations({"poses": poses}, "poses", "x.npz")


def test_axes_that_promise_matrices_hold_matrices():
    with pytest.raises(ValueError, match=r"3 x 3 numbers .* not rotation matrices"):
        read_rotations({"poses": np.ones((5, 24, 3, 3))}, "poses", "x.npz")
    mirrored = np.tile(np.diag([1.0, 1.0, -1.0]), (5, 24, 1, 1))
    with pytest.raises(ValueError, match="not rotation matrices"):
        read_rotations({"poses": mirrored}, "poses", "x.npz")


def test_a_known_width_does_not_hide_another_encoding():
    """66, 72 and 156 numbers are also 11, 12 and 26 joints in 6D."""
    for width in (66, 72, 156):
        poses = encoded(rotvecs(width // 6), "columns").reshape(FRAMES, width)
        with pytest.raises(ValueError, match="look like 6D vectors"):
            read_rotations({"poses": poses}, "poses", "x.npz")


@pytest.mark.parametrize("encoding", ["vectors", "matrices"])
def test_one_damaged_pose_does_not_change_the_others(encoding):
    vectors = rotvecs(24, 40)
    poses = encoded(vectors, encoding).reshape(40, -1)
    poses[3] = np.nan
    poses[5, 7] = 1e30
    found = to_rotvecs(read_rotations({"poses": poses}, "poses", "x.npz"))
    kept = np.delete(np.arange(40), [3, 5])
    np.testing.assert_allclose(found[kept], vectors[kept], atol=1e-6)
    assert np.isnan(found[3]).any()
    assert not (np.abs(found[5]) < 10).all()


def test_readers_of_motion_read_matrices_and_refuse_6d(tmp_path):
    clip = smplh_arrays(frames=FRAMES)
    split, prohmr = split_arrays(), prohmr_mocap_arrays()
    readers = {
        "amass": (clip, "poses", 52, lambda path: read_amass(path)[0][0].rotvecs),
        "split": (split, "poses", 24, lambda path: read_split_poses(path)[0].rotvecs),
        "prohmr": (prohmr, "body_pose", 24, lambda path: read_prohmr_mocap(path)[0].rotvecs),
    }
    for name, (arrays, key, joints, read) in readers.items():
        vectors = rotvecs(joints, len(arrays[key]))
        found = {
            encoding: read(
                write(
                    tmp_path / f"{name}_{encoding}.npz",
                    arrays | {key: encoded(vectors, encoding).reshape(len(vectors), -1)},
                )
            )
            for encoding in ("vectors", "matrices")
        }
        np.testing.assert_allclose(found["matrices"], found["vectors"], atol=1e-5)
        damaged = arrays | {key: encoded(vectors, "columns").reshape(len(vectors), -1)}
        with pytest.raises(ValueError, match=r"6d\.npz: .* 6D vectors"):
            read(write(tmp_path / f"{name}_6d.npz", damaged))
