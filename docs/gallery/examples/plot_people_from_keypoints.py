"""
People from 2D keypoints
========================

A detector returns 2D keypoints; ``flowprior/people`` answers with a density over 3D poses in the
frame of the camera. Hidden keypoints widen it where they are missing, and a fit refines the answer.

**Size**: the prior ships with the library; this page trains nothing.
"""

# %%
# A person with and without a forearm
# -----------------------------------
#
# In the second row the right elbow and wrist are hidden. Pink is the mode, the exact peak of the
# density; purple and yellow are samples.

import matplotlib.pyplot as plt
import numpy as np
import torch

from examples.pictures import MODE, SAMPLES, body_views, overlay_keypoints, upright_vertices
from examples.pictures.style import STYLE
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.fitting import fit_keypoints
from flowprior.keypoints import example_keypoints
from flowprior.skeleton import COCO_17, SMPL_24

torch.set_num_threads(1)
torch.manual_seed(0)
plt.rcParams.update(STYLE)
body = BodyModel()
faces = body.faces.numpy()
prior = ConditionalPosePrior.from_pretrained("flowprior/people").freeze()

keypoints = example_keypoints().repeat(2, 1, 1)  # (2, 17, 3): pixels and confidence
keypoints[1, [COCO_17.index(name) for name in ("right_elbow", "right_wrist")], 2] = 0
posterior = prior.given(keypoints_2d=keypoints)
mode, samples = posterior.mode(), posterior.sample(6)  # (2, 24, 6), (2, 6, 24, 6)

around = upright_vertices(body, torch.cat([mode, samples.flatten(0, 1)]))
paper = np.full((480, 340, 3), 245, np.uint8)
colours = [SAMPLES[index % 2] for index in range(6)]
figure, axes = plt.subplots(2, 4, figsize=(11, 6.4), dpi=100, layout="constrained")
for row, seen, one, several in zip(axes, keypoints, mode, samples, strict=True):
    one, several = upright_vertices(body, one), upright_vertices(body, several)
    look = {"height": 380, "around": around}
    row[0].imshow(overlay_keypoints(paper, seen.numpy(), COCO_17))
    row[1].imshow(body_views(one, faces, views=("front",), colours=MODE, **look))
    row[2].imshow(body_views(several, faces, views=("front",), colours=colours, alphas=0.4, **look))
    row[3].imshow(body_views(several, faces, views=("side",), colours=colours, alphas=0.4, **look))
for ax, title in zip(axes[0], ("keypoints", "mode", "samples", "from the side"), strict=True):
    ax.set_title(title)
for ax in axes.flat:
    ax.axis("off")
plt.show()

# %%
# Uncertainty of each joint
# -------------------------
#
# The spread of the joints over the samples, relative to the pelvis, in centimetres.

joints = body.keypoints(posterior.sample(500), SMPL_24)
joints = joints - joints[:, :, :1]
spread = 100 * (joints - joints.mean(dim=1, keepdim=True)).norm(dim=-1).mean(dim=1)  # (2, 24)
for name in ("left_wrist", "right_wrist", "left_ankle", "head"):
    index = SMPL_24.index(name)
    print(f"{name:12} all seen {spread[0, index]:4.1f} cm, hidden {spread[1, index]:4.1f} cm")

# %%
# 2D keypoints and 3D joints
# --------------------------
#
# Evidence of different kinds combines. Here a depth sensor also knows where the right wrist is,
# relative to the neck: two joints in metres, in the axes of the camera and with any origin.

known = torch.full((24, 3), torch.nan)
truth = body.keypoints(mode[0], SMPL_24)
for name in ("neck", "right_wrist"):
    known[SMPL_24.index(name)] = truth[SMPL_24.index(name)]
both = prior.given(keypoints_2d=keypoints[1], joints_3d=known)
print(f"entropy: {posterior.entropy()[1]:.0f} nats from keypoints, {both.entropy():.0f} from both")

# %%
# Refinement
# ----------
#
# ``fit_keypoints`` uses this prior by default. It adds a camera and the shape of the body, and
# minimises the reprojection error plus −2 log p over the latent.

fits = fit_keypoints(keypoints, image_size=(340, 480), focal_px=600, body=body)
print("mean distance to the keypoints in pixels:", [round(e, 1) for e in fits.error_px.tolist()])
