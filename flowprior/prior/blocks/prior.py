"""BlockPrior: a body and its hands, p(body | c) p(left hand | body, c) p(right hand | body, c)."""

import copy
import os
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from flowprior.files.model_file import CheckpointError
from flowprior.prior.blocks.annotation import REPEATS, repeated_poses
from flowprior.prior.blocks.checks import (
    annotation_flags,
    facts,
    layout_of,
    own_context,
    reads_body,
    require_body,
    require_hand,
    require_trainable,
)
from flowprior.prior.blocks.folder import MIRRORED, read_blocks, write_blocks
from flowprior.prior.blocks.layout import (
    BLOCKS,
    BODY_JOINTS,
    HANDS,
    Block,
    PoseLayout,
)
from flowprior.prior.blocks.posterior import BlockPosterior
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.posterior import PosePosterior, PosePrior

__all__ = ["BlockPrior"]


class BlockPrior(nn.Module):
    """The density p(body | c) p(left hand | body, c) p(right hand | body, c) over whole poses.

    Each block is a prior of its own, of any size, trained on its own data: a person without
    annotated hands trains the body alone. A pose theta has SMPL-H's joints: the body, 15 of the
    left and 15 of the right hand, so 52, or 51 if the body has no root. SMPL's joints 22 and 23,
    which SMPL-H does not have, must be at rest in the body's prior.

    A block can be missing: it stays at rest, outside the density. Hands without a body are two
    hands beside a body at rest, or beside a known one, see :meth:`ConditionedBlocks.with_known`.

    What a hand depends on follows from its prior:

    * with ``evidence``, such as ``flowprior/hands-procedural``: on evidence about the hand alone;
    * with ``context_features=C + 12``: on a context (C,) and on the rotations of elbow and wrist on
      its side, 6D vectors in layout "columns", which stand after the context; with C = 0 on these
      alone;
    * with ``context_features=0``: on nothing.

    Args:
        body: Prior over the rotations of the body, with 24 joints (the last two at rest) or 22, or
            with 23 or 21 without the root; None if it is missing.
        left_hand: Prior over the 15 rotations of the left hand in MANO's order; ``"mirrored"`` for
            the mirror image of the right hand's prior; None if it is missing.
        right_hand: The same for the right hand.

    Attributes:
        joints: Number J of joints of a pose.
        parts: Joints of each block.
        latent_parts: Entries of each block in the latents of :meth:`BlockPosterior.encode`; blocks
            that are missing have none.
        mirrored: The mirrored hand.
        space: The space of whole poses.

    Raises:
        TypeError: If a block is not a prior.
        ValueError: If a prior has other joints, is not over rotations, has another layout than the
            other blocks or holds joints of the hand at rest, or if both hands are mirrored or all
            blocks missing.
    """

    __call__: Callable[..., BlockPosterior]

    def __init__(
        self,
        body: PosePrior | None = None,
        left_hand: PosePrior | str | None = None,
        right_hand: PosePrior | str | None = None,
    ) -> None:
        super().__init__()
        hands = {"left_hand": left_hand, "right_hand": right_hand}
        count = BODY_JOINTS if body is None else require_body(body)
        self.body = body
        self.mirrored = tuple(name for name, hand in hands.items() if isinstance(hand, str))
        for name, hand in hands.items():
            if isinstance(hand, str) and (hand != MIRRORED or len(self.mirrored) == len(hands)):
                raise ValueError(
                    f'{name} must be a prior, None, or "mirrored" if the other hand is a prior, '
                    f"got {hand!r}"
                )
            self.add_module(name, None if isinstance(hand, str) else hand)
        if self.mirrored and self.prior_of(self.mirrored[0]) is None:
            raise ValueError(f"{self.mirrored[0]} is mirrored, but there is no other hand")
        order = None if body is None else layout_of(body)
        for name in HANDS:
            own = getattr(self, name)
            if own is not None:
                require_hand(name, own, order)
                order = layout_of(own)
        if order is None:
            raise ValueError("a BlockPrior needs at least one block, but all are missing")
        resting = 0 if body is None else len(body.rest_joints)
        self.layout = PoseLayout(count, resting, order, self.mirrored)
        self.joints, self.space = self.layout.joints, self.layout.space
        self.parts = self.layout.parts
        self.latent_parts: Mapping[Block, slice] = self._latent_parts()

    def extra_repr(self) -> str:
        """The arguments that ``repr`` shows."""
        return f"joints={self.joints}, mirrored={self.mirrored}"

    @property
    def has_exact_mode(self) -> bool:
        """Whether the mode needs no search and is that of the whole density.

        The second is certain where no hand depends on the body; see :meth:`BlockPosterior.mode`.
        """
        found = [prior for name in BLOCKS if (prior := self.prior_of(name)) is not None]
        return all(prior.has_exact_mode for prior in found) and not any(
            reads_body(prior) for prior in found if prior is not self.body
        )

    def prior_of(self, name: str) -> PosePrior | None:
        """The prior of a block, for a mirrored hand that of the other hand; None if missing."""
        other = "left_hand" if name == "right_hand" else "right_hand"
        return cast("PosePrior | None", getattr(self, other if name in self.mirrored else name))

    def forward(
        self,
        context: Tensor | None = None,
        *,
        left_hand: Tensor | None = None,
        right_hand: Tensor | None = None,
    ) -> BlockPosterior:
        """Condition the blocks on contexts.

        Args:
            context: (*batch, C) of the body; None for an unconditional one.
            left_hand: (*batch, C') context of the left hand, such as features of its crop; the
                body's context if None. A hand with evidence has none: it is the marginal, see
                :meth:`given`. A mirrored hand takes the context of the mirrored crop.
            right_hand: The same for the right hand.

        Returns:
            The posterior, whose batch is that of the context.

        Raises:
            ValueError: As :meth:`flowprior.prior.PosePrior.forward`, or if a context is for a hand
                that takes none.
        """
        contexts = {"left_hand": left_hand, "right_hand": right_hand}
        hands: dict[Block, PosePosterior | Tensor | None] = {}
        for name in HANDS:
            hand, own = self.prior_of(name), contexts[name]
            takes = hand is not None and hand.evidence is None and hand.context_features > 0
            if own is not None and not takes:
                raise ValueError(f"{name} takes no context: {facts(hand)}")
            if hand is None:
                continue
            chosen = context if own is None else own
            if reads_body(hand):
                hands[name] = own_context(name, hand, chosen)
            elif hand.evidence is not None:
                hands[name] = hand.given()
            else:
                hands[name] = hand(chosen if takes else None)
        return BlockPosterior(self, None if self.body is None else self.body(context), hands)

    def given(
        self,
        *,
        keypoints_2d: Tensor | None = None,
        joints_3d: Tensor | None = None,
        rotations: Tensor | None = None,
        known: Tensor | None = None,
        left_hand_joints_3d: Tensor | None = None,
        right_hand_joints_3d: Tensor | None = None,
    ) -> BlockPosterior:
        """Condition blocks that take evidence on whatever is known; with nothing, the marginal.

        Args:
            keypoints_2d: Of the body, as for :meth:`flowprior.prior.PosePrior.given`.
            joints_3d: Of the body, (*batch, 24, 3).
            rotations: (*batch, J, k) of the whole pose, in any accepted form. Single joints can be
                known in blocks whose prior takes rotations as evidence; for a block that is known
                as a whole, :meth:`ConditionedBlocks.with_known` works with every prior.
            known: (*batch, J) bool, the joints whose rotations are known; if None, those without
                NaN.
            left_hand_joints_3d: (*batch, 21, 3) of the left hand in the order of
                :data:`flowprior.skeleton.MANO_21`: metres from the wrist, in the axes of the
                wrist's rotation, NaN where unknown.
            right_hand_joints_3d: The same for the right hand.

        Returns:
            The posterior; batches broadcast.

        Raises:
            TypeError: If an argument is not a tensor.
            ValueError: If a block does not take this evidence, or a shape or unit does not fit.
        """
        points = {"left_hand": left_hand_joints_3d, "right_hand": right_hand_joints_3d}
        told = self.layout.evidence(rotations, known, points)
        for place, value in (("keypoints_2d", keypoints_2d), ("joints_3d", joints_3d)):
            if value is not None:
                told["body"][place] = value
        body = self._body_given(told["body"])
        hands: dict[Block, PosePosterior | Tensor | None] = {}
        for name in HANDS:
            hand = self.prior_of(name)
            if told[name] and (hand is None or hand.evidence is None):
                raise ValueError(
                    f"{name} takes no evidence: {facts(hand)}; posterior.with_known keeps a whole "
                    "hand"
                )
            if hand is None:
                continue
            if reads_body(hand):
                hands[name] = own_context(name, hand, None)
            else:
                hands[name] = hand.given(**told[name]) if hand.evidence is not None else hand(None)
        return BlockPosterior(self, body, hands)

    def _body_given(self, told: dict[str, Tensor]) -> PosePosterior | None:
        if self.body is None:
            if told:
                raise ValueError(
                    f"the body is missing, so it takes no {', '.join(told)}: posterior.with_known "
                    "keeps a whole body"
                )
            return None
        if self.body.evidence is None and not self.body.context_features and not told:
            return self.body(None)
        return self.body.given(**told)  # raises for evidence that the body does not take

    def sample(
        self,
        context: Tensor | None,
        num_samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples (*batch, n, J, 6); see :meth:`BlockPosterior.sample`."""
        return self(context).sample(num_samples, generator=generator)

    def log_prob(self, theta: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density (*batch, *extra) in nats; see :meth:`BlockPosterior.log_prob`."""
        return self(context).log_prob(theta)

    def mode(self, context: Tensor | None = None) -> Tensor:
        """Theta (*batch, J, 6); see :meth:`BlockPosterior.mode`."""
        return self(context).mode()

    def nll(
        self,
        theta: Tensor,
        context: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        left_hand: Tensor | None = None,
        right_hand: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Sum of the blocks' mean negative log-likelihoods, each over the people annotated with it.

        Hands are conditioned on the true body. A block with evidence takes the evidence's context,
        ``prior.left_hand.evidence.context(...)``; without one, a hand's marginal is trained.

        Args:
            theta: (*batch, J, k), in any accepted form. Blocks without annotation may hold any
                values.
            context: (*batch, C), as for :meth:`forward`.
            valid: (*batch,) of bool for all blocks, or (*batch, 3) for each of :data:`BLOCKS`:
                whether a person is annotated with it. A hand that depends on the body counts where
                the body is annotated too. None if all are.
            left_hand: (*batch, C') context of the left hand; the body's if None.
            right_hand: The same for the right hand.
            generator: Source of the noise in training.

        Returns:
            Scalar () in nats; zero, with zero gradients, for blocks without an annotated person.

        Raises:
            TypeError: If a block is frozen and so has no ``nll``.
            ValueError: As :meth:`flowprior.ConditionalPosePrior.nll`.
        """
        theta = self.space.as_pose(theta)
        batch = theta.shape[:-2]
        flags = annotation_flags(valid, theta)
        contexts = {"left_hand": left_hand, "right_hand": right_hand}
        body = theta[..., self.parts["body"], :]
        losses = []
        if self.body is not None:
            pose = self.layout.to_block("body", body)
            trained = require_trainable("body", self.body)
            losses.append(trained.nll(pose, context, flags["body"], generator=generator))
        for name in HANDS:
            hand = self.prior_of(name)
            if hand is None:
                continue
            own = context if contexts[name] is None else contexts[name]
            rows = flags[name]
            if reads_body(hand):
                rows = rows & flags["body"]
                rest = self.layout.rest[self.parts["body"]].to(body)
                seen = torch.where(flags["body"][..., None, None], body, rest)
                own = own_context(name, hand, own)
                own = self.layout.hand_context(name, own, seen, batch)
            elif hand.evidence is not None:
                own = contexts[name]
                own = hand.evidence.context().to(theta).expand(*batch, -1) if own is None else own
            elif not hand.context_features:
                own = None
            pose = self.layout.to_block(name, theta[..., self.parts[name], :])
            trained = require_trainable(name, hand)
            losses.append(trained.nll(pose, own, rows, generator=generator))
        return torch.stack(losses).sum()

    def annotated(self, theta: Tensor, *, repeats: int = REPEATS) -> Tensor:
        """Find the blocks that people of a data set are annotated with: ``valid`` of :meth:`nll`.

        A hand counts as missing if it is NaN, or one of the constant hands that motion capture
        without gloves contains; a body if it is NaN.

        Args:
            theta: (N, J, k), all poses of a data set, in any accepted form.
            repeats: Number of people with exactly the same hand from which on it is no capture; see
                :func:`flowprior.prior.blocks.annotation.repeated_poses`.

        Returns:
            (N, 3) bool, one flag for each of :data:`BLOCKS`.

        Raises:
            ValueError: If theta has another shape.
        """
        theta = self.space.as_pose(theta)
        if theta.ndim != 3:
            raise ValueError(f"theta must be (N, J, k), one pose per person, got {theta.ndim} axes")
        missing = [theta[:, self.parts["body"]].isnan().flatten(1).any(dim=1)]
        missing += [repeated_poses(theta[:, self.parts[name]], repeats) for name in HANDS]
        return ~torch.stack(missing, dim=1)

    def freeze(self, conditioner_dtype: torch.dtype | str | None = None) -> "BlockPrior":
        """Copy for inference; see :meth:`flowprior.ConditionalPosePrior.freeze`."""

        def frozen(prior: PosePrior | None) -> PosePrior | None:
            if isinstance(prior, ConditionalPosePrior):
                return prior.freeze(conditioner_dtype)
            return copy.deepcopy(prior)

        hands = (MIRRORED if n in self.mirrored else frozen(self.prior_of(n)) for n in HANDS)
        return BlockPrior(frozen(self.body), *hands)

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write one model file for each block, and ``blocks.json``, to a folder.

        ``body.safetensors`` and so on are files of :meth:`flowprior.ConditionalPosePrior.save`. All
        are written before the first of them replaces an older one.

        Args:
            save_directory: The folder, created if it does not exist.

        Raises:
            OSError: If a file cannot be written.
            TypeError: If a block is frozen.
        """
        write_blocks(
            save_directory,
            {name: MIRRORED if name in self.mirrored else getattr(self, name) for name in BLOCKS},
        )

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, device: torch.device | str = "cpu"
    ) -> "BlockPrior":
        """Read a folder of :meth:`save_pretrained`, in evaluation mode.

        Args:
            folder: The folder.
            device: Device of the weights.

        Returns:
            The prior.

        Raises:
            FileNotFoundError: If the folder or one of its files does not exist.
            CheckpointError: If a file is damaged or is not of such a prior.
        """
        blocks = read_blocks(folder, device)
        try:
            return cls(**cast("dict[str, PosePrior]", blocks)).eval()
        except ValueError as error:
            raise CheckpointError(f"{folder} is no prior of blocks: {error}") from error

    def _latent_parts(self) -> dict[Block, slice]:
        found: dict[Block, slice] = {}
        start = 0
        for name in BLOCKS:
            prior = self.prior_of(name)
            if prior is not None:
                found[name] = slice(start, start + prior.flow.features)
                start += prior.flow.features
        return found
