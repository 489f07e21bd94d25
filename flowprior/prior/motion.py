"""MotionPrior: the density of the next pose given the last two, and of whole motions."""

import copy
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._checks import require_count, require_tensor
from flowprior._modes import lasting
from flowprior.files import model_file
from flowprior.files.model_file import CheckpointError
from flowprior.files.model_folder import HEADER_KEYS, SharedModel
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.motion_context import MotionContext, MotionHead, Past
from flowprior.prior.posterior import PosePosterior, PosePrior
from flowprior.prior.spaces import So3Space

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flowprior.prior.conditional import PriorOptions

__all__ = ["MotionPrior"]

RATES = (7.5, 30.0)
TARGET_NOISE = 0.001  # of the flow's vectors, about radians: a frame moves far less than poses vary
KIND = "motion"
# Entries of the configuration that describe the model and follow from the others.
FIXED = ("kind", "space", "context_features", "anchored")


class MotionPrior(SharedModel):
    r"""A trainable density p(theta_t | theta_{t-1}, theta_{t-2}, evidence) of the next pose.

    The density lies around the pose that a head expects, motion at constant velocity with a learned
    correction, and an anchored flow describes the difference; so the expected pose is the mode. It
    depends on the two poses through numbers that do not change when the person turns. With ``up``,
    it also depends on the direction of gravity. It says nothing of translations.

    It is conditioned on the frame rate, within the rates that it was trained for. Other clips are
    resampled before: a clip of 60 frames per second is two of 30.

    Args:
        joints: Number of joints J, the root first; 24 for SMPL.
        layout: Order of the six numbers of a 6D vector.
        rest_joints: Joints that the data says nothing of, such as SMPL's hands.
        evidence: Kinds of evidence about the next pose, ``"keypoints_2d"`` and ``"joints_3d"``.
        head_features: Width of the head.
        encoder_features: Width of the network that reads the context for the flow.
        rates: Lowest and highest frame rate of the training.
        target_noise: As for :class:`flowprior.ConditionalPosePrior`.
        **options: Options of the flow and its encoder, as for
            :class:`flowprior.ConditionalPosePrior`.

    Attributes:
        step: The density of one step, given the context and the expected pose.
        head: The head.
        rates: Lowest and highest frame rate.

    Raises:
        TypeError: If an option is unknown.
        ValueError: If a size or rate is out of range, or a kind of evidence unknown.
    """

    def __init__(
        self,
        *,
        joints: int = 24,
        layout: str = "columns",
        rest_joints: Sequence[int] = (22, 23),
        evidence: Sequence[str] = (),
        head_features: int = 160,
        encoder_features: int = 160,
        rates: Sequence[float] = RATES,
        target_noise: float = TARGET_NOISE,
        **options: "Unpack[PriorOptions]",
    ) -> None:
        super().__init__()
        known = {key: value for key, value in options.items() if key not in HEADER_KEYS}
        for fixed in FIXED:
            known.pop(fixed, None)
        known["anchored"] = True
        known.setdefault("encoder_skip", False)
        low, high = (float(rate) for rate in rates)
        if not 0 < low <= high < math.inf:
            raise ValueError(f"rates must be positive and ascending, got {tuple(rates)}")
        self.rates = (low, high)
        self.context = MotionContext(
            So3Space(joints, layout), tuple(evidence), tuple(sorted(set(rest_joints)))
        )
        width = self.context.features
        step = ConditionalPosePrior(
            width,
            joints=joints,
            space="so3",
            layout=layout,
            encoder_features=encoder_features,
            head_features=0,
            target_noise=target_noise,
            rest_joints=rest_joints,
            **cast("PriorOptions", known),
        )
        self.step: PosePrior = step
        self.head = MotionHead(width, joints, self.context.moving, head_features)
        self.provenance: dict[str, str] = {}
        self.config: dict[str, Any] = {
            **step.config,
            "kind": KIND,
            "evidence": list(evidence),
            "head_features": head_features,
            "rates": list(self.rates),
        }

    def __repr__(self) -> str:
        kinds = self.context.evidence.kinds if self.context.evidence is not None else ()
        joints = self.step.space.joints
        return f"MotionPrior(joints={joints}, rates={self.rates}, evidence={kinds})"

    def forward(
        self,
        previous: Tensor,
        *,
        fps: float,
        up: Tensor | None = None,
        keypoints_2d: Tensor | None = None,
        joints_3d: Tensor | None = None,
    ) -> PosePosterior:
        """The posterior of the next pose.

        Args:
            previous: (*batch, 2, J, k), the last two poses in their order, in any form of rotations
                that priors accept. The first of them may be NaN, and a single pose (*batch, 1, J,
                k) be given: the velocity is then unknown.
            fps: Frames per second, of the two poses and of the next one.
            up: (3,) or (*batch, 3), the direction against gravity in the axes of the poses, such as
                (0, -1, 0) in those of a level camera; None if it is unknown.
            keypoints_2d: (*batch, 17 or 25, 3) of the next pose, as for
                :meth:`flowprior.prior.PosePrior.given`.
            joints_3d: (*batch, 24, 3) of the next pose.

        Returns:
            The posterior of batch shape (*batch,); its mode is the expected pose.

        Raises:
            TypeError: If the poses are not a tensor.
            ValueError: If the rate is outside that of the training, the last pose holds NaN, a
                shape does not fit, or the prior was not trained with this evidence.
        """
        context, centre = self._conditions(
            previous, fps, up=up, keypoints_2d=keypoints_2d, joints_3d=joints_3d
        )
        return self.step(context, centre=centre)

    def nll(
        self,
        theta: Tensor,
        previous: Tensor,
        *,
        fps: float,
        up: Tensor | None = None,
        keypoints_2d: Tensor | None = None,
        joints_3d: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Mean negative log-likelihood of next poses, which trains the flow, not the head.

        Args:
            theta: (*batch, J, k), the next poses.
            previous: As for :meth:`forward`, and so are the other arguments.
            fps: Frames per second.
            up: The direction against gravity.
            keypoints_2d: Evidence.
            joints_3d: Evidence.
            generator: Source of the noise that training adds, see
                :meth:`flowprior.ConditionalPosePrior.nll`.

        Returns:
            Scalar () in nats.

        Raises:
            TypeError: If the prior is frozen, or an argument is not a tensor.
            ValueError: As :meth:`forward`.
        """
        if not isinstance(self.step, ConditionalPosePrior):
            raise TypeError("a frozen prior cannot be trained")
        context, centre = self._conditions(
            previous, fps, up=up, keypoints_2d=keypoints_2d, joints_3d=joints_3d
        )
        return self.step.nll(theta, context, centre=centre.detach(), generator=generator)

    def mode_loss(
        self,
        theta: Tensor,
        previous: Tensor,
        *,
        fps: float,
        up: Tensor | None = None,
        keypoints_2d: Tensor | None = None,
        joints_3d: Tensor | None = None,
    ) -> Tensor:
        """Mean of 2 sin(angle / 2) between the expected and the next pose, which trains the head.

        Args:
            theta: (*batch, J, k), the next poses.
            previous: As for :meth:`forward`, and so are the other arguments.
            fps: Frames per second.
            up: The direction against gravity.
            keypoints_2d: Evidence.
            joints_3d: Evidence.

        Returns:
            Scalar (), for small angles the angle in radians; the mean over joints not at rest.

        Raises:
            TypeError: If an argument is not a tensor.
            ValueError: As :meth:`forward`.
        """
        _, centre = self._conditions(
            previous, fps, up=up, keypoints_2d=keypoints_2d, joints_3d=joints_3d
        )
        expected = rotations.rot6d_to_matrix(centre, self.context.space.layout)
        truth = self.context.space.to_matrix(theta).to(expected)
        moving = self.context.moving
        away = (expected - truth)[..., moving, :, :].square().sum(dim=(-2, -1)) / 2
        return (away + 1e-8).sqrt().mean()

    def frame_log_prob(
        self,
        clip: Tensor,
        *,
        fps: float,
        up: Tensor | None = None,
        valid: Tensor | None = None,
        keypoints_2d: Tensor | None = None,
        joints_3d: Tensor | None = None,
    ) -> Tensor:
        """Log-densities of the poses of clips, each given the two poses before.

        A frame whose predecessor is missing starts anew: it has no density here (0), and that of
        the frame after it is given a pose without a velocity.

        Args:
            clip: (*batch, T, J, k); missing frames may hold NaN.
            fps: Frames per second.
            up: As for :meth:`forward`.
            valid: (*batch, T) bool, the frames that are known; those without NaN if None.
            keypoints_2d: (*batch, T, 17 or 25, 3).
            joints_3d: (*batch, T, 24, 3).

        Returns:
            (*batch, T) in nats; 0 for the first frame, missing ones, and those after a gap.

        Raises:
            TypeError: If the clip is not a tensor.
            ValueError: As :meth:`forward`.
        """
        self.require_rate(fps)
        require_tensor("clip", clip)
        space = self.context.space
        pose = space.as_pose(clip)
        if pose.ndim < 3:
            raise ValueError(
                f"clip must be (*batch, T, {space.joints}, k), got {tuple(clip.shape)}"
            )
        finite = pose.isfinite().flatten(start_dim=-2).all(dim=-1)
        found = finite
        if valid is not None:
            if valid.shape != finite.shape:
                raise ValueError(f"valid must be {tuple(finite.shape)}, got {tuple(valid.shape)}")
            found = finite & valid.bool()
        frames = pose.shape[-3]
        pose = pose.to(self.step.flow.dtype)
        result = pose.new_zeros(found.shape)
        if frames < 2 or not found.numel():
            return result
        rest = space.rest.to(pose)
        filled = torch.where(found[..., None, None], pose, rest)
        nothing = torch.full_like(pose[..., :1, :, :], torch.nan)
        before = torch.where(found[..., None, None], pose, torch.nan)
        before = torch.cat([nothing, before[..., :-2, :, :]], dim=-3)
        previous = torch.stack([before, filled[..., :-1, :, :]], dim=-3)
        later = {"keypoints_2d": keypoints_2d, "joints_3d": joints_3d}
        told = {name: each[..., 1:, :, :] for name, each in later.items() if each is not None}
        if up is not None and up.ndim > 1:
            up = up[..., None, :]
        posterior = self(previous, fps=fps, up=up, **told)
        log_prob = posterior.log_prob(filled[..., 1:, :, :])
        counts = found[..., 1:] & found[..., :-1]
        return torch.cat([result[..., :1], torch.where(counts, log_prob, 0)], dim=-1)

    def log_prob(
        self,
        clip: Tensor,
        *,
        fps: float,
        up: Tensor | None = None,
        valid: Tensor | None = None,
        keypoints_2d: Tensor | None = None,
        joints_3d: Tensor | None = None,
    ) -> Tensor:
        """Log-densities of clips, given the first pose of each run of frames without a gap.

        It is the sum of :meth:`frame_log_prob`, exact conditionals.

        Args:
            clip: (*batch, T, J, k), as for :meth:`frame_log_prob`, and so are the other arguments.
            fps: Frames per second.
            up: The direction against gravity.
            valid: (*batch, T) bool.
            keypoints_2d: (*batch, T, 17 or 25, 3).
            joints_3d: (*batch, T, 24, 3).

        Returns:
            (*batch,) in nats; 0 for clips of fewer than two frames.

        Raises:
            TypeError: If the clip is not a tensor.
            ValueError: As :meth:`forward`.
        """
        return self.frame_log_prob(
            clip, fps=fps, up=up, valid=valid, keypoints_2d=keypoints_2d, joints_3d=joints_3d
        ).sum(dim=-1)

    @torch.no_grad()
    def rollout(
        self,
        previous: Tensor,
        frames: int,
        num_samples: int = 1,
        *,
        fps: float,
        up: Tensor | None = None,
        temperature: float = 1.0,
        keypoints_2d: Tensor | None = None,
        joints_3d: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Sample motions that continue one or two poses.

        Args:
            previous: (*batch, 2, J, k), as for :meth:`forward`.
            frames: Number T of frames.
            num_samples: Number n of motions per start.
            fps: Frames per second.
            up: As for :meth:`forward`.
            temperature: Factor of the latents: 1 samples the density, 0 follows the mode.
            keypoints_2d: (*batch, T, 17 or 25, 3) of the frames.
            joints_3d: (*batch, T, 24, 3).
            generator: Source of the noise; torch's global one if None.

        Returns:
            (*batch, n, T, J, 6), the frames after the given ones, without gradients.

        Raises:
            TypeError: If the poses are not a tensor.
            ValueError: As :meth:`forward`, or if a number is negative.
        """
        require_count("frames", frames)
        require_count("num_samples", num_samples)
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must be at least 0, got {temperature}")
        space, flow = self.context.space, self.step.flow
        past = self.context.past(previous, fps, flow.temperature)  # checks
        batch = past.last.shape[:-3]
        pose = space.as_pose(previous).to(flow.dtype)
        pose = pose[..., None, :, :, :].expand(*batch, num_samples, *pose.shape[-3:])
        given = {"keypoints_2d": keypoints_2d, "joints_3d": joints_3d}
        told = {name: value for name, value in given.items() if value is not None}
        if any(value.shape[-3] != frames for value in told.values()):
            raise ValueError(f"evidence must have {frames} frames, one for each of the rollout")
        if up is not None and up.ndim > 1:
            up = up[..., None, :]
        result = []
        for t in range(frames):
            now = {name: value[..., t, :, :].unsqueeze(-3) for name, value in told.items()}
            posterior = self(pose, fps=fps, up=up, **now)
            shape = (*batch, num_samples, flow.features)
            z = flow.base.sample(shape, flow.dtype, flow.device, generator)
            known = posterior.known
            if known is not None:
                z = z * ~known.repeat_interleave(flow.features // space.joints, dim=-1)
            theta = posterior.decode(temperature * z)
            result.append(theta)
            pose = torch.stack([pose[..., -1, :, :], theta], dim=-3)
        if not result:
            return pose.new_zeros(*batch, num_samples, 0, *space.event_shape)
        return torch.stack(result, dim=-3)

    @torch.no_grad()
    def calibrate(
        self, theta: Tensor, previous: Tensor, *, fps: float, up: Tensor | None = None
    ) -> float:
        """Fit the base density to held-out motions, as :meth:`ConditionalPosePrior.calibrate`.

        Args:
            theta: (*batch, J, k), the next poses.
            previous: As for :meth:`forward`, and so are the other arguments.
            fps: Frames per second.
            up: The direction against gravity.

        Returns:
            The temperature.
        """
        if not isinstance(self.step, ConditionalPosePrior):
            raise TypeError("a frozen prior cannot be calibrated")
        context, centre = self._conditions(previous, fps, up=up)
        return self.step.calibrate(theta, context, centre=centre)

    @lasting()
    def freeze(self) -> "MotionPrior":
        """Copy the prior for inference, with constant weights; it cannot be trained or saved."""
        frozen = copy.copy(self)
        frozen._modules = dict(self._modules)
        frozen.head = copy.deepcopy(self.head).requires_grad_(requires_grad=False)
        if isinstance(self.step, ConditionalPosePrior):
            frozen.step = self.step.freeze()
        return frozen.eval()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and configuration to one safetensors file, atomically.

        Args:
            path: The file, in an existing folder.

        Raises:
            TypeError: If the prior is frozen.
            OSError: If the file cannot be written.
        """
        if not isinstance(self.step, ConditionalPosePrior):
            raise TypeError("a frozen prior cannot be saved; save the one it was made from")
        model_file.save(path, self._content())

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], device: torch.device | str = "cpu"
    ) -> "MotionPrior":
        """Read a prior written by :meth:`save`, in evaluation mode and its saved dtype.

        Args:
            path: The file.
            device: Device of the weights.

        Returns:
            The prior.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If the file is damaged or holds another model.
        """
        return cls._from_file(path, model_file.load(path), device)

    @classmethod
    @lasting()
    def _from_file(
        cls, path: str | os.PathLike[str], content: model_file.ModelFile, device: torch.device | str
    ) -> "MotionPrior":
        model_file.require_plausible(path, content.config, content.tensors)
        if content.config.get("kind") != KIND:
            raise CheckpointError(f"{path} is not a motion prior")
        try:
            with torch.device("meta"):
                prior = cls(**content.config)
        except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not a motion prior: {error}") from error
        model_file.require_same_tensors(path, content.tensors, prior.state_dict())
        model_file.require_finite(path, content.tensors)
        prior.load_state_dict(content.tensors, assign=True)
        prior.provenance = dict(content.provenance)
        return prior.eval().to(device)

    def _conditions(
        self, previous: Tensor, fps: float, *, up: Tensor | None = None, **evidence: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The context (*batch, C) and the expected pose (*batch, J, 6)."""
        context, _, centre = self.expectation(previous, fps=fps, up=up, **evidence)
        return context, centre

    def expectation(
        self, previous: Tensor, *, fps: float, up: Tensor | None = None, **evidence: Tensor | None
    ) -> tuple[Tensor, Past, Tensor]:
        """What the density of the next pose is made of.

        Args:
            previous: As for :meth:`forward`, and so are the other arguments.
            fps: Frames per second.
            up: The direction against gravity.
            **evidence: ``keypoints_2d`` or ``joints_3d``.

        Returns:
            The context (*batch, C), the last two poses, and the expected pose (*batch, J, 6).
        """
        self.require_rate(fps)
        past = self.context.past(previous, fps, self.step.flow.temperature)
        context = self.context.numbers(past, up, **evidence)
        turn = self.head(context, past)
        rest = list(self.step.rest_joints)
        centre = past.last @ rotations.rotvec_to_matrix(turn)
        if rest:
            centre = centre.clone()
            centre[..., rest, :, :] = torch.eye(3).to(centre)
        return context, past, rotations.matrix_to_rot6d(centre, self.context.space.layout)

    def require_rate(self, fps: float) -> None:
        """Raise ValueError unless a frame rate is within those of the training."""
        low, high = self.rates
        if not low <= fps <= high:
            raise ValueError(
                f"this prior was trained for {low:g} to {high:g} frames per second, got {fps:g}: "
                "resample the poses, such as every second one of 60"
            )
