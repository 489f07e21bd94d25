"""2D keypoints as the context of a prior."""

import torch
from torch import Tensor

from flowprior.flow.checks import require_tensor

__all__ = ["ENLARGE", "LEAST_CONF", "example_keypoints", "keypoint_context", "keypoint_squares"]

LEAST_CONF = 0.1
"""A keypoint counts as seen above this confidence."""

ENLARGE = 1.2
"""Side of the square around a person, in sides of the tightest one around the keypoints seen."""


def keypoint_squares(keypoints: Tensor, least_conf: float = LEAST_CONF) -> tuple[Tensor, Tensor]:
    """Squares around people, from their keypoints.

    Args:
        keypoints: (..., K, 3) pixels and confidence, of any set of keypoints.
        least_conf: Keypoints count above this confidence; all with any where fewer than two do.

    Returns:
        Centres (..., 2) and sides (...), in pixels, 1.2 times as large as the tightest square; the
        centre is (0.5, 0.5) where nothing is seen, and no side is below 1.2.

    Raises:
        TypeError: If ``keypoints`` is no tensor.
        ValueError: If it has another shape.
    """
    _check(keypoints)
    conf = keypoints[..., 2]
    sure = conf > least_conf
    used = torch.where((sure.sum(dim=-1) >= 2)[..., None], sure, conf > 0)[..., None]
    low = torch.where(used, keypoints[..., :2], torch.inf).amin(dim=-2)
    high = torch.where(used, keypoints[..., :2], -torch.inf).amax(dim=-2)
    empty = ~used.any(dim=-2)
    low, high = torch.where(empty, 0.0, low), torch.where(empty, 1.0, high)
    return (low + high) / 2, ENLARGE * (high - low).amax(dim=-1).clamp(min=1.0)


def keypoint_context(keypoints: Tensor) -> Tensor:
    """2D keypoints as a context vector, seen from the square around them.

    A keypoint that is seen, of a confidence above 0.1, becomes (x, y, 1) with x to the right and y
    down, from -1 to 1 across the square of :func:`keypoint_squares`. One that is not becomes
    (0, 0, 0), whatever its pixels are. So the context depends on neither the resolution of the
    image nor the place of the person in it.

    Args:
        keypoints: (..., K, 3) pixels, y down, and confidence, such as a detector reports.

    Returns:
        (..., 3 K).

    Raises:
        TypeError: If ``keypoints`` is no tensor.
        ValueError: If it has another shape.
    """
    centre, side = keypoint_squares(keypoints)
    seen = keypoints[..., 2:] > LEAST_CONF
    place = (keypoints[..., :2] - centre[..., None, :]) / (side[..., None, None] / 2)
    flag = seen.to(keypoints.dtype)
    return torch.cat([torch.where(seen, place, 0.0), flag], dim=-1).flatten(start_dim=-2)


def example_keypoints() -> Tensor:
    """COCO's 17 keypoints of one person, to try a prior with.

    Somebody made up, who faces the camera, the left arm stretched out to the side, in an image of
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


def _check(keypoints: Tensor) -> None:
    require_tensor("keypoints", keypoints)
    if keypoints.ndim < 2 or keypoints.shape[-1] != 3 or not keypoints.is_floating_point():
        raise ValueError(
            "expected keypoints (..., K, 3) of floating point, x, y and confidence, got "
            f"{tuple(keypoints.shape)} of {keypoints.dtype}"
        )
