"""ConditionalPosePrior: the trainable prior, with its losses, files and calibration."""

import copy
import math
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._checks import require_tensor
from flowprior._modes import lasting
from flowprior.files import model_file
from flowprior.files.model_file import CheckpointError
from flowprior.files.model_folder import HEADER_KEYS, SharedModel
from flowprior.flow import ConditionalFlow, FlowOptions, require_flow_options
from flowprior.flow.base import standard_normal
from flowprior.flow.conditional_flow import can_be_anchored
from flowprior.prior.encoder import ContextEncoder
from flowprior.prior.evidence import Evidence
from flowprior.prior.heads import MeanHead
from flowprior.prior.joint_factors import (
    LEVELS,
    JointFactors,
    JointScores,
    factors_in,
    numbered,
)
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.prior.spaces import RotationSpace, make_space
from flowprior.prior.uncertainty import PosedBody, positions, require_smpl
from flowprior.skeleton import SMPL_24

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ConditionalPosePrior", "PriorOptions"]

# Choices of the presets beyond those of the flow.
SPACE = {"default": "so3", "prohmr": "rot6d"}
ANCHORED_FLOW: "FlowOptions" = {
    "hidden_features": 128,
    "num_blocks": 1,
    "base": "student_t",
}
HEAD_FEATURES = 128
# Calls of nll after which a head without training is pointed out.
PATIENCE = 100

# The configuration of files that were written before a prior could be anchored.
BEFORE_ANCHORED: dict[str, Any] = {
    "anchored": False,
    "base": "normal",
    "head_features": 0,
    "encoder_skip": False,
}


# Radii below these are rounding errors, of joints that are known or at rest.
LEAST_MM = 1e-2
LEAST_DEGREES = 1e-2


class PriorOptions(FlowOptions, total=False):
    """Options of the networks of a prior, beside the widths."""

    encoder_blocks: int
    encoder_skip: bool | None


