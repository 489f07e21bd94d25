"""
Interpreting the mode
=====================

``posterior.mode()`` is the exact point of highest density in the space that the flow models. It
is not the mean, not the most likely body, and not a typical pose; for a flow over 6D vectors it is
not even the most likely rotation. This page shows each difference, for the arm with two angles of
:ref:`the flow in pictures <sphx_glr_auto_gallery_concepts_plot_flow_in_pictures.py>` and for a
rotation in the plane. It ends with the mode of an anchored posterior, the default.
"""

# %%
# Mode and mean
# -------------
#
# This section computes the posterior of the arm on a grid, given a hand seen 35 cm above the
# shoulder. It draws 20,000 poses from the posterior and compares several single answers by their
# distance to all of them: the mean over elbow and hand, as in MPJPE.

import math

import matplotlib.pyplot as plt
import torch

from examples.pictures.style import MODE, REGRESSOR, SAMPLES, STYLE, TRUTH
from flowprior import ConditionalFlow
from flowprior.flow import Normal, StudentT

torch.set_num_threads(1)
torch.manual_seed(0)
plt.rcParams.update({**STYLE, "figure.dpi": 110})

UPPER, LOWER = 0.3, 0.26  # metres


def joints(theta):
    """Angles (..., 2) -> shoulder, elbow and hand (..., 3, 2): depth and height, metres."""
    shoulder, both = theta[..., 0], theta.sum(dim=-1)
    elbow = UPPER * torch.stack([shoulder.cos(), shoulder.sin()], dim=-1)
    hand = elbow + LOWER * torch.stack([both.cos(), both.sin()], dim=-1)
    return torch.stack([torch.zeros_like(elbow), elbow, hand], dim=-2)


def posterior(theta, seen_at=None, error=0.02):
    """Density over angles (H, W, 2), up to its constant."""
    share = theta[..., 1] / 2.4
    log = -0.5 * ((theta[..., 0] - 0.1) / 0.75) ** 2 - 0.5 * ((share.logit() + 0.4) / 1.2) ** 2
    log -= (share * (1 - share)).log()
    if seen_at is not None:
        log -= 0.5 * ((joints(theta)[..., 2, 1] - seen_at) / error) ** 2
    return (log - log.max()).exp()


shoulder, elbow = torch.linspace(-2.2, 2.8, 500), torch.linspace(0.01, 2.39, 400)
mesh = torch.stack(torch.meshgrid(shoulder, elbow, indexing="xy"), dim=-1)
density = posterior(mesh, seen_at=0.35)
cells = mesh.reshape(-1, 2)
drawn = cells[torch.multinomial(density.flatten(), 20_000, replacement=True)]
bodies = joints(drawn)

mode = cells[density.argmax()]
mean_angles = drawn.mean(dim=0)
candidates = bodies[:400]
apart = (candidates[:, None] - bodies[None, :4000]).norm(dim=-1)[..., 1:].mean(dim=(1, 2))
answers = {
    "mode": (joints(mode), MODE),
    "mean of the angles": (joints(mean_angles), REGRESSOR),
    "mean of the joints": (bodies.mean(dim=0), TRUTH),
    "sample nearest to all": (candidates[apart.argmin()], SAMPLES[0]),
}
print(f"{'':24}mean distance  rms distance  forearm")
for name, (arm, _) in answers.items():
    off = (bodies - arm).norm(dim=-1)[:, 1:]
    forearm = 100 * (arm[2] - arm[1]).norm()
    print(f"{name:24}{100 * off.mean():10.1f} cm{100 * off.square().mean().sqrt():11.1f} cm"
          f"{forearm:8.1f} cm")  # fmt: skip

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.contourf(shoulder, elbow, density, levels=12, cmap="Purples")
left.plot(*mode, "o", color=MODE, markersize=9, markeredgecolor="white", label="mode")
left.plot(*mean_angles, "o", color=REGRESSOR, markersize=9, markeredgecolor="white",
          label="mean of the angles")  # fmt: skip
