"""ConditionalPosePrior: the trainable prior, with its loss, files and calibration."""

import copy
import math
import os
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from flowprior._checks import require_tensor
from flowprior._modes import lasting
from flowprior.files import model_file
from flowprior.files.model_file import CheckpointError
from flowprior.files.model_folder import HEADER_KEYS, SharedModel
from flowprior.flow import ConditionalFlow, FlowOptions, require_flow_options
from flowprior.flow.base import standard_normal
from flowprior.prior.encoder import ContextEncoder
from flowprior.prior.posterior import PosePrior
from flowprior.prior.spaces import make_space

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ConditionalPosePrior"]


class ConditionalPosePrior(PosePrior, SharedModel):
    """A trainable normalizing-flow density p(theta | context) over poses.

    Calling the prior with a context returns a :class:`flowprior.PosePosterior`, which documents
    the shapes of samples and densities. With ``context_features=0`` the context is None.

    Args:
        context_features: Width C of the context; 0 for an unconditional prior.
        joints: Number of joints J; 24 for SMPL, the root first.
        space: ``"rot6d"`` for joint rotations with a density over their 6D vectors, ``"so3"`` for
            joint rotations with a density over the rotations themselves, ``"points"`` for 3D
            keypoints in metres. The classes in :mod:`flowprior.prior.spaces` document the accepted
            forms of theta.
        layout: Order of the six numbers of a 6D vector, one of
            :data:`flowprior.rotations.LAYOUTS`; ``"points"`` does not use it.
        preset: ``"default"``, or ``"prohmr"`` for the original's network, including batch norm and
            dropout.
        encoder_features: Width of a :class:`flowprior.prior.encoder.ContextEncoder` that reads
            the context before the flow, for raw contexts such as 2D keypoints; 0 for none.
        encoder_blocks: Number of residual blocks of that encoder.
        target_noise: Standard deviation of the noise that :meth:`nll` adds to theta in training, in
            units of the flow's vectors.
        **flow_options: Options of the flow, such as ``hidden_features``, ``num_steps`` and
            ``coupling``; :class:`flowprior.ConditionalFlow` documents them.

    Raises:
        TypeError: If an option is unknown.
        ValueError: If a name is unknown or a size is out of range.

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
        encoder_features: int = 0,
        encoder_blocks: int = 2,
        target_noise: float = 0.005,
        **flow_options: "Unpack[FlowOptions]",
    ) -> None:
        # The Hub's own mixin passes every key of config.json.
        options = {key: value for key, value in flow_options.items() if key not in HEADER_KEYS}
        require_flow_options(options)
        _require_target_noise(target_noise)
        pose_space = make_space(space, joints, layout)
        encoder = None
        if encoder_features:
            encoder = ContextEncoder(context_features, encoder_features, encoder_blocks)
        flow = ConditionalFlow(
            pose_space.features,
            encoder_features or context_features,
            preset=preset,
            **cast("FlowOptions", options),
        )
        super().__init__(flow, pose_space, encoder)
        self.provenance: dict[str, str] = {}
        self.config: dict[str, Any] = {
            "context_features": context_features,
            "joints": joints,
            "space": space,
            "layout": layout,
            **flow.options,
            "encoder_features": encoder_features,
            "encoder_blocks": encoder_blocks,
            "target_noise": target_noise,
        }

    @property
    def target_noise(self) -> float:
        """Standard deviation of the noise that :meth:`nll` adds in training; saved with the model.

        Raises:
            ValueError: If set to a negative number, NaN or infinity.
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
        """Mean negative log-likelihood over annotated rows.

        In training mode it adds Gaussian noise of standard deviation ``target_noise`` to the
        targets, which bounds the density where the data has no variance, and its first call with at
        least two valid rows initialises ActNorm. In evaluation mode it adds no noise, so values of
        the two modes are not comparable.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form. Invalid rows may hold any values.
            context: (*batch, C); None for an unconditional prior.
            valid: (*batch,) of bool or 0 / 1, true for annotated rows; None if all are.
            generator: Source of the noise, on the prior's device; torch's global one if None.

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
            rows = valid.bool()
            if self.flow.depends_on_batch:
                x, context = x[rows], None if context is None else context[rows]
                valid = None
            else:
                # Masking keeps the shapes constant and does not synchronise with the device.
                rows = rows[..., None]
                x = torch.where(rows.reshape(*valid.shape, *(1,) * (x.ndim - valid.ndim)), x, 0)
                context = None if context is None else torch.where(rows, context, 0)
        posterior = self(context)
        x = posterior._checked_vector("theta", x)
        projected = posterior.context
        if self.training:
            self.flow.initialize_without_noise(x, projected)
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
        """Copy the prior for inference, with constant weights that are fused for speed.

        Samples, mode and log-density equal those of this prior in evaluation mode, up to rounding.
        Gradients reach theta, latents and the context. The copy cannot be trained or saved.

        Args:
            conditioner_dtype: Dtype of the networks that decode latents, as for
                :meth:`flowprior.ConditionalFlow.freeze`. A lower precision makes samples and mode
                faster and less accurate; the log-density and the latents of given poses do not
                change.

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
            path: The file, in an existing folder. A symbolic link is followed; an existing file
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
            device: Device of the weights.

        Returns:
            The prior.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If the file is truncated or damaged, holds another model, has a newer
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

    @torch.no_grad()
    def calibrate(self, theta: Tensor, context: Tensor | None = None) -> float:
        """Fit the temperature of the base distribution on held-out poses.

        A prior is usually overconfident on held-out subjects. The temperature, the standard
        deviation of the latents, corrects most of that. It is saved with the model and changes
        neither an exact mode nor the ranking of samples by density.

        Args:
            theta: (*batch, *extra, J, k), poses of held-out subjects.
            context: (*batch, C), their contexts.

        Returns:
            The temperature; above 1 if the prior was overconfident.

        Raises:
            ValueError: As ``log_prob``, or if there are no poses.
        """
        posterior = self(context)
        x = posterior._checked_vector("theta", self.space.to_vector(theta))
        if not x.numel():
            raise ValueError("theta holds no poses to calibrate with")
        return float(self.flow.calibrate(x, posterior.context))


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
