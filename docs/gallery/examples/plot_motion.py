"""
Motion
======

A detector's keypoints jitter, and so do poses that are fitted frame by frame. ``fit_sequence`` fits
all frames of a person together: neighbouring frames decide where one is unsure, and missing frames
are filled in.

**Size**: ``flowprior/people`` ships with the library; this page trains nothing. The motion is
procedural.
"""

# %%
# Keypoints of a video
# --------------------
#
# Somebody waves while walking on the spot. The keypoints have noise of 4 pixels in an image of
# 1000; ten frames are missing, and in three more the detector takes left for right.

import math
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from examples.pictures import MODE, SAMPLES, TRUTH, body_views
from examples.pictures.canvas import side_by_side
from examples.pictures.style import STYLE
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.fitting import fit_keypoints, fit_sequence
from flowprior.results import write_amass, write_animated_glb, write_bvh
from flowprior.rotations import rotvec_to_matrix
from flowprior.skeleton import COCO_17

torch.set_num_threads(1)
plt.rcParams.update(STYLE)
body = BodyModel()
prior = ConditionalPosePrior.from_pretrained("flowprior/people").freeze()

fps, frames = 30, 60
time = torch.arange(frames) / fps
stride = torch.sin(2 * math.pi * time)
pose = torch.zeros(frames, 24, 3)
pose[:, 0, 0] = math.pi  # upright, in a camera's axes
pose[:, 1, 0], pose[:, 2, 0] = -0.25 + 0.3 * stride, -0.25 - 0.3 * stride  # hips
pose[:, 4, 0], pose[:, 5, 0] = 0.4 - 0.3 * stride, 0.4 + 0.3 * stride  # knees
pose[:, 16, 2], pose[:, 17, 2] = -1.2, -0.3  # the right arm is raised
pose[:, 19, 2] = -0.9 + 0.4 * torch.sin(4 * math.pi * time)  # and waves
truth = rotvec_to_matrix(pose)
place = torch.tensor([0.0, 0.15, 4.0])

points = body.keypoints(truth, COCO_17) + place
pixels = 1000 * points[..., :2] / points[..., 2:] + 500
pixels = pixels + 4 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
keypoints = torch.cat([pixels, torch.ones(frames, 17, 1)], dim=-1)
keypoints[20:23] = keypoints[20:23, list(COCO_17.flip)]
missing = range(36, 46)
keypoints[missing] = 0

# %%
# Frame by frame, and as a sequence
# ---------------------------------

single = fit_keypoints(
    keypoints, prior, image_size=torch.tensor([1000.0, 1000.0]), focal_px=1000.0,
    max_iterations=60,
)  # fmt: skip
motion = fit_sequence(
    prior, keypoints_2d=keypoints, fps=fps, focal_px=1000.0, principal_point_px=(500.0, 500.0)
)
print("frames with left and right exchanged:", motion.swapped.nonzero()[:, 0].tolist())

# %%
# Position and acceleration of a joint
# ------------------------------------
#
# The height of the right wrist above the pelvis, and how fast its velocity changes: the
# acceleration shows the jitter. Grey is the truth, yellow each frame alone, pink the sequence.
# Where left and right are exchanged, the frames alone jump, beyond the lower axis. In the missing
# frames (shaded), the arm moves smoothly from one place to the other; the wave itself is lost.

wrist = 21


def heights(theta, betas):
    """Height of the wrist (T,) above the pelvis, metres."""
    joints = body(theta, betas).joints
    return joints[:, 0, 1] - joints[:, wrist, 1]  # y points down


curves = {
    "truth": (heights(truth, torch.zeros(10)), TRUTH),
    "each frame alone": (heights(single.theta, single.betas), SAMPLES[1]),
    "sequence": (heights(motion.rotation, motion.shape), MODE),
}
figure, axes = plt.subplots(2, 1, figsize=(7, 4.6), sharex=True)
for name, (height, colour) in curves.items():
    seen = height.detach().clone()
    if name == "each frame alone":
        seen[missing] = torch.nan
    axes[0].plot(time, seen, label=name, color=colour)
    acceleration = fps**2 * (seen[2:] - 2 * seen[1:-1] + seen[:-2])
    axes[1].plot(time[1:-1], acceleration, color=colour)
for ax, label in zip(axes, ("height of the wrist, m", "acceleration, m/s²"), strict=True):
    ax.axvspan(time[36], time[45], color="0.5", alpha=0.15, linewidth=0)
    ax.set_ylabel(label)
axes[1].set(xlabel="time, s", ylim=(-170, 170))
axes[0].legend(loc="lower left", ncols=3)
figure.tight_layout()
plt.show()

# %%
# The motion
# ----------
#
# Left: each frame alone, without a body in the missing frames. Right: the sequence.


def upright(theta, betas, transl):
    """Vertices (T, V, 3) with y up, relative to the mean place."""
    vertices = body(theta, betas, transl - transl.mean(dim=0)).vertices
    return (vertices * torch.tensor([1.0, -1.0, -1.0])).numpy()


shown = [frame for frame in range(frames) if frame not in missing]
alone = np.zeros((frames, body.num_vertices, 3), np.float32)
alone[shown] = upright(single.theta[shown], single.betas[shown], 0 * single.transl[shown])
together = upright(motion.rotation, motion.shape, 0 * motion.transl)
around = np.concatenate([alone[shown], together])
pictures = []
for frame in range(0, frames, 2):
    panels = []
    for vertices, colour in ((alone[frame], SAMPLES[1]), (together[frame], MODE)):
        panel = body_views(
            vertices, body.faces.numpy(), views=("front",), colours=colour, height=230,
            around=around,
        )  # fmt: skip
        panels.append(np.full_like(panel, 255) if not vertices.any() else panel)
    pictures.append(Image.fromarray(side_by_side(panels)))
palette = pictures[0].quantize(64)
first, *rest = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures]
first.save("motion.png", save_all=True, append_images=rest, duration=2000 / fps, loop=0)

# %%
# Files for other programs
# ------------------------
#
# ``flowprior fit VIDEO --sequence --export bvh amass glb`` writes such files, see
# :doc:`/how-to/motion`.

with tempfile.TemporaryDirectory() as folder:
    whole = (motion.rotation, motion.transl, body, motion.shape, fps)
    write_bvh(Path(folder) / "wave.bvh", *whole)
    write_amass(Path(folder) / "wave.npz", *whole)
    write_animated_glb(Path(folder) / "wave.glb", *whole)
    for file in sorted(Path(folder).iterdir()):
        print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")
