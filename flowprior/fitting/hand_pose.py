"""Pose variables of the fingers: those of a prior over one hand, for the right or the left."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from flowprior import rotations
from flowprior.fitting.pose_variables import DensityPose, LatentPose, latent_or_density, pretrained
from flowprior.prior.blocks import BlockPosterior, BlockPrior
from flowprior.prior.blocks.checks import reads_body
from flowprior.prior.blocks.layout import Block
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.skeleton.whole_body_sets import HAND_JOINTS

__all__ = ["DEFAULT_HANDS", "HandPose", "HandPrior", "HandsPrior", "both_hands", "hand_poses"]

DEFAULT_HANDS = "flowprior/hands-procedural"
"""Name of the prior of fingers of a fit if none is given; it ships with the library."""

HandPrior: TypeAlias = PosePrior | PosePosterior | str
"""A prior over one hand: over 15 joint rotations in MANO's order."""

HandsPrior: TypeAlias = HandPrior | tuple[HandPrior, HandPrior] | BlockPrior | BlockPosterior
"""Priors of fingers that :func:`fit_keypoints` accepts."""


@dataclass(frozen=True)
class HandPose:
    """The fingers of one hand of P people as variables of a prior.

    Args:
        fingers: The variables of a prior over 15 joints.
        mirrored: Whether the prior is one over the other hand: rotation vectors (x, y, z) become
            (x, -y, -z).
    """

    fingers: LatentPose | DensityPose
    mirrored: bool = False

    @property
    def size(self) -> int:
        """Number of variables per person."""
        return self.fingers.size

    def start(self, people: int) -> Tensor:
        """The most likely hand (P, size)."""
        return self.fingers.start(people)

    def select(self, rows: Tensor) -> "HandPose":
        """The variables of the people ``rows`` (n,), which may repeat."""
        fingers = self.fingers
        shared = not fingers.posterior.batch_shape
        return self if shared else HandPose(fingers.select(rows), self.mirrored)

    def theta(self, x: Tensor) -> Tensor:
        """Convert x (P, size) to rotations (P, 15, 6) in layout "columns"."""
        return self.seen(self.fingers.theta(x))

    def penalty(self, x: Tensor) -> Tensor:
        """-2 log p (P,), relative to its value at the start."""
        return self.fingers.penalty(x)

    def sample(
        self, rows: Tensor, num_samples: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Hands (n, S, 15, 6) of the prior alone, S of each of the people ``rows`` (n,)."""
        posterior, space = self.fingers.posterior, self.fingers.space
        if posterior.batch_shape:
            posterior = posterior[rows]
        posterior = posterior.expand(rows.shape)
        pose = posterior.sample(num_samples, generator=generator)
        return self.seen(rotations.matrix_to_rot6d(space.to_matrix(pose)))

    def seen(self, pose: Tensor) -> Tensor:
        """Rotations (..., 15, 6) of the prior as those of this hand, or back."""
        if not self.mirrored:
            return pose
        return pose * pose.new_tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])


def hand_poses(prior: HandsPrior, people: int, like: Tensor) -> tuple[HandPose, HandPose]:
    """The variables of the left and the right hand.

    Args:
        prior: A prior over right hands, whose mirror image serves the left ones, a pair of one
            over left and one over right hands, or blocks with both hands. Priors with evidence are
            used without any; one with a context must be given as a posterior, ``prior(context)``.
        people: Number P of people.
        like: A tensor of the dtype and on the device of the variables.

    Raises:
        TypeError: It is no prior.
        FileNotFoundError: No pretrained prior has that name.
        ValueError: A prior is over other joints than the 15 of a hand, needs a context, or has
            another number of contexts or another dtype or device; or a hand of the blocks is
            missing or depends on the body.
    """
    if isinstance(prior, BlockPrior | BlockPosterior):
        blocks = prior if isinstance(prior, BlockPrior) else prior.prior
        one, other = _block(prior, "left_hand"), _block(prior, "right_hand")
        first = _fingers(one, people, like)
        second = first if one is other else _fingers(other, people, like)
        return (
            HandPose(first, mirrored="left_hand" in blocks.mirrored),
            HandPose(second, mirrored="right_hand" in blocks.mirrored),
        )
    if isinstance(prior, tuple):
        if len(prior) != 2:
            raise ValueError(f"expected a pair of priors, left and right, got {len(prior)}")
        left, right = (_fingers(each, people, like) for each in prior)
        return HandPose(left), HandPose(right)
    fingers = _fingers(prior, people, like)
    return HandPose(fingers, mirrored=True), HandPose(fingers)


def _block(prior: BlockPrior | BlockPosterior, name: Block) -> HandPrior:
    """The prior or posterior of one hand of blocks."""
    hand = (prior if isinstance(prior, BlockPrior) else prior.prior).prior_of(name)
    if hand is None:
        raise ValueError(f"the prior has no {name}: pass hands_prior")
    if reads_body(hand):
        raise ValueError(f"{name} depends on the body, but hands of fits do not: pass hands_prior")
    if isinstance(prior, BlockPrior):
        return hand
    posterior = prior.hands[name]
    assert isinstance(posterior, PosePosterior)
    return posterior


def both_hands(left: HandPose, x: Tensor, right: HandPose, y: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations (P, 15, 6) of the left hand at x (P, size) and of the right one at y.

    A prior that both share is evaluated once.
    """
    shared = left.fingers is right.fingers and not left.fingers.posterior.batch_shape
    if not shared:
        return left.theta(x), right.theta(y)
    theta = left.fingers.theta(torch.cat([x, y]))
    return left.seen(theta[: len(x)]), right.seen(theta[len(x) :])


def _fingers(prior: HandPrior, people: int, like: Tensor) -> LatentPose | DensityPose:
    if isinstance(prior, str):
        prior = pretrained(prior, like.device, like.dtype)
    if not isinstance(prior, PosePrior | PosePosterior):
        raise TypeError(
            "expected a prior over hands: a ConditionalPosePrior, a PosePosterior, the name of a "
            f"pretrained one, a pair of these or a BlockPrior, got {type(prior).__name__}"
        )
    if isinstance(prior, ConditionalPosePrior):
        prior = prior.freeze()
    posterior = _posterior(prior) if isinstance(prior, PosePrior) else prior
    space = posterior.prior.space
    if space.joints != HAND_JOINTS:
        raise ValueError(
            f"hands_prior must be over the {HAND_JOINTS} joint rotations of a hand, got one over "
            f"{space.joints} joints"
        )
    if tuple(posterior.batch_shape) not in ((), (people,)):
        raise ValueError(
            f"expected a posterior of hands with one context for each of {people} people, or "
            f"without batch, got batch shape {tuple(posterior.batch_shape)}"
        )
    flow = posterior.prior.flow
    if (flow.dtype, flow.device) != (like.dtype, like.device):
        raise ValueError(
            f"hands_prior has {flow.dtype} on {flow.device}, the prior of the body {like.dtype} on "
            f"{like.device}"
        )
    return latent_or_density(posterior)


def _posterior(prior: PosePrior) -> PosePosterior:
    with torch.no_grad():
        if prior.evidence is not None:
            return prior.given()
        if prior.context_features:
            raise ValueError(
                f"hands_prior needs a context of {prior.context_features} numbers: pass "
                "hands_prior(context) instead"
            )
        return prior(None)
