"""BlockPosterior: the density of a whole pose for one batch of contexts."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from flowprior._checks import require_count, require_tensor
from flowprior.prior.blocks.conditioned import ConditionedBlocks
from flowprior.prior.blocks.layout import BLOCKS, Block
from flowprior.prior.posterior import POSED_AT_ONCE, PosePosterior
from flowprior.prior.uncertainty import JointUncertainty, Measurement, PosedBody, joined
from flowprior.skeleton import Skeleton

__all__ = ["BlockPosterior"]


class BlockPosterior(ConditionedBlocks):
    r"""The density of a whole pose for one batch, from :class:`BlockPrior`.

    Shapes are those of :class:`flowprior.PosePosterior`: theta (\*batch, \*extra, J, k) in any
    accepted form, samples (\*batch, n, J, 6). Indexing selects contexts.

    Args:
        prior: The prior.
        body: The posterior of the body alone, which is the marginal of the whole: use it for
            ``joint_uncertainty`` and the rest; None if the body is missing.
        hands: For each hand that exists its posterior, or, if it depends on the body, the context
            (*batch, C) that it reads beside it.
        theta: (*batch, J, 6), the pose of known blocks; None if none is known.
        known: The known blocks.
    """

    @property
    def has_exact_entropy(self) -> bool:
        """Whether :meth:`entropy` needs no samples.

        Every block must have an entropy in closed form, as additive couplings have, and no hand may
        depend on an unknown body.
        """
        return all(
            self._prior_of(name).flow.has_closed_entropy and not self._follows_body(name)
            for name in self._free
        )

    def sample(self, num_samples: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw whole poses: a body, then hands that belong to it.

        Args:
            num_samples: Number n of samples.
            generator: Source of the noise; torch's global one if None. The bodies are those of
                ``posterior.body.sample`` with the same generator.

        Returns:
            (*batch, n, J, 6).

        Raises:
            ValueError: If ``num_samples`` is negative, or a hand depends on a body that is missing
                and not known.
        """

        def draw(posterior: PosePosterior, axes: int) -> Tensor:
            theta = posterior.sample(1 if axes else num_samples, generator=generator)
            return theta.squeeze(-3) if axes else theta

        return self._drawn(draw, num_samples)

    def sample_and_log_prob(
        self, num_samples: int = 1, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw samples with their log-densities, at no extra cost.

        Args:
            num_samples: As for :meth:`sample`.
            generator: As for :meth:`sample`.

        Returns:
            Samples (*batch, n, J, 6) and log-densities (*batch, n) in nats.

        Raises:
            ValueError: As :meth:`sample`.
        """
        total = self._like.new_zeros(*self.batch_shape, num_samples)

        def draw(posterior: PosePosterior, axes: int) -> Tensor:
            nonlocal total
            number = 1 if axes else num_samples
            theta, log_prob = posterior.sample_and_log_prob(number, generator=generator)
            total = total + (log_prob.squeeze(-1) if axes else log_prob)
            return theta.squeeze(-3) if axes else theta

        return self._drawn(draw, num_samples), total

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log-density of the blocks that exist and are not known; exact, the sum of the blocks'.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form. Known and missing blocks do not
                matter.

        Returns:
            (*batch, *extra), in nats.

        Raises:
            ValueError: If theta does not fit the batch, or holds NaN or infinity, or a hand depends
                on a body that is missing and not known.
        """
        pose = self._checked("theta", self.prior.space.as_pose(theta), event=2)
        parts = self._of_pose(pose, lambda posterior, part: posterior.log_prob(part))
        return sum(parts.values(), pose.new_zeros(pose.shape[:-2]))

    def mode(self) -> Tensor:
        """The most likely body, and the most likely hands given that body.

        It is the mode of the whole if no hand depends on the body. Otherwise a less likely body may
        have hands that are so much more certain that the product is larger.

        Returns:
            (*batch, J, 6).

        Raises:
            ValueError: If a hand depends on a body that is missing and not known.
        """
        return self._drawn(lambda posterior, _: posterior.mode(), None)

    def entropy(
        self, *, num_samples: int = 256, generator: torch.Generator | None = None
    ) -> Tensor:
        """Differential entropy in nats of the blocks that exist and are not known.

        By the chain rule it is H(body) + E[H(left hand | body)] + E[H(right hand | body)], with
        expectations over the body's posterior. The terms of the body, of hands that do not depend
        on it and of hands beside a known body are those of :meth:`flowprior.PosePosterior.entropy`,
        in closed form for additive couplings. The conditional entropy of a hand that depends on the
        body differs from body to body; its expectation is an unbiased estimate from bodies that are
        drawn, each with the hand's closed form or, without one, with one sample. See
        :attr:`has_exact_entropy`.

        Args:
            num_samples: Number of samples, and of bodies, per context where something is estimated.
            generator: Source of their noise; torch's global one if None.

        Returns:
            (*batch,), with zero for blocks that are known.

        Raises:
            ValueError: If ``num_samples`` is not positive, or a hand depends on a body that is
                missing and not known.
        """
        require_count("num_samples", num_samples, 1)
        total = self._like.new_zeros(self.batch_shape)
        bodies: Tensor | None = None
        for name in self._free:
            if not self._follows_body(name):
                posterior = self._posterior(name, self._fixed("body"))
                total = total + posterior.entropy(num_samples=num_samples, generator=generator)
                continue
            if bodies is None:  # the same for both hands
                drawn = self._expanded(self._posterior("body", None))
                bodies = drawn.sample(num_samples, generator=generator)
                bodies = bodies[..., self._part("body"), :]
            posterior = self._posterior(name, bodies)
            each = posterior.entropy(num_samples=1, generator=generator)
            total = total + each.mean(dim=-1)
        return total

    def joint_uncertainty(
        self,
        body: PosedBody,
        *,
        num_samples: int = 200,
        skeleton: Skeleton | None = None,
        betas: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> JointUncertainty:
        """How far each joint, with the fingers, may lie from the mode, in mm and degrees.

        From samples. Blocks that are known or missing have no uncertainty of their own, but move
        with the others. Conformal factors are not applied: those of the body's prior were fitted to
        the body alone, ``posterior.body.joint_uncertainty(body)``.

        Args:
            body: A body with SMPL-H's joints, such as ``BodyModel(hands=True)``.
            num_samples: Number n of samples per context, at least 2.
            skeleton: The joint set of the positions, with K joints; the joints of the body if None.
            betas: Shape of the body, (10,) or (*batch, 10); the average shape if None.
            generator: Source of the samples; torch's global one if None.

        Returns:
            Radii, standard deviations, directions and, by methods, confidences.

        Raises:
            ValueError: If there are fewer than two samples, or the body lacks the joints.
        """
        require_count("num_samples", num_samples, 2)
        space, batch = self.prior.space, self.batch_shape
        whole = self if batch else self.expand(torch.Size([1]))
        shapes = None
        if betas is not None:
            shapes = betas.expand(*batch, betas.shape[-1]).reshape(batch.numel(), betas.shape[-1])
        parts = []
        for rows in torch.arange(batch.numel()).split(max(1, POSED_AT_ONCE // num_samples)):
            some = whole[torch.unravel_index(rows.to(self._like.device), whole.batch_shape)]
            measurement = Measurement(
                space.to_matrix(some.mode()),
                body,
                body.skeleton if skeleton is None else skeleton,
                None if shapes is None else shapes[rows],
            )
            for start in range(0, num_samples, POSED_AT_ONCE):
                drawn = min(POSED_AT_ONCE, num_samples - start)
                measurement.add(space.to_matrix(some.sample(drawn, generator=generator)))
            parts.append(measurement.result())
        return joined(parts, batch)

    def encode(self, theta: Tensor) -> Tensor:
        """Map theta to the latents of its blocks, each given the blocks before it.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form.

        Returns:
            z (*batch, *extra, D), whose entries ``prior.latent_parts`` names; zero for known
            blocks.

        Raises:
            ValueError: As :meth:`log_prob`.
        """
        pose = self._checked("theta", self.prior.space.as_pose(theta), event=2)
        parts = self._of_pose(pose, lambda posterior, part: posterior.encode(part))
        leading = pose.shape[:-2]
        found = [
            parts[name] if name in parts else pose.new_zeros(*leading, part.stop - part.start)
            for name, part in self.prior.latent_parts.items()
        ]
        return torch.cat([each.expand(*leading, each.shape[-1]) for each in found], dim=-1)

    def decode(self, z: Tensor) -> Tensor:
        """Map latents to theta, the inverse of :meth:`encode`.

        Args:
            z: (*batch, *extra, D). Entries of known blocks do not matter.

        Returns:
            (*batch, *extra, J, 6).

        Raises:
            ValueError: If z does not fit the batch, or holds NaN or infinity, or a hand depends on
                a body that is missing and not known.
        """
        require_tensor("z", z)
        parts = self.prior.latent_parts
        width = max(part.stop for part in parts.values())
        if z.shape[-1:] != (width,):
            raise ValueError(f"z must be (..., {width}), got {tuple(z.shape)}")
        z = self._checked("z", z, event=1)
        leading = z.shape[:-1]
        pieces = self._fixed_pieces(len(leading))
        fixed = self._fixed("body") if "body" in pieces else None
        for name in self._free:
            body = pieces.get("body") if fixed is None else fixed
            posterior = self._expanded(self._posterior(name, body))
            pieces[name] = self.prior.layout.from_block(name, posterior.decode(z[..., parts[name]]))
        return self._joined(pieces, leading)

    def _drawn(
        self, draw: Callable[[PosePosterior, int], Tensor], num_samples: int | None
    ) -> Tensor:
        """Join what ``draw`` returns for a block and the number of axes that its bodies add."""
        batch = self.batch_shape
        leading = batch if num_samples is None else torch.Size([*batch, num_samples])
        pieces = self._fixed_pieces(len(leading))
        # A fixed body has no axis of samples: hands are then drawn as those without a body.
        fixed = self._fixed("body") if "body" in pieces else None
        for name in self._free:
            body = pieces.get("body") if fixed is None else fixed
            posterior = self._posterior(name, body)
            if num_samples is not None:
                posterior = self._expanded(posterior)
            drawn = draw(posterior, max(0, len(posterior.batch_shape) - len(batch)))
            pieces[name] = self.prior.layout.from_block(name, drawn)
        return self._joined(pieces, leading)

    def _of_pose(
        self, pose: Tensor, of_block: Callable[[PosePosterior, Tensor], Tensor]
    ) -> dict[Block, Tensor]:
        """A function of every free block and its part of poses (*batch, *extra, J, 6)."""
        body = self._fixed("body") if self._is_fixed("body") else pose[..., self._part("body"), :]
        found: dict[Block, Tensor] = {}
        for name in self._free:
            part = self.prior.layout.to_block(name, pose[..., self._part(name), :])
            found[name] = of_block(self._expanded(self._posterior(name, body)), part)
        return found

    def _fixed_pieces(self, leading: int) -> dict[Block, Tensor]:
        """Blocks that are known or missing, with ``leading`` axes before the pose."""
        return {
            name: self._spread(self._fixed(name), leading)
            for name in BLOCKS
            if self._is_fixed(name)
        }

    def _joined(self, pieces: Mapping[Block, Tensor], leading: torch.Size) -> Tensor:
        parts = (pieces[name] for name in BLOCKS)
        return torch.cat([part.expand(*leading, *part.shape[-2:]) for part in parts], dim=-2)