class ConditionalPosePrior(PosePrior, SharedModel):
    """A trainable normalizing-flow density p(theta | context) over poses.

    Calling the prior with a context returns a :class:`flowprior.PosePosterior`, which documents
    the shapes of samples and densities. With ``context_features=0`` the context is None.

    With the preset ``"default"`` the density is anchored: a head answers the context with one pose,
    and a flow that maps the origin to the origin describes the difference from it. So the mode is
    the answer of the head, or of another regressor passed as ``prior(context, centre=theta)``.
    :meth:`nll` trains the flow and leaves the head alone; :meth:`mode_loss`, or any loss on
    :meth:`mode`, trains the head. Train with the sum of both, or train the head first.

    Args:
        context_features: Width C of the context; 0 for an unconditional prior, which is not
            anchored by default. With ``evidence`` it follows from that and can be left out.
        joints: Number of joints J; 24 for SMPL, the root first.
        space: ``"so3"`` for joint rotations with a density over the rotations themselves,
            ``"rot6d"`` for joint rotations with a density over their 6D vectors, ``"points"`` for
            3D keypoints in metres. The classes in :mod:`flowprior.prior.spaces` document the
            accepted forms of theta. The preset's choice if None: ``"so3"``, or ``"rot6d"`` for
            ``"prohmr"``.
        layout: Order of the six numbers of a 6D vector, one of
            :data:`flowprior.rotations.LAYOUTS`; ``"points"`` does not use it.
        preset: ``"default"``, or ``"prohmr"`` for the original's network, including batch norm and
            dropout.
        encoder_features: Width of a :class:`flowprior.prior.encoder.ContextEncoder` that reads
            the context before the flow, for raw contexts such as 2D keypoints; 0 for none.
        head_features: Width of the head, 0 for none; if None, 128 for an anchored flow and 0 for
            another one.
        target_noise: Standard deviation of the noise that :meth:`nll` adds to theta in training, in
            units of the flow's vectors.
        evidence: Kinds of evidence that :meth:`given` takes, among
            :data:`flowprior.prior.evidence.KINDS`; the context is then the one that
            :class:`flowprior.prior.evidence.Evidence` computes. Empty for any other context.
        rest_joints: Joints that the data says nothing of, such as SMPL's hands, 22 and 23. They are
            held at rest and are not part of the density.
        **options: ``encoder_blocks``, the number of residual blocks of the encoder, 2 by default;
            ``encoder_skip``, whether head and flow read the raw context beside the encoder's
            features, by default whether the flow is anchored; and options of the flow, such as
            ``hidden_features``, ``num_steps``, ``coupling`` and ``anchored``, which
            :class:`flowprior.ConditionalFlow` documents. With the preset ``"default"``, a prior
            with a context is anchored unless ``anchored=False`` or options are passed that an
            anchored flow does not have, such as ``coupling="spline"``.

    Raises:
        TypeError: If an option is unknown.
        ValueError: If a name is unknown or a size is out of range.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, ICCV 2021;
        https://arxiv.org/abs/2108.11944, for the preset ``"prohmr"``.
    """

    flow: ConditionalFlow

    def __init__(
        self,
        context_features: int | None = None,
        *,
        joints: int = 24,
        space: str | None = None,
        layout: str = "columns",
        preset: str = "default",
        encoder_features: int = 0,
        head_features: int | None = None,
        target_noise: float = 0.005,
        evidence: Sequence[str] = (),
        rest_joints: Sequence[int] = (),
        **options: "Unpack[PriorOptions]",
    ) -> None:
        encoder_blocks = options.pop("encoder_blocks", 2)
        encoder_skip = options.pop("encoder_skip", None)
        # The Hub's own mixin passes every key of config.json.
        flow_options = {key: value for key, value in options.items() if key not in HEADER_KEYS}
        require_flow_options(flow_options)
        _require_target_noise(target_noise)
        space = SPACE.get(preset, "so3") if space is None else space
        pose_space = make_space(space, joints, layout)
        known = Evidence(evidence, pose_space) if evidence else None
        context_features = _width(context_features, known)
        anchored = flow_options.setdefault(
            "anchored", preset == "default" and context_features > 0 and can_be_anchored(options)
        )
        if anchored:
            flow_options = {**ANCHORED_FLOW, **flow_options}
        if encoder_skip is None:
            encoder_skip = bool(anchored)
        if head_features is None:
            head_features = HEAD_FEATURES if anchored else 0
        encoder, width = None, context_features
        if encoder_features:
            encoder = ContextEncoder(
                context_features, encoder_features, encoder_blocks, skip=encoder_skip
            )
            width = encoder.out_features
        flow = ConditionalFlow(
            pose_space.features, width, preset=preset, **cast("FlowOptions", flow_options)
        )
        head = MeanHead(width, pose_space, head_features) if head_features else None
        super().__init__(flow, pose_space, encoder, head, known, rest_joints)
        self._calls_of_nll = 0
        self.provenance: dict[str, str] = {}
        self.config: dict[str, Any] = {
            "context_features": context_features,
            "joints": joints,
            "space": space,
            "layout": layout,
            **flow.options,
            "encoder_features": encoder_features,
            "encoder_blocks": encoder_blocks,
            "encoder_skip": encoder_skip,
            "head_features": head_features,
            "target_noise": target_noise,
            "evidence": list(evidence),
            "rest_joints": list(self.rest_joints),
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
        centre: Tensor | None = None,
        known: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Mean negative log-likelihood over annotated rows.

        Its gradient does not reach the centre: it trains the flow, but neither the head nor the
        encoder in front of it, so the density cannot spoil the answer. It reaches the context: pass
        ``context.detach()`` to spare the network that computed it. Without a head it also trains
        the encoder.

        In training mode it adds Gaussian noise of standard deviation ``target_noise`` to the
        targets, which bounds the density where the data has no variance, and its first call with at
        least two valid rows initialises ActNorm. In evaluation mode it adds no noise, so values of
        the two modes are not comparable.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form. Invalid rows may hold any values.
            context: (*batch, C); None for an unconditional prior.
            valid: (*batch,) of bool or 0 / 1, true for annotated rows; None if all are.
            centre: (*batch, J, k), as for :meth:`forward`; the head's answer if None.
            known: (*batch, J) bool, joints whose rotations the context contains. They are taken
                from theta, which then has no extra axes, and the density is over the others. None
                if no joint is known.
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
        theta = self.space.as_pose(theta)
        if valid is not None:
            _require_batch(valid, theta, context)
            rows = valid.bool()
            centre = None if centre is None else self._pose_of_centre(centre)
            if self.flow.depends_on_batch:
                theta, context = theta[rows], None if context is None else context[rows]
                centre, valid = None if centre is None else centre[rows], None
                known = None if known is None else known[rows]
            else:
                theta = _masked(theta, rows)
                context = None if context is None else _masked(context, rows)
                centre = None if centre is None else self._masked_centre(centre, rows)
        posterior = self._condition(context, centre, known, theta)
        x, projected = posterior._vector_of(theta), posterior.context
        if self.training:
            self._warn_of_untrained_head(centre)
            self.flow.initialize_without_noise(x, projected)
            noise = standard_normal(x.shape, x.dtype, x.device, generator)
            x = x + self.target_noise * noise
        log_prob = self.flow.log_prob(x, projected)
        return _mean(-log_prob - posterior._log_volume(log_prob), valid)

    def mode_loss(
        self,
        theta: Tensor,
        context: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        known: Tensor | None = None,
    ) -> Tensor:
        """Mean absolute error of the mode over annotated rows, which trains the head.

        For rotations it compares the first two columns of the rotation matrices, for points the
        coordinates in metres. Any other loss on :meth:`mode` serves as well, such as one on the
        joints of a body.

        Args:
            theta: (*batch, *extra, J, k), in any accepted form. Invalid rows may hold any values.
            context: (*batch, C); None for an unconditional prior.
            valid: (*batch,) of bool or 0 / 1, true for annotated rows; None if all are.
            known: (*batch, J) bool, as for :meth:`nll`; known joints have no error.

        Returns:
            Scalar (); 0, with zero gradients, if no row is valid.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        self._require_order("mode_loss", theta, context)
        theta = self.space.as_pose(theta)
        if valid is not None:
            _require_batch(valid, theta, context)
            theta = _masked(theta, valid.bool())
            context = None if context is None else _masked(context, valid.bool())
        posterior = self._knowing(self._encoded(context), None, known, theta)
        theta, mode = posterior._checked_vector("theta", theta, event=2), posterior.mode()
        if isinstance(self.space, RotationSpace):  # the length of 6D vectors has no meaning
            theta, mode = (self.space.to_matrix(each)[..., :2] for each in (theta, mode))
        batch, event = posterior.batch_shape, mode.shape[len(posterior.batch_shape) :]
        extra = theta.ndim - len(batch) - len(event)
        error = (mode.reshape(*batch, *(1,) * extra, *event) - theta).abs()
        error = error.flatten(start_dim=-len(event)).mean(dim=-1)
        return _mean(error, valid)

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
        encoder, head = copy.deepcopy(self.encoder), copy.deepcopy(self.head)
        for network in (encoder, head):
            if network is not None:
                network.requires_grad_(False)
        return PosePrior(
            self.flow.freeze(conditioner_dtype),
            self.space,
            encoder,
            head,
            self.evidence,
            self.rest_joints,
            copy.deepcopy(self.joint_factors),
        )

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
        config = content.config
        # Files from before a prior could be anchored do not say so; nor do those of the Hub's own
        # mixin, which records the arguments of the constructor. Only anchored flows have no shifts.
        if "anchored" not in config and "flow.steps.0.actnorm.shift" in content.tensors:
            if config.get("space") == "so3" and "head_features" not in config:
                raise CheckpointError(
                    f"{path} is a density over SO(3) in a chart that flowprior no longer has"
                )
            config = {**BEFORE_ANCHORED, **config}
        try:
            with torch.device("meta"):
                prior = cls(**config)
        except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not a pose prior: {error}") from error
        prior.joint_factors = factors_in(content.tensors, "joint_factors.", "meta")
        if prior.joint_factors is not None:
            _require_factors(path, prior)
        model_file.require_same_tensors(path, content.tensors, prior.state_dict())
        model_file.require_finite(path, content.tensors)
        prior.load_state_dict(content.tensors, assign=True)
        prior.provenance = dict(content.provenance)
        return prior.eval().to(device)

    @torch.no_grad()
    def calibrate(
        self,
        theta: Tensor,
        context: Tensor | None = None,
        *,
        centre: Tensor | None = None,
        known: Tensor | None = None,
        groups: Tensor | Sequence[object] | None = None,
        body: PosedBody | None = None,
        betas: Tensor | None = None,
        joints: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> float:
        """Fit the base distribution, and the factors of the joints, to held-out poses.

        A prior is usually overconfident on held-out subjects. The temperature, the scale of the
        latents, corrects that for whole poses; a Student's t base also gets its degrees of freedom.
        With ``groups`` and ``body``, :meth:`calibrate_joints` then corrects the radii of single
        joints. All is saved with the model, and nothing changes an exact mode or the ranking of
        samples by density.

        Args:
            theta: (*batch, *extra, J, k), poses of held-out subjects.
            context: (*batch, C), their contexts.
            centre: (*batch, J, k), as for :meth:`forward`; the head's answer if None.
            known: (*batch, J) bool, as for :meth:`nll`.
            groups: (*batch,) whose each pose is; see :meth:`calibrate_joints`. Without it, factors
                of the joints are removed, because they belong to the former base.
            body: The body.
            betas: As for :meth:`calibrate_joints`.
            joints: As for :meth:`calibrate_joints`.
            generator: Source of the samples for the joints.

        Returns:
            The temperature; above 1 if the prior was overconfident.

        Raises:
            ValueError: As ``log_prob``, or if there are no poses, or one of ``groups`` and ``body``
                is missing.
        """
        if (groups is None) != (body is None):
            raise ValueError("factors of the joints take both: groups=people, body=BodyModel()")
        posterior = self._knowing(self._encoded(context), centre, known, self.space.as_pose(theta))
        x = posterior._vector_of(theta)
        if not x.numel():
            raise ValueError("theta holds no poses to calibrate with")
        if groups is not None:
            numbered(groups, posterior.batch_shape.numel())  # raises before anything changes
        temperature = float(self.flow.calibrate(x, posterior.context))
        self.joint_factors = None
        if groups is not None and body is not None:
            self.calibrate_joints(
                theta,
                context,
                groups=groups,
                body=body,
                centre=centre,
                known=known,
                betas=betas,
                joints=joints,
                generator=generator,
            )
        return temperature

    @torch.no_grad()
    def calibrate_joints(
        self,
        theta: Tensor,
        context: Tensor | None = None,
        *,
        groups: Tensor | Sequence[object],
        body: PosedBody,
        centre: Tensor | None = None,
        known: Tensor | None = None,
        betas: Tensor | None = None,
        joints: Tensor | None = None,
        num_samples: int = 200,
        generator: torch.Generator | None = None,
    ) -> JointFactors:
        """Fit factors by which the radii of single joints are multiplied, for new people.

        Split conformal prediction, with a person as the unit: :func:`fit_factors` of
        :mod:`flowprior.prior.joint_factors` describes it. The factors apply to positions and
        rotations, at every level, in :meth:`flowprior.PosePosterior.joint_uncertainty`; they are
        saved with the model and change neither samples nor densities.

        Args:
            theta: (*batch, J, k), poses of people used neither for training nor for reporting.
            context: (*batch, C), their contexts, of the kind that the prior will see.
            groups: (*batch,) whose each pose is, as numbers or names: at least two people, better
                nine or more. Each person has the same weight.
            body: The body.
            centre: (*batch, J, k), as for :meth:`forward`; the head's answer if None.
            known: (*batch, J) bool, as for :meth:`nll`.
            betas: Shape of the body, (10,) or (*batch, 10), of truth and answer; the average
                shape if None.
            joints: (*batch, 24, 3) true positions of SMPL's joints in metres, in the axes of
                theta; those of the posed body if None. With a person's own joints and no
                ``betas``, the factors cover that the shape is unknown.
            num_samples: Number of samples per pose.
            generator: Source of the samples; torch's global one if None.

        Returns:
            The factors, which are then ``prior.joint_factors``.

        Raises:
            ValueError: If the prior is not over SMPL's rotations, shapes do not fit, or there are
                fewer than two people.
        """
        scores = self.joint_scores(
            theta,
            context,
            groups=groups,
            body=body,
            centre=centre,
            known=known,
            betas=betas,
            joints=joints,
            num_samples=num_samples,
            generator=generator,
        )
        self.joint_factors = JointFactors.fit(scores).to(self.flow.device)
        return self.joint_factors

    @torch.no_grad()
    def joint_scores(
        self,
        theta: Tensor,
        context: Tensor | None = None,
        *,
        groups: Tensor | Sequence[object],
        body: PosedBody,
        centre: Tensor | None = None,
        known: Tensor | None = None,
        betas: Tensor | None = None,
        joints: Tensor | None = None,
        num_samples: int = 200,
        generator: torch.Generator | None = None,
    ) -> JointScores:
        """Errors of the mode and radii without factors, which :meth:`calibrate_joints` uses.

        With cross-fitting, sum the scores of several priors, each on people that it has not seen,
        and set ``prior.joint_factors = JointFactors.fit(scores)``.

        Args:
            theta: As for :meth:`calibrate_joints`, and so are the other arguments.
            context: (*batch, C).
            groups: (*batch,).
            body: The body.
            centre: (*batch, J, k).
            known: (*batch, J) bool.
            betas: (10,) or (*batch, 10).
            joints: (*batch, 24, 3), metres.
            num_samples: Number of samples per pose.
            generator: Source of the samples.

        Returns:
            The scores, on the CPU.

        Raises:
            ValueError: As :meth:`calibrate_joints`.
        """
        space = require_smpl(self.space)
        pose = space.as_pose(theta).to(self.flow.device, self.flow.dtype)
        posterior = self._knowing(self._encoded(context), centre, known, pose)
        batch = posterior.batch_shape
        if pose.shape[:-2] != batch or not batch.numel():
            raise ValueError(
                f"factors of the joints take one pose for each context, at least one: theta "
                f"{tuple(pose.shape)}, contexts {tuple(batch)}"
            )
        names = groups.flatten().tolist() if isinstance(groups, Tensor) else list(groups)
        if len(names) != batch.numel():
            raise ValueError(
                f"groups must say whose each of the {batch.numel()} poses is, got {len(names)}"
            )
        truth, answer = (space.to_matrix(each) for each in (pose, posterior.mode()))
        own = None if betas is None else betas.expand(*batch, betas.shape[-1]).to(truth)
        expected = positions(body, answer, SMPL_24, own)
        if joints is None:
            places = positions(body, truth, SMPL_24, own)
        elif joints.shape == expected.shape:
            places = 1000 * joints.to(expected)
        else:
            raise ValueError(f"joints must be {tuple(expected.shape)}, got {tuple(joints.shape)}")
        moved = (places - places[..., :1, :]) - (expected - expected[..., :1, :])
        angles = torch.rad2deg(rotations.geodesic_distance(truth, answer))
        found = posterior.joint_uncertainty(
            body,
            num_samples=num_samples,
            skeleton=SMPL_24,
            betas=own,
            calibrated=False,
            generator=generator,
        )
        radii = []
        for radius, least in ((found.radius_mm, LEAST_MM), (found.radius_degrees, LEAST_DEGREES)):
            each = torch.stack([radius(level).flatten(0, -2).cpu() for level in LEVELS])
            radii.append(torch.where(each > least, each, 0.0))
        return JointScores(
            moved.norm(dim=-1).flatten(0, -2).cpu(),
            radii[0],
            angles.flatten(0, -2).cpu(),
            radii[1],
            tuple(names),
        )

    def _masked_centre(self, centre: Tensor, rows: Tensor) -> Tensor:
        """Zero the centres (*batch, J, k) of rows that are not valid."""
        if centre.shape[:-2] == rows.shape:
            return _masked(centre, rows)
        return centre  # forward raises

    def _knowing(
        self, features: Tensor | None, centre: Tensor | None, known: Tensor | None, theta: Tensor
    ) -> PosePosterior:
        """The posterior given encoded contexts and the rotations of theta at known joints."""
        if known is None:
            return self._posterior(features, centre)
        batch = () if features is None else features.shape[:-1]
        if theta.shape[:-2] != batch or known.shape != theta.shape[:-1]:
            raise ValueError(
                f"with known joints there is one pose for each context: known must be "
                f"{(*batch, self.space.joints)} and theta {(*batch, *self.space.event_shape)}, got "
                f"{tuple(known.shape)} and {tuple(theta.shape)}"
            )
        return self._posterior(features, centre, known.bool(), theta.to(self.flow.dtype))

    def _condition(
        self, context: Tensor | None, centre: Tensor | None, known: Tensor | None, theta: Tensor
    ) -> PosePosterior:
        """The posterior that :meth:`nll` trains: its centre carries no gradient."""
        features = self._encoded(context)
        if centre is None and self.head is not None:
            if self.encoder is not None and features is not None:
                features = features.detach()
            with torch.no_grad():
                answer = self._answer(features)
            centre = None if answer is None else answer.pose
        posterior = self._knowing(features, centre, known, theta)
        if posterior.centre is not None:
            posterior.centre = posterior.centre.detach()
        return posterior

    def _warn_of_untrained_head(self, centre: Tensor | None) -> None:
        """Warn once if only ``nll`` was used in training, which leaves the head as it was."""
        if self.head is None or centre is not None or torch.compiler.is_compiling():
            return
        self._calls_of_nll += 1
        if self._calls_of_nll == PATIENCE and self.head.is_untrained:
            warnings.warn(
                "the head of this prior has not been trained: nll trains the flow only. Add "
                "prior.mode_loss(theta, context), or your own loss on prior.mode(context)",
                stacklevel=3,
            )


def _require_factors(path: str | os.PathLike[str], prior: ConditionalPosePrior) -> None:
    """Raise CheckpointError if factors do not have the shape of the prior's joints."""
    factors = prior.joint_factors
    assert factors is not None
    levels = factors.levels.shape[0] if factors.levels.ndim == 1 else 0
    wanted = [(levels, SMPL_24.num_joints), (levels, prior.space.joints), ()]
    found = [tuple(each.shape) for each in (factors.positions, factors.rotations, factors.people)]
    if levels < 2 or found != wanted:
        raise CheckpointError(f"{path} has joint factors of shapes {found} instead of {wanted}")


def _width(context_features: int | None, evidence: Evidence | None) -> int:
    """Width of the context, given as a number or by the evidence."""
    width = context_features if evidence is None else evidence.context_features
    if width is None:
        raise ValueError("context_features is missing: the width of the context, 0 for none")
    if context_features not in (None, width):
        raise ValueError(f"evidence has {width} numbers, got context_features={context_features}")
    return width


def _require_target_noise(value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"target_noise must be at least 0 and finite, got {value}")


def _require_batch(valid: Tensor, theta: Tensor, context: Tensor | None) -> None:
    require_tensor("valid", valid)
    batch = valid.shape
    if theta.shape[: len(batch)] != batch or (context is not None and context.shape[:-1] != batch):
        contexts = "none" if context is None else tuple(context.shape)
        raise ValueError(
            f"valid has shape {tuple(batch)}, which is not the batch shape of theta "
            f"{tuple(theta.shape)} and context {contexts}"
        )


def _masked(value: Tensor, rows: Tensor) -> Tensor:
    """Zero the rows that are not valid, which keeps the shape and needs no synchronisation."""
    return torch.where(rows.reshape(*rows.shape, *(1,) * (value.ndim - rows.ndim)), value, 0)


def _mean(loss: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of a loss (*batch, *extra) over the valid rows (*batch,); 0 if there are none."""
    if valid is None:
        return loss.sum() / max(loss.numel(), 1)
    weight = valid.bool().reshape(*valid.shape, *(1,) * (loss.ndim - valid.ndim))
    weight = weight.expand(loss.shape).to(loss.dtype)
    return (weight * loss).sum() / weight.sum().clamp(min=1)
