"""2D keypoints: confidence threshold, checks of units, and the context of a prior."""

import torch
from torch import Tensor

from flowprior._checks import require_tensor

__all__ = [
    "ENLARGE",
    "FARTHEST_PX",
    "LARGEST_CONF",
    "LEAST_CONF",
    "check_keypoints",
    "example_keypoints",
    "keypoint_context",
    "keypoint_squares",
    "pixel_keypoints",
    "seen_keypoints",
    "unit_fault",
]

LEAST_CONF = 0.1
"""A keypoint counts as seen above this confidence, in contexts, boxes, crops, fits and pictures."""

LARGEST_CONF = 1.5
"""Largest plausible confidence of a keypoint; OpenPose's slightly exceed 1."""

FARTHEST_PX = 1e5
"""Largest plausible coordinate in pixels: a keypoint farther from the origin is damaged."""

ENLARGE = 1.2
"""Side of the square around a person, relative to the tightest square around seen keypoints."""

# Normalised coordinates range from 0 or -1 to 1, and slightly beyond if limbs leave the image.
_FARTHEST_NORMALISED = 2.0

# A few wrong confidences are damaged keypoints; a larger share indicates another unit.
_SHARE_OF_SCORES = 0.1


def unit_fault(keypoints: Tensor) -> str | None:
    """Detect coordinates that are not pixels and confidences that are not probabilities.

    The check applies to the whole array. Coordinates count as normalised if all people with an
    extent are within 2 pixels of the origin; a tiny person elsewhere in the image, or among people
    of normal size, does not raise an error. Confidences count as scores if, for more than half of
    the people, more than a tenth of them are below 0 or above 1.5. Keypoints with confidence 0, NaN
    or infinity are ignored.

    Args:
        keypoints: (..., K, 3) x, y and confidence.

    Returns:
        A sentence that describes the problem and its correction; None if there is no problem, or if
        values cannot be read: under ``torch.compile``, ``vmap`` and CUDA graph capture.
    """
    if torch.compiler.is_compiling() or not keypoints.numel():
        return None
    if keypoints.is_cuda and torch.cuda.is_current_stream_capturing():
        return None
    try:
        return _conf_fault(keypoints.detach()) or _coordinate_fault(keypoints.detach())
    except RuntimeError:  # vmap cannot read values
        return None


def _conf_fault(keypoints: Tensor) -> str | None:
    conf = keypoints[..., 2]
    given = conf.isfinite() & (conf != 0)
    outside = given & ((conf < 0) | (conf > LARGEST_CONF))
    numbers = given.sum(dim=-1)
    odd = (outside.sum(dim=-1) > 1) & (outside.sum(dim=-1) > _SHARE_OF_SCORES * numbers)
    # A unit is that of all people; what few of them have is damage to those.
    if 2 * int(odd.sum()) <= int((numbers > 0).sum()):
        return None
    wrong = conf[outside]
    return (
        f"{len(wrong)} of {int(numbers.sum())} confidences lie below 0 or above "
        f"{LARGEST_CONF:g} (from {float(wrong.min()):.3g} to {float(wrong.max()):.3g}), but "
        "probabilities from 0 to 1 are expected: divide scores by the score of a certain keypoint "
        "(percentages by 100) and clip them to 0 to 1; replace COCO's visibilities 1 and 2 by 1"
    )


def _coordinate_fault(keypoints: Tensor) -> str | None:
    xy = keypoints[..., :2]
    seen = (keypoints[..., 2] > LEAST_CONF) & xy.isfinite().all(dim=-1)
    low = torch.where(seen[..., None], xy, torch.inf).amin(dim=-2)
    high = torch.where(seen[..., None], xy, -torch.inf).amax(dim=-2)
    placed = (high - low).amax(dim=-1) > 0
    near = (low.amin(dim=-1) >= -_FARTHEST_NORMALISED) & (high.amax(dim=-1) <= _FARTHEST_NORMALISED)
    if not placed.any() or not near[placed].all():
        return None
    return (
        f"all coordinates lie between {float(low[placed].min()):.3g} and "
        f"{float(high[placed].max()):.3g}, as normalised ones do, but pixels are expected (y down, "
        "origin in the upper left corner): flowprior.keypoints.pixel_keypoints converts them, "
        "given the size of the image (OpenPose writes pixels with --keypoint_scale 0)"
    )


def check_keypoints(keypoints: Tensor) -> None:
    """Raise an error unless 2D keypoints have the right shape and plausible units.

    Args:
        keypoints: (..., K, 3) pixels, y down, and confidence.

    Raises:
        TypeError: If ``keypoints`` is not a tensor.
        ValueError: If it has a wrong shape or dtype, its coordinates are normalised (0 to 1 or -1
            to 1), or its confidences are not probabilities; see :func:`unit_fault`.
    """
    require_tensor("keypoints", keypoints)
    if keypoints.ndim < 2 or keypoints.shape[-1] != 3 or not keypoints.is_floating_point():
        raise ValueError(
            "expected keypoints (..., K, 3) of floating point, x, y and confidence, got "
            f"{tuple(keypoints.shape)} of {keypoints.dtype}"
        )
    fault = unit_fault(keypoints)
    if fault is not None:
        raise ValueError(f"keypoints are in other units: {fault}")