left.set(xlabel="shoulder, rad", ylabel="elbow, rad", xlim=(-1, 2.5))
left.legend(frameon=False, loc="lower right")
for arm in bodies[:80]:
    right.plot(*arm.T, color="#c9bce0", linewidth=0.8, zorder=1)
for name, (arm, hue) in answers.items():
    right.plot(*arm.T, color=hue, linewidth=3, marker="o", markersize=5, label=name)
right.axhline(0.35, color="#3a3a42", linewidth=1, linestyle="--")
right.set(xlim=(-0.35, 0.85), ylim=(-0.1, 0.5), xlabel="depth, m", ylabel="height, m")
right.set_aspect("equal")
right.legend(frameon=False, loc="lower right", fontsize=9)
plt.show()

# %%
# The mean of the joints has the lowest squared error, by definition, but it is not a valid arm: its
# forearm is too short. The mean of the angles is an arm, but its hand is not where the hand was
# seen. For a small MPJPE use the mean or the median of the joints of many samples; for a valid pose
# use the mode or the sample nearest to the others.
#
# Dependence on coordinates
# -------------------------
#
# Now the hand is hidden. The left figure shows the density over the two angles, the right figure
# the density over the position of the hand that follows from it: p(hand) = p(angles) / (0.3 · 0.26
# · sin(elbow)), the density of the angles divided by the area that a small change of the angles
# covers. The same distribution has two modes. A density depends on its coordinates; probabilities
# and samples do not.

density = posterior(mesh)
in_angles = cells[density.argmax()]
of_hand = density / (UPPER * LOWER * mesh[..., 1].sin())
in_space = cells[of_hand.argmax()]
hands = joints(mesh)[..., 2, :]

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.contourf(shoulder, elbow, density, levels=12, cmap="Purples")
left.set(xlabel="shoulder, rad", ylabel="elbow, rad", title="density over angles")
right.contourf(hands[..., 0], hands[..., 1], of_hand, levels=12, cmap="Purples")
right.set(xlabel="depth, m", ylabel="height, m", title="density over the position of the hand")
right.set_aspect("equal")
for theta, hue, name in (
    (in_angles, MODE, "most likely angles"),
    (in_space, SAMPLES[1], "most likely position of the hand"),
):
    left.plot(*theta, "o", color=hue, markersize=9, markeredgecolor="white")
    right.plot(*joints(theta).T, color=hue, linewidth=3, marker="o", markersize=5, label=name)
right.legend(frameon=False, loc="lower left", fontsize=9)
plt.show()
print(f"elbow at the mode over angles {math.degrees(in_angles[1]):.0f}°, "
      f"over positions of the hand {math.degrees(in_space[1]):.0f}°")  # fmt: skip

# %%
# Mode of vectors and mode of rotations
# -------------------------------------
#
# With ``space="rot6d"``, as in ProHMR, a flow models vectors, which Gram-Schmidt converts to
# rotations. In the plane a vector is a point (a, b), of which only the direction matters. All
# points on a ray are the same rotation, and the density of a rotation depends on the whole ray. To
# make the effect visible, the vectors of larger angles vary in length here, as samples of a flow
# over 6D vectors do, but more strongly. Spreading out lowers their density, although their
# probability is high.

