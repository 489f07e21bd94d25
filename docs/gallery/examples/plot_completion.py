"""
Completion
==========

Some joint rotations of a pose are known, the others are not. The prior completes the pose in as
many ways as people do, and the known joints are kept exactly.

**Size**: ``flowprior/body-pose`` ships with the library; this page trains nothing.
"""

# %%
# Four pairs of known and unknown joints
# --------------------------------------
#
# The pose is a sample of the prior. In each row the joints of a leg, of both legs, of both arms or
# of the trunk are unknown. The grey body is the original pose, the pink one the most likely
# completion; purple and yellow ones are samples.

import matplotlib.pyplot as plt
import numpy as np
import torch

from examples.pictures import MODE, SAMPLES, TRUTH, body_views, upright_vertices
from examples.pictures.canvas import side_by_side
from examples.pictures.style import STYLE
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.skeleton import SMPL_24

torch.set_num_threads(1)
torch.manual_seed(3)
plt.rcParams.update(STYLE)
body = BodyModel()
faces = body.faces.numpy()
prior = ConditionalPosePrior.from_pretrained("flowprior/body-pose").freeze()

legs = ("hip", "knee", "ankle", "foot")
arms = ("collar", "shoulder", "elbow", "wrist")
unknown = {
    "left leg": [f"left_{name}" for name in legs],
    "both legs": [f"{side}_{name}" for side in ("left", "right") for name in legs],
    "both arms": [f"{side}_{name}" for side in ("left", "right") for name in arms],
    "trunk": ["spine1", "spine2", "spine3", "neck"],
}
pose = prior.given().sample(1)[0]  # (23, 6)
known = torch.ones(len(unknown), 23, dtype=torch.bool)
for mask, names in zip(known, unknown.values(), strict=True):
    mask[[SMPL_24.index(name) - 1 for name in names]] = False  # the prior has no root

posterior = prior.given(rotations=pose, known=known)  # one posterior per mask
samples, modes = posterior.sample(5), posterior.mode()  # (4, 5, 23, 6), (4, 23, 6)
assert torch.equal(samples[0, :, known[0]], pose[known[0]].expand(5, -1, -1))

# %%
# The log-density and the entropy of a completion cover the unknown joints only. The entropy tells
# how much the known joints leave open.

for name, entropy, log_prob in zip(
    unknown, posterior.entropy(), posterior.log_prob(pose.expand(4, -1, -1)), strict=True
):
    print(f"{name}: entropy {entropy:.0f} nats, log-density of the original {log_prob:.0f} nats")

everything = upright_vertices(body, torch.cat([pose[None], modes, samples.flatten(0, 1)]))


def view(theta, colour):
    """One body from the front, in the common frame."""
    vertices = upright_vertices(body, theta)
    return body_views(
        vertices, faces, views=("front",), colours=colour, height=230, around=everything
    )


figure, axes = plt.subplots(4, 1, figsize=(10, 10), dpi=100, layout="constrained")
for ax, name, mode, several in zip(axes, unknown, modes, samples, strict=True):
    panels = [view(pose, TRUTH), view(mode, MODE)]
    panels += [view(theta, SAMPLES[index % 2]) for index, theta in enumerate(several)]
    ax.imshow(side_by_side(panels))
    ax.set_title(f"unknown: {name}")
    ax.axis("off")
plt.show()

# %%
# A thousand completions
# ----------------------
#
# All poses and samples are computed at once. The spread of a joint over many samples is its
# uncertainty, here in centimetres.


def joints(theta):
    """Joints relative to the pelvis, metres."""
    root = theta.new_tensor([1.0, 0, 0, 0, 1, 0]).expand(*theta.shape[:-2], 1, 6)
    found = body.keypoints(torch.cat([root, theta], dim=-2), SMPL_24)
    return found - found[..., :1, :]


spread = joints(posterior.sample(250))
spread = 100 * (spread - spread.mean(dim=1, keepdim=True)).norm(dim=-1).mean(dim=1)  # (4, 24)
shown = ("left_ankle", "right_ankle", "left_wrist", "right_wrist", "head")
figure, ax = plt.subplots(figsize=(8, 3), dpi=100, layout="constrained")
for index, (name, values) in enumerate(zip(unknown, spread, strict=True)):
    ax.bar(np.arange(len(shown)) + 0.2 * index - 0.3, values[[SMPL_24.index(n) for n in shown]],
           width=0.18, label=name)  # fmt: skip
ax.set_xticks(range(len(shown)), [name.replace("_", " ") for name in shown])
ax.set_ylabel("spread, cm")
ax.legend(title="unknown", frameon=False)
plt.show()
