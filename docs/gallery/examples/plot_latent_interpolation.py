"""
Latent interpolation
====================

A flow has a latent for every pose. A line between two latents is a path of likely poses from one
pose to the other, and the context holds along the whole path.

**Size**: the demo prior of the library; this page trains nothing.
"""

# %%
# Interpolation between two samples
# ---------------------------------
#
# The context contains the 2D keypoints of a person whose arms and legs are hidden. Latents of
# samples have a length of about √D, where D is their number. A straight line between two of them
# passes closer to 0, where poses are smoother than any sample. Interpolation along the sphere
# preserves the length.

import matplotlib.pyplot as plt
import torch

from examples.pictures import body_views, interpolation_strip
from examples.pictures.style import MODE, SAMPLES, STYLE
from examples.pinhole import flip_yz
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

numbers = prior.flow.features
start, end = torch.randn(2, numbers, generator=torch.Generator().manual_seed(6))
share = torch.linspace(0, 1, 9)[:, None]
straight = (1 - share) * start + share * end
angle = torch.acos((start @ end) / (start.norm() * end.norm()))
round_ = (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / angle.sin()


def upright(theta):
    """Vertices with y up; the y axis of the camera points down."""
    return flip_yz(body(theta).vertices.numpy())


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
        f"{name}: ‖z‖ from {lengths[0]:.1f} to {lengths[-1]:.1f}, minimum {lengths.min():.1f}"
    )
    ax.axis("off")
plt.show()

# %%
# From the mode outwards
# ----------------------
#
# z = 0 is the mode. The density decreases in every direction. At a length of √D the pose resembles
# a typical sample, and beyond it becomes unlikely.

lengths = 1.5 * numbers**0.5 * torch.linspace(0, 1, 7)
outwards = lengths[:, None] * start / start.norm()
plt.figure(figsize=(11, 2.8), layout="constrained")
plt.imshow(strip(posterior.decode(outwards), colours=(MODE, SAMPLES[0], SAMPLES[1])))
plt.title("‖z‖ = " + ", ".join(f"{length:.1f}" for length in lengths))
plt.axis("off")
plt.show()

# %%
# One latent, several contexts
# ----------------------------
#
# The context determines the expected pose, the latent the deviation from it. This section decodes
# one z, half as long as those of samples, while more keypoints become visible: the pose approaches
# the image, in which the left arm is extended and the right leg bent.

parts = [
    ("face, shoulders, hips", ("elbow", "wrist", "knee", "ankle")),
    ("and legs", ("elbow", "wrist")),
    ("and elbows", ("wrist",)),
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
# Rotation along the path
# -----------------------
#
# Steps of equal length in the latent space are not steps of equal angle in the joints. Where joints
# rotate quickly, the path passes from one kind of pose to another.

fine = torch.linspace(0, 1, 101)[:, None]
path = (torch.sin((1 - fine) * angle) * start + torch.sin(fine * angle) * end) / angle.sin()
matrices = rotations.rot6d_to_matrix(posterior.decode(path))
turned = torch.rad2deg(rotations.geodesic_distance(matrices[1:], matrices[:-1]))  # (100, 24)
figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
for name, colour in (("left_shoulder", SAMPLES[0]), ("right_hip", SAMPLES[1]), ("pelvis", MODE)):
    ax.plot(fine[1:, 0], turned[:, SMPL_24.index(name)], color=colour, label=name)
ax.set(xlabel="position on the path", ylabel="degrees per hundredth")
ax.legend(frameon=False)
plt.show()
