"""Keypoints with hands of the embedded body, and the files of detectors that contain them."""

import functools
import json

import numpy as np
import torch

from flowprior.body import BodyModel
from flowprior.fitting import facing
from flowprior.rotations import rot6d_to_matrix, rotvec_to_matrix
from flowprior.skeleton import (
    BODY_25,
    BODY_25B,
    BODY_67,
    COCO_17,
    COCO_18,
    COCO_WHOLEBODY_133,
    MHR_70,
    shared_joints,
)

WIDTH, HEIGHT, FOCAL = 720, 960, 1100.0


@functools.cache
def somebody():
    """The rotations (52, 3, 3) of somebody with bent fingers, and the body (of one person)."""
    body = BodyModel(hands=True)
    pose = torch.zeros(52, 3)
    pose[16, 2], pose[17, 2], pose[18, 1], pose[19, 1] = -0.9, 0.9, -1.2, 1.0
    left, right = body.parts["left_hand_pose"].start, body.parts["right_hand_pose"].start
    # A pointing left hand; the right little and ring finger are bent.
    pose[left + 3 : left + 12, 2] = -0.9
    pose[right + 6 : right + 12, 2] = 0.9
    matrix = rotvec_to_matrix(pose)
    matrix[0] = rot6d_to_matrix(facing(torch.tensor([25.0])))[0]
    return matrix, body(matrix, transl=torch.tensor([0.0, -0.1, 3.2]))


@functools.cache
def points(skeleton=BODY_67):
    """The keypoints (K, 3) in pixels and with confidence, 0 where the body has none."""
    _, out = somebody()
    space = BodyModel(hands=True).regress(out, BODY_67).numpy()
    pixels = FOCAL * space[:, :2] / space[:, 2:] + np.array([WIDTH, HEIGHT]) / 2
    placed = np.zeros((skeleton.num_joints, 3))
    source, target = shared_joints(BODY_67, skeleton)
    placed[list(target), :2], placed[list(target), 2] = pixels[list(source)], 0.9
    return placed


def flat(values):
    return np.asarray(values).round(3).ravel().tolist()


def openpose(skeleton):
    """A file of OpenPose with ``--hand``."""
    hands = points()[BODY_25.num_joints :].reshape(2, 21, 3)
    person = {"pose_keypoints_2d": flat(points(skeleton)), "face_keypoints_2d": []}
    person |= {
        f"hand_{side}_keypoints_2d": flat(hands[n]) for n, side in enumerate(("left", "right"))
    }
    return {"version": 1.3, "people": [person]}


def results(skeleton):
    """COCO's results."""
    entry = {"image_id": "a.png", "category_id": 1, "keypoints": flat(points(skeleton))}
    return [entry | {"score": 0.9}]


def mmpose():
    """Predictions of mmpose's inferencer with a whole-body model."""
    whole = points(COCO_WHOLEBODY_133)
    instance = {"keypoints": whole[:, :2].tolist(), "keypoint_scores": whole[:, 2].tolist()}
    return [{"frame_id": 0, "instances": [instance | {"bbox": [[0, 0, 9, 9]]}]}]


def coco_parts():
    """COCO-WholeBody's results, one array for each part."""
    whole = points(COCO_WHOLEBODY_133)
    cuts = {"keypoints": (0, 17), "foot_kpts": (17, 23), "face_kpts": (23, 91)}
    cuts |= {"lefthand_kpts": (91, 112), "righthand_kpts": (112, 133)}
    entry = {name: flat(whole[slice(*cut)]) for name, cut in cuts.items()}
    return [entry | {"image_id": "a.png", "category_id": 1, "score": 0.9}]


# The content of a file and the joint set that is read from it.
FILES = {
    "openpose": (lambda: openpose(BODY_25), BODY_67),
    "openpose BODY-25B": (lambda: openpose(BODY_25B), BODY_67),
    "openpose COCO-18": (lambda: openpose(COCO_18), BODY_67),
    "openpose COCO-17": (lambda: openpose(COCO_17), BODY_67),
    "133 results": (lambda: results(COCO_WHOLEBODY_133), COCO_WHOLEBODY_133),
    "133 parts": (coco_parts, COCO_WHOLEBODY_133),
    "mmpose": (mmpose, COCO_WHOLEBODY_133),
    "BODY-67": (lambda: results(BODY_67), BODY_67),
    "MHR-70": (lambda: results(MHR_70), MHR_70),
}


def write(folder, name):
    """Write the file of that name; returns its path."""
    path = folder / ("a_keypoints.json" if name.startswith("openpose") else "a.json")
    path.write_text(json.dumps(FILES[name][0]()))
    return path
