"""
Denoising
=========

Joint rotations from sensors or networks are noisy. Given the size of the noise, ``denoise`` returns
the most likely pose: the maximum of the density of the prior times that of the noise.

**Size**: ``flowprior/body-pose`` ships with the library; this page trains nothing.
"""

# %%
# Noisy poses
# -----------
#
# Every joint of sampled poses is turned by a random rotation of 15° per axis. Grey is the original,
# yellow the noisy pose, pink the result.

import math

import matplotlib.pyplot as plt
import torch

from examples.pictures import MODE, SAMPLES, TRUTH, body_views, upright_vertices
from examples.pictures.canvas import side_by_side
from examples.pictures.style import STYLE
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.fitting import denoise
from flowprior.skeleton import SMPL_24

torch.set_num_threads(1)
torch.manual_seed(2)
plt.rcParams.update(STYLE)
body = BodyModel()
faces = body.faces.numpy()
prior = ConditionalPosePrior.from_pretrained("flowprior/body-pose").freeze()


def disturbed(theta, sigma):
    """Turn every joint but the hands by random rotations, radians."""
    turn = sigma * torch.randn(*theta.shape[:-1], 3)
    turn[..., 21:, :] = 0  # the prior holds the hands at rest
    matrix = rotations.rot6d_to_matrix(theta) @ rotations.rotvec_to_matrix(turn)
    return rotations.matrix_to_rot6d(matrix)


truth = prior.given().sample(64)  # (64, 23, 6)
sigma = math.radians(15)
noisy = disturbed(truth, sigma)
clean = denoise(prior, noisy, sigma)

everything = upright_vertices(body, torch.cat([truth[:6], noisy[:6], clean[:6]]))


def view(theta, colour):
    """One body from the front, in the common frame."""
    return body_views(
        upright_vertices(body, theta), faces, views=("front",), colours=colour, height=240,
        around=everything,
    )  # fmt: skip


figure, axes = plt.subplots(2, 3, figsize=(11, 3.6), dpi=100, layout="constrained")
for ax, person in zip(axes.flat, range(6), strict=True):
    panels = [
        view(truth[person], TRUTH),
        view(noisy[person], SAMPLES[1]),
        view(clean[person], MODE),
    ]
    ax.imshow(side_by_side(panels))
    ax.axis("off")
plt.show()

# %%
# Errors
# ------
#
# Mean distance of the joints from the original, in millimetres, for several sizes of the noise. The
# poses are samples of the prior, so its density is the right one; on other people the gain is
# smaller.


def joints(theta):
    """Joints relative to the pelvis, metres."""
    root = theta.new_tensor([1.0, 0, 0, 0, 1, 0]).expand(*theta.shape[:-2], 1, 6)
    found = body.keypoints(torch.cat([root, theta], dim=-2), SMPL_24)
    return found - found[..., :1, :]


def error(theta):
    return 1000 * (joints(theta) - joints(truth)).norm(dim=-1).mean()


print("noise  noisy  denoised  log-density of noisy and denoised poses")
posterior = prior.given()
for degrees in (5, 10, 15, 20, 30):
    sigma = math.radians(degrees)
    noisy = disturbed(truth, sigma)
    clean = denoise(prior, noisy, sigma)
    before, after = (posterior.log_prob(each).mean() for each in (noisy, clean))
    print(f"{degrees:4}°  {error(noisy):5.0f}  {error(clean):8.0f}  {before:8.0f} {after:8.0f}")

# %%
# Joints of different accuracy
# ----------------------------
#
# ``sigma`` can differ between joints. An infinite value ignores a joint: here nothing is known of
# the right arm. Joints known exactly belong to the posterior instead, and stay as they are.

size = torch.full((23,), math.radians(15))
size[[SMPL_24.index(f"right_{name}") - 1 for name in ("shoulder", "elbow", "wrist")]] = math.inf
noisy = disturbed(truth, math.radians(15))
without_arm = denoise(prior, noisy, size)

known = torch.zeros(23, dtype=torch.bool)
known[[SMPL_24.index(name) - 1 for name in ("left_hip", "left_knee", "left_ankle")]] = True
exact_leg = torch.where(known[:, None], truth, noisy)
kept = denoise(prior.given(rotations=exact_leg, known=known.expand(64, -1)), exact_leg, size)
assert torch.equal(kept[:, known], truth[:, known])
