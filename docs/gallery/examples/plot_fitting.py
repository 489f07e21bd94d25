"""
Fitting a body to keypoints
===========================

A fit finds the body that matches 2D keypoints from a detector. It minimises the reprojection
error plus the negative log-density of the prior. This page compares a fit with a prior
conditioned on the keypoints and a fit without a prior.

**Size**: twelve people in embedded poses in front of virtual cameras, and ``flowprior/people``,
which ships with the library. The page :doc:`Fitting </examples/fitting>` covers five priors on
motion capture, several views, failure cases and large data sets.
"""

# %%
# People and detections
# ---------------------
#
# COCO's 17 keypoints, with detector noise; a third of them are missing. The prior was not trained
# on these people.

import matplotlib.pyplot as plt
import numpy as np
import torch

from examples.data.poses import load_poses
from examples.fitting.synthetic import FOCAL_PX, IMAGE_PX, detect, photograph_bodies
from examples.pictures import (
    MODE,
    TRUTH,
    Camera,
    body_views,
    overlay_bodies,
    overlay_keypoints,
)
from examples.pictures.style import STYLE
from examples.pinhole import flip_yz
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.fitting import fit_keypoints
from flowprior.metrics import mpjpe
from flowprior.skeleton import BODY_25, COCO_17, mapping

torch.set_num_threads(1)
torch.manual_seed(0)
plt.rcParams.update(STYLE)
body = BodyModel()
prior = ConditionalPosePrior.from_pretrained("flowprior/people")

generator = torch.Generator().manual_seed(5)
held_out = torch.from_numpy(load_poses().rotvecs("test"))
people = photograph_bodies(held_out[:: len(held_out) // 12][:12], body, generator)
exact = people.keypoints[:, list(mapping(BODY_25, COCO_17))]  # (12, 17, 3)
lost = torch.rand(12, 17, generator=generator) < 1 / 3
keypoints = detect(exact, lost, generator)  # pixels and confidence, 0 for missing ones

# %%
# Two fits
# --------
#
# The first fit optimises the joint angles without a penalty, the second the latent z of the flow
# with the penalty −2 log p(z). Both also optimise shape and position. All people are fitted at
# once, each as an independent problem.

camera = {"image_size": (IMAGE_PX, IMAGE_PX), "focal_px": FOCAL_PX}
fits = {
    "no prior": fit_keypoints(keypoints, None, body=body, max_iterations=60, **camera),
    "with the prior": fit_keypoints(keypoints, prior, body=body, max_iterations=60, **camera),
}
low, high = exact[..., :2].amin(dim=1), exact[..., :2].amax(dim=1)
for name, fit in fits.items():
    print(f"{name}: {fit.solution.counts()}")

# %%
# Fitted bodies
# -------------
#
# The columns show the keypoints, the body over them without and with the prior, and both from the
# side in pink, with the ground truth in grey. All fits look alike in the image. They differ from
# the side, where the keypoints contain no information.


def cut(image, person, margin=40):
    """The square around one person."""
    (x, y), side = (low[person] + high[person]) / 2, (high[person] - low[person]).max() / 2 + margin
    left, top = max(0, int(x - side)), max(0, int(y - side))
    return image[top : int(y + side), left : int(x + side)]


def posed(theta, betas):
    """Vertices relative to the pelvis, y up."""
    out = body(theta[None], betas[None])
    return flip_yz((out.vertices[0] - out.joints[0, :1]).numpy())


faces = body.faces.numpy()
paper = np.full((int(IMAGE_PX), int(IMAGE_PX), 3), 245, np.uint8)
figure, axes = plt.subplots(3, 5, figsize=(12, 8), dpi=100, layout="constrained")
for row, person in zip(axes, (0, 4, 8), strict=True):
    seen = overlay_keypoints(paper, keypoints[person].numpy(), COCO_17)
    row[0].imshow(cut(seen, person))
    truth = posed(people.theta[person], people.betas[person])
    for index, (name, fit) in enumerate(fits.items(), start=1):
        place = fit.transl[person].tolist()
        camera = Camera(
            float(fit.focal_px[person]),
            tuple(fit.principal_point_px[person].tolist()),
            tuple(place),
        )
        vertices = body(fit.theta[person][None], fit.betas[person][None]).vertices[0].numpy()
        over = overlay_bodies(paper, vertices, faces, camera, colours=MODE)
        row[index].imshow(cut(overlay_keypoints(over, keypoints[person].numpy(), COCO_17), person))
        row[index].set_title(name)
        fitted = posed(fit.theta[person], fit.betas[person])
        both = np.stack([fitted, truth])
        behind = body_views(truth, faces, views=("side",), colours=TRUTH, height=300, around=both)
        side = body_views(
            fitted, faces, views=("side",), colours=MODE, alphas=0.7, height=300,
            background=behind, around=both,
        )  # fmt: skip
        row[index + 2].imshow(side)
        row[index + 2].set_title(f"{name}, from the side")
for ax in axes.flat:
    ax.axis("off")
plt.show()

# %%
# Errors
# ------
#
# MPJPE of 24 joints relative to the pelvis, over twelve people: too few to resolve small
# differences.


def error(theta, betas=None):
    joints = body(theta, betas).joints
    return 1000 * mpjpe(joints - joints[:, :1], people.joints - people.joints[:, :1]).mean()


print(
    f"mode of the prior, without a fit: {error(prior.given(keypoints_2d=keypoints).mode()):.0f} mm"
)
for name, fit in fits.items():
    print(
        f"{name}: {error(fit.theta, fit.betas):.0f} mm, {fit.error_px.mean():.1f} px in the image"
    )
