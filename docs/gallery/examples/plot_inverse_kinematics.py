"""
Inverse kinematics
==================

Joint positions are known, joint rotations are wanted: from all joints, from the wrists, ankles and
head alone, or from noisy joints. The prior answers at once and says what the joints leave open; a
refinement meets the joints exactly.

**Size**: ``flowprior/body-pose`` ships with the library; this page trains nothing.
"""

# %%
# From all joints
# ---------------
#
# The targets are the joints of eight sampled poses, in the frame of the pelvis. The amortised
# answer is the mode of ``prior.given(joints_3d=...)``. ``refine`` minimises the distance to the
# joints plus −2 log p over the latent, from the best of a few samples.

import matplotlib.pyplot as plt
import torch

from examples.pictures import MODE, SAMPLES, TRUTH, body_views, upright_vertices
from examples.pictures.canvas import side_by_side
from examples.pictures.style import STYLE
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.fitting import inverse_kinematics
from flowprior.skeleton import SMPL_24

torch.set_num_threads(1)
torch.manual_seed(1)
plt.rcParams.update(STYLE)
body = BodyModel()
faces = body.faces.numpy()
prior = ConditionalPosePrior.from_pretrained("flowprior/body-pose").freeze()


def joints(theta):
    """Joints (..., 24, 3) in the frame of the root, metres."""
    root = theta.new_tensor([1.0, 0, 0, 0, 1, 0]).expand(*theta.shape[:-2], 1, 6)
    found = body.keypoints(torch.cat([root, theta], dim=-2), SMPL_24)
    return found - found[..., :1, :]


truth = prior.given().sample(8)  # (8, 23, 6)
target = joints(truth)
for refine in (False, True):
    found = inverse_kinematics(prior, target, refine=refine)
    print(f"refine={refine}: {found.error_mm.mean():.1f} mm, worst {found.error_mm.max():.1f} mm")

# %%
# From five points
# ----------------
#
# NaN marks unknown joints. The refined answer meets the five points; samples show what they leave
# open. Dots mark the given points.

five = [SMPL_24.index(name) for name in ("head", "left_wrist", "right_wrist", "left_ankle",
                                         "right_ankle")]  # fmt: skip
points = torch.full_like(target, torch.nan)
points[:, five] = target[:, five]
answer = inverse_kinematics(prior, points)
samples = prior.given(joints_3d=points).sample(3)
print(f"five points: {answer.error_mm.mean():.1f} mm at the points")
print(f"all joints: {1000 * (joints(answer.theta) - target).norm(dim=-1).mean():.0f} mm")

people = range(4)
everything = upright_vertices(body, torch.cat([truth[:4], samples[:4].flatten(0, 1)]))


def view(theta, colour):
    """One body from the front, in the common frame."""
    return body_views(
        upright_vertices(body, theta), faces, views=("front",), colours=colour, height=260,
        around=everything,
    )  # fmt: skip


figure, axes = plt.subplots(2, 2, figsize=(11, 3.6), dpi=100, layout="constrained")
for ax, person in zip(axes.flat, people, strict=True):
    panels = [view(truth[person], TRUTH), view(answer.theta[person], MODE)]
    panels += [view(theta, SAMPLES[index % 2]) for index, theta in enumerate(samples[person])]
    ax.imshow(side_by_side(panels))
    ax.set_title("truth, refined answer, three samples")
    ax.axis("off")
plt.show()

# %%
# From noisy joints
# -----------------
#
# ``sigma`` is the standard deviation of the given joints in metres. The larger it is, the more the
# prior corrects them. The posterior has already seen the joints and expects errors, so the best
# value is somewhat below the size of the noise, and larger ones lose little.

noise = 0.04
noisy = target + noise * torch.randn_like(target)
noisy[:, 0] = 0  # the pelvis is the origin
sigmas = torch.tensor([0.002, 0.01, 0.02, 0.04, 0.08, 0.16])
errors = []
for sigma in sigmas.tolist():
    answer = inverse_kinematics(prior, noisy, sigma=sigma, max_iterations=50)
    errors.append(1000 * (joints(answer.theta) - target).norm(dim=-1).mean())
figure, ax = plt.subplots(figsize=(6, 3), dpi=100, layout="constrained")
ax.semilogx(100 * sigmas, errors, color=MODE, marker="o")
ax.axhline(1000 * (noisy - target).norm(dim=-1).mean(), color=TRUTH, label="the noisy joints")
ax.axvline(100 * noise, color=SAMPLES[0], label="size of the noise")
ax.set(xlabel="sigma, cm", ylabel="mean error, mm", ylim=(0, None))
ax.legend(frameon=False)
plt.show()
