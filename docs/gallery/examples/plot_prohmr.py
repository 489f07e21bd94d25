"""
ProHMR: pose from images
========================

This page trains p(θ | image) over SMPL's 24 rotations: an image network computes the context, a
flow models the poses.

**Size**: 1500 synthetic images, crops of 40 pixels, 300 steps, and only two of the nine terms of
the objective. The complete program is :doc:`ProHMR </examples/prohmr>`.
"""

# %%
# Synthetic images
# ----------------
#
# The embedded body in procedural poses, with clothes, lighting, backgrounds, occluders and
# truncation. The ground truth of every pose is known.

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn import functional

from examples.data.poses import load_poses
from examples.pictures import MODE, SAMPLES, body_views
from examples.pictures.canvas import side_by_side
from examples.pinhole import flip_yz
from examples.prohmr.embedded import Studio, sheet
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.metrics import mpjpe
from flowprior.skeleton import SMPL_24

torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
poses = load_poses()
studio = Studio(size=72)


def paint(split, count):
    """Render scenes of random poses from one split."""
    rotvecs = poses.rotvecs(split)
    return studio.paint(rotvecs[rng.choice(len(rotvecs), count, replace=False)], rng)


def tensors(scenes):
    """Crops (N, 3, 40, 40) about zero, and rotations (N, 24, 3, 3) in the camera frame."""
    pixels = torch.from_numpy(np.stack([scene.painting.image for scene in scenes]))
    images = pixels.permute(0, 3, 1, 2).float() / 128 - 1
    box = torch.zeros(len(scenes), 2, 3)  # from the crop to the image, both -1 to 1
    for row, scene in enumerate(scenes):
        box[row, 0, 0] = box[row, 1, 1] = scene.box_size / studio.size
        box[row, :, 2] = torch.from_numpy(2 * scene.center / studio.size - 1)
    grid = functional.affine_grid(box, [len(scenes), 3, 40, 40], align_corners=False)
    crops = functional.grid_sample(images, grid, align_corners=False)
    rotvecs = torch.from_numpy(np.stack([scene.pose for scene in scenes])).float()
    return crops, rotations.rotvec_to_matrix(rotvecs)


def mirrored(images, theta):
    """Mirror the people: left and right limbs are exchanged."""
    sides = torch.tensor([-1.0, 1.0, 1.0])
    return images.flip(-1), (sides[:, None] * theta * sides)[:, list(SMPL_24.flip)]


train, test = paint("train", 1500), paint("test", 120)
plt.figure(figsize=(9, 3.4), dpi=110)
plt.imshow(sheet(test[:16], columns=8))
plt.axis("off")
plt.show()

# %%
# Model and training
# ------------------
#
# Four convolutions replace ResNet-50. A head of the prior answers with one pose, the mode. The
# error of its rotations trains the head, the negative log-likelihood the flow around its answer.

encoder = torch.nn.Sequential(
    *(
        layer
        for narrow, wide in ((3, 32), (32, 64), (64, 96), (96, 128))
        for layer in (
            torch.nn.Conv2d(narrow, wide, 3, stride=2, padding=1),
            torch.nn.GroupNorm(8, wide),
            torch.nn.SiLU(),
        )
    ),
    torch.nn.Flatten(),
    torch.nn.Linear(128 * 9, 128),
    torch.nn.SiLU(),
)
prior = ConditionalPosePrior(context_features=128, hidden_features=96, target_noise=0.05)
parameters = [*encoder.parameters(), *prior.parameters()]
steps = 300
optimizer = torch.optim.AdamW(parameters, lr=2e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
images, theta = tensors(train)
for _ in range(steps):
    rows = torch.randint(len(images), (64,))
    batch = images[rows], theta[rows]
    seen, truth = batch if torch.rand(()) < 0.5 else mirrored(*batch)
    context = encoder(seen)
    mode = rotations.rot6d_to_matrix(prior.mode(context))
    error = (mode - truth).square().flatten(1).sum(dim=1).mean()
    loss = prior.nll(truth, context) + 20 * error
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 50.0)
    optimizer.step()
    schedule.step()
encoder.requires_grad_(False)
prior.eval().requires_grad_(False)

# %%
# Held-out people
# ---------------
#
# Each panel shows the image, the mode, samples from the camera, and mode and samples from the side.

body = BodyModel()
faces = body.faces.numpy()
held_out, truth = tensors(test)
posterior = prior(encoder(held_out))
mode, samples = posterior.mode(), posterior.sample(4)


def upright(theta):
    """Vertices with y up; the y axis of the camera points down."""
    return flip_yz(body(theta).vertices.numpy())


figure, axes = plt.subplots(3, 2, figsize=(10, 5.6), dpi=110, layout="constrained")
colours = [SAMPLES[index % 2] for index in range(4)]
for ax, person in zip(axes.flat, range(0, 48, 8), strict=True):
    one, many = upright(mode[person]), upright(samples[person])
    around = np.concatenate([one[None], many])
    look = {"height": 200, "around": around}
    pixels = ((held_out[person].permute(1, 2, 0) + 1) * 127.5).byte().numpy()
    pixels = pixels.repeat(5, axis=0).repeat(5, axis=1)
    behind = body_views(many, faces, views=("side",), colours=colours, alphas=0.4, **look)
    panels = [
        pixels,
        body_views(one, faces, views=("front",), colours=MODE, **look),
        body_views(many, faces, views=("front",), colours=colours, alphas=0.4, **look),
        body_views(one, faces, views=("side",), colours=MODE, background=behind, **look),
    ]
    ax.imshow(side_by_side(panels))
    ax.axis("off")
plt.show()

# %%
# Errors
# ------
#
# MPJPE of 24 joints relative to the pelvis, on 120 images of held-out people. After so little
# training the mode is only slightly better than the mean pose, and the samples are accordingly
# wide.

joints = body(truth).joints


def error(theta):
    predicted = body(theta).joints
    return 1000 * mpjpe(
        predicted - predicted[..., :1, :], joints.unsqueeze(1) - joints[:, None, :1]
    )


mean_pose = rotations.matrix_to_rot6d(theta).mean(dim=0)
print(f"mean of the training poses {error(mean_pose[None, None]).mean():.0f} mm")
print(f"mode {error(mode[:, None]).mean():.0f} mm")
best = error(posterior.sample(50)).amin(dim=1)
print(f"best of 50 {best.mean():.0f} mm")
