"""ConditionalPosePrior and PosePosterior: the density p(theta | context) over body poses."""

import copy
import math
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowprior._checks import require_tensor
from flowprior._modes import lasting
from flowprior.files import model_file
from flowprior.files.model_file import CheckpointError
from flowprior.files.model_folder import SharedModel
from flowprior.flow import LU_FORWARDS, ConditionalFlow
from flowprior.flow.stack import standard_normal
from flowprior.prior.encoder import ContextEncoder
from flowprior.prior.posterior import PosePrior
from flowprior.prior.spaces import Rot6dSpace, make_space
from flowprior.prohmr import weights as prohmr

__all__ = [
    "ConditionalPosePrior",
    "LatentCalibration",
]


class ConditionalPosePrior(PosePrior, SharedModel):
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
    density lives in, not yet rotations: ``smpl_params`` or
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
        encoder_features: Width of a :class:`flowprior.prior.encoder.ContextEncoder` that reads
            the context before the flow does, for raw contexts such as 2D keypoints; 0 for none.
        encoder_blocks: Residual blocks of that encoder.
        target_noise: Standard deviation of the noise :meth:`nll` adds to theta in training, in
            units of the vector the flow models.

    Raises:
        ValueError: For an unknown name or a size out of range.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, ICCV 2021;
        https://arxiv.org/abs/2108.11944.
    """

    flow: ConditionalFlow

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
        encoder_features: int = 0,
        encoder_blocks: int = 2,
        target_noise: float = 0.005,
    ) -> None:
        _require_target_noise(target_noise)
        pose_space = make_space(space, joints, layout)
        encoder = None
        if encoder_features:
            encoder = ContextEncoder(context_features, encoder_features, encoder_blocks)
        flow = ConditionalFlow(
            pose_space.features,
            encoder_features or context_features,
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
        super().__init__(flow, pose_space, encoder)
        self.provenance: dict[str, str] = {}
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
            "encoder_features": encoder_features,
            "encoder_blocks": encoder_blocks,
            "target_noise": target_noise,
            **flow.options,
        }

    @property
    def target_noise(self) -> float:
        """Standard deviation of the noise that :meth:`nll` adds in training; saved with the model.

        Raises:
            ValueError: If it is set to a negative number, NaN or infinity.
        """
        return float(self.config["target_noise"])

    @target_noise.setter
    def target_noise(self, value: float) -> None:
        _require_target_noise(value)
        self.config["target_noise"] = float(value)

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
        self._require_order("nll", theta, context)
        x = self.space.to_vector(theta)
        if valid is not None:
            _require_batch(valid, x, context)
            if self.training and (self.config["batch_norm"] or not self.flow.is_initialized()):
                # Statistics of the batch must not see the other rows.
                rows = valid.bool()
                x, context = x[rows], None if context is None else context[rows]
                valid = None
            else:
                # Same shapes whatever is valid, and nothing for the host to wait for.
                rows = valid.bool()[..., None]
                x = torch.where(rows.reshape(*valid.shape, *(1,) * (x.ndim - valid.ndim)), x, 0)
                context = None if context is None else torch.where(rows, context, 0)
        posterior = self(context)
        x = posterior._checked_vector("theta", x)
        projected = posterior.context
        if self.training:
            if self.config["preset"] == "prohmr" and not self.flow.is_initialized():
                # The original sets ActNorm from targets without noise, in a pass of its own. A
                # feature that never varies then starts a thousandfold too large in every step.
                with torch.no_grad():
                    self.flow(x, projected)
            noise = standard_normal(x.shape, x.dtype, x.device, generator)
            x = x + self.target_noise * noise
        loss = -(self.flow.log_prob(x, projected) + self.space.log_volume(x))
        if valid is None:
            return loss.sum() / max(loss.numel(), 1)
        weight = valid.bool().reshape(*valid.shape, *(1,) * (loss.ndim - valid.ndim))
        weight = weight.expand(loss.shape).to(loss.dtype)
        return (weight * loss).sum() / weight.sum().clamp(min=1)

    @lasting()
    def freeze(self, conditioner_dtype: torch.dtype | str | None = None) -> PosePrior:
        """An inference copy with constant weights, fused for speed.

        Samples, mode and log-density are those of this prior in evaluation mode, to rounding.
        Gradients reach theta, latents and the context. The copy cannot be trained or saved; keep
        this prior for that.

        Args:
            conditioner_dtype: Dtype of the networks that decode latents, such as
                ``torch.bfloat16``: samples and mode are then faster and a little off, the
                log-density and latents of given poses are not touched. None for the prior's.
                ``"auto"`` for bfloat16 where that is much faster, on CPUs with AMX and CUDA devices
                of compute capability 8.0 or above, and the prior's dtype elsewhere.

        Returns:
            The copy, on the same device.

        Raises:
            ValueError: If ``conditioner_dtype`` is neither a floating-point dtype nor ``"auto"``.
        """
        encoder = copy.deepcopy(self.encoder)
        if encoder is not None:
            encoder.requires_grad_(False)
        return PosePrior(self.flow.freeze(conditioner_dtype), self.space, encoder)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and configuration to one safetensors file, atomically.

        Args:
            path: The file, in a folder that exists. A symbolic link is followed; an existing file
                keeps its permissions.

        Raises:
            PermissionError: If the file is write-protected.
            OSError: If the file cannot be written.
        """
        model_file.save(path, self._content())

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
            CheckpointError: If the file is truncated or damaged, of another model, of a newer
                format, or holds NaN or infinity.
        """
        return cls._from_file(path, model_file.load(path), device)

    @classmethod
    @lasting()
    def _from_file(
        cls, path: str | os.PathLike[str], content: model_file.ModelFile, device: torch.device | str
    ) -> "ConditionalPosePrior":
        model_file.require_plausible(path, content.config, content.tensors)
        try:
            with torch.device("meta"):
                prior = cls(**content.config)
        except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not a pose prior: {error}") from error
        model_file.require_same_tensors(path, content.tensors, prior.state_dict())
        model_file.require_finite(path, content.tensors)
        prior.load_state_dict(content.tensors, assign=True)
        prior.provenance = dict(content.provenance)
        return prior.eval().to(device)

    @classmethod
    @lasting()
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
        try:
            sizes = prohmr.flow_config(weights)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
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
        try:
            state = prohmr.flow_state_from_prohmr(weights, prior.flow)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        prior.flow.load_state_dict(state, assign=True)
        prior.provenance = {"converted_from": os.path.basename(path)}
        return prior.eval().to(device)

    def to_prohmr_state_dict(self) -> dict[str, Tensor]:
        """The weights under the original's names, for a model of its code to load.

        Returns:
            Tensors by name, ``flow.flow._transform...``, as ProHMR's Lightning module has them;
            load them with ``strict=False``, since backbone and heads are not among them.

        Raises:
            ValueError: If the prior has an encoder, or another 6D layout than the original, whose
                code would take it for other rotations.
        """
        if self.config["space"] == "so3":
            raise ValueError("the original models 6D vectors, this prior has space 'so3'")
        if self.encoder is not None:
            raise ValueError("the original has no encoder of the context, this prior has one")
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
            ValueError: As ``log_prob``, or if there are no poses.
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
            ValueError: As ``log_prob``, or if there are no poses.
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


def _require_target_noise(value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"target_noise must be at least 0 and finite, got {value}")


def _require_batch(valid: Tensor, x: Tensor, context: Tensor | None) -> None:
    require_tensor("valid", valid)
    batch = valid.shape
    if x.shape[: len(batch)] != batch or (context is not None and context.shape[:-1] != batch):
        contexts = "none" if context is None else tuple(context.shape)
        raise ValueError(
            f"valid has shape {tuple(batch)}, which is not the batch shape of theta "
            f"{tuple(x.shape)} and context {contexts}"
        )
