"""
The flow in pictures
====================

A pose of SMPL has 72 numbers and cannot be drawn. This page uses a body with two: an arm in a
plane, with a shoulder angle and an elbow angle. The first flow models the angles themselves, the
last one their difference from the answer of a regressor, as the library does by default. All
figures show the flows after a few seconds of training.
"""

# %%
# Pose and context
# ----------------
#
# The camera looks along the plane of the arm, so the image contains heights but no depth. The
# context is the height of the hand, with a small error, or nothing if the hand is hidden: two
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
ERROR = 0.02  # of the observed height, metres


def poses(count):
    """Sample shoulder and elbow angles (count, 2), radians."""
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
    """Contexts (count, 2) of poses (count, 2); a third of the hands are hidden."""
    height = joints(theta)[:, 2, 1] + ERROR * torch.randn(len(theta))
    seen = (torch.rand(len(theta)) > 1 / 3).float()
    return torch.stack([height * seen, seen], dim=-1)


def seen_at(height):
    """The context (1, 2) of a hand at a height; None for a hidden hand."""
    return torch.tensor([[0.0, 0.0] if height is None else [height, 1.0]])


def descend(model, loss_of, steps=1000):
    """Minimise a loss over the weights of a model; returns its last value."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        theta = poses(256)
        loss = loss_of(theta, look(theta))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval().requires_grad_(False)
    return loss.item()


flow = ConditionalFlow(2, 2, hidden_features=64, num_steps=6)
nll = descend(flow, lambda theta, context: -flow.log_prob(theta, context).mean())
print(f"NLL {nll:.2f} nats after 1000 steps of 256 poses")

# %%
# From noise to poses
# -------------------
#
# A sample starts as noise, a point z from a standard normal density, and passes through the steps
# of the flow. The colour encodes the initial direction of a point, so that it can be followed; the
# rings contain 39 % and 86 % of the points. The hand is seen 20 cm above the shoulder.


def undo(step, x, context):
    """One step from latent to data: x after each of its three parts."""
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
# Six simple steps bend a disc into the curved band of poses whose hand is at this height. No
# information is lost and nothing folds: each picture can be mapped back to the previous one, which
# is what ``encode`` does.
#
# The parts of a step
# -------------------
#
# A step has three parts. Here they act on a grid, in the third step from the noise:
#
# * the **coupling** shifts one coordinate by an amount that a network computes from the other
#   coordinate and the context. Only this part bends. A shift does not change areas.
# * **LULinear** rotates, stretches and shears everything with one matrix.
# * **ActNorm** scales and shifts each coordinate, by amounts that also depend on the context.

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
# The effect of the context
# -------------------------
#
# The same noise is decoded for three contexts. The context changes the shifts of every coupling and
# the scales of every ActNorm, and thereby the shape and the size of the density. The lower row
# shows the arms: the mode, which is the decoded z = 0, is pink; the dashed line is the observed
# height of the hand.

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
# Comparison with the exact density
# ---------------------------------
#
# With two angles the posterior can be computed on a grid by Bayes' rule: the density of the poses
# times the likelihood of the height. The exact density is on the left, the flow on the right, for a
# hand seen 20 cm above the shoulder.

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


def divergence(density):
    """Kullback-Leibler divergence from the exact density, nats."""
    inside = (exact > 1e-6) & (density > 1e-12)
    return (exact * (exact / density).log())[inside].sum() * cell


print(f"Kullback-Leibler divergence of the flow from the exact density: {divergence(learned):.2f}")

# %%
# The anchored flow
# -----------------
#
# Now a regressor answers first: a small network that is trained for the error of elbow and hand. A
# second flow models the difference from the answer. None of its parts has a shift, so every step
# keeps the origin, z = 0 is the answer, and the answer is the mode. The context sets the scales and
# the thresholds of the couplings.

regressor = torch.nn.Sequential(
    torch.nn.Linear(2, 64),
    torch.nn.SiLU(),
    torch.nn.Linear(64, 64),
    torch.nn.SiLU(),
    torch.nn.Linear(64, 2),
)
descend(
    regressor,
    lambda theta, context: (joints(regressor(context)) - joints(theta)).norm(dim=-1).mean(),
)


def around(context):
    """The regressor's answers, and what the flow reads: the context and the answers."""
    answer = regressor(context)
    return answer, torch.cat([context, answer], dim=-1)


anchored = ConditionalFlow(2, 4, hidden_features=64, num_steps=6, anchored=True)


def nll_around(theta, context):
    answer, both = around(context)
    return -anchored.log_prob(theta - answer, both).mean()


print(f"NLL of the anchored flow {descend(anchored, nll_around):.2f} nats")

answer, both = around(seen_at(0.2))
projected = anchored.project_context(both)
parts = [(step.hidden[0], None if step.norm is None else step.norm[0]) for step in projected.steps]
figure, axes = plt.subplots(1, 7, figsize=(14, 2.5), layout="constrained")
points, lines = z, rings()
show(axes[0], colour, points, lines, "z: noise")
for ax, number in zip(axes[1:], reversed(range(6)), strict=True):
    step, context = anchored.steps[number], parts[number]
    points = undo(step, points, context)[-1]
    lines = [undo(step, line, context)[-1] for line in lines]
    show(ax, colour, points, lines, f"step {number + 1}" if number else "step 1: residual")
for ax in axes:
    ax.plot(0, 0, "o", color=MODE, markersize=6, markeredgecolor="white")
plt.show()

# %%
# The pink dot stays at zero in every step. The densities of both flows beside the exact one:

learned_around = anchored.log_prob((mesh - answer)[None], both)[0].exp()
figure, axes = plt.subplots(1, 3, figsize=(14, 3.6), layout="constrained", sharey=True)
for ax, density, title in zip(
    axes,
    (exact, learned, learned_around),
    ("Bayes' rule", "the first flow", "the anchored flow"),
    strict=True,
):
    ax.contourf(shoulder, elbow, density, levels=12, cmap="Purples")
    ax.set(title=title, xlabel="shoulder, rad")
axes[0].set_ylabel("elbow, rad")
for ax, mode in zip(axes[1:], (flow.mode(seen_at(0.2)), answer), strict=True):
    ax.plot(*mode[0], "o", color=MODE, markersize=9, markeredgecolor="white")
plt.show()

hand_cm = 100 * (joints(answer)[0, 2, 1] - 0.2).abs()
print(f"Kullback-Leibler divergence of the anchored flow: {divergence(learned_around):.2f} nats")
print(f"the answer's hand is {hand_cm:.1f} cm from the observed height")

# %%
# The price of the anchor is visible: the peak of the density is where the regressor puts it, here
# in the middle of the band rather than at its densest point. In return, the answer has the error
# for which it was trained, whatever the density learns.
