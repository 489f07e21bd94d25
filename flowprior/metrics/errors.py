"""Errors of 3D joints and vertices, best of n samples, and diversity of samples.

Results have the unit of the input; the library uses metres. Sums are computed in float64 on the
device of the input, and results have the dtype of the input. Inputs are not modified.
"""

import math

import torch
from torch import Tensor

from flowprior._checks import require_tensor
from flowprior._modes import outside_inference_mode
from flowprior._optional import import_optional
from flowprior.metrics.calibration import (
    sample_spread,
)

__all__ = [
    "best_of_n",
    "consistency_2d",
    "mpjpe",
    "pa_mpjpe",
    "pve",
    "quantise",
    "sample_diversity",
]


def mpjpe(pred: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean per-joint position error: the mean over the joints of the Euclidean distance.

    Poses are not aligned: subtract the root joint first if the protocol requires it.

    Args:
        pred: (..., J, 3), in metres.
        target: (..., J, 3), in metres. Each leading axis has the size it has in ``pred``, or 1 on
            either side: samples (B, n, J, 3) are compared with ``target[:, None]``.
        valid: Which joints count, as bool or 0 / 1: (J,), or (..., J) with leading axes as in
            ``target``; all joints if None. The other joints may have any values.

    Returns:
        (...), in metres; NaN where no joint counts. :class:`Tally` excludes and counts NaN.

    Raises:
        ValueError: If shapes are not (..., J, 3) or do not match, or a dtype is not floating point.

    References:
        Ionescu et al., *Human3.6M: Large Scale Datasets and Predictive Methods for 3D Human
        Sensing in Natural Environments*, 2014, equation 8.
    """
    dtype, pred, target, weight = _prepared(pred, target, valid)
    distance = torch.linalg.vector_norm(pred - target, dim=-1)
    return ((weight * distance).sum(dim=-1) / weight.sum(dim=-1)).to(dtype)


def pa_mpjpe(pred: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """MPJPE after the similarity (rotation, translation, scale) that best aligns the prediction.

    Also called the reconstruction error. "Best" is in the least-squares sense, so on a rare pose
    this error can exceed the MPJPE. The rotation is proper: a mirrored pose stays mirrored. Where
    no pose can be aligned because all joints of ``pred`` coincide, they are moved to the mean of
    the target.

    Args:
        pred: (..., J, 3), in metres.
        target: (..., J, 3), in metres. Leading axes as in ``mpjpe``.
        valid: Which joints count, in the alignment and in the mean, as in ``mpjpe``.

    Returns:
        (...), in metres; NaN where no joint counts.

    Raises:
        ValueError: The shapes are not (..., J, 3), do not match, or are not of floating point.

    References:
        Umeyama, *Least-Squares Estimation of Transformation Parameters Between Two Point
        Patterns*, 1991; solved by ``roma.rigid_vectors_registration``
        after centring.
    """
    import roma

    dtype, pred, target, weight = _prepared(pred, target, valid)
    shape = torch.broadcast_shapes(pred.shape, target.shape)
    if math.prod(shape) == 0:
        return mpjpe(pred, target).to(dtype)
    share = weight / weight.sum(dim=-1, keepdim=True).clamp(min=1)
    x, y = (each.expand(shape) for each in (pred, target))
    share = share.expand(shape[:-1])[..., None]
    x = share.sqrt() * (x - (share * x).sum(dim=-2, keepdim=True))
    y = share.sqrt() * (y - (share * y).sum(dim=-2, keepdim=True))
    # Joints that coincide differ by rounding only. Anything may stand in for them below: their
    # place in the result is the mean of the target, and no gradient meets 0 / 0.
    spread = x.square().sum(dim=(-2, -1), keepdim=True)
    size = (share * pred.square()).sum(dim=(-2, -1), keepdim=True)
    coincide = spread <= 1e-24 * size
    x = torch.where(coincide, torch.ones_like(x), x)
    with outside_inference_mode():
        rotation, scale = roma.rigid_vectors_registration(x, y, compute_scaling=True)
    aligned = scale[..., None, None] * x @ rotation.mT
    aligned = torch.where(coincide, torch.zeros_like(x), aligned)
    # The square roots of the weights, taken back.
    root = torch.where(share > 0, share, 1).sqrt()
    return mpjpe(aligned / root, y / root, weight > 0).to(dtype)


def pve(pred: Tensor, target: Tensor) -> Tensor:
    """Per-vertex error: the mean distance between the vertices of two meshes of the same topology.

    Args:
        pred: (..., V, 3), in metres.
        target: (..., V, 3), in metres. Leading axes as in ``mpjpe``.

    Returns:
        (...), in metres.

    Raises:
        ValueError: As ``mpjpe``.
    """
    return mpjpe(pred, target)


def best_of_n(errors: Tensor, n: int) -> Tensor:
    """Smallest error among the first n samples, an oracle metric: selecting it requires the truth.

    Args:
        errors: (..., N) errors of N samples, in any unit.
        n: Number of samples to consider, 1 to N.

    Returns:
        (...), in the unit of ``errors``.

    Raises:
        ValueError: If ``n`` is outside 1..N, or ``errors`` has no sample axis.
    """
    if errors.ndim == 0:
        raise ValueError("expected errors of shape (..., N) with a sample axis, got a scalar")
    if not 1 <= n <= errors.shape[-1]:
        raise ValueError(f"expected n from 1 to the {errors.shape[-1]} samples given, got {n}")
    return errors[..., :n].amin(dim=-1)


def quantise(samples: Tensor, n: int, *, seed: int = 0, nearest: bool = False) -> Tensor:
    """Reduce many samples to the n centroids of k-means.

    This makes a model that can draw any number of samples comparable with one that outputs n
    hypotheses: draw 4096, reduce them to n, take the best. It needs scikit-learn, which is part of
    ``flowprior[examples]``.

    Args:
        samples: (..., N, J, k), such as joints (B, 4096, 17, 3).
        n: Number of centroids, 1 to N.
        seed: Seed of the k-means.
        nearest: Whether to return the sample nearest to each centroid instead. Such a sample is a
            pose, whereas a mean of poses has shorter bones than any of them.

    Returns:
        (..., n, J, k).

    Raises:
        ValueError: If ``n`` is outside 1..N, or the samples have fewer than three axes or are not
            finite.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, supplement 5.2;
        Biggs et al., *3D Multibodies: Fitting Sets of Plausible 3D Models to Ambiguous Image
        Data*, 2020.
    """
    if samples.ndim < 3:
        raise ValueError(f"expected samples of shape (..., N, J, k), got {tuple(samples.shape)}")
    if not 1 <= n <= samples.shape[-3]:
        raise ValueError(f"expected n from 1 to the {samples.shape[-3]} samples given, got {n}")
    if not samples.isfinite().all():
        raise ValueError("samples hold NaN or infinity")
    cluster = import_optional(
        "sklearn.cluster", purpose="quantise", package="scikit-learn", extra="examples"
    )
    *batch, number, joints, size = samples.shape
    clouds = samples.detach().reshape(math.prod(batch), number, joints * size)
    kept = []
    for cloud in clouds:
        exact = cloud.double()
        means = cluster.KMeans(n, n_init=1, random_state=seed).fit(exact.cpu().numpy())
        centres = torch.as_tensor(means.cluster_centers_, device=cloud.device)
        closest = torch.cdist(centres, exact).argmin(dim=-1)
        kept.append(cloud[closest] if nearest else centres.to(cloud.dtype))
    shape = (*batch, n, *samples.shape[-2:])
    return torch.stack(kept).reshape(shape) if kept else samples.new_zeros(shape)


def sample_diversity(samples: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Mean distance of samples to their mean, separately for visible and hidden joints.

    A useful posterior is narrow where there is evidence and wide where there is none. There is one
    value per joint, so a `Tally` of several batches computes the mean over all joints.

    Args:
        samples: (B, n, J, 3), n at least 2, in metres.
        visible: (B, J) as bool or 0 / 1.

    Returns:
        Mean distances of the samples of each visible joint (V,) and of each hidden joint (H,) to
        their mean, in metres; V + H is B J.

    Raises:
        ValueError: If the shapes do not match, or samples are NaN or infinite.

    References:
        Sengupta et al., *HuManiFlow: Ancestor-Conditioned Normalising Flows on SO(3) Manifolds for
        Human Pose and Shape Distribution Estimation*, 2023, sample diversity.
    """
    if samples.ndim != 4 or visible.shape != (samples.shape[0], samples.shape[2]):
        raise ValueError(
            "expected samples of shape (B, n, J, 3) and visible of shape (B, J), "
            f"got {tuple(samples.shape)} and {tuple(visible.shape)}"
        )
    spread, seen = sample_spread(samples), visible.bool()
    return spread[seen], spread[~seen]


def consistency_2d(samples_2d: Tensor, keypoints_2d: Tensor, conf: Tensor) -> Tensor:
    """Mean distance of projected samples to the visible 2D keypoints.

    Args:
        samples_2d: (B, n, K, 2), in pixels or any other unit.
        keypoints_2d: (B, K, 2), in the same unit. Keypoints without confidence may have any values.
        conf: (B, K), not negative; a keypoint counts if its confidence is positive.

    Returns:
        (B, n), the mean distance over the keypoints that count; NaN if there are none.

    Raises:
        ValueError: If the shapes do not match.
    """
    batch, points = conf.shape if conf.ndim == 2 else (-1, -1)
    fits = samples_2d.ndim == 4 and samples_2d.shape[::2] == (batch, points)
    if not fits or samples_2d.shape[-1] != 2 or keypoints_2d.shape != (batch, points, 2):
        raise ValueError(
            "expected samples_2d (B, n, K, 2), keypoints_2d (B, K, 2) and conf (B, K), got "
            f"{tuple(samples_2d.shape)}, {tuple(keypoints_2d.shape)} and {tuple(conf.shape)}"
        )
    counts = (conf > 0)[:, None]
    target = torch.where(counts[..., None], keypoints_2d[:, None].double(), 0)
    distance = torch.linalg.vector_norm(samples_2d.double() - target, dim=-1)
    total = torch.where(counts, distance, 0).sum(dim=-1) / counts.sum(dim=-1)
    return total.to(samples_2d.dtype)


def _prepared(
    pred: Tensor, target: Tensor, valid: Tensor | None
) -> tuple[torch.dtype, Tensor, Tensor, Tensor]:
    """Dtype of the result; poses in float64, zero where joints do not count; weights."""
    _check_joints(pred, target)
    dtype = torch.promote_types(pred.dtype, target.dtype)
    shape = torch.broadcast_shapes(pred.shape, target.shape)[:-1]
    if valid is None:
        return dtype, pred.double(), target.double(), target.new_ones(shape[-1:]).double()
    if valid.ndim not in (1, len(shape)) or any(
        size not in (1, wanted)
        for size, wanted in zip(valid.shape[::-1], shape[::-1], strict=False)
    ):
        raise ValueError(f"expected valid of shape (..., {shape[-1]}), got {tuple(valid.shape)}")
    counts = valid.bool()
    kept = counts[..., None]
    pred, target = (torch.where(kept, each.double(), 0) for each in (pred, target))
    return dtype, pred, target, counts.double()


def _check_joints(pred: Tensor, target: Tensor) -> None:
    for name, joints in (("pred", pred), ("target", target)):
        require_tensor(name, joints)
        if joints.ndim < 2 or joints.shape[-1] != 3 or joints.shape[-2] == 0:
            raise ValueError(
                f"expected {name} of shape (..., J, 3) with at least one joint, "
                f"got {tuple(joints.shape)}"
            )
        if not joints.is_floating_point():
            raise ValueError(f"expected {name} of a floating-point dtype, got {joints.dtype}")
    # With one axis too few, a batch would silently broadcast against itself.
    fits = pred.ndim == target.ndim and pred.shape[-2] == target.shape[-2]
    sizes = zip(pred.shape, target.shape, strict=False)
    if not fits or any(a != b and 1 not in (a, b) for a, b in sizes):
        raise ValueError(
            "expected pred and target of the same shape (..., J, 3), up to leading axes of size "
            f"1, got {tuple(pred.shape)} and {tuple(target.shape)}"
        )
