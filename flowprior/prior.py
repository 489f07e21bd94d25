"""ConditionalPosePrior and PosePosterior: the density p(theta | context) over body poses."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from flowprior import checkpoint, prohmr
from flowprior.checkpoint import CheckpointError
from flowprior.flow import LU_FORWARDS, ConditionalFlow, ProjectedContext
from flowprior.flow.checks import require_count, require_like, require_tensor
from flowprior.spaces import Rot6dSpace, RotationSpace, make_space

__all__ = ["ConditionalPosePrior", "LatentCalibration", "PosePosterior"]


class ConditionalPosePrior(nn.Module):
    r"""A normalizing-flow density p(theta | context) over poses.

    Calling the prior with a context gives a :class:`PosePosterior`, which has projected the context
    once and answers ``sample``, ``log_prob``, ``mode`` and more. The same verbs on the prior itself
    take the context with each call.

    Shapes: the context is (\*batch, C). One theta per context is (\*batch, J, k), n of them are
    (\*batch, n, J, k): further axes always stand between batch and pose. With
    ``context_features=0`` the context is None, the batch is empty and samples are (n, J, k).

    Theta is accepted as (..., J, 6), flat (..., 6 J), matrices (..., J, 3, 3) or rotation vectors
    (..., J, 3); with ``space="points"`` as (..., J, 3) or flat (..., 3 J). It is returned as
    (..., J, 6) or (..., J, 3). With ``space="rot6d"`` samples are points of the 6D space the
    density lives in, not yet rotations: :meth:`smpl_params` or
    :func:`flowprior.rotations.rot6d_to_matrix` decode them.

    Args:
        context_features: Width C of the context; 0 for an unconditional prior.
        joints: Number of joints J; 24 for SMPL, the root first.
        space: ``"rot6d"`` for joint rotations with a density over their 6D vectors, ``"so3"`` for
            joint rotations with a density over the rotations themselves, ``"points"`` for 3D
            keypoints in metres.
        layout: Order of the six numbers, one of :data:`flowprior.rotations.LAYOUTS`; unused by
            ``"points"``.
        preset: ``"default"``, or ``"prohmr"`` for the original's network, batch norm and dropout
            included.
        hidden_features: Width of the conditioners.
        num_steps: Number of flow steps.
        num_blocks: Residual blocks per conditioner.
        batch_norm: Overrides the preset's batch norm.
        dropout: Overrides the preset's dropout probability.
        context_norm: Overrides whether the context moves scale and shift of every ActNorm, which
            makes the entropy differ from context to context and keeps the mode exact.
        coupling: ``"additive"``, ``"affine"`` or ``"spline"``; with the last two, mode and entropy
            are found numerically.
        lu_forward: ``"legacy"`` for weights of the original that were trained in August 2021; see
            :class:`flowprior.ConditionalFlow` and :meth:`latent_calibration`.
        target_noise: Standard deviation of the noise :meth:`nll` adds to theta in training, in
            units of the vector the flow models.

    Raises:
        ValueError: For an unknown name or a size out of range.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, ICCV 2021;
        https://arxiv.org/abs/2108.11944.
    """

    __call__: Callable[..., "PosePosterior"]

    def __init__(
        self,
        context_features: int,
        *,
        joints: int = 24,
        space: str = "rot6d",
        layout: str = "columns",
        preset: str = "default",
        hidden_features: int = 1024,
        num_steps: int = 4,
        num_blocks: int = 2,
        batch_norm: bool | None = None,
        dropout: float | None = None,
        context_norm: bool | None = None,
        coupling: str = "additive",
        lu_forward: str = "exact",
        target_noise: float = 0.005,
    ) -> None:
        super().__init__()
        if target_noise < 0:
            raise ValueError(f"target_noise must be at least 0, got {target_noise}")
        self.config: dict[str, Any] = {
            "context_features": context_features,
            "joints": joints,
            "space": space,
            "layout": layout,
            "preset": preset,
            "hidden_features": hidden_features,
            "num_steps": num_steps,
            "num_blocks": num_blocks,
            "coupling": coupling,
            "lu_forward": lu_forward,
            "target_noise": target_noise,
        }
        self.provenance: dict[str, str] = {}
        self.space = make_space(space, joints, layout)
        self.target_noise = target_noise
        self.flow = ConditionalFlow(
            self.space.features,
            context_features,
            preset=preset,
            hidden_features=hidden_features,
            num_steps=num_steps,
            num_blocks=num_blocks,
            batch_norm=batch_norm,
            dropout=dropout,
            context_norm=context_norm,
            coupling=coupling,
            lu_forward=lu_forward,
        )
        self.config |= self.flow.options

    def forward(self, context: Tensor | None = None) -> "PosePosterior":
        """The posterior given a context.

        Args:
            context: (*batch, C); None for an unconditional prior.

        Returns:
            The posterior, whose batch is that of the context.

        Raises:
            ValueError: If the context has another width, dtype or device than the prior, or holds
                NaN or infinity.
        """
        if context is not None:
            require_tensor("context", context)
            _require_finite("context", context)
        return PosePosterior(self, self.flow.project_context(context))

    def sample(
        self,
        context: Tensor | None,
        num_samples: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples (*batch, n, J, k); see :meth:`PosePosterior.sample`."""
        return self(context).sample(num_samples, generator=generator)

    def log_prob(self, theta: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density (*batch, *extra) in nats; see :meth:`PosePosterior.log_prob`."""
        return self(context).log_prob(theta)

    def mode(self, context: Tensor | None = None) -> Tensor:
        """The most likely theta (*batch, J, k); see :meth:`PosePosterior.mode`."""
        return self(context).mode()

    def nll(
        self,
        theta: Tensor,
        context: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Negative log-likelihood, the mean over annotated rows.

        In training mode, Gaussian noise of standard deviation ``target_noise`` is added to the
        target, which bounds the density where data has no spread, and the first call with two or
        more rows sets the flow's ActNorm. In evaluation mode there is no noise: values of the two
        modes cannot be compared.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form. Rows that are not valid may hold
                anything.
            context: (*batch, C); None for an unconditional prior.
            valid: (*batch,) of bool or 0 / 1: which rows are annotated. All if None.
            generator: Source of the noise, on the prior's device.

        Returns:
            Scalar () in nats; 0, with zero gradients, if no row is valid.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit, or a valid row holds NaN or
                infinity.

        References:
            Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, loss L_nll.
        """
        x = self.space.to_vector(theta)
        if valid is not None:
            x, context = self._select(valid, x, context)
        posterior = self(context)
        x = posterior._checked_vector("theta", x)
        projected = posterior.context
        if self.training:
            if self.config["preset"] == "prohmr" and not self.flow.is_initialized():
                # The original sets ActNorm from targets without noise, in a pass of its own. A
                # feature that never varies then starts a thousandfold too large in every step.
                with torch.no_grad():
                    self.flow(x, projected)
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = x + self.target_noise * noise
        log_prob = self.flow.log_prob(x, projected) + self.space.log_volume(x)
        return (-log_prob).sum() / max(log_prob.numel(), 1)

    def smpl_params(self, theta: Tensor) -> dict[str, Tensor]:
        """Split theta into the rotation matrices a body model takes.

        Args:
            theta: Rotations in any accepted form.

        Returns:
            ``global_orient`` (..., 1, 3, 3) and ``body_pose`` (..., J - 1, 3, 3).

        Raises:
            ValueError: If theta has another shape, or the prior is over keypoints.
        """
        if not isinstance(self.space, RotationSpace):
            raise ValueError("a prior over 3D keypoints has no joint rotations")
        matrix = self.space.to_matrix(theta)
        return {"global_orient": matrix[..., :1, :, :], "body_pose": matrix[..., 1:, :, :]}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and configuration to one safetensors file, whole or not at all.

        Args:
            path: The file, in a folder that exists.

        Raises:
            OSError: If the file cannot be written.
        """
        content = checkpoint.ModelFile(self.state_dict(), self.config, self.provenance)
        checkpoint.save(path, content)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], device: torch.device | str = "cpu"
    ) -> "ConditionalPosePrior":
        """Read a prior written by :meth:`save`, in evaluation mode and its saved dtype.

        Args:
            path: The file.
            device: Where its weights shall be.

        Returns:
            The prior.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If the file is truncated or damaged, of another model, or of a newer
                format.
        """
        content = checkpoint.load(path)
        try:
            with torch.device("meta"):
                prior = cls(**content.config)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is not a pose prior: {error}") from error
        checkpoint.require_same_tensors(path, content.tensors, prior.state_dict())
        prior.load_state_dict(content.tensors, assign=True)
        prior.provenance = dict(content.provenance)
        return prior.eval().to(device)

    @classmethod
    def from_prohmr(
        cls,
        path: str | os.PathLike[str],
        *,
        space: str | None = None,
        lu_forward: str = "exact",
        device: torch.device | str = "cpu",
    ) -> "ConditionalPosePrior":
        """Read a checkpoint of the original, executing nothing from it.

        Its sizes are taken from its weights. 144 features are SMPL's 24 joints in 6D, layout
        "columns"; 48 are the lifting model's 16 keypoints.

        Args:
            path: A Lightning checkpoint of ProHMR or its lifting model, or a state dict of one of
                them or of the flow alone.
            space: ``"rot6d"`` or ``"points"``, needed for any other number of features.
            lu_forward: ``"legacy"`` for weights trained in August 2021, see
                :meth:`latent_calibration`.
            device: Where its weights shall be.

        Returns:
            The prior, in evaluation mode.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If the file cannot be read safely, holds no such flow, or holds one
                whose weights are missing, unexpected, of the wrong shape or not finite; all of them
                are named.
            ValueError: If the space is unknown, or must be said.
        """
        weights = prohmr.read_prohmr(path).flow
        sizes = prohmr.flow_config(weights)
        features = int(sizes.pop("features"))
        if space is None:
            if features not in prohmr.SPACES:
                raise ValueError(
                    f"{path} has a flow over {features} features: say space='rot6d' or 'points'"
                )
            space = prohmr.SPACES[features]
        if space == "so3":
            raise ValueError("the original models 6D vectors or keypoints, not space 'so3'")
        joints, rest = divmod(features, 6 if space == "rot6d" else 3)
        if rest:
            raise ValueError(f"{path} has {features} features, no whole number of joints")
        with torch.device("meta"):
            prior = cls(joints=joints, space=space, lu_forward=lu_forward, **sizes)
        state = prohmr.flow_state_from_prohmr(weights, prior.flow)
        prior.flow.load_state_dict(state, assign=True)
        prior.provenance = {"converted_from": os.path.basename(path)}
        return prior.eval().to(device)

    def to_prohmr_state_dict(self) -> dict[str, Tensor]:
        """The weights under the original's names, for a model of its code to load.

        Returns:
            Tensors by name, ``flow.flow._transform...``, as ProHMR's Lightning module has them;
            load them with ``strict=False``, since backbone and heads are not among them.

        Raises:
            ValueError: If the prior has another 6D layout than the original, whose code would take
                it for other rotations.
        """
        if self.config["space"] == "so3":
            raise ValueError("the original models 6D vectors, this prior has space 'so3'")
        if isinstance(self.space, Rot6dSpace) and self.space.layout != "columns":
            raise ValueError(
                f"the original reads 6D as 'columns', this prior has layout {self.space.layout!r}"
            )
        return prohmr.flow_state_to_prohmr(self.flow, prefix="flow.flow.")

    @torch.no_grad()
    def calibrate(self, theta: Tensor, context: Tensor | None = None) -> float:
        """Set the temperature of the base distribution that makes held-out poses most likely.

        On people it was not trained on, a prior is usually too sure of itself. One number, the
        standard deviation of the latents, mends most of that. It is saved with the model, and the
        order of hypotheses by density stays as it is; so does an exact mode.

        Args:
            theta: (*batch, *extra, J, k), poses of people the prior was not trained on.
            context: (*batch, C), their contexts.

        Returns:
            The temperature; above 1 if the prior was too sure.

        Raises:
            ValueError: As :meth:`log_prob`, or if there are no poses.
        """
        posterior = self(context)
        x = posterior._checked_vector("theta", self.space.to_vector(theta))
        if not x.numel():
            raise ValueError("theta holds no poses to calibrate with")
        return float(self.flow.calibrate(x, posterior.context))

    @torch.no_grad()
    def latent_calibration(
        self, theta: Tensor, context: Tensor | None = None
    ) -> "LatentCalibration":
        """Check on real pairs whether the log-density can be trusted.

        Latents of real poses are standard normal if the weights and the forward map belong
        together: the mean of ||z||^2 / D is near 1 on training data, and moderately above on
        subjects never seen. The original's published weights may have been trained with a forward
        map that was wrong; their samples and mode are not affected, their log-density is.

        Args:
            theta: (*batch, *extra, J, k), real poses, at least a hundred for a usable figure.
            context: (*batch, C), their contexts.

        Returns:
            The ratio for either forward map, and what follows.

        Raises:
            ValueError: As :meth:`log_prob`, or if there are no poses.
        """
        posterior = self(context)
        x = posterior._checked_vector("theta", self.space.to_vector(theta))
        if not x.numel():
            raise ValueError("theta holds no poses to check with")
        ratios = {
            name: self.flow.with_lu_forward(name)(x, posterior.context)[0].square().mean().item()
            for name in LU_FORWARDS
        }
        return LatentCalibration(
            lu_forward=self.config["lu_forward"],
            exact_ratio=ratios["exact"],
            legacy_ratio=ratios["legacy"],
            num_poses=x.numel() // x.shape[-1],
        )

    def _select(
        self, valid: Tensor, x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The valid rows of vectors and contexts, as one batch axis."""
        require_tensor("valid", valid)
        batch = valid.shape
        if x.shape[: len(batch)] != batch or (context is not None and context.shape[:-1] != batch):
            contexts = "none" if context is None else tuple(context.shape)
            raise ValueError(
                f"valid has shape {tuple(batch)}, which is not the batch shape of theta "
                f"{tuple(x.shape)} and context {contexts}"
            )
        rows = valid.bool()
        return x[rows], None if context is None else context[rows]


@dataclass(frozen=True)
class LatentCalibration:
    """What real poses say about a prior's log-density, from ``latent_calibration``.

    Attributes:
        lu_forward: The forward map the prior uses.
        exact_ratio: Mean of ||z||^2 / D under the exact forward map; 1 if all is well.
        legacy_ratio: The same under the original's forward map of August 2021.
        num_poses: Number of poses it was measured on.
    """

    lu_forward: str
    exact_ratio: float
    legacy_ratio: float
    num_poses: int

    @property
    def ratio(self) -> float:
        """Mean of ||z||^2 / D under the forward map the prior uses."""
        return self.exact_ratio if self.lu_forward == "exact" else self.legacy_ratio

    @property
    def trusted(self) -> bool:
        """Whether the ratio is within a factor of 2 of 1, and the other map does no better."""
        return 0.5 <= self.ratio <= 2.0 and self.better_lu_forward == self.lu_forward

    @property
    def better_lu_forward(self) -> str:
        """The forward map whose ratio is nearer to 1."""
        exact, legacy = (abs(math.log(r)) for r in (self.exact_ratio, self.legacy_ratio))
        return "exact" if exact <= legacy else "legacy"


class PosePosterior:
    """p(theta | context) for one batch of contexts, from :class:`ConditionalPosePrior`.

    Its methods use the prior's current weights with the context projected when it was made, so make
    a new one after an optimiser step.

    Attributes:
        prior: The prior it came from.
        context: The projected context.
    """

    def __init__(self, prior: ConditionalPosePrior, context: ProjectedContext) -> None:
        self.prior = prior
        self.context = context

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch of contexts."""
        return self.context.batch_shape

    @property
    def event_shape(self) -> tuple[int, int]:
        """Shape (J, k) of one theta."""
        return self.prior.space.event_shape

    def sample(self, num_samples: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw samples. They carry gradients to weights and context.

        Args:
            num_samples: Number n of samples per context.
            generator: Source of the noise, on the prior's device.

        Returns:
            (*batch, n, J, k), also for n = 1.

        Raises:
            ValueError: If ``num_samples`` is negative.
        """
        return self.sample_and_log_prob(num_samples, generator=generator)[0]

    def sample_and_log_prob(
        self, num_samples: int = 1, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw samples with their log-densities, which cost nothing extra.

        Args:
            num_samples: Number n of samples per context.
            generator: Source of the noise, on the prior's device.

        Returns:
            Samples (*batch, n, J, k) and log-densities (*batch, n) in nats.

        Raises:
            ValueError: If ``num_samples`` is negative.
        """
        require_count("num_samples", num_samples)
        x, log_prob = self.prior.flow.sample_and_log_prob(
            self.context, num_samples, generator=generator
        )
        return self.prior.space.to_pose(x), log_prob + self.prior.space.log_volume(x)

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log-density, differentiable in theta, weights and context.

        With ``space="rot6d"`` it is the density of the 6D vectors, not of the rotations; with
        ``"so3"`` that of the rotations, by Haar measure of mass 1.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form.

        Returns:
            (*batch, *extra), in nats.

        Raises:
            ValueError: If theta does not fit the batch or holds NaN or infinity.
        """
        x = self._checked_vector("theta", self.prior.space.to_vector(theta))
        return self.prior.flow.log_prob(x, self.context) + self.prior.space.log_volume(x)

    def mode(self) -> Tensor:
        """The most likely theta.

        Exact, the decoded z = 0, for additive couplings over 6D vectors or keypoints. For other
        couplings and ``space="so3"`` the volume depends on theta: then it is a local maximum near
        the decoded z = 0, found by ascent and never less likely than that.

        Returns:
            (*batch, J, k).
        """
        space = self.prior.space
        log_volume = None if space.flat else space.log_volume
        return space.to_pose(self.prior.flow.mode(self.context, log_volume=log_volume))

    def entropy(
        self, *, num_samples: int = 256, generator: torch.Generator | None = None
    ) -> Tensor:
        """Differential entropy in nats.

        In closed form for additive couplings over 6D vectors or keypoints. Otherwise the mean
        surprise of samples, or, for ``space="so3"``, the closed form plus a mean over samples.

        Args:
            num_samples: Samples per context where there is no closed form.
            generator: Source of their noise.

        Returns:
            (*batch,).
        """
        flow, space = self.prior.flow, self.prior.space
        entropy = flow.entropy(self.context, num_samples=num_samples, generator=generator)
        if space.flat:
            return entropy
        x = flow.sample(self.context, num_samples, generator=generator)
        return entropy - space.log_volume(x).mean(dim=-1)

    def encode(self, theta: Tensor) -> Tensor:
        """Latent of theta.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form.

        Returns:
            z (*batch, *extra, D), standard normal for theta of this posterior.

        Raises:
            ValueError: If theta does not fit the batch or holds NaN or infinity.
        """
        x = self._checked_vector("theta", self.prior.space.to_vector(theta))
        return cast(Tensor, self.prior.flow(x, self.context)[0])

    def decode(self, z: Tensor) -> Tensor:
        """Theta of a latent, the inverse of :meth:`encode`.

        Args:
            z: (*batch, *extra, D).

        Returns:
            (*batch, *extra, J, k).

        Raises:
            ValueError: If z does not fit the batch or holds NaN or infinity.
        """
        require_tensor("z", z)
        z = self._checked_vector("z", z)
        return self.prior.space.to_pose(self.prior.flow.inverse(z, self.context)[0])

    def _checked_vector(self, name: str, x: Tensor) -> Tensor:
        """Refuse vectors that are not finite or not of this batch, in words about theta."""
        batch = self.batch_shape
        if x.shape[:-1][: len(batch)] != batch:
            raise ValueError(
                f"{name} has leading shape {tuple(x.shape[:-1])}, but the context has batch shape "
                f"{tuple(batch)}: several poses for one context stand on axes after the batch"
            )
        x = require_like(name, x, self.prior.flow.dtype, self.prior.flow.device)
        _require_finite(name, x)
        return x


def _require_finite(name: str, value: Tensor) -> None:
    if value.is_meta or torch.compiler.is_compiling():
        return
    try:
        finite = bool(value.isfinite().all())
    except RuntimeError:  # vmap cannot look at values
        return
    if not finite:
        bad = (~value.isfinite()).sum().item()
        raise ValueError(f"{name} holds NaN or infinity in {bad} of {value.numel()} entries")
