"""
Hands
=====

The embedded body with hands has the 52 joints of SMPL-H: three in each finger. Poses use the names
and the conventions of ``smplx``.

**Size**: the body ships with the library; this page trains nothing.
"""

# %%
# Flat and relaxed hands
# ----------------------
#
# Zero is the flat hand. The mean pose of the hands, which ``smplx`` adds unless
# ``flat_hand_mean=True``, is a relaxed one.

import matplotlib.pyplot as plt
import numpy as np
import torch

from examples.pictures import MODE, body_views
from examples.pictures.style import STYLE
from flowprior.body import BodyModel, mirror_pose
from flowprior.skeleton import COCO_WHOLEBODY_65

plt.rcParams.update(STYLE)
body = BodyModel(hands=True)
faces = body.faces.numpy()
flat, relaxed = body.pose(flat_hand_mean=True), body.pose()  # (52, 3) each
assert torch.equal(flat, torch.zeros(52, 3))
print({name: value.shape for name, value in body.split(relaxed).items()})

# %%
# A fist
# ------
#
# A finger bends about the axis across it: from the direction of the finger to that of the palm. The
# order of the fingers is MANO's: index, middle, little, ring finger, thumb.

fingers = ("index", "middle", "pinky", "ring")
rest = dict(zip(body.joint_names, body(flat).joints, strict=True))
fist = torch.zeros(15, 3)
for number, finger in enumerate(fingers):
    along = rest[f"left_{finger}3"] - rest[f"left_{finger}2"]
    across = torch.linalg.cross(along, torch.tensor([0.0, -1.0, 0.0]))
    fist[3 * number : 3 * number + 3] = 1.4 * across / across.norm()  # radians
pointing = fist.clone()
pointing[:3] = 0  # the index finger stays straight
poses = [
    relaxed,
    body.pose(left_hand_pose=fist.flatten(), flat_hand_mean=True),
    body.pose(left_hand_pose=pointing.flatten(), flat_hand_mean=True),
]

wrist = body(flat).joints[body.skeleton.index("left_wrist")].numpy()
frame = wrist + np.array([[-0.05, -0.1, -0.1], [0.2, 0.06, 0.1]])


def draw(theta: torch.Tensor) -> np.ndarray:
    vertices = body(theta).vertices.numpy()
    return body_views(
        vertices, faces, views=("front", "top"), height=220, around=frame, colours=MODE
    )


figure, axes = plt.subplots(len(poses), 1, figsize=(6, 6.6))
for ax, pose, title in zip(axes, poses, ("relaxed", "fist", "pointing"), strict=True):
    ax.imshow(draw(pose))
    ax.set_title(title, loc="left")
    ax.axis("off")
figure.tight_layout()

# %%
# Keypoints of a whole body
# -------------------------
#
# COCO-WholeBody's keypoints of body, feet and hands, of the pose and of its mirror image.

points = body.keypoints(poses[2], COCO_WHOLEBODY_65)  # (65, 3) metres
mirrored = body.keypoints(mirror_pose(poses[2], body.skeleton), COCO_WHOLEBODY_65)
tip, other = (COCO_WHOLEBODY_65.index(f"{side}_forefinger4") for side in ("left", "right"))
print(points[tip], mirrored[other])

hands = {"left": (points, range(23, 44)), "right": (mirrored, range(44, 65))}
figure, axes = plt.subplots(1, 2, figsize=(7, 3), sharey=True)
for ax, (side, (one, joints)) in zip(axes, hands.items(), strict=True):
    for child in joints:
        parent = COCO_WHOLEBODY_65.parents[child]
        if parent in joints:
            ax.plot(*one[[parent, child]][:, [0, 2]].T, color="#2a93a6", linewidth=2, alpha=0.6)
    ax.scatter(*one[list(joints)][:, [0, 2]].T, color="#2a93a6", s=14, zorder=2)
    ax.set_title(f"{side} hand, from above", loc="left")
    ax.set_xlabel("x, m")
    ax.set_aspect("equal")
axes[0].set_ylabel("z (forward), m")
figure.tight_layout()
plt.show()
