"""
Hands
=====

The embedded body with hands has the 52 joints of SMPL-H: three in each finger. Poses use the names
and the conventions of ``smplx``. A prior over hands finds the pose from the fingertips, and
completes a finger from the others.

**Size**: body and prior ship with the library; this page trains nothing.
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

from examples.pictures import MODE, SAMPLES, TRUTH, body_views
from examples.pictures.canvas import side_by_side
from examples.pictures.style import STYLE
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel, hand_points, mirror_pose
from flowprior.fitting import inverse_kinematics
from flowprior.skeleton import COCO_WHOLEBODY_65, MANO_16, MANO_21

torch.set_num_threads(1)
torch.manual_seed(4)
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

# %%
# From fingertips
# ---------------
#
# ``flowprior/hands-procedural`` is a prior over right hands. Its poses are drawn within anatomical
# limits, not captured. It takes any of the 21 points of a hand, relative to the wrist; five
# fingertips leave little open. ``inverse_kinematics`` refines the answer until it meets them.

prior = ConditionalPosePrior.from_pretrained("flowprior/hands-procedural").freeze()
truth = prior.given().sample(8)  # (8, 15, 6)
points = hand_points(body, truth)  # (8, 21, 3) metres from the wrist
tips = [MANO_21.index(name) for name in ("thumb", "index", "middle", "ring", "pinky")]
sparse = torch.full_like(points, torch.nan)
sparse[:, tips] = points[:, tips]

posterior = prior.given(joints_3d=sparse)
mode, answer = posterior.mode(), inverse_kinematics(prior, sparse, num_samples=4)


def away(theta: torch.Tensor, which: list[int]) -> float:
    """Mean distance of some points, mm."""
    return 1000 * float((hand_points(body, theta) - points)[:, which].norm(dim=-1).mean())


# The knuckles do not move in the frame of the wrist.
inner = [n for n in range(1, 16) if not MANO_16.joint_names[n].endswith("1")]
for name, theta in (("mode", mode), ("refined", answer.theta)):
    print(f"{name}: fingertips {away(theta, tips):.1f} mm, joints {away(theta, inner):.1f} mm")

right = body.parts["right_hand_pose"]
wrist = body(flat).joints[body.skeleton.index("right_wrist")].numpy()
around = wrist + np.array([[-0.2, -0.11, -0.07], [0.04, 0.03, 0.07]])


def view(theta: torch.Tensor, colour: tuple[float, float, float], side: str) -> np.ndarray:
    """The right hand from one side."""
    whole = torch.zeros(52, 3)
    whole[right] = rotations.matrix_to_rotvec(rotations.rot6d_to_matrix(theta.detach()))
    vertices = body(whole).vertices.numpy()
    return body_views(vertices, faces, views=(side,), height=200, around=around, colours=colour)


samples = posterior.sample(2)  # (8, 2, 15, 6)
figure, axes = plt.subplots(3, 2, figsize=(11, 4.2), layout="constrained")
for row, hand in zip(axes, range(3), strict=True):
    for ax, side in zip(row, ("front", "top"), strict=True):
        panels = [view(truth[hand], TRUTH, side), view(answer.theta[hand], MODE, side)]
        panels += [view(theta, SAMPLES[n], side) for n, theta in enumerate(samples[hand])]
        ax.imshow(side_by_side(panels))
        ax.set_title(f"truth, refined answer, two samples; from {side}")
        ax.axis("off")

# %%
# A missing finger
# ----------------
#
# The rotations of four fingers are known and stay exactly as they are. The mode and the samples
# complete the fifth. The thumb depends on the others least.

fingers = {"index": slice(0, 3), "ring": slice(9, 12), "thumb": slice(12, 15)}
known = torch.ones(len(fingers), 15, dtype=torch.bool)
for mask, joints in zip(known, fingers.values(), strict=True):
    mask[joints] = False
posterior = prior.given(rotations=truth[0], known=known)  # one posterior per finger
modes, samples = posterior.mode(), posterior.sample(3)
assert torch.equal(samples[0, :, 3:], truth[0, 3:].expand(3, -1, -1))

figure, axes = plt.subplots(3, 1, figsize=(8, 4.6), layout="constrained")
for ax, name, best, several in zip(axes, fingers, modes, samples, strict=True):
    panels = [view(truth[0], TRUTH, "front"), view(best, MODE, "front")]
    panels += [view(theta, SAMPLES[n % 2], "front") for n, theta in enumerate(several)]
    ax.imshow(side_by_side(panels))
    ax.set_title(f"unknown: {name}; truth, mode, three samples")
    ax.axis("off")
plt.show()

# %%
# Errors on 500 hands, next to a Gaussian prior, are on the page :doc:`/how-to/hands`.
