"""Evaluation of a model on annotated images: errors, likelihood and entropy per image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from examples.data.crops import Crops, Labels, Regions, make_crops
from examples.data.images import ImageBatch, ImageDataset, collate, init_worker
from examples.prohmr.losses import Supervision
from examples.prohmr.model import ProHMR
from flowprior.body import BodyModel
from flowprior.flow.base import StudentT
from flowprior.keypoints import LEAST_CONF
from flowprior.metrics.protocols import Protocol, evaluate_samples
from flowprior.skeleton import PROHMR_44

__all__ = [
    "Judgement",
    "batches_of",
    "calibrate",
    "crop_batch",
    "judge_batch",
    "limbs_hidden",
    "regions_and_labels",
    "supervise",
]

LIMBS = [
    PROHMR_44.index(f"{side}_{joint}_lsp")
    for side in ("left", "right")
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
]
HIDDEN = 3
"""A person with at least this many of twelve limb joints hidden counts as occluded."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """Results for B images; NaN for rows without an image or ground truth.

    Attributes:
        values: (B,) each, by name: errors in millimetres, "nll_nats", "entropy_nats".
        hidden: (B,) number of hidden joints among twelve limb joints.
    """

    values: dict[str, Tensor]
    hidden: Tensor


def batches_of(
    dataset: ImageDataset,
    batch_size: int,
    *,
    images: int = 0,
    workers: int = 0,
    groups: Sequence[Sequence[int]] | None = None,
) -> Iterator[ImageBatch]:
    """Batches of the people of a data set in order, or of an evenly spaced selection.

    Args:
        dataset: The images.
        batch_size: People per batch.
        images: Largest number of people; 0 for all.
        workers: Number of decoding processes.
        groups: Rows that stay in one batch, regardless of its size; None for single rows.
    """
    parts: Sequence[Sequence[int]] = groups or [(row,) for row in range(len(dataset))]
    most = sum(map(len, parts))
    if 0 < images < most:
        few = max(1, len(parts) * images // most)
        parts = [parts[part * len(parts) // few] for part in range(few)]
    batches: list[list[int]] = []
    for part in parts:
        if not batches or len(batches[-1]) + len(part) > batch_size:
            batches.append([])
        batches[-1].extend(part)
    return iter(
        DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=init_worker,
        )
    )


def crop_batch(batch: ImageBatch, size: int) -> Crops:
    """The crops of a batch without augmentation, on its device."""
    return make_crops(*regions_and_labels(batch), size=size)


def regions_and_labels(batch: ImageBatch) -> tuple[Regions, Labels]:
    """Regions and labels of a batch, for `examples.data.crops`."""
    return (
        Regions(
            batch.images, batch.region_from_image, batch.center, batch.box_size, batch.img_size
        ),
        Labels(
            batch.keypoints_2d,
            batch.keypoints_3d,
            batch.global_orient,
            batch.body_pose,
            batch.betas,
        ),
    )


def supervise(batch: ImageBatch, labels: Labels, finite: Tensor | None = None) -> Supervision:
    """The supervision of a batch.

    Args:
        batch: The batch.
        labels: The labels of its crops.
        finite: (B,) bool, rows with finite features; all if None.
    """
    valid = batch.valid if finite is None else batch.valid & finite
    return Supervision(labels, batch.has_body_pose, batch.has_betas, valid)


def limbs_hidden(labels: Labels) -> Tensor:
    """Number of hidden joints among twelve limb joints in each crop, (B,)."""
    points = labels.keypoints_2d[:, LIMBS]
    inside = (points[..., :2].abs() <= 0.5).all(dim=-1)
    return (~(inside & (points[..., 2] > LEAST_CONF))).sum(dim=1)


@torch.no_grad()
def calibrate(model: ProHMR, datasets: Sequence[ImageDataset], images: int) -> dict[str, float]:
    """Fit the base density of a model to held-out images, if it is a Student's t.

    Args:
        model: In evaluation mode.
        datasets: Images of people it was not trained on.
        images: Number of images to use, over all data sets.

    Returns:
        The temperature and the degrees of freedom; empty if nothing was fitted.
    """
    base = model.prior.flow.base
    if not isinstance(base, StudentT) or not datasets:
        return {}
    device = next(model.parameters()).device
    contexts, poses = [], []
    for dataset in datasets:
        for batch in batches_of(dataset, 50, images=max(1, images // len(datasets))):
            batch = batch.to(device)
            crops = crop_batch(batch, model.size)
            context = model.backbone(crops.images).to(model.prior.flow.weight_dtype)
            known = supervise(batch, crops.labels, context.isfinite().all(dim=1))
            contexts.append(context[known.with_pose])
            poses.append(known.rotation[known.with_pose])
    context, pose = torch.cat(contexts), torch.cat(poses)
    if not len(pose):
        return {}
    temperature = model.prior.calibrate(pose, context)
    return {"temperature": temperature, "degrees_of_freedom": float(base.degrees_of_freedom)}


@torch.no_grad()
def judge_batch(
    model: ProHMR,
    body: BodyModel,
    batch: ImageBatch,
    protocol: Protocol,
    *,
    counts: Sequence[int] = (1, 25),
    quantised: Sequence[int] = (),
    block: int = 64,
    generator: torch.Generator | None = None,
) -> Judgement:
    """Evaluate a model on some images.

    Args:
        model: The model, in evaluation mode.
        body: The body, on the same device.
        batch: The images, on the same device.
        protocol: The evaluated joints.
        counts: As in `flowprior.metrics.protocols.evaluate_samples`.
        quantised: As in `evaluate_samples`.
        block: As in `evaluate_samples`.
        generator: Random generator of the samples.

    Returns:
        The results.
    """
    crops = crop_batch(batch, model.size)
    labels = crops.labels
    out = model(crops.images)

    def joints(theta: Tensor) -> Tensor:
        return body.keypoints(theta, PROHMR_44, betas=out.betas)

    truth = labels.keypoints_3d
    known = supervise(batch, labels)
    needed = [*protocol.joints, protocol.root]
    has_3d = known.valid & (truth[:, needed, -1] > 0).all(dim=1)
    errors = evaluate_samples(
        out.posterior,
        joints,
        truth[..., :3],
        protocol,
        counts=counts,
        quantised=quantised,
        block=block,
        generator=generator,
    ).values_mm()
    values = {name: torch.where(has_3d, value, torch.nan) for name, value in errors.items()}
    nll = -out.posterior.log_prob(known.rotation)
    values["nll_nats"] = torch.where(known.with_pose, nll, torch.nan)
    entropy = out.posterior.entropy().expand(len(batch))
    values["entropy_nats"] = torch.where(known.valid, entropy, torch.nan)
    return Judgement(values, limbs_hidden(labels))
