"""Small motion files in the real formats, for tests of their readers."""

import numpy as np

from flowprior.skeleton import H36M_17, SMPL_24

INDEX = {name: joint for joint, name in enumerate(H36M_17.joint_names)}


def changed(arrays, changes):
    """The arrays with some replaced; None removes an array."""
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def write(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def joints_arrays(**changes):
    """A file of joints with a split: two subjects train, one validates, one tests."""
    rng = np.random.default_rng(0)
    arrays = {
        "joints17": rng.normal(size=(12, 17, 3)).astype(np.float32),
        "split": np.array([0] * 6 + [1] * 2 + [2] * 4, np.int8),
        "subject": np.array([0] * 3 + [1] * 3 + [2] * 2 + [3] * 4, np.int16),
        "subject_names": np.array(["a", "b", "c", "d"]),
    }
    return changed(arrays, changes)


def split_arrays(**changes):
    """The same with rotations and recordings, as in the converted CMU file."""
    rng = np.random.default_rng(1)
    arrays = joints_arrays() | {
        "poses": (0.3 * rng.normal(size=(12, 72))).astype(np.float32),
        "sequence": np.array([0, 0, 1] + [2] * 3 + [3] * 2 + [4] * 4, np.int16),
        "sequence_names": np.array(["a_1", "a_2", "b_1", "c_1", "d_1"]),
        "frame": np.array([4, 8, 1, *range(9)], np.int32),
    }
    return changed(arrays, changes)


def smplh_arrays(frames=60, seed=0, **changes):
    """A clip of AMASS's SMPL-H release, z up: a person stands, faces -y and sways."""
    rng = np.random.default_rng(seed)
    poses = np.zeros((frames, 156))
    poses[:, :66] = 0.05 * rng.normal(size=(frames, 66))
    poses[:, 0] = np.pi / 2  # SMPL's y-up rest pose, raised to z up
    poses[:, 1:3] = 0
    poses[:, 66:] = 7.0  # hands: not read
    arrays = {
        "poses": poses,
        "trans": rng.normal(size=(frames, 3)),
        "betas": rng.normal(size=16),
        "dmpls": np.zeros((frames, 8)),
        "gender": np.array("female"),
        "mocap_framerate": np.array(120.00004577636719),
    }
    return changed(arrays, changes)


def smplx_arrays(frames=60, seed=0, **changes):
    """The same motion in AMASS's SMPL-X release."""
    smplh = smplh_arrays(frames, seed)
    body = smplh["poses"][:, :66]
    labels = np.empty(1, object)
    labels[0] = {"a": 1}
    arrays = {
        "poses": np.concatenate([body, np.full((frames, 99), 7.0)], axis=1),
        "root_orient": body[:, :3],
        "pose_body": body[:, 3:],
        "pose_hand": np.zeros((frames, 90)),
        "pose_jaw": np.zeros((frames, 3)),
        "pose_eye": np.zeros((frames, 6)),
        "trans": smplh["trans"],
        "betas": smplh["betas"],
        "num_betas": np.array(16),
        "gender": np.array("female"),
        "surface_model_type": np.array("smplx"),
        "mocap_frame_rate": np.array(120.0),
        "mocap_time_length": np.array(frames / 120),
        "labels": labels,
    }
    return changed(arrays, changes)


def prohmr_mocap_arrays(rows=6, **changes):
    rng = np.random.default_rng(2)
    arrays = {
        "body_pose": 0.3 * rng.normal(size=(rows, 3 * SMPL_24.num_joints)),
        "betas": rng.normal(size=(rows, 10)),
    }
    return changed(arrays, changes)
