"""
Latent interpolation
====================

A flow has a latent for every pose. A line between two latents is a path from one pose to another
on which every pose is likely, and one can keep what is known of the person all along.

**Size**: the small prior that comes with the library; nothing is trained here.
"""

# %%
# Two samples of one posterior, and the way between
# -------------------------------------------------
#
# The context is the 2D keypoints of somebody whose arms and legs are hidden. Latents of samples
# have a length of about 12, and a straight line between two of them passes nearer to 0, where
# poses are smoother than any sample is. Interpolation along the sphere keeps the length.

import matplotlib.pyplot as plt
import numpy as np
import torch

from examples.pictures import body_views, interpolation_strip
from examples.pictures.style import MODE, SAMPLES, STYLE
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.keypoints import example_keypoints, keypoint_context
from flowprior.skeleton import COCO_17, SMPL_24

torch.set_num_threads(1)
plt.rcParams.update({**STYLE, "figure.dpi": 110})
body = BodyModel()
faces = body.faces.numpy()
prior = ConditionalPosePrior.from_pretrained("flowprior/demo").requires_grad_(False)

keypoints = example_keypoints()
hidden = keypoints.clone()
for name in ("elbow", "wrist", "knee", "ankle"):
    for side in ("left", "right"):
        hidden[COCO_17.index(f"{side}_{name}"), 2] = 0
posterior = prior(keypoint_context(hidden))

start, end = torch.randn(2, 144, generator=torch.Generator().manual_seed(6))
share = torch.linspace(0, 1, 9)[:, None]
straight = (1 - share) * start + share * end
angle = torch.acos((start @ end) / (start.norm() * end.norm()))
round_ = (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / angle.sin()


def upright(theta):
    """Vertices with y up; the poses are seen by a camera whose y is down."""
    return body(theta).vertices.numpy() * np.array([1.0, -1.0, -1.0])


def strip(theta, **options):
    """Bodies in a row."""
    return interpolation_strip(upright(theta), faces, height=220, **options)


figure, axes = plt.subplots(2, 1, figsize=(11, 4.8), layout="constrained")
for ax, name, latents in zip(
    axes, ("straight", "along the sphere"), (straight, round_), strict=True
):
    lengths = latents.norm(dim=-1)
    ax.imshow(strip(posterior.decode(latents)))
    ax.set_title(
        f"{name}: ‖z‖ from {lengths[0]:.1f} to {lengths[-1]:.1f}, least {lengths.min():.1f}"
    )
    ax.axis("off")
plt.show()

# %%
# From the mode outwards
# ----------------------
#
# z = 0 is the mode. Along any direction the density falls as exp(−‖z‖² / 2) and the pose becomes
# one of the samples' kind at a length of 12, and unlikely beyond.

outwards = torch.linspace(0, 18, 7)[:, None] * start / start.norm()
plt.figure(figsize=(11, 2.8), layout="constrained")
plt.imshow(strip(posterior.decode(outwards), colours=(MODE, SAMPLES[0], SAMPLES[1])))
plt.title("‖z‖ = 0, 3, 6, 9, 12, 15, 18")
plt.axis("off")
plt.show()

# %%
# The same latent, other contexts
# -------------------------------
#
# A latent says how a pose differs from what is expected, the context what is expected. One z, half
# as long as those of samples, decoded with more and more of the keypoints seen: the pose comes
# nearer to the image, whose left arm is stretched out and whose right leg is bent.

parts = [
    ("face, shoulders, hips", ("elbow", "wrist", "knee", "ankle")),
    ("legs, too", ("elbow", "wrist")),
    ("elbows, too", ("wrist",)),
    ("all", ()),
]
contexts = []
for _, names in parts:
    seen = keypoints.clone()
    for name in names:
        for side in ("left", "right"):
            seen[COCO_17.index(f"{side}_{name}"), 2] = 0
    contexts.append(keypoint_context(seen))
posteriors = prior(torch.stack(contexts))
theta = posteriors.decode((start / 2).expand(len(parts), -1))
vertices = upright(theta)
figure, axes = plt.subplots(1, len(parts), figsize=(9, 3.2), layout="constrained")
for ax, body_vertices, (name, _) in zip(axes, vertices, parts, strict=True):
    ax.imshow(body_views(body_vertices, faces, views=("front",), height=260, around=vertices))
    ax.set_title(name)
    ax.axis("off")
plt.show()

# %%
# How steep is the way?
# ---------------------
#
# Steps of equal length in the latent are not steps of equal angle in the joints. Where joints turn
# far at once, two kinds of pose meet.

fine = torch.linspace(0, 1, 101)[:, None]
path = (torch.sin((1 - fine) * angle) * start + torch.sin(fine * angle) * end) / angle.sin()
matrices = rotations.rot6d_to_matrix(posterior.decode(path))
turned = torch.rad2deg(rotations.geodesic_distance(matrices[1:], matrices[:-1]))  # (100, 24)
figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
for name, colour in (("left_shoulder", SAMPLES[0]), ("right_hip", SAMPLES[1]), ("pelvis", MODE)):
    ax.plot(fine[1:, 0], turned[:, SMPL_24.index(name)], color=colour, label=name)
ax.set(xlabel="share of the way", ylabel="degrees per hundredth")
ax.legend(frameon=False)
plt.show()
