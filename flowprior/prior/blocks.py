"""BlockPrior: a body and its hands, p(body | c) p(left hand | body, c) p(right hand | body, c)."""

import contextlib
import copy
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from flowprior import rotations as rotation_maps
from flowprior._checks import require_tensor
from flowprior.files import model_file
from flowprior.files.limits import MAX_CONFIG_BYTES, read_json
from flowprior.files.model_file import CheckpointError
from flowprior.files.whole_file import whole_file
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.evidence import Evidence
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.prior.spaces import Rot6dSpace, RotationSpace
from flowprior.skeleton import SMPL_24
from flowprior.skeleton.whole_body_sets import HAND_JOINTS

__all__ = ["BLOCKS", "BlockPosterior", "BlockPrior"]

Block: TypeAlias = Literal["body", "left_hand", "right_hand"]

BLOCKS: tuple[Block, ...] = ("body", "left_hand", "right_hand")
"""The blocks of a pose, in the order of its joints."""

HANDS: tuple[Block, ...] = BLOCKS[1:]
SHARED_JOINTS = 22  # of SMPL with SMPL-H; SMPL's last two joints are the hands
ARM_FEATURES = 12
MIRRORED = "mirrored"
MANIFEST = "blocks.json"
LARGEST_BODY = {24: (22, 23), 23: (21, 22)}


