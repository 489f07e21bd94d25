"""
Several views
=============

This page fits one person in several uncalibrated views. The rotations of the body are the same in
all views; only the root differs. One fit of all views, each with its own root, recovers what a
single view hides.

**Size**: six people in embedded poses, three views each, and ``flowprior/people``, which ships with
the library. The page :doc:`Fitting </examples/fitting>` has figures on motion capture.
"""

# %%
# Three views of each person
# --------------------------
#
# The cameras are placed at random around each person; every view lacks a limb, a border region or
# some keypoints.

import matplotlib.pyplot as plt
import numpy as np
import torch

from examples.data.poses import load_poses
from examples.fitting.fit_views import REFINED, embedded_views, view_errors
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX
from examples.pictures import MODE, TRUTH, body_views
from examples.pictures.style import STYLE
from examples.pinhole import flip_yz
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.fitting import MultiviewWeights, fit_views

torch.set_num_threads(1)
torch.manual_seed(0)
plt.rcParams.update(STYLE)
body = BodyModel()
prior = ConditionalPosePrior.from_pretrained("flowprior/people")

count, views = 6, 3
generator = torch.Generator().manual_seed(1)
held_out = torch.from_numpy(load_poses().rotvecs("test"))
people, keypoints = embedded_views(
    held_out[:: len(held_out) // count][:count], body, views, generator
)
groups = torch.arange(count * views).reshape(count, views).tolist()

# %%
# Joint fit
# ---------
#
# The variables are the latents of each view, one shape, and the position of each camera. The
# objective contains the keypoints of every view, the log-density of its latents, and the deviation
# between the body rotations of the views.

refined = fit_views(
    keypoints,
    prior,
    groups,
    body=body,
    image_size=(IMAGE_PX, IMAGE_PX),
    focal_px=FOCAL_PX,
    weights=MultiviewWeights(keypoints=1, pose=16),
    max_iterations=100,
)
print(refined.solution.counts())

# %%
# Single views and the joint result
# ---------------------------------
#
# Two people in three views each. The mode of the prior for a single view is pink, the joint result
# green, the ground truth grey.

faces = body.faces.numpy()


def posed(theta):
    """Vertices relative to the pelvis, y up."""
    out = body(theta[None])
    return flip_yz((out.vertices[0] - out.joints[0, :1]).detach().numpy())


figure, axes = plt.subplots(2, 2 * views, figsize=(12, 5.6), dpi=110, layout="constrained")
for row, person in zip(axes, (0, 3), strict=True):
    for view in range(views):
        truth = posed(people.theta[person * views + view])
        for column, (name, theta, colour) in enumerate(
            (("alone", refined.first, MODE), ("together", refined.theta, REFINED))
        ):
            found = posed(theta[person, view])
            around = np.stack([found, truth])
            look = {"views": ("side",), "height": 300, "around": around}
            behind = body_views(truth, faces, colours=TRUTH, **look)
            picture = body_views(
                found, faces, colours=colour, alphas=0.75, background=behind, **look
            )
            ax = row[2 * view + column]
            ax.imshow(picture)
            ax.set_title(f"view {view + 1}, {name}")
for ax in axes.flat:
    ax.axis("off")
plt.show()

# %%
# Errors
# ------

shape = refined.betas.repeat_interleave(views, dim=0)
for name, theta in (("each view alone", refined.first), ("all views together", refined.theta)):
    error, aligned = view_errors(theta.flatten(0, 1), people.joints, body, shape)
    print(f"{name}: MPJPE {error:.0f} mm, PA-MPJPE {aligned:.0f} mm")
before, after = torch.rad2deg(refined.disagreement).mean(dim=0)
print(f"rotations differ from their mean by {before:.1f}° before and {after:.1f}° after")
