"""The blocks of a whole pose, given one batch of contexts."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

from flowprior.prior.blocks.checks import reads_body
from flowprior.prior.blocks.layout import BLOCKS, Block, PoseLayout
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.prior.spaces import Rot6dSpace

__all__ = ["Blocks", "ConditionedBlocks"]

MISSING = (
    '{} depends on the body, which is missing: posterior.with_known(theta, ("body",)) says what '
    "the body is"
)

Self = TypeVar("Self", bound="ConditionedBlocks")


class Blocks(Protocol):
    """What a posterior needs of its :class:`~flowprior.prior.BlockPrior`, which makes it."""

    joints: int
    mirrored: tuple[str, ...]
    space: Rot6dSpace
    layout: PoseLayout
    parts: Mapping[Block, slice]
    latent_parts: Mapping[Block, slice]

    def prior_of(self, name: str) -> PosePrior | None:
        """The prior of a block, the same object for both hands if they are mirrored."""


@dataclasses.dataclass(frozen=True, eq=False)
class ConditionedBlocks:
    """What is known of every block for one batch of contexts; the base of `BlockPosterior`.

    A block is free, which means that it has a density, or fixed: known, or missing and at rest.

    Args:
        prior: The prior.
        body: The posterior of the body alone; None if the body is missing.
        hands: For each hand that exists its posterior, or, if it depends on the body, the context
            (*batch, C) that it reads beside it.
        theta: (*batch, J, 6), the pose of known blocks; None if none is known.
        known: The known blocks.
    """

    prior: Blocks
    body: PosePosterior | None
    hands: Mapping[Block, PosePosterior | Tensor | None]
    theta: Tensor | None = None
    known: Sequence[Block] = ()

    def __repr__(self) -> str:
        free, known = (", ".join(names) or "nothing" for names in (self._free, self.known))
        return (
            f"{type(self).__name__}(batch_shape={tuple(self.batch_shape)}, "
            f"joints={self.prior.joints}, density of {free}, known: {known})"
        )

    def __getitem__(self: Self, rows: Any) -> Self:  # noqa: ANN401, as tensors are indexed
        """Select contexts of the batch.

        Args:
            rows: As for :meth:`flowprior.PosePosterior.__getitem__`.

        Returns:
            The posterior of the selected contexts.

        Raises:
            IndexError: If the index has more axes than the batch, or is out of range.
        """
        batch = self.batch_shape
        index = rows if isinstance(rows, tuple) else (rows,)
        try:
            torch.zeros(()).expand(batch)[rows]
        except IndexError as error:
            raise IndexError(
                f"cannot select {rows!r} from contexts of batch shape {tuple(batch)}: {error}"
            ) from error
        open_end = () if any(each is Ellipsis for each in index) else (Ellipsis,)

        def select(value: Tensor, event: int) -> Tensor:
            return value[(*index, *open_end, *(slice(None),) * event)]

        return self.expand(batch)._changed(lambda posterior: posterior[rows], select)

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch."""
        shapes = [] if self.body is None else [self.body.batch_shape]
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

    def expand(self: Self, batch_shape: torch.Size) -> Self:
        """Broadcast the batch to ``batch_shape`` without copies."""
        return self._changed(
            lambda posterior: posterior.expand(batch_shape),
            lambda value, event: value.expand(*batch_shape, *value.shape[value.ndim - event :]),
        )

    def with_known(self: Self, theta: Tensor, blocks: Sequence[str]) -> Self:
        """The posterior in which whole blocks are known: kept exactly, outside the density.

        A known body is what the hands are conditioned on; it can also be one whose prior is
        missing. A known hand says nothing about the body, as in a cut posterior (Plummer 2015): if
        its prior depends on the body, weight samples by ``posterior.hand(name,
        samples).log_prob(hand)`` for the exact conditional.

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
        pose = self.prior.space.as_pose(theta).to(self._like)
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
        return self._hand_at(block, self.prior.space.as_pose(body)[..., self._part("body"), :])

    @property
    def _free(self) -> tuple[Block, ...]:
        """Blocks of the density."""
        return tuple(name for name in BLOCKS if not self._is_fixed(name))

    @property
    def _like(self) -> Tensor:
        """An empty tensor with the dtype and device of the weights."""
        flow = self._prior_of(next(iter(self.prior.latent_parts))).flow
        return torch.empty(0, dtype=flow.dtype, device=flow.device)

    def _prior_of(self, name: Block) -> PosePrior:
        prior = self.prior.prior_of(name)
        assert prior is not None
        return prior

    def _is_fixed(self, name: Block) -> bool:
        """Whether a block is known or missing."""
        missing = self.body is None if name == "body" else name not in self.hands
        return missing or name in self.known

    def _follows_body(self, name: Block) -> bool:
        """Whether a block is a hand that depends on a body that is not known."""
        return name != "body" and "body" not in self.known and reads_body(self._prior_of(name))

    def _part(self, name: Block) -> slice:
        return self.prior.parts[name]

    def _fixed(self, name: Block) -> Tensor:
        """A known block (*batch, n, 6), or a missing one at rest, (n, 6)."""
        if name in self.known:
            return cast(Tensor, self.theta)[..., self._part(name), :]
        return self._rest(name)

    def _rest(self, name: Block) -> Tensor:
        return self.prior.space.rest[self._part(name)].to(self._like)

    def _posterior(self, name: Block, body: Tensor | None) -> PosePosterior:
        """The posterior of a free block, given bodies (*batch, *extra, n, 6) if it is a hand."""
        if name != "body":
            assert body is not None
            return self._hand_at(name, body)
        if self.body is None:
            raise ValueError(MISSING.format("a hand"))
        return self.body

    def _expanded(self, posterior: PosePosterior) -> PosePosterior:
        """A posterior of a block with at least the whole batch."""
        batch = self.batch_shape
        return posterior if len(posterior.batch_shape) > len(batch) else posterior.expand(batch)

    def _hand_at(self, name: Block, body: Tensor) -> PosePosterior:
        """The posterior of a hand given bodies (*batch, *extra, n, 6)."""
        source = self.hands[name]
        if isinstance(source, PosePosterior):
            return source
        if self.body is None and "body" not in self.known:
            raise ValueError(MISSING.format(name))
        batch = self.batch_shape
        if len(body.shape) - 2 < len(batch) or body.shape[: len(batch)] != batch:
            body = body.expand(*batch, *body.shape[-2:])
        hand = self._prior_of(name)
        context = self.prior.layout.hand_context(name, source, body, batch)
        return hand(context.to(hand.flow.dtype))

    def _checked(self, name: str, value: Tensor, event: int) -> Tensor:
        batch = self.batch_shape
        if value.shape[: len(batch)] != batch or value.ndim < len(batch) + event:
            raise ValueError(
                f"{name} has leading shape {tuple(value.shape[:-event])}, but the posterior has "
                f"batch shape {tuple(batch)}: several poses stand on axes after the batch"
            )
        return value

    def _spread(self, pose: Tensor, leading: int) -> Tensor:
        """Insert axes after the batch into fixed blocks (*batch, n, 6), up to ``leading``."""
        batch = self.batch_shape
        pose = pose.expand(*batch, *pose.shape[-2:])
        return pose.reshape(*batch, *(1,) * (leading - len(batch)), *pose.shape[-2:])

    def _changed(
        self: Self,
        of_posterior: Callable[[PosePosterior], PosePosterior],
        of_tensor: Callable[[Tensor, int], Tensor],
    ) -> Self:
        """Change the batch of every part; tensors come with their number of event axes."""
        hands = {
            name: of_posterior(each)
            if isinstance(each, PosePosterior)
            else None
            if each is None
            else of_tensor(each, 1)
            for name, each in self.hands.items()
        }
        return dataclasses.replace(
            self,
            body=None if self.body is None else of_posterior(self.body),
            hands=hands,
            theta=None if self.theta is None else of_tensor(self.theta, 2),
        )
