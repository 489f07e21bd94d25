"""
The flow in pictures
====================

A pose of SMPL has 144 numbers, which nobody can draw. Here is a body with two: an arm in a plane,
which turns at the shoulder and bends at the elbow. The flow is the one that models SMPL's poses,
only smaller. Everything below is drawn from it after some seconds of training.
"""

# %%
# A pose and what is known of it
# ------------------------------
#
# The arm is seen along the plane it moves in, so that the image has heights but no depth. The
# context is the height of the hand, with a little error, or nothing where the hand is hidden: two
# numbers, (height, 1) or (0, 0).

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Circle

from examples.pictures.style import MODE, SAMPLES, STYLE
from flowprior import ConditionalFlow

torch.set_num_threads(1)
torch.manual_seed(0)
plt.rcParams.update({**STYLE, "figure.dpi": 110})
BLUE, ORANGE = SAMPLES

UPPER, LOWER = 0.3, 0.26  # metres
ERROR = 0.02  # of the height that is seen, metres


def poses(count):
    """Shoulder and elbow (count, 2), radians, as this arm takes them."""
    shoulder = 0.1 + 0.75 * torch.randn(count)
    elbow = 2.4 * torch.sigmoid(1.2 * torch.randn(count) - 0.4)
    return torch.stack([shoulder, elbow], dim=-1)


def joints(theta):
    """Angles (..., 2) -> shoulder, elbow and hand (..., 3, 2): depth and height, metres."""
    shoulder, both = theta[..., 0], theta.sum(dim=-1)
    elbow = UPPER * torch.stack([shoulder.cos(), shoulder.sin()], dim=-1)
    hand = elbow + LOWER * torch.stack([both.cos(), both.sin()], dim=-1)
    return torch.stack([torch.zeros_like(elbow), elbow, hand], dim=-2)


def look(theta):
    """What is seen of poses (count, 2): (count, 2); a third of the hands are hidden."""
    height = joints(theta)[:, 2, 1] + ERROR * torch.randn(len(theta))
    seen = (torch.rand(len(theta)) > 1 / 3).float()
    return torch.stack([height * seen, seen], dim=-1)


def seen_at(height):
    """The context (1, 2) of a hand that is seen at a height; None for a hidden one."""
    return torch.tensor([[0.0, 0.0] if height is None else [height, 1.0]])


flow = ConditionalFlow(2, 2, hidden_features=64, num_steps=6)
steps = 1000
optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
for _ in range(steps):
    theta = poses(256)
    loss = -flow.log_prob(theta, look(theta)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
flow.eval().requires_grad_(False)
print(f"NLL {loss:.2f} nats after {steps} steps of 256 poses")

# %%
# From noise to poses
# -------------------
#
# A sample starts as noise, a point z of a standard normal density, and goes through the steps of
# the flow, one after the other. Colour is the direction in which a point lay at first, so that one
# can follow it; the rings hold 39 % and 86 % of the points. The hand is seen 20 cm above the
# shoulder.


def undo(step, x, context):
    """One step from latent to data, and what its three parts make of x one by one."""
    hidden, norm = context
    x1, _ = step.coupling.inverse(x, hidden)
    x2 = step.linear.inverse(x1)
    return [x1, x2, step.actnorm.inverse(x2, norm)]


def rings():
    angle = torch.linspace(0, 2 * math.pi, 200)
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1)
    return [radius * circle for radius in (1.0, 2.0)]


def show(ax, z_colour, points, lines, title):
    ax.scatter(*points.T, c=z_colour, cmap="twilight", s=4, linewidths=0)
    for line in lines:
        ax.plot(*line.T, color="#3a3a42", linewidth=1.1)
    ax.set_title(title, fontsize=10)
    ax.tick_params(labelsize=7)


z = torch.randn(1500, 2)
colour = torch.atan2(z[:, 1], z[:, 0])
projected = flow.project_context(seen_at(0.2))
parts = [(step.hidden[0], None if step.norm is None else step.norm[0]) for step in projected.steps]

figure, axes = plt.subplots(1, 7, figsize=(14, 2.5), layout="constrained")
points, lines = z, rings()
show(axes[0], colour, points, lines, "z: noise")
for ax, number in zip(axes[1:], reversed(range(6)), strict=True):
    step, context = flow.steps[number], parts[number]
    points = undo(step, points, context)[-1]
    lines = [undo(step, line, context)[-1] for line in lines]
    show(ax, colour, points, lines, f"step {number + 1}" if number else "step 1: θ")
axes[-1].set_xlabel("shoulder, rad", fontsize=8)
plt.show()