class BlockPrior(nn.Module):
    """The density p(body | c) p(left hand | body, c) p(right hand | body, c) over whole poses.

    Each block is a prior of its own, of any size, trained on its own data: a person without
    annotated hands trains the body alone. A pose theta has SMPL-H's joints: the body, 15 of the
    left and 15 of the right hand, so 52, or 51 if the body has no root. SMPL's joints 22 and 23,
    which SMPL-H does not have, must be at rest in the body's prior.

    What a hand depends on follows from its prior:

    * with ``evidence``, such as ``flowprior/hands-procedural``: on evidence about the hand alone;
    * with ``context_features=C + 12``: on a context (C,) and on the rotations of elbow and wrist on
      its side, 6D vectors in layout "columns", which stand after the context; with C = 0 on these
      alone;
    * with ``context_features=0``: on nothing.

    Args:
        body: Prior over the rotations of the body, with 24 joints (the last two at rest) or 22, or
            with 23 or 21 without the root.
        left_hand: Prior over the 15 rotations of the left hand in MANO's order; ``"mirrored"`` for
            the mirror image of the right hand's prior; None if the hand is missing: it stays at
            rest, outside the density.
        right_hand: The same for the right hand.

    Raises:
        TypeError: If a block is not a prior.
        ValueError: If a prior has other joints, is not over rotations, has another layout than the
            body or holds joints of the hand at rest, or both hands are mirrored.
    """

    def __init__(
        self,
        body: PosePrior,
        left_hand: PosePrior | str | None = None,
        right_hand: PosePrior | str | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        hands = {"left_hand": left_hand, "right_hand": right_hand}
        self.mirrored = tuple(name for name, hand in hands.items() if isinstance(hand, str))
        for name, hand in hands.items():
            if isinstance(hand, str) and (hand != MIRRORED or len(self.mirrored) == len(hands)):
                raise ValueError(
                    f'{name} must be a prior, None, or "mirrored" if the other hand is a prior, '
                    f"got {hand!r}"
                )
            self.add_module(name, None if isinstance(hand, str) else hand)
        if self.mirrored and self._hand(self.mirrored[0]) is None:
            raise ValueError(f"{self.mirrored[0]} is mirrored, but there is no other hand")
        count = _require_body(body)
        for name in HANDS:
            own = getattr(self, name)
            if own is not None:
                _require_hand(name, own, body)
        self.joints = count + 2 * HAND_JOINTS
        self.parts: Mapping[Block, slice] = {
            "body": slice(0, count),
            "left_hand": slice(count, count + HAND_JOINTS),
            "right_hand": slice(count + HAND_JOINTS, self.joints),
        }
        self.space = Rot6dSpace(self.joints, cast("RotationSpace", body.space).layout)
        self._whole = Evidence(("rotations",), self.space)

    def extra_repr(self) -> str:
        """The arguments that ``repr`` shows."""
        return f"joints={self.joints}, mirrored={self.mirrored}"

    @property
    def has_exact_mode(self) -> bool:
        """Whether the mode needs no search and is that of the whole density.

        The second is certain where no hand depends on the body; see :meth:`BlockPosterior.mode`.
        """
        hands = [hand for name in HANDS if (hand := self._hand(name)) is not None]
        return all(each.has_exact_mode for each in (self.body, *hands)) and not any(
            map(_reads_body, hands)
        )

    def forward(
        self,
        context: Tensor | None = None,
        *,
        left_hand: Tensor | None = None,
        right_hand: Tensor | None = None,
    ) -> "BlockPosterior":
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
            hand, own = self._hand(name), contexts[name]
            takes = hand is not None and hand.evidence is None and hand.context_features > 0
            if own is not None and not takes:
                raise ValueError(f"{name} takes no context: {_facts(hand)}")
            if hand is None:
                continue
            chosen = context if own is None else own
            if _reads_body(hand):
                hands[name] = self._own_context(name, hand, chosen)
            elif hand.evidence is not None:
                hands[name] = hand.given()
            else:
                hands[name] = hand(chosen if takes else None)
        return BlockPosterior(self, self.body(context), hands)

    def given(
        self,
        *,
        keypoints_2d: Tensor | None = None,
        joints_3d: Tensor | None = None,
        rotations: Tensor | None = None,
        known: Tensor | None = None,
        left_hand_joints_3d: Tensor | None = None,
        right_hand_joints_3d: Tensor | None = None,
    ) -> "BlockPosterior":
        """Condition blocks that take evidence on whatever is known; with nothing, the marginal.

        Args:
            keypoints_2d: Of the body, as for :meth:`flowprior.prior.PosePrior.given`.
            joints_3d: Of the body, (*batch, 24, 3).
            rotations: (*batch, J, k) of the whole pose, in any accepted form. Single joints can be
                known in blocks whose prior takes rotations as evidence; for a block that is known
                as a whole, :meth:`BlockPosterior.with_known` works with every prior.
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
        if known is not None and rotations is None:
            raise ValueError("known says which rotations are known, but rotations is missing")
        turned: dict[Block, dict[str, Tensor]] = {name: {} for name in BLOCKS}
        if rotations is not None:
            pose, flags = self._whole.known_rotations(rotations, known)
            for name, part in self.parts.items():
                if bool(flags[..., part].any()):
                    turned[name] = {"rotations": pose[..., part, :], "known": flags[..., part]}
        body = turned["body"]
        if body:
            body = {"rotations": self._to_body(body["rotations"]), "known": body["known"]}
            rest = len(self.body.rest_joints)
            body["known"] = nn.functional.pad(body["known"], (0, rest))
        told_of_body = bool(body) or keypoints_2d is not None or joints_3d is not None
        if self.body.evidence is None and not self.body.context_features and not told_of_body:
            posterior = self.body(None)
        else:  # raises for evidence that the body does not take
            posterior = self.body.given(keypoints_2d=keypoints_2d, joints_3d=joints_3d, **body)
        places = {"left_hand": left_hand_joints_3d, "right_hand": right_hand_joints_3d}
        hands: dict[Block, PosePosterior | Tensor | None] = {}
        for name in HANDS:
            hand, points = self._hand(name), places[name]
            told = dict(turned[name])
            if told:
                told["rotations"] = self._seen_by(name, told["rotations"])
            if points is not None:
                require_tensor(f"{name}_joints_3d", points)
                sign = points.new_tensor([-1.0, 1.0, 1.0])
                told["joints_3d"] = points * sign if name in self.mirrored else points
            if told and (hand is None or hand.evidence is None):
                raise ValueError(
                    f"{name} takes no evidence: {_facts(hand)}; posterior.with_known keeps a whole "
                    "hand"
                )
            if hand is None:
                continue
            if _reads_body(hand):
                hands[name] = self._own_context(name, hand, None)
            else:
                hands[name] = hand.given(**told) if hand.evidence is not None else hand(None)
        return BlockPosterior(self, posterior, hands)

    def sample(
        self,
        context: Tensor | None,
        num_samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples (*batch, n, J, 6); see :meth:`BlockPosterior.sample`."""
        return cast("BlockPosterior", self(context)).sample(num_samples, generator=generator)

    def log_prob(self, theta: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density (*batch, *extra) in nats; see :meth:`BlockPosterior.log_prob`."""
        return cast("BlockPosterior", self(context)).log_prob(theta)

    def mode(self, context: Tensor | None = None) -> Tensor:
        """Theta (*batch, J, 6); see :meth:`BlockPosterior.mode`."""
        return cast("BlockPosterior", self(context)).mode()

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
            Scalar () in nats; zero, with zero gradients, for blocks that nobody is annotated with.

        Raises:
            TypeError: If a block is frozen and so has no ``nll``.
            ValueError: As :meth:`flowprior.ConditionalPosePrior.nll`.
        """
        theta = self.space.as_pose(theta)
        batch = theta.shape[:-2]
        flags = self._annotated(valid, theta)
        contexts = {"left_hand": left_hand, "right_hand": right_hand}
        body = theta[..., self.parts["body"], :]
        loss = _trainable("body", self.body).nll(
            self._to_body(body), context, flags["body"], generator=generator
        )
        for name in HANDS:
            hand = self._hand(name)
            if hand is None:
                continue
            own = context if contexts[name] is None else contexts[name]
            rows = flags[name]
            if _reads_body(hand):
                rows = rows & flags["body"]
                seen = torch.where(flags["body"][..., None, None], body, self._rest(body))
                own = self._hand_context(name, self._own_context(name, hand, own), seen, batch)
            elif hand.evidence is not None:
                own = contexts[name]
                own = hand.evidence.context().to(theta).expand(*batch, -1) if own is None else own
            elif not hand.context_features:
                own = None
            pose = self._seen_by(name, theta[..., self.parts[name], :])
            loss = loss + _trainable(name, hand).nll(pose, own, rows, generator=generator)
        return loss

    def freeze(self, conditioner_dtype: torch.dtype | str | None = None) -> "BlockPrior":
        """Copy for inference; see :meth:`flowprior.ConditionalPosePrior.freeze`."""

        def frozen(prior: PosePrior | None) -> PosePrior | None:
            if isinstance(prior, ConditionalPosePrior):
                return prior.freeze(conditioner_dtype)
            return copy.deepcopy(prior)

        hands = [MIRRORED if name in self.mirrored else frozen(self._hand(name)) for name in HANDS]
        return BlockPrior(cast(PosePrior, frozen(self.body)), *hands)

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
        folder = Path(save_directory)
        found: dict[str, str | None] = {}
        contents: dict[str, bytes] = {}
        for name in BLOCKS:
            own = getattr(self, name)
            found[name] = MIRRORED if name in self.mirrored else None
            if own is not None:
                found[name] = f"{name}.safetensors"
                contents[f"{name}.safetensors"] = model_file.serialize(
                    _trainable(name, own)._content()
                )
        manifest = {"format_version": model_file.FORMAT_VERSION, "blocks": found}
        contents = {MANIFEST: (json.dumps(manifest, indent=2) + "\n").encode(), **contents}
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            for file, content in contents.items():
                stack.enter_context(whole_file(folder / file)).write_bytes(content)

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
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} has no {MANIFEST}: a BlockPrior is a folder with one model file per "
                "block; ConditionalPosePrior reads single models"
            )
        try:
            found = dict(read_json(path, MAX_CONFIG_BYTES))
            version, named = int(found["format_version"]), dict(found["blocks"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged ({error})") from error
        model_file.require_readable(path, version)
        blocks: dict[str, PosePrior | str | None] = {}
        for name in BLOCKS:
            value = named.get(name)
            if value == f"{name}.safetensors":
                blocks[name] = ConditionalPosePrior.load(path.parent / value, device)
            elif value in (None, MIRRORED) and name != "body":
                blocks[name] = value
            else:
                raise CheckpointError(f"{path} is damaged ({name} is {value!r:.80})")
        try:
            return cls(**cast("dict[str, PosePrior]", blocks)).eval()
        except ValueError as error:
            raise CheckpointError(f"{folder} is no prior of blocks: {error}") from error

    def _hand(self, name: str) -> PosePrior | None:
        """The prior of a hand, for a mirrored one that of the other hand; None if missing."""
        other = "left_hand" if name == "right_hand" else "right_hand"
        return cast("PosePrior | None", getattr(self, other if name in self.mirrored else name))

    def _seen_by(self, name: str, pose: Tensor) -> Tensor:
        """Hands or arms (..., n, 6) as the block's prior sees them, or back: mirrored or as is."""
        if name not in self.mirrored:
            return pose
        axes = torch.tensor([-1.0, 1.0, 1.0], dtype=pose.dtype, device=pose.device)
        return pose * rotation_maps.matrix_to_rot6d(torch.outer(axes, axes), self.space.layout)

    def _to_body(self, pose: Tensor) -> Tensor:
        """The joints (..., 22 or 21, 6) as the body's prior has them, SMPL's hands at rest."""
        rest = self.body.space.rest[list(self.body.rest_joints)].to(pose)
        return torch.cat([pose, rest.expand(*pose.shape[:-2], *rest.shape)], dim=-2)

    def _rest(self, like: Tensor) -> Tensor:
        return self.space.rest[: like.shape[-2]].to(like)

    def _own_context(self, name: str, hand: PosePrior, context: Tensor | None) -> Tensor | None:
        """The context (*batch, C) that a hand reads beside the body; None if it reads no other."""
        width = hand.context_features - ARM_FEATURES
        if not width:
            return None
        if context is None or context.shape[-1:] != (width,):
            got = "none" if context is None else tuple(context.shape)
            raise ValueError(
                f"{name} needs a context (..., {width}), beside {ARM_FEATURES} numbers of elbow "
                f"and wrist that the body supplies; got {got}"
            )
        return context

    def _hand_context(
        self, name: str, context: Tensor | None, body: Tensor, batch: torch.Size
    ) -> Tensor:
        """The context (*batch, *extra, C + 12) of a hand, given bodies (*batch, *extra, n, 6)."""
        shift = SHARED_JOINTS - (self.parts["body"].stop)  # 1 without a root
        side = name.removesuffix("_hand")
        joints = [SMPL_24.index(f"{side}_{each}") - shift for each in ("elbow", "wrist")]
        arm = self._seen_by(name, body[..., joints, :])
        # A rotation has one context, whatever the length of its 6D vector.
        matrix = rotation_maps.rot6d_to_matrix(arm, self.space.layout)
        numbers = rotation_maps.matrix_to_rot6d(matrix).flatten(-2)
        if context is None:
            return numbers
        extra = numbers.ndim - 1 - len(batch)
        width = context.shape[-1]
        context = context.expand(*batch, width).reshape(*batch, *(1,) * extra, width)
        return torch.cat([context.to(numbers).expand(*numbers.shape[:-1], width), numbers], dim=-1)

    def _annotated(self, valid: Tensor | None, theta: Tensor) -> dict[Block, Tensor]:
        batch = theta.shape[:-2]
        if valid is None:
            valid = torch.ones(batch, dtype=torch.bool, device=theta.device)
        require_tensor("valid", valid)
        if valid.shape == batch:
            valid = valid[..., None].expand(*batch, len(BLOCKS))
        if valid.shape != (*batch, len(BLOCKS)):
            raise ValueError(
                f"valid must be {tuple(batch)} or {(*batch, len(BLOCKS))}, one flag for each of "
                f"{', '.join(BLOCKS)}, got {tuple(valid.shape)}"
            )
        return dict(zip(BLOCKS, valid.bool().unbind(dim=-1), strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class BlockPosterior:
    r"""The density of a whole pose for one batch, from :class:`BlockPrior`.

    Shapes are those of :class:`flowprior.PosePosterior`: theta (\*batch, \*extra, J, k) in any
    accepted form, samples (\*batch, n, J, 6).

    Args:
        prior: The prior.
        body: The posterior of the body alone, which is the marginal of the whole: use it for
            ``joint_uncertainty``, ``entropy`` and the rest.
        hands: For each hand that exists its posterior, or, if it depends on the body, the context
            (*batch, C) that it reads beside it.
        theta: (*batch, J, 6), the pose of known blocks; None if none is known.
        known: The known blocks.
    """

    prior: BlockPrior
    body: PosePosterior
    hands: Mapping[Block, PosePosterior | Tensor | None]
    theta: Tensor | None = None
    known: Sequence[Block] = ()

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch."""
        shapes = [self.body.batch_shape]
        for each in self.hands.values():
            if isinstance(each, PosePosterior):
                shapes.append(each.batch_shape)
            elif each is not None:
                shapes.append(each.shape[:-1])
        if self.theta is not None:
            shapes.append(self.theta.shape[:-2])
        return torch.broadcast_shapes(*shapes)

    @property
    def event_shape(self) -> tuple[int, int]:
        """Shape (J, 6) of one theta."""
        return self.prior.space.event_shape

    def with_known(self, theta: Tensor, blocks: Sequence[str]) -> "BlockPosterior":
        """The posterior in which whole blocks are known: kept exactly, outside the density.

        A known body is what the hands are conditioned on. A known hand says nothing about the body,
        as in a cut posterior (Plummer 2015): if its prior depends on the body, weight samples by
        ``posterior.hand(name, samples).log_prob(hand)`` for the exact conditional.

        Args:
            theta: (*batch, J, k), in any accepted form; other blocks may hold any values.
            blocks: Names of the known blocks, among :data:`BLOCKS`.

        Returns:
            The new posterior. Blocks that were known before stay known.

        Raises:
            ValueError: If a name or a shape does not fit, or a known block holds NaN or infinity.
        """
        unknown = [name for name in blocks if name not in BLOCKS]
        if unknown or isinstance(blocks, str):
            raise ValueError(f"blocks must be some of {BLOCKS}, got {blocks!r}")
        flow = self.prior.body.flow
        pose = self.prior.space.as_pose(theta).to(flow.device, flow.dtype)
        parts = self.prior.parts
        before = self.theta
        rest = self.prior.space.rest.to(pose)
        batch = torch.broadcast_shapes(pose.shape[:-2], () if before is None else before.shape[:-2])
        pieces = []
        for name in BLOCKS:
            source = pose if name in blocks else before if name in self.known else rest
            piece = cast(Tensor, source)[..., parts[name], :]
            if not bool(piece.isfinite().all()):
                raise ValueError(f"theta holds NaN or infinity in {name}, which is known")
            pieces.append(piece.expand(*batch, *piece.shape[-2:]))
        names = tuple(name for name in BLOCKS if name in blocks or name in self.known)
        return dataclasses.replace(self, theta=torch.cat(pieces, dim=-2), known=names)

    def hand(self, name: str, body: Tensor) -> PosePosterior:
        """The posterior of one hand, given bodies.

        It is the posterior that the hand's own prior has: for a mirrored hand, over mirrored poses.

        Args:
            name: ``"left_hand"`` or ``"right_hand"``.
            body: (*batch, *extra, J, k), whole poses; their hands do not matter.

        Returns:
            The posterior with batch (*batch, *extra), or with (*batch,) if the hand does not depend
            on the body.

        Raises:
            ValueError: If there is no such hand, or the pose has another shape.
        """
        block = cast(Block, name)
        if block not in self.hands:
            raise ValueError(f"there is no prior of {name!r}; hands are {', '.join(self.hands)}")
        return self._posterior_of(block, self.prior.space.as_pose(body)[..., self._body, :])

    def sample(self, num_samples: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw whole poses: a body, then hands that belong to it.

        Args:
            num_samples: Number n of samples.
            generator: Source of the noise; torch's global one if None. The bodies are those of
                ``posterior.body.sample`` with the same generator.

        Returns:
            (*batch, n, J, 6).

        Raises:
            ValueError: If ``num_samples`` is negative.
        """
        batch = self.batch_shape
        if "body" in self.known:
            body = self._known_part("body")
        else:
            drawn = self.body.expand(batch).sample(num_samples, generator=generator)
            body = drawn[..., self._body, :]
        pieces: dict[Block, Tensor] = {"body": body}
        for name in HANDS:
            if name in self.known:
                pieces[name] = self._known_part(name)
            elif name not in self.hands:
                pieces[name] = self._rest(name)
            else:
                hand = self._posterior_of(name, body)
                per_body = len(hand.batch_shape) > len(batch)
                number = 1 if per_body else num_samples
                if not per_body:
                    hand = hand.expand(batch)
                pose = hand.sample(number, generator=generator)
                pieces[name] = self.prior._seen_by(name, pose.squeeze(-3) if per_body else pose)
        return self._joined(pieces, batch, num_samples)

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log-density of the blocks that exist and are not known; exact, the sum of the blocks'.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form. Known and missing blocks do not
                matter.

        Returns:
            (*batch, *extra), in nats.

        Raises:
            ValueError: If theta does not fit the batch, or holds NaN or infinity.
        """
        pose, batch = self.prior.space.as_pose(theta), self.batch_shape
        if pose.shape[: len(batch)] != batch or pose.ndim < len(batch) + 2:
            raise ValueError(
                f"theta has leading shape {tuple(pose.shape[:-2])}, but the posterior has batch "
                f"shape {tuple(batch)}: several poses stand on axes after the batch"
            )
        body = pose[..., self._body, :]
        total = pose.new_zeros(pose.shape[:-2])
        if "body" in self.known:
            body = self._known_part("body")
        else:
            whole = self.prior._to_body(body)
            total = total + self.body.expand(batch).log_prob(whole)
        for name in self.hands:
            if name in self.known:
                continue
            hand = self._posterior_of(name, body)
            if len(hand.batch_shape) < len(batch):
                hand = hand.expand(batch)
            part = self.prior._seen_by(name, pose[..., self.prior.parts[name], :])
            total = total + hand.log_prob(part)
        return total

    def mode(self) -> Tensor:
        """The most likely body, and the most likely hands given that body.

        It is the mode of the whole if no hand depends on the body. Otherwise a less likely body may
        have hands that are so much more certain that the product is larger.

        Returns:
            (*batch, J, 6).
        """
        batch = self.batch_shape
        if "body" in self.known:
            body = self._known_part("body")
        else:
            body = self.body.mode()[..., self._body, :]
        pieces: dict[Block, Tensor] = {"body": body}
        for name in HANDS:
            if name in self.known:
                pieces[name] = self._known_part(name)
            elif name not in self.hands:
                pieces[name] = self._rest(name)
            else:
                pieces[name] = self.prior._seen_by(name, self._posterior_of(name, body).mode())
        return self._joined(pieces, batch)

    @property
    def _body(self) -> slice:
        return self.prior.parts["body"]

    def _posterior_of(self, name: Block, body: Tensor) -> PosePosterior:
        """The posterior of a hand given bodies (*batch, *extra, n, 6)."""
        source = self.hands[name]
        if isinstance(source, PosePosterior):
            return source
        batch = self.batch_shape
        if len(body.shape) - 2 < len(batch) or body.shape[: len(batch)] != batch:
            body = body.expand(*batch, *body.shape[-2:])
        hand = cast(PosePrior, self.prior._hand(name))
        context = self.prior._hand_context(name, source, body, batch)
        return hand(context.to(hand.flow.dtype))

    def _known_part(self, name: Block) -> Tensor:
        return cast(Tensor, self.theta)[..., self.prior.parts[name], :]

    def _rest(self, name: Block) -> Tensor:
        flow = self.prior.body.flow
        return self.prior.space.rest[self.prior.parts[name]].to(flow.device, flow.dtype)

    def _joined(
        self, pieces: Mapping[Block, Tensor], batch: torch.Size, num_samples: int | None = None
    ) -> Tensor:
        """Join blocks; those that are known or at rest have no axis of samples."""
        shape = batch if num_samples is None else (*batch, num_samples)
        parts = []
        for name in BLOCKS:
            piece = pieces[name]
            fixed = name in self.known or (name != "body" and name not in self.hands)
            if num_samples is not None and fixed:
                piece = piece.unsqueeze(-3)
            parts.append(piece.expand(*shape, *piece.shape[-2:]))
        return torch.cat(parts, dim=-2)


def _reads_body(hand: PosePrior) -> bool:
    return hand.evidence is None and hand.context_features >= ARM_FEATURES


def _facts(hand: PosePrior | None) -> str:
    if hand is None:
        return "it is missing"
    if hand.evidence is not None:
        return "its prior takes evidence"
    return f"its prior has context_features={hand.context_features}"


def _require_body(body: PosePrior) -> int:
    """The number of joints that the body shares with SMPL-H; an error if it is no such body."""
    if not isinstance(body, PosePrior):
        raise TypeError(f"body must be a ConditionalPosePrior, got {type(body).__name__}")
    joints = body.space.joints
    if not isinstance(body.space, RotationSpace) or not 21 <= joints <= 24:
        raise ValueError(
            "body must be a prior over 24 or 22 joint rotations of SMPL, or 23 or 21 without the "
            f"root, got {body.space.name!r} over {joints} joints"
        )
    hands = LARGEST_BODY.get(joints, ())
    if body.rest_joints != hands:
        advice = f"rest_joints={hands}" if hands else "no rest_joints"
        raise ValueError(
            f"a body of {joints} joints needs {advice}, because hands of SMPL are two joints that "
            f"SMPL-H does not have; this prior has rest_joints={body.rest_joints}"
        )
    return joints - len(hands)


def _require_hand(name: str, hand: object, body: PosePrior) -> None:
    if not isinstance(hand, PosePrior):
        raise TypeError(f"{name} must be a ConditionalPosePrior, got {type(hand).__name__}")
    space, layout = hand.space, cast("RotationSpace", body.space).layout
    if not isinstance(space, RotationSpace) or space.joints != HAND_JOINTS or hand.rest_joints:
        raise ValueError(
            f"{name} must be a prior over {HAND_JOINTS} joint rotations of MANO without "
            f"rest_joints, got {space.name!r} over {space.joints} joints"
        )
    if space.layout != layout:
        raise ValueError(f"{name} has layout {space.layout!r}, the body {layout!r}")
    if hand.evidence is None and 0 < hand.context_features < ARM_FEATURES:
        raise ValueError(
            f"{name} has context_features={hand.context_features}; expected 0, or the width of its "
            f"context plus {ARM_FEATURES} numbers of elbow and wrist"
        )


def _trainable(name: str, prior: PosePrior) -> ConditionalPosePrior:
    if not isinstance(prior, ConditionalPosePrior):
        raise TypeError(f"{name} is frozen: only a ConditionalPosePrior is trained and saved")
    return prior
