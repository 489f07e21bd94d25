"""Small files in the formats of the data sets, with random content."""

import cv2
import numpy as np

SIZES = {
    "body_keypoints_2d": (25, 3),
    "extra_keypoints_2d": (19, 3),
    "body_keypoints_3d": (25, 4),
    "extra_keypoints_3d": (19, 4),
    "openpose": (25, 3),
    "part": (24, 3),
    "S": (24, 4),
}


def keypoints(random, n, key):
    joints, k = SIZES[key]
    points = (
        random.uniform(20, 300, (n, joints, k)) if k == 3 else random.normal(size=(n, joints, k))
    )
    points[..., -1] = random.uniform(0.1, 1, (n, joints))
    return points


def prohmr_columns(n=6, seed=0):
    random = np.random.default_rng(seed)
    return {
        "imgname": np.array([f"images/{row:03d}.jpg" for row in range(n)]),
        "center": random.uniform(100, 200, (n, 2)),
        "scale": random.uniform(150, 250, n),
        "body_pose": random.normal(0, 0.4, (n, 72)),
        "has_body_pose": np.ones(n),
        "betas": random.normal(size=(n, 10)),
        "has_betas": np.ones(n),
        **{key: keypoints(random, n, key) for key in list(SIZES)[:4]},
        "gender": np.array(["m", "f"] * n)[:n],
    }


def spin_columns(n=6, seed=0):
    random = np.random.default_rng(seed)
    return {
        "imgname": np.array([f"images/{row:03d}.jpg" for row in range(n)]),
        "center": random.uniform(100, 200, (n, 2)),
        "scale": random.uniform(0.75, 1.25, n),
        "pose": random.normal(0, 0.4, (n, 72)),
        "shape": random.normal(size=(n, 10)),
        "has_smpl": np.ones(n),
        **{key: keypoints(random, n, key) for key in ("openpose", "part", "S")},
        "gender": np.array(["m", "f"] * n)[:n],
    }


def picture(width=320, height=280, seed=0):
    """A smooth picture (height, width, 3), BGR, as JPEG keeps it almost unchanged."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def write_images(folder, names, **size):
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), picture(seed=seed, **size))
