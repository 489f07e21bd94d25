"""Files of 2D keypoints as OpenPose and COCO write them."""

import json

import numpy as np

from flowprior.keypoints import example_keypoints
from flowprior.skeleton import BODY_25, COCO_17, COCO_18

LEFT_WRIST, RIGHT_WRIST = COCO_17.index("left_wrist"), COCO_17.index("right_wrist")


def person(joints=25, seed=0):
    """Keypoints (J, 3) of someone in the order of OpenPose or COCO, facing the camera."""
    skeleton = {25: BODY_25, 18: COCO_18, 17: COCO_17}[joints]
    coco = dict(zip(COCO_17.joint_names, example_keypoints()[:, :2].double().numpy(), strict=True))
    coco["neck"] = (coco["left_shoulder"] + coco["right_shoulder"]) / 2
    coco["mid_hip"] = (coco["left_hip"] + coco["right_hip"]) / 2
    for side, outward in (("left", 8), ("right", -8)):
        for name, step in (("big_toe", (1, 2)), ("small_toe", (2, 1)), ("heel", (-1, 1))):
            coco[f"{side}_{name}"] = coco[f"{side}_ankle"] + outward * np.array(step)
    rng = np.random.default_rng(seed)
    places = rng.uniform(1, 2) * np.array([coco[name] for name in skeleton.joint_names])
    conf = rng.uniform(0.2, 1, (joints, 1))
    return np.concatenate([places + rng.uniform(0, 300, 2), conf], axis=1).round(3)


def flat(joints=25, seed=0):
    """Keypoints of someone as a list x, y, confidence, x, ..."""
    return person(joints, seed).ravel().tolist()


def openpose(*people, key="pose_keypoints_2d"):
    """A file as OpenPose writes it."""
    empty = {"face_keypoints_2d": [], "hand_left_keypoints_2d": [], "pose_keypoints_3d": []}
    entries = [{"person_id": [-1], key: keypoints} | empty for keypoints in people]
    return {"version": 1.3, "people": entries}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def reasons(report):
    return {reason: finding.examples for reason, finding in report.left_out.items()}


def annotations(**changes):
    """A file of annotations as COCO's person_keypoints_val2017.json."""
    keypoints = np.array(flat(17)).reshape(17, 3)
    keypoints[:, 2] = 2
    keypoints[3] = (0, 0, 0)
    keypoints[4, 2] = 1
    entry = {
        "id": 1,
        "image_id": 139,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 16,
        "keypoints": keypoints.ravel().tolist(),
        "bbox": [100.0, 200.0, 50.0, 300.0],
        "area": 9000.0,
    }
    return {
        "info": {},
        "images": [
            {"id": 139, "file_name": "val/000000000139.jpg", "width": 640, "height": 426},
            {"id": 140, "file_name": "val/000000000140.jpg", "width": 640, "height": 426},
        ],
        "annotations": [entry | changes],
        "categories": [{"id": 1, "name": "person"}],
    }