# %%
# Six simple steps bend a disc into the curved band of poses that have the hand at this height.
# Nothing is lost and nothing is folded: each picture can be taken back to the one before, which is
# what ``encode`` does.
#
# What a step does
# ----------------
#
# A step has three parts. Here they act on a grid, in the step that comes third from the noise:
#
# * the **coupling** shifts one coordinate by an amount that a network makes of the other
#   coordinate and the context. This is the only part that bends. A shift changes no area.
# * **LULinear** turns, stretches and shears everything, by one matrix.
# * **ActNorm** scales and moves each coordinate; the context has a say in how much.

spots = torch.linspace(-2, 2, 9)
fine = torch.linspace(-2, 2, 60)
grid = [torch.stack([fine, spot.expand(60)], dim=-1) for spot in spots]
grid += [line.flip(-1) for line in grid]
number = 3
stages = [
    grid,
    *zip(*(undo(flow.steps[number], line, parts[number]) for line in grid), strict=True),
]

figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
for ax, lines, title in zip(
    axes, stages, ("before", "coupling", "LULinear", "ActNorm"), strict=True
):
    for index, line in enumerate(lines):
        ax.plot(*line.T, color=BLUE if index < len(spots) else ORANGE, linewidth=1)
    ax.set_title(title)
    ax.set_aspect("equal", adjustable="datalim")
plt.show()

# %%
# What the context does
# ---------------------
#
# The same noise, decoded for three contexts. The context changes the shifts of every coupling and
# the scales of every ActNorm, and so the shape of the density and its size. Below, the arms: pink
# is the mode, which is the decoded z = 0; the dashed line is the height at which the hand was
# seen.

contexts = {"hand seen low": -0.2, "hand seen high": 0.35, "hand hidden": None}
entropy = {name: flow.entropy(seen_at(height)).item() for name, height in contexts.items()}

figure, axes = plt.subplots(2, 3, figsize=(12, 7), layout="constrained")
for (above, below), (name, height) in zip(axes.T, contexts.items(), strict=True):
    theta, _ = flow.inverse(z[None], seen_at(height))
    mode = flow.mode(seen_at(height))[0]
    show(above, colour, theta[0], [], f"{name}: entropy {entropy[name]:.2f} nats")
    above.plot(*mode, "o", color=MODE, markersize=9, markeredgecolor="white")
    above.set(xlim=(-2.8, 2.8), ylim=(-0.4, 2.6), xlabel="shoulder, rad", ylabel="elbow, rad")
    for index, arm in enumerate(joints(theta[0, :60])):
        below.plot(*arm.T, color=SAMPLES[index % 2], linewidth=1, alpha=0.35)
    below.plot(*joints(mode).T, color=MODE, linewidth=4, marker="o", markersize=5)
    below.add_patch(Circle((0, 0), 0.03, color="#3a3a42", zorder=3))
    if height is not None:
        below.axhline(height, color="#3a3a42", linewidth=1, linestyle="--")
    below.set(xlim=(-0.62, 0.62), ylim=(-0.62, 0.62), xlabel="depth, m", ylabel="height, m")
    below.set_aspect("equal")
plt.show()

# %%
# Is that the right density?
# --------------------------
#
# With two angles the posterior can be computed on a grid, by Bayes' rule, without any flow: the
# density of the poses times the likelihood of the height. Left is that, right the flow, for a hand
# seen 20 cm above the shoulder.

shoulder = torch.linspace(-2.5, 2.8, 240)
elbow = torch.linspace(0.02, 2.38, 200)
mesh = torch.stack(torch.meshgrid(shoulder, elbow, indexing="xy"), dim=-1)
cell = (shoulder[1] - shoulder[0]) * (elbow[1] - elbow[0])

share = mesh[..., 1] / 2.4
logit = (share.logit() + 0.4) / 1.2
log_prior = -0.5 * ((mesh[..., 0] - 0.1) / 0.75) ** 2 - 0.5 * logit**2 - (share * (1 - share)).log()
height = joints(mesh)[..., 2, 1]
exact = (log_prior - 0.5 * ((height - 0.2) / ERROR) ** 2).exp()
exact /= exact.sum() * cell
learned = flow.log_prob(mesh[None], seen_at(0.2))[0].exp()

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
for ax, density, title in zip(axes, (exact, learned), ("Bayes' rule", "the flow"), strict=True):
    ax.contourf(shoulder, elbow, density, levels=12, cmap="Purples")
    ax.set(title=title, xlabel="shoulder, rad")
axes[0].set_ylabel("elbow, rad")
axes[1].plot(*flow.mode(seen_at(0.2))[0], "o", color=MODE, markersize=9, markeredgecolor="white")
plt.show()

inside = (exact > 1e-6) & (learned > 1e-12)
gap = (exact * (exact / learned).log())[inside].sum() * cell
print(f"Kullback-Leibler divergence of the flow from the exact density: {gap:.2f} nats")
