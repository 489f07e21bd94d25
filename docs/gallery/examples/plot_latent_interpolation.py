"""
Interpolation
=============

A flow has a latent for every pose. A path between two latents is a path of likely poses from one
pose to the other, and evidence holds along the whole path.

**Size**: ``flowprior/body-pose`` and ``flowprior/people`` ship with the library; this page trains
nothing.
"""

# %%
# Between two poses
# -----------------
#
# ``interpolate`` turns and stretches the latent steadily; both ends are exact. The second row turns
# every joint along the shortest path instead, without the prior. The titles contain the mean
# log-density of the poses between the ends.

import matplotlib.pyplot as plt
import torch

from examples.pictures import interpolation_strip, upright_vertices
from examples.pictures.style import MODE, SAMPLES, STYLE
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.fitting import interpolate
from flowprior.keypoints import example_keypoints
from flowprior.skeleton import COCO_17, SMPL_24

torch.set_num_threads(1)
torch.manual_seed(4)
plt.rcParams.update({**STYLE, "figure.dpi": 110})
body = BodyModel()
faces = body.faces.numpy()
prior = ConditionalPosePrior.from_pretrained("flowprior/body-pose").freeze()
posterior = prior.given()


def strip(theta, **options):
    """Bodies in a row."""
    return interpolation_strip(upright_vertices(body, theta), faces, height=220, **options)


start, end = posterior.sample(2)
path = interpolate(prior, start, end, 9)  # (9, 23, 6)
assert torch.equal(path[0], start)
assert torch.equal(path[-1], end)

first, last = rotations.rot6d_to_matrix(start), rotations.rot6d_to_matrix(end)
turn = rotations.matrix_to_rotvec(first.mT @ last)
share = torch.linspace(0, 1, 9)[:, None, None]
shortest = rotations.matrix_to_rot6d(first @ rotations.rotvec_to_matrix(share * turn))

figure, axes = plt.subplots(2, 1, figsize=(11, 4.8), layout="constrained")
for ax, name, poses in zip(
    axes, ("through the latents", "joint by joint"), (path, shortest), strict=True
):
    ax.imshow(strip(poses))
    ax.set_title(f"{name}: mean log-density {posterior.log_prob(poses[1:-1]).mean():.0f} nats")
    ax.axis("off")
plt.show()

# %%
# From the mode outwards
# ----------------------
#
# z = 0 is the mode. The density decreases in every direction. At a length of √D, where D counts the
# numbers of the joints that are not at rest, the pose resembles a typical sample, and beyond it
# becomes unlikely.

z = posterior.encode(start)
size = float((3 * (~posterior.known).sum()) ** 0.5)
lengths = 1.5 * size * torch.linspace(0, 1, 7)
plt.figure(figsize=(11, 2.8), layout="constrained")
plt.imshow(
    strip(posterior.decode(lengths[:, None] * z / z.norm()), colours=(MODE, SAMPLES[0], SAMPLES[1]))
)
plt.title("‖z‖ = " + ", ".join(f"{length:.1f}" for length in lengths))
plt.axis("off")
plt.show()

# %%
# Under evidence
# --------------
#
# A posterior interpolates among the poses that agree with its evidence: here 2D keypoints of a
# person whose arms and legs are hidden.

people = ConditionalPosePrior.from_pretrained("flowprior/people").freeze()
keypoints = example_keypoints()
for name in ("elbow", "wrist", "knee", "ankle"):
    for side in ("left", "right"):
        keypoints[COCO_17.index(f"{side}_{name}"), 2] = 0
seen = people.given(keypoints_2d=keypoints)
path = interpolate(seen, *seen.sample(2), 9)
plt.figure(figsize=(11, 2.6), layout="constrained")
plt.imshow(strip(path))
plt.axis("off")
plt.show()

# %%
# Rotation along the path
# -----------------------
#
# Steps of equal length in the latent space are not steps of equal angle in the joints. Where joints
# rotate quickly, the path passes from one kind of pose to another.

fine = rotations.rot6d_to_matrix(interpolate(prior, start, end, 101))
turned = torch.rad2deg(rotations.geodesic_distance(fine[1:], fine[:-1]))  # (100, 23)
figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
for name, colour in (("left_shoulder", SAMPLES[0]), ("right_hip", SAMPLES[1]), ("neck", MODE)):
    ax.plot(torch.linspace(0, 1, 100), turned[:, SMPL_24.index(name) - 1], color=colour, label=name)
ax.set(xlabel="position on the path", ylabel="degrees per hundredth")
ax.legend(frameon=False)
plt.show()
