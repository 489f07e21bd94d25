"""Small fits for the tests."""

import numpy as np

from flowprior.body.kinds import SMPL, SMPLH, SMPLX
from flowprior.results import Fits

KINDS = {24: SMPL, 52: SMPLH, 55: SMPLX}


def small_fits(
    people=3, samples=4, keypoints=17, keypoint_set="coco_17", seed=0, joints=24
) -> Fits:
    draw = np.random.default_rng(seed)
    rotations = draw.normal(0, 0.2, (people, samples + 1, joints, 3))
    direction = draw.normal(size=(people, joints, 3))
    pose = {name: rotations[:, 0, part] for name, part in KINDS[joints].parts.items()}
    pose["global_orient"] = pose["global_orient"] + [np.pi, 0, 0]
    if joints > 24:
        pose["hands"] = np.array([["fitted", "at rest"]] * people, np.str_).reshape(-1, 2)
    return Fits(
        image=np.array([f"photo {row // 2}.jpg" for row in range(people)], np.str_),
        image_path=np.array([""] * people, np.str_),
        image_size=np.tile([640.0, 480.0], (people, 1)),
        person=np.arange(people) % 2,
        focal_px=np.full(people, 800.0),
        centre_px=np.tile([320.0, 240.0], (people, 1)),
        betas=draw.normal(size=(people, 10)),
        transl=draw.normal(size=(people, 3)) * 0.3 + [0, 0, 4],
        joints=draw.normal(size=(people, joints, 3)),
        keypoints_2d=np.concatenate(
            [draw.uniform(0, 480, (people, keypoints, 2)), np.ones((people, keypoints, 1))], -1
        ),
        joint_std_mm=draw.uniform(5, 200, (people, joints)),
        joint_radius_50_mm=draw.uniform(5, 100, (people, joints)),
        joint_radius_90_mm=draw.uniform(100, 300, (people, joints)),
        joint_confidence=draw.uniform(0, 1, (people, joints)),
        rotation_std_deg=draw.uniform(1, 30, (people, joints)),
        rotation_radius_90_deg=draw.uniform(1, 60, (people, joints)),
        joint_direction=direction / np.linalg.norm(direction, axis=-1, keepdims=True),
        samples=rotations[:, 1:],
        reprojection_px=draw.uniform(0, 5, people),
        log_prob=draw.normal(size=people),
        status=np.array(["converged"] * people, np.str_),
        keypoint_set=keypoint_set,
        **pose,
    )
