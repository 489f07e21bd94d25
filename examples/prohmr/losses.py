r"""ProHMR's training objective, with the terms of the paper's supplement.

.. math::

    L = \lambda_{nll} L_{nll}
      + \lambda_{exp,2D} L_{exp,2D} + \lambda_{exp,adv} L_{exp,adv}
      + \lambda_{mode,2D} L_{mode,2D} + \lambda_{mode,adv} L_{mode,adv}
      + \lambda_{mode,\theta} L_{mode,\theta} + \lambda_{mode,\beta} L_{mode,\beta}
      + \lambda_{mode,3D} L_{mode,3D} + \lambda_{orth} L_{orth}

The mode is sample 0 of each image, the others are random. Terms are summed over their dimensions
and divided by the batch size, even if only some rows are annotated; only the NLL is a mean over
annotated rows, and orthogonality a mean over all elements.

References:
    Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, ICCV 2021, supplement 3;
    details that the text omits, from ``prohmr/models/prohmr.py`` of ``nkolot/ProHMR``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from examples.data.crops import Labels
from examples.data.weak_perspective import crop_translation, project_to_crop
from examples.prohmr.model import Prediction
from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.prior.spaces import RotationSpace
from flowprior.skeleton import PROHMR_44, PROHMR_PELVIS

__all__ = [
    "LossWeights",
    "Samples",
    "Supervision",
    "discriminator_loss",
    "draw_samples",
    "objective",
    "total",
]

JOINTS = 24


@dataclass(frozen=True)
class LossWeights:
    """Loss weights; the defaults are the published ones.

    Args:
        nll: Weight of the negative log-likelihood of annotated poses.
        exp_2d: Weight of the expected reprojection error.
        exp_adv: Weight of the adversarial loss of random samples.
        mode_2d: Weight of the mode's reprojection error.
        mode_adv: Weight of the adversarial loss of the mode.
        mode_theta: Weight of the mode's rotation matrices.
        mode_betas: Weight of the shape.
        mode_3d: Weight of the mode's 3D keypoints.
        orth: Weight of the orthogonality of 6D vectors.
        discriminator: Weight of the discriminator's loss.
    """

    nll: float = 0.001
    exp_2d: float = 0.001
    exp_adv: float = 0.0005
    mode_2d: float = 0.01
    mode_adv: float = 0.0005
    mode_theta: float = 0.001
    mode_betas: float = 0.0005
    mode_3d: float = 0.05
    orth: float = 0.1
    discriminator: float = 0.0005

    def __post_init__(self) -> None:
        for field in fields(self):
            weight = getattr(self, field.name)
            if not weight >= 0:
                raise ValueError(f"expected a weight {field.name} from 0 up, got {weight}")


@dataclass(frozen=True, eq=False)
class Samples:
    """Sampled bodies for each of B images, the mode first.

    Attributes:
        theta: (B, S, 24, 6), as the posterior returns them: orthonormal, or with the preset
            ``"prohmr"`` not orthogonalised.
        rotation: (B, S, 24, 3, 3).
        betas: (B, 10), shared by all samples of an image.
        keypoints_3d: (B, S, 44, 3) metres, PROHMR-44.
        keypoints_2d: (B, S, 44, 2) in sides of the crop from its centre.
    """

    theta: Tensor
    rotation: Tensor
    betas: Tensor
    keypoints_3d: Tensor
    keypoints_2d: Tensor

    def to_judge(self) -> tuple[Tensor, Tensor]:
        """Inputs of the discriminator: ``body_pose`` (B S, 23, 3, 3) and ``betas`` (B S, 10)."""
        batch, samples = self.theta.shape[:2]
        betas = self.betas[:, None].expand(batch, samples, -1)
        return self.rotation[:, :, 1:].flatten(0, 1), betas.flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Supervision:
    """Supervision of B people.

    Attributes:
        labels: The labels of the crops.
        has_body_pose: (B,) bool, whether pose and orientation are annotated.
        has_betas: (B,) bool.
        valid: (B,) bool, False without an image: such a row contributes to no term.
    """

    labels: Labels
    has_body_pose: Tensor
    has_betas: Tensor
    valid: Tensor

    @property
    def rotation(self) -> Tensor:
        """(B, 24, 3, 3), the annotated pose; the identity without an annotation."""
        pose = torch.cat([self.labels.global_orient, self.labels.body_pose], dim=-1)
        pose = torch.where(self.with_pose[:, None], pose, 0).unflatten(-1, (JOINTS, 3))
        return rotations.rotvec_to_matrix(pose)

    @property
    def with_pose(self) -> Tensor:
        """(B,) bool, rows with an annotated pose."""
        return self.has_body_pose & self.valid


def draw_samples(
    prediction: Prediction,
    body: BodyModel,
    num_samples: int,
    generator: torch.Generator | None = None,
    *,
    latents: Tensor | None = None,
) -> Samples:
    """Draw the mode and random samples of each image, as bodies in their crops.

    Args:
        prediction: Predictions for B images.
        body: The body, on the same device.
        num_samples: S, including the mode.
        generator: Random generator of the samples.
        latents: (B, S - 1, D), decoded instead of random samples.

    Returns:
        The bodies.

    Raises:
        ValueError: S is less than 1.
    """
    if num_samples < 1:
        raise ValueError(f"expected at least one sample, the mode, got {num_samples}")
    posterior = prediction.posterior
    theta = []
    if num_samples > 1:
        # Before the mode, as in the original: its batch norm depends on the order in training.
        theta.append(
            posterior.sample(num_samples - 1, generator=generator)
            if latents is None
            else posterior.decode(latents)
        )
    theta.insert(0, posterior.mode()[:, None])
    poses = torch.cat(theta, dim=1)
    space = posterior.prior.space
    assert isinstance(space, RotationSpace)
    rotation = space.to_matrix(poses)
    keypoints_3d = body.keypoints(rotation, PROHMR_44, betas=prediction.betas)
    transl = crop_translation(prediction.camera)[:, None]
    return Samples(
        poses, rotation, prediction.betas, keypoints_3d, project_to_crop(keypoints_3d, transl)
    )


def objective(
    samples: Samples,
    supervision: Supervision,
    nll: Tensor,
    judgements: Tensor,
    layout: str = "columns",
) -> dict[str, Tensor]:
    """Compute every term of the objective, unweighted.

    With one sample, the terms of the expectation are 0.

    Args:
        samples: S bodies for each of B images.
        supervision: Their supervision.
        nll: Scalar, the mean over annotated rows, nats; ``prior.nll(theta, context, with_pose)``.
        judgements: (B S, 25), scores of the discriminator for `Samples.to_judge`.
        layout: Layout of theta.

    Returns:
        Scalars by the names of `LossWeights`, except ``discriminator``.
    """
    labels, valid = supervision.labels, supervision.valid
    batch, num_samples = samples.theta.shape[:2]

    def mode(of_sample: Tensor) -> Tensor:
        """(B, S) -> sum over images of sample 0, divided by B."""
        return of_sample[:, 0].sum() / batch

    def expected(of_sample: Tensor) -> Tensor:
        """(B, S) -> sum over images of the mean over random samples, divided by B."""
        return of_sample[:, 1:].sum() / (batch * max(num_samples - 1, 1))

    def where(rows: Tensor, values: Tensor) -> Tensor:
        """Values of some rows, 0 in the others, even if they contain NaN."""
        return torch.where(rows.reshape(-1, *(1,) * (values.ndim - 1)), values, 0)

    # L1 of keypoints, weighted by confidence: (B, S).
    seen_2d = _confidence(labels.keypoints_2d, valid)
    error_2d = _l1(samples.keypoints_2d, labels.keypoints_2d[..., :2], seen_2d)
    # Rows without a pelvis have no reference point.
    has_pelvis = labels.keypoints_3d[:, PROHMR_PELVIS, -1] > 0
    seen_3d = _confidence(labels.keypoints_3d, valid & has_pelvis)
    pelvis = [PROHMR_PELVIS]
    predicted = samples.keypoints_3d - samples.keypoints_3d[:, :, pelvis]
    annotated = labels.keypoints_3d[..., :3] - labels.keypoints_3d[:, pelvis, :3]
    error_3d = _l1(predicted, annotated, seen_3d)

    # L2 of SMPL's parameters, rotations as matrices.
    error_theta = (samples.rotation[:, 0] - supervision.rotation).square().flatten(1).sum(dim=1)
    error_theta = where(supervision.with_pose, error_theta)
    with_betas = supervision.has_betas & valid
    error_betas = (samples.betas - where(with_betas, labels.betas)).square().sum(dim=1)

    # The target of samples is the score of motion capture, 1.
    unconvinced = (judgements - 1).square().sum(dim=1).unflatten(0, (batch, num_samples))
    unconvinced = where(valid, unconvinced)

    # Rows without an image count as orthogonal.
    orthogonal = rotations.matrix_to_rot6d(
        torch.eye(3, dtype=samples.theta.dtype, device=samples.theta.device), layout
    )
    theta = torch.where(valid[:, None, None, None], samples.theta, orthogonal)
    orth = rotations.orthogonality_loss(theta[:, :1], layout)
    if num_samples > 1:
        orth = orth + rotations.orthogonality_loss(theta[:, 1:], layout)

    return {
        "nll": nll,
        "exp_2d": expected(error_2d),
        # The original sums over samples here, unlike elsewhere; with its two samples, both agree.
        "exp_adv": unconvinced[:, 1:].sum() / batch,
        "mode_2d": mode(error_2d),
        "mode_adv": mode(unconvinced),
        "mode_theta": error_theta.sum() / batch,
        "mode_betas": where(with_betas, error_betas).sum() / batch,
        "mode_3d": mode(error_3d),
        "orth": orth,
    }


def total(terms: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """The loss L: the weighted sum of the terms.

    Args:
        terms: Terms of `objective`.
        weights: The loss weights.

    Returns:
        Scalar.
    """
    return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()


def discriminator_loss(fake: Tensor, real: Tensor) -> Tensor:
    """The discriminator's loss, with target 0 for samples and 1 for motion capture.

    Args:
        fake: (N, 25), its scores of samples, which must be detached from the model.
        real: (M, 25), its scores of motion capture.

    Returns:
        Scalar, summed over scores, a mean over bodies.

    References:
        Kanazawa et al., *End-to-end Recovery of Human Shape and Pose*, CVPR 2018, equation 4.
    """
    return fake.square().sum() / max(len(fake), 1) + (real - 1).square().sum() / max(len(real), 1)


def _confidence(keypoints: Tensor, rows: Tensor) -> Tensor:
    """Confidences (B, K), 0 for rows that do not count."""
    conf = keypoints[..., -1]
    return torch.where(rows[:, None] & (conf > 0), conf, 0)


def _l1(predicted: Tensor, annotated: Tensor, conf: Tensor) -> Tensor:
    """(B, S, K, d) and (B, K, d) -> (B, S), each keypoint weighted by (B, K)."""
    difference = torch.where(conf[:, None, :, None] > 0, predicted - annotated[:, None], 0)
    return (conf[:, None, :, None] * difference.abs()).sum(dim=(2, 3))