angle = 2.6 * torch.distributions.Beta(2.5, 3.5).sample((4096,)) - 0.5
length = 1 + (0.03 + 0.3 * torch.sigmoid(5 * (angle - 0.2))) * torch.randn(4096)
data = length[:, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
flow = ConditionalFlow(2, hidden_features=32)
steps = 500
optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
for _ in range(steps):
    rows = data[torch.randint(len(data), (256,))]
    loss = -flow.log_prob(rows + 0.05 * torch.randn_like(rows)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
flow.eval().requires_grad_(False)


def to_angle(x):
    return torch.atan2(x[..., 1], x[..., 0])


samples, mode = flow.sample(num_samples=200_000), flow.mode()
angles = to_angle(samples)
share, edges = torch.histogram(angles, bins=80, range=(-1.2, 2.6), density=True)
smooth = torch.nn.functional.avg_pool1d(share[None], 5, 1, 2)[0]
peak = (edges[:-1] + edges[1:])[smooth.argmax()] / 2

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
circle = torch.linspace(-math.pi, math.pi, 200)
left.plot(circle.cos(), circle.sin(), color="#9a9aa3", linewidth=1)
left.scatter(*samples[:3000].T, s=3, color=SAMPLES[0], linewidths=0, alpha=0.5)
left.plot([0, 1.5 * to_angle(mode).cos()], [0, 1.5 * to_angle(mode).sin()], color=MODE)
left.plot(*mode, "o", color=MODE, markersize=9, markeredgecolor="white")
left.set(title="vectors", xlim=(-0.8, 1.9), ylim=(-0.8, 1.9))
left.set_aspect("equal")
right.stairs(share, edges, color=SAMPLES[0], fill=True, alpha=0.4)
for value, hue, name in (
    (to_angle(mode), MODE, "mode of the vectors"),
    (peak, SAMPLES[1], "mode of the rotations"),
    (angles.mean(), REGRESSOR, "mean"),
):
    right.axvline(value, color=hue, linewidth=2.5, label=f"{name}: {math.degrees(value):.0f}°")
right.set(title="rotations", xlabel="angle, rad")
right.legend(frameon=False)
plt.show()

# %%
# With ``space="so3"``, the default, the two coincide: the chart of a rotation has as many numbers
# as the rotation has degrees of freedom, and preserves volume, so the most likely vector is the
# most likely rotation. See :doc:`Densities over SO(3) and over 6D vectors
# </concepts/which-density>`.
#
# Mode and typical samples
# ------------------------
#
# The normal latents of SMPL's 72 numbers have a length of 8.5 ± 0.7. Almost none are near zero,
# where the density is highest, because the volume there is small. The mode is a smooth average
# pose; samples look like real poses. Under a Student's t, here with 8 degrees of freedom, the
# lengths of latents vary far more: some poses are outliers as a whole.

bases = {"standard normal": Normal(), "Student's t, 8 degrees of freedom": StudentT(8.0)}
figure, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
for hue, (name, base) in zip(SAMPLES, bases.items(), strict=True):
    length = base.sample((20_000, 72), torch.float32, torch.device("cpu")).norm(dim=-1)
    ax.hist(length.numpy(), bins=60, range=(0, 24), color=hue, alpha=0.6, label=name)
    print(f"{name}: lengths of 20,000 latents {length.min():.1f} to {length.max():.1f}")
ax.axvline(0, color=MODE, linewidth=3, label="mode")
ax.set(xlabel="‖z‖", ylabel="samples", xlim=(-0.5, 24))
ax.legend(frameon=False)
plt.show()

# %%
# The mode of an anchored posterior
# ---------------------------------
#
# In an :doc:`anchored posterior </concepts/anchored>` the mode is the answer of a regressor, by
# construction. What it represents depends on the loss of the regressor: the mean for a squared
# error, a median for an absolute error, a body with accurate joints for an error of the joints. The
# first section shows how far these can be apart. Train the regressor with the error that you
# report. The density around it has its only peak there, even where the true posterior has several.

# %%
# Recommendations
# ---------------
#
# * A single pose to show, or to start a fit: the mode, which is exact and needs no search.
# * A single pose with a small error: the mode of an anchored posterior whose regressor was trained
#   with that error. For other priors, the mean of the joints of about a hundred samples, or the
#   sample nearest to it if bones must keep their length.
# * Uncertainty: the spread of samples for each joint, or ``entropy()``.
# * Comparison with published figures: the same estimator as in the publication. ProHMR's figures
#   are those of the mode.
