"""Files of captured hands, in the forms in which data sets distribute them."""

import json
import pickle

import numpy as np
import pytest
import torch

from flowprior.body import BodyModel, mirror_pose
from flowprior.skeleton import MANO_16
from tests.body.made_up import arrays_of, mano_pair
from tools.priors.hand_files import read_hand_means, read_hands, right_hands

FRAMES = 6


@pytest.fixture(scope="module")
def sides():
    """Poses (T, 45) of left and right hands."""
    rng = np.random.default_rng(0)
    return {side: 0.4 * rng.standard_normal((FRAMES, 45)) for side in ("left", "right")}


def with_wrist(poses):
    return np.concatenate([np.full((len(poses), 3), 9.0), poses], axis=1)


def write(path, content):
    """Write .json, .npy or .npz."""
    if path.suffix == ".json":
        path.write_text(json.dumps(content), encoding="utf-8")
    elif path.suffix == ".npy":
        np.save(path, content, allow_pickle=True)
    else:
        np.savez(path, **content)
    return path


def expected_of(sides, *names):
    """Frames one after another, in each the sides in this order."""
    poses = np.stack([sides[name] for name in names], axis=1).reshape(-1, 15, 3)
    return torch.from_numpy(poses).float(), torch.tensor(FRAMES * [n == "left" for n in names])


def assert_read(path, expected):
    poses, left = read_hands(path)
    torch.testing.assert_close(poses, expected[0])
    assert torch.equal(left, expected[1])


# --- formats ---