def pixel_keypoints(
    keypoints: Tensor, image_size: Tensor | tuple[float, float], low: float = 0.0
) -> Tensor:
    """Convert normalised keypoints to pixels.

    Args:
        keypoints: (..., K, 3) x, y from ``low`` to 1 across the image, and confidence.
        image_size: Width and height in pixels, a pair or a tensor (..., 2).
        low: 0, or -1 if coordinates range from -1 to 1.

    Returns:
        (..., K, 3) pixels and the same confidence.

    Raises:
        ValueError: If ``low`` is neither 0 nor -1, or the size is not two positive numbers.
    """
    size = torch.as_tensor(image_size, dtype=keypoints.dtype, device=keypoints.device)
    if low not in (0, -1) or size.shape[-1:] != (2,) or not bool((size > 0).all()):
        raise ValueError(
            f"expected low 0 or -1 and image_size (width, height) in pixels, got {low} and "
            f"{image_size}"
        )
    xy = (keypoints[..., :2] - low) / (1 - low) * size[..., None, :]
    return torch.cat([xy, keypoints[..., 2:]], dim=-1)


def seen_keypoints(keypoints: Tensor) -> Tensor:
    """Replace keypoints that do not count as seen with zeros.

    Args:
        keypoints: (..., K, 3) pixels and confidence.

    Returns:
        (..., K, 3), zeros where the confidence is at most 0.1 or above 1.5, a number is not
        finite, or a coordinate exceeds `FARTHEST_PX`.

    Raises:
        TypeError: If ``keypoints`` is not a tensor.
        ValueError: As for :func:`check_keypoints`.
    """
    check_keypoints(keypoints)
    usable = keypoints.isfinite().all(dim=-1) & (keypoints[..., 2] > LEAST_CONF)
    usable &= keypoints[..., 2] <= LARGEST_CONF
    usable &= (keypoints[..., :2].abs() < FARTHEST_PX).all(dim=-1)
    return torch.where(usable[..., None], keypoints, 0)


def keypoint_squares(keypoints: Tensor, least_conf: float = LEAST_CONF) -> tuple[Tensor, Tensor]:
    """Compute squares around people from their keypoints.

    Args:
        keypoints: (..., K, 3) pixels and confidence, in any joint set.
        least_conf: Keypoints count above this confidence.

    Returns:
        Centres (..., 2) and sides (...) in pixels, 1.2 times as large as the tightest square. If no
        keypoint is seen, the centre is (0.5, 0.5). A side is at least 1.2.

    Raises:
        TypeError: If ``keypoints`` is not a tensor.
        ValueError: As for :func:`check_keypoints`.
    """
    check_keypoints(keypoints)
    used = keypoints[..., 2:] > least_conf
    low = torch.where(used, keypoints[..., :2], torch.inf).amin(dim=-2)
    high = torch.where(used, keypoints[..., :2], -torch.inf).amax(dim=-2)
    empty = ~used.any(dim=-2)
    low, high = torch.where(empty, 0.0, low), torch.where(empty, 1.0, high)
    return (low + high) / 2, ENLARGE * (high - low).amax(dim=-1).clamp(min=1.0)


def keypoint_context(keypoints: Tensor) -> Tensor:
    """Convert 2D keypoints to a context vector, relative to the square around them.

    A keypoint with a confidence above 0.1 becomes (x, y, 1), with x to the right and y down, from
    -1 to 1 across the square of :func:`keypoint_squares`. Any other keypoint becomes (0, 0, 0). The
    context therefore depends neither on the resolution of the image nor on the position of the
    person in it.

    Args:
        keypoints: (..., K, 3) pixels, y down, and confidence, as from a detector.

    Returns:
        (..., 3 K).

    Raises:
        TypeError: If ``keypoints`` is not a tensor.
        ValueError: If it has a wrong shape, normalised coordinates, or confidences that are not
            probabilities; see :func:`unit_fault`.
    """
    centre, side = keypoint_squares(keypoints)
    seen = keypoints[..., 2:] > LEAST_CONF
    place = (keypoints[..., :2] - centre[..., None, :]) / (side[..., None, None] / 2)
    flag = seen.to(keypoints.dtype)
    return torch.cat([torch.where(seen, place, 0.0), flag], dim=-1).flatten(start_dim=-2)


def example_keypoints() -> Tensor:
    """COCO's 17 keypoints of one person, for examples.

    A synthetic person faces the camera with the left arm stretched to the side, in an image of
    340 x 480 pixels.

    Returns:
        (17, 3) float32, x and y in pixels, and confidence 1; in the order of
        :data:`flowprior.skeleton.COCO_17`.
    """
    keypoints = torch.tensor(_EXAMPLE, dtype=torch.float32)
    return torch.cat([keypoints, torch.ones(len(keypoints), 1)], dim=-1)


_EXAMPLE = (
    *((164, 49), (167, 41), (154, 40), (160, 48), (129, 45)),  # nose, eyes, ears; left before right
    *((179, 98), (95, 98), (245, 131), (40, 152), (302, 118), (44, 191)),  # arms
    *((166, 241), (111, 241), (180, 346), (131, 282), (178, 440), (153, 345)),  # legs
)
