"""
2D-to-3D lifting
================

This page trains p(3D pose | 2D keypoints). A network reads the keypoints and answers with one pose
of 16 joints, the mode; a flow around the answer models the uncertainty.

**Size**: 500 steps on embedded, procedural poses. The study on motion capture, with a comparison
to other distributions, is :doc:`2D-to-3D lifting </examples/lifting>`.
"""

# %%
# Poses in front of virtual cameras
# ---------------------------------
#
# Every batch consists of random poses seen by new cameras. Half of the views lack some joints:
# beyond an edge, behind a box, or a whole limb. Test subjects are not used for training.

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from examples.data.poses import load_poses
from examples.lifting.figures import upright
from examples.lifting.judging import error_mm
from examples.lifting.model import LiftingModel
from examples.lifting.views import PoseViews, ViewOptions
from examples.pictures import MODE, SAMPLES, lifting_picture
from examples.pictures.style import STYLE
from flowprior.metrics import mpjpe

torch.set_num_threads(1)
torch.manual_seed(0)
plt.rcParams.update(STYLE)

poses = load_poses()  # load_poses("amass_folder") for real poses
options = ViewOptions(occlusion="mixed")
train = PoseViews(torch.from_numpy(poses.train), options)
views = PoseViews(torch.from_numpy(poses.test), options).held_out(
    400, torch.Generator().manual_seed(0)
)
print(f"{len(train)} training poses; {len(views)} views of held-out people")

# %%
# Training
# --------
#
# The error of the mode trains the regressor. The negative log-likelihood trains the flow; its
# context is detached, so the flow does not change what the encoder learns.

model = LiftingModel(width=128, hidden_features=64)
steps = 500
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
generator = torch.Generator().manual_seed(0)
for _ in range(steps):
    batch = train.draw(256, generator)
    context = model.context(batch.keypoints, batch.visible)
    error = mpjpe(model.prior.mode(context), batch.relative).mean()  # metres
    loss = 100 * error + model.prior.nll(batch.relative, context.detach())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 50.0)
    optimizer.step()
    schedule.step()
model.eval().requires_grad_(False)

# %%
# Two people
# ----------
#
# One person has all joints visible, the other has the most hidden joints. The mode is pink; samples
# are purple and yellow.

posterior = model(views.keypoints, views.visible)
mode, samples = posterior.mode(), posterior.sample(100)
hidden = (~views.visible).sum(dim=-1)
for name, person in (("clear", int(hidden.argmin())), ("hidden", int(hidden.argmax()))):
    lifting_picture(
        Path(f"lifting_{name}.png"),
        keypoints=views.keypoints[person].numpy(),
        visible=views.visible[person].numpy(),
        mode=upright(mode[person]),
        samples=upright(samples[person, :30]),
        truth=upright(views.relative[person]),
        title=f"{int(hidden[person])} of 17 joints hidden",
    )

# %%
# Errors
# ------
#
# MPJPE over 17 joints of held-out subjects. Selecting the best of n requires the truth, so the
# curve shows what the samples cover, not the accuracy in an application.

errors = error_mm(samples, views.relative[:, None])
of_mode = error_mm(mode, views.relative)
best = errors.cummin(dim=1).values
groups = {"clear views": hidden == 0, "views with hidden joints": hidden > 0}
figure, axes = plt.subplots(1, 2, figsize=(9, 3), dpi=110, layout="constrained", sharey=True)
for ax, (name, rows) in zip(axes, groups.items(), strict=True):
    ax.semilogx(range(1, 101), best[rows].mean(dim=0), color=SAMPLES[0], label="best sample")
    ax.axhline(of_mode[rows].mean(), color=MODE, label="mode")
    ax.set(title=name, xlabel="samples drawn")
    entropy = posterior.entropy()[rows].mean()
    print(
        f"{name}: mode {of_mode[rows].mean():.0f} mm, best of 100 {best[rows, -1].mean():.0f} mm, "
        f"entropy {entropy:.0f} nats"
    )
axes[0].set_ylabel("MPJPE, mm")
axes[0].legend(frameon=False)
plt.show()
