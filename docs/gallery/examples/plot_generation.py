"""
Generation
==========

``flowprior/body-pose`` is a density over the poses of people. Given nothing, it generates poses,
and every pose has a log-density.

**Size**: the prior ships with the library; this page trains nothing.
"""

# %%
# Samples
# -------
#
# ``prior.given()`` without evidence is the marginal over the 23 joint rotations below SMPL's root.
# The samples are sorted by their log-density, the most likely first.

import matplotlib.pyplot as plt
import torch

from examples.pictures import MODE, SAMPLES, body_views, upright_vertices
from examples.pictures.canvas import side_by_side
from examples.pictures.style import STYLE
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel

torch.set_num_threads(1)
torch.manual_seed(0)
plt.rcParams.update(STYLE)
body = BodyModel()
faces = body.faces.numpy()
prior = ConditionalPosePrior.from_pretrained("flowprior/body-pose").freeze()

posterior = prior.given()
theta, log_prob = posterior.sample_and_log_prob(24)  # (24, 23, 6), (24,)
order = log_prob.argsort(descending=True)
vertices = upright_vertices(body, theta[order])


def row(bodies, **look):
    """Bodies side by side, in one frame."""
    return side_by_side(
        [body_views(each, faces, views=("front",), height=230, around=vertices, **look)
         for each in bodies]
    )  # fmt: skip


figure, axes = plt.subplots(3, 1, figsize=(11, 7.5), dpi=100, layout="constrained")
for ax, some in zip(axes, range(0, 24, 8), strict=True):
    ax.imshow(row(vertices[some : some + 8], colours=SAMPLES[0]))
    values = ", ".join(f"{value:.0f}" for value in log_prob[order[some : some + 8]])
    ax.set_title(f"log-densities: {values} nats")
    ax.axis("off")
plt.show()

# %%
# The most likely pose
# --------------------
#
# The mode is exact and needs no search. Its density is far above that of every sample, yet it is no
# typical pose: samples lie around it, at a latent distance of about √63 ≈ 8.

mode = posterior.mode()
print(f"log-density of the mode: {posterior.log_prob(mode):.0f} nats")
print(f"entropy: {posterior.entropy():.0f} nats")
plt.figure(figsize=(3, 3), dpi=100)
plt.imshow(body_views(upright_vertices(body, mode), faces, views=("front", "side"), colours=MODE))
plt.axis("off")
plt.show()

# %%
# People seen by a camera
# -----------------------
#
# ``flowprior/people`` has all 24 joints, with the root relative to a camera: its marginal also
# contains the direction from which people are seen.

people = ConditionalPosePrior.from_pretrained("flowprior/people").freeze()
vertices = upright_vertices(body, people.given().sample(8))
plt.figure(figsize=(11, 2.6), dpi=100, layout="constrained")
plt.imshow(row(vertices, colours=SAMPLES[1]))
plt.axis("off")
plt.show()