@pytest.mark.parametrize("form", ["flat", "joints", "wrist", "sixteen", "poses in an object"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json"])
def test_arrays_of_right_hands(tmp_path, sides, form, suffix):
    poses = sides["right"]
    made = {
        "flat": poses,
        "joints": poses.reshape(-1, 15, 3),
        "wrist": with_wrist(poses),
        "sixteen": with_wrist(poses).reshape(-1, 16, 3),
    }.get(form, poses)
    if suffix == ".json":
        content = {"poses": made.tolist()} if "object" in form else made.tolist()
    else:
        content = made if suffix == ".npy" else {"poses" if "object" in form else "any": made}
    assert_read(write(tmp_path / f"hands{suffix}", content), expected_of(sides, "right"))


@pytest.mark.parametrize("nested", [True, False])
def test_freihand(tmp_path, sides, nested):
    rows = np.pad(with_wrist(sides["right"]), ((0, 0), (0, 13)), constant_values=5)
    rows = [[row] for row in rows.tolist()] if nested else rows.tolist()
    path = write(tmp_path / "training_mano.json", rows)
    assert_read(path, expected_of(sides, "right"))


def test_interhand(tmp_path, sides):
    frames = {
        str(100 + frame): {
            side: {
                "pose": with_wrist(sides[side])[frame].tolist(),
                "shape": [0.0] * 10,
                "trans": [0.0] * 3,
            }
            for side in ("right", "left")
        }
        for frame in range(FRAMES)
    }
    frames["100"]["left"] = None
    content = {"0": dict(list(frames.items())[:4]), "1": dict(list(frames.items())[4:])}
    poses, left = expected_of(sides, "left", "right")
    keep = torch.arange(2 * FRAMES) != 0
    assert_read(write(tmp_path / "MANO.json", content), (poses[keep], left[keep]))


def test_arctic(tmp_path, sides):
    """A pickled dictionary, which is read without executing it; other files of the folder stay."""

    def content(rows):
        return {
            side: {"rot": np.zeros((rows, 3)), "pose": poses[:rows], "shape": np.zeros(10)}
            for side, poses in sides.items()
        }

    for subject, rows in (("s01", 4), ("s02", 2)):
        folder = tmp_path / "raw_seqs" / subject
        folder.mkdir(parents=True)
        np.save(folder / "box_use_01.mano.npy", content(rows), allow_pickle=True)
        np.save(folder / "box_use_01.egocam.dist.npy", np.zeros(8))
    poses, left = expected_of(sides, "left", "right")
    rows = list(range(8)) + list(range(4))
    assert_read(tmp_path / "raw_seqs", (poses[rows], left[rows]))


@pytest.mark.parametrize(
    ("width", "first"), [(156, {"left": 66, "right": 111}), (165, {"left": 75, "right": 120})]
)
def test_whole_poses_of_amass(tmp_path, sides, width, first):
    poses = np.full((FRAMES, width), 5.0)
    for side, start in first.items():
        poses[:, start : start + 45] = sides[side]
    content = {"poses": poses, "trans": np.zeros((FRAMES, 3)), "gender": np.array("male")}
    path = write(tmp_path / "walk_poses.npz", content)
    assert_read(path, expected_of(sides, "left", "right"))


def test_parts_of_poses(tmp_path, sides):
    both = np.concatenate([sides["left"], sides["right"]], axis=1)
    content = {"root_orient": np.zeros((FRAMES, 3)), "pose_hand": both}
    assert_read(write(tmp_path / "stageii.npz", content), expected_of(sides, "left", "right"))
    content = {f"{side}_hand_pose": poses for side, poses in sides.items()}
    content["body_pose"] = np.zeros((FRAMES, 63))
    assert_read(write(tmp_path / "smplx.npz", content), expected_of(sides, "left", "right"))
    assert_read(
        write(tmp_path / "one.npz", {"hand_pose": sides["right"], "betas": np.zeros(10)}),
        expected_of(sides, "right"),
    )


# --- left hands and conventions ---


def test_left_hands_become_mirror_images(sides):
    """Issue 25 of hassony2/manopth: copied rotations bend the fingers backwards."""
    poses, left = expected_of(sides, "left", "right")
    found = right_hands(poses, left, None, "file")
    assert torch.equal(found[1::2], poses[1::2])
    whole = torch.nn.functional.pad(poses[::2], (0, 0, 1, 0))
    torch.testing.assert_close(found[::2], mirror_pose(whole, MANO_16)[:, 1:])


@pytest.fixture(scope="module")
def mano(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mano")
    for name, arrays in zip(("LEFT", "RIGHT"), mano_pair(), strict=True):
        (folder / f"MANO_{name}.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
    return folder / "MANO_RIGHT.pkl", folder / "MANO_LEFT.pkl"


def test_the_mean_pose_of_each_side_is_added(mano, sides):
    """Issue 208 of vchoutas/smplx: full = partial + mean of the file."""
    means = read_hand_means(mano)
    assert sorted(means) == ["left", "right"]
    poses, left = expected_of(sides, "left", "right")
    found = right_hands(poses, left, means, "file")
    for row, path, side in ((0, mano[1], "left"), (1, mano[0], "right")):
        body = BodyModel(path, flip_shapedirs=False if side == "left" else None)
        full = body.pose(hand_pose=poses[row::2].flatten(1))
        expected = mirror_pose(full, MANO_16) if side == "left" else full
        torch.testing.assert_close(found[row::2], expected[:, 1:])
    right = read_hand_means(mano[:1])
    assert right_hands(poses[1::2], left[1::2], right, "file").shape == (FRAMES, 15, 3)
    with pytest.raises(ValueError, match=r"file has left hands, whose mean pose is in MANO_LEFT"):
        right_hands(poses, left, right, "file")


def test_means_of_a_body_with_hands(tmp_path):
    arrays = arrays_of("smplh", 40)
    np.savez(tmp_path / "SMPLH.npz", **arrays)
    means = read_hand_means([tmp_path / "SMPLH.npz"])
    for side in ("left", "right"):
        mean = torch.from_numpy(arrays[f"hands_mean{side[0]}"]).unflatten(0, (15, 3))
        assert torch.equal(means[side], mean)
    np.savez(tmp_path / "SMPL.npz", **arrays_of("smpl", 40))
    with pytest.raises(ValueError, match=r"SMPL\.npz is SMPL, without a mean pose of the hands"):
        read_hand_means([tmp_path / "SMPL.npz"])


# --- other files ---


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", {"poses": np.zeros((20, 17, 3))}, r"poses has shape \(20, 51\); accepted are"),
        ("a.npy", np.zeros((20, 6)), r"If these are 6 PCA coefficients"),
        ("a.npz", {"poses": np.full((20, 45), np.nan)}, "NaN"),
        ("a.npy", np.full((20, 45), 30.0), "more than a turn.*radians"),
        ("a.npz", {"xyz": np.zeros(3), "K": np.zeros(3)}, "no poses of hands: it has xyz, K;"),
        ("a.json", {"0": {"1": {"joints": []}}}, '1 has no "left" and "right"'),
        ("a.json", [["x"]], "not an array of numbers"),
        ("a.json", {"0": {"1": {"left": {"pose": [0.0] * 45}}}}, "expected rows of 48 numbers"),
        (
            "a.npz",
            {"left_hand_pose": np.zeros((2, 45)), "right_hand_pose": np.zeros((3, 45))},
            r"different frames: left \(2, 15, 3\)|different frames: left \(2, 45\)",
        ),
        ("a.npz", {"right_hand_pose": np.zeros((2, 12))}, r"right has shape \(2, 12\)"),
    ],
)
def test_unsuitable_files(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_hands(path)
    assert str(path) in str(caught.value)


def test_unsuitable_places(tmp_path):
    with pytest.raises(ValueError, match=r"has no files that end in \.npz"):
        read_hands(tmp_path)
    (tmp_path / "poses.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match="expected a file that ends in"):
        read_hands(tmp_path / "poses.pkl")
    with pytest.raises(FileNotFoundError):
        read_hands(tmp_path / "missing.npz")


def test_nothing_in_a_file_is_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return eval, ("1 / 0",)

    np.save(tmp_path / "hands.mano.npy", {"left": Hostile()}, allow_pickle=True)
    with pytest.raises(ValueError, match=r"hands\.mano\.npy"):
        read_hands(tmp_path)
