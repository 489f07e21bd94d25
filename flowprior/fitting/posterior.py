r"""Uncertainty of a fit: the normal approximation of its posterior (Laplace's), and samples of it.

Divided by the weight of the pose penalty, the objective of a fit is minus twice a log-density,

.. math:: -2 \log p(z, \beta, t \mid u) = \sum_{j,xy} \rho(e_{jxy}) / \sigma_j^2 + E(z)
    + \|\beta\|^2 / \sigma_\beta^2 + \text{const},

of the pose, shape and translation given the keypoints; `KeypointWeights.noise` is the standard
deviation of a keypoint that the weights imply. Around the fit it is taken as normal, with the
Gauss-Newton matrix of the image term and the precision of the latents as inverse covariance.
Latents drawn from it pass through the flow, so poses are not normal: limbs keep their lengths, and
hidden parts vary as the prior has learned.

Hidden hands are drawn from their prior.

A prior given the same keypoints has read them before, and nobody's limbs are quite those of the
body. `SPREAD` corrects for both: it was chosen on people whom no prior has seen.

References:
    MacKay, *Information Theory, Inference, and Learning Algorithms*, 2003, chapter 27. Triggs et
    al., *Bundle Adjustment*, 2000, for robust weights in the Gauss-Newton matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior import rotations
from flowprior._checks import require_count
from flowprior.fitting.objective import KeypointObjective
from flowprior.fitting.pose_variables import AnglePose, LatentPose, PoseVariables
from flowprior.fitting.whole_body_pose import WholeBodyPose, hand_joints
from flowprior.prior.uncertainty import JointUncertainty, joined, uncertainty_of
from flowprior.skeleton import Skeleton

__all__ = ["SPREAD", "FitPosterior", "FitSamples"]

SPREAD = 1.5
"""Factor on standard deviations; 1 takes the densities at their word. With it, the 90 % radii of
joints hold about 90 % of the truths on the validation subjects, see benchmarks/RESULTS.md."""

AT_ONCE = 2048  # bodies that are posed together
# A direction on which the objective does not depend, such as the length of a 6D vector or the
# latents of the hands, has no uncertainty to report.
FLAT = 1e-7
ROUNDS = 10  # of the precision of the latents; it changes by less than 1 % after five


@dataclass(frozen=True)
class FitSamples:
    """Samples of the posteriors of P fits, n of each.

    Args:
        theta: (P, n, J, 3, 3) rotations of the body's J joints; the root is relative to the camera.
        betas: (P, n, 10) shape.
        transl: (P, n, 3) metres, camera frame.
        focal_px: (P, n) focal length, pixels of the image; it differs only where it was free.
    """

    theta: Tensor
    betas: Tensor
    transl: Tensor
    focal_px: Tensor

    def __len__(self) -> int:
        return len(self.theta)


class FitPosterior:
    """Normal approximation of the posteriors of P fits, in the variables of the fit.

    Args:
        objective: The objective of the fits.
        x: (P, D) fitted variables.
        spread: Factor on standard deviations, see `SPREAD`.

    Raises:
        ValueError: There is no penalty of the pose, or ``spread`` is not positive.
    """

    def __init__(self, objective: KeypointObjective, x: Tensor, *, spread: float = SPREAD) -> None:
        pose = objective.pose
        if isinstance(pose, WholeBodyPose):
            pose = pose.body
        without = isinstance(pose, AnglePose) and pose.kind == "none"
        if without or not objective.weights.pose > 0:
            raise ValueError(
                "a fit without a prior has no posterior: depth would be undetermined; give a prior"
            )
        if not spread > 0:
            raise ValueError(f"spread must be positive, got {spread}")
        self.objective = objective
        self.mean = x.detach()
        self.spread = spread
        self.factor = self._factor()

    def __len__(self) -> int:
        return len(self.mean)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> FitSamples:
        """Draw poses, shapes and translations.

        Args:
            num_samples: Number n of samples of each person.
            generator: Source of the noise; torch's global one if None.

        Returns:
            Samples (P, n, ...).

        Raises:
            TypeError: ``num_samples`` is not a whole number.
            ValueError: ``num_samples`` is negative.
        """
        require_count("num_samples", num_samples, 0)
        people, size = self.mean.shape
        noise = torch.randn(
            people,
            num_samples,
            size,
            generator=generator,
            dtype=self.mean.dtype,
            device=self.mean.device,
        )
        x = self.mean[:, None] + self.spread * (noise @ self.factor.mT)
        rows = torch.arange(people, device=x.device).repeat_interleave(num_samples)
        parts = [
            self.objective.parts(points, some)
            for points, some in zip(
                x.flatten(0, 1).split(AT_ONCE), rows.split(AT_ONCE), strict=True
            )
        ]
        shape = (people, num_samples)
        theta = torch.cat([part.theta for part in parts])
        theta = self._with_prior_hands(theta.unflatten(0, shape), generator)
        focal = torch.cat([part.focal for part in parts]) / self.objective.cameras.scale[rows]
        return FitSamples(
            theta=rotations.rot6d_to_matrix(theta),
            betas=torch.cat([part.betas for part in parts]).unflatten(0, shape),
            transl=torch.cat([part.transl for part in parts]).unflatten(0, shape),
            focal_px=focal.unflatten(0, shape),
        )

    @torch.no_grad()
    def joint_uncertainty(
        self,
        *,
        num_samples: int = 200,
        skeleton: Skeleton | None = None,
        generator: torch.Generator | None = None,
    ) -> JointUncertainty:
        """How far each joint may lie from the fit, in millimetres and degrees.

        Args:
            num_samples: Number of samples of each person, at least 2.
            skeleton: The joint set of the positions, with K joints; the body's own if None.
            generator: Source of the samples; torch's global one if None.

        Returns:
            As :meth:`flowprior.PosePosterior.joint_uncertainty`: positions are relative to the
            pelvis, in the camera's axes, and contain the uncertainty of the shape.
        """
        require_count("num_samples", num_samples, 2)
        samples = self.sample(num_samples, generator=generator)
        fitted = self.objective.parts(self.mean, torch.arange(len(self), device=self.mean.device))
        mode = rotations.rot6d_to_matrix(fitted.theta)
        parts = []
        for rows in torch.arange(len(self)).split(max(1, AT_ONCE // num_samples)):
            body = _OwnShapes(self.objective, fitted.betas[rows], samples.betas[rows])
            parts.append(uncertainty_of(samples.theta[rows], mode[rows], body, skeleton))
        return joined(parts, torch.Size([len(self)]))

    def _with_prior_hands(self, theta: Tensor, generator: torch.Generator | None) -> Tensor:
        """Samples (P, n, J, 6) in which hidden hands are drawn from their prior."""
        pose = self.objective.pose
        if not isinstance(pose, WholeBodyPose):
            return theta
        theta = theta.clone()
        unseen = ~self.objective.hands_seen
        places = hand_joints(self.objective.body)
        for side, (hand, joints) in enumerate(zip((pose.left, pose.right), places, strict=True)):
            rows = unseen[:, side].nonzero()[:, 0]
            drawn = hand.sample(rows, theta.shape[1], generator=generator)
            columns = torch.tensor(joints, device=rows.device)
            theta[rows[:, None], :, columns] = drawn.transpose(1, 2)
        return theta

    def _factor(self) -> Tensor:
        """A factor (P, D, D) of the covariance of x."""
        size = self.mean.shape[1]
        blocks = [
            self._precision(rows)
            for rows in torch.arange(len(self), device=self.mean.device).split(64)
        ]
        # In double precision: camera and latents differ by orders of magnitude.
        empty = self.mean.new_zeros(0, size, size, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(torch.cat([empty, *blocks]))
        # A density may be convex in some directions.
        values = values.abs()
        most = values.amax(dim=-1, keepdim=True)
        width = torch.where(values > FLAT * most, values, torch.inf).rsqrt()
        return (vectors * width[:, None]).to(self.mean)

    def _precision(self, rows: Tensor) -> Tensor:
        """Precision of x (n, D, D) in double precision, Gauss-Newton in the image."""
        objective, weights = self.objective, self.objective.weights
        with torch.enable_grad():
            x = self.mean[rows].clone().requires_grad_()
            units, strength = objective.projections(x, rows)
            seen = (strength > 0).any(dim=0).nonzero()[:, 0].tolist()
            jacobian = [_gradient(units[:, column], x) for column in seen]
        size = x.shape[1]
        diagonal = torch.zeros(size, dtype=torch.float64, device=x.device)
        diagonal[objective.slices["betas"]] = weights.shape / weights.pose
        if objective.free_focal:
            diagonal[-1] = weights.focal / weights.pose
        total = torch.diag(diagonal).repeat(len(rows), 1, 1)
        if jacobian:
            stacked = torch.stack(jacobian, dim=1).double()
            total += stacked.mT @ (strength[:, seen, None] * stacked) / weights.pose
        pose = objective.pose.select(rows)
        terms = [_Term(slice(0, pose.size), pose, 1.0)]
        if isinstance(pose, WholeBodyPose):
            share = weights.hands / weights.pose
            terms = [_Term(slice(0, pose.body.size), pose.body, 1.0)]
            terms += [_Term(place, hand.fingers, share) for place, hand in pose.hands.values()]
        x = self.mean[rows]
        for term in terms:
            if not isinstance(term.pose, LatentPose):
                total[:, term.place, term.place] += term.curvature(x)
        return _with_latents(total, x, [t for t in terms if isinstance(t.pose, LatentPose)])


@dataclass(frozen=True)
class _Term:
    """The penalty of the variables of one prior.

    Args:
        place: Their place in x.
        pose: The variables.
        weight: Weight of the penalty relative to that of the body.
    """

    place: slice
    pose: PoseVariables
    weight: float

    def slope(self, x: Tensor, *, create_graph: bool = False) -> Tensor:
        """Gradient (n, d) of the penalty at its variables x (n, d)."""
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            value = self.weight * self.pose.penalty(x).sum()
            return torch.autograd.grad(value, x, create_graph=create_graph)[0]

    def curvature(self, x: Tensor) -> Tensor:
        """Half the second derivative (n, d, d) at all variables x (n, D)."""
        with torch.enable_grad():
            own = x[:, self.place].detach().clone().requires_grad_()
            slope = self.slope(own, create_graph=True)
            rows = [_gradient(slope[:, column], own) for column in range(own.shape[1])]
        return torch.stack(rows, dim=1) / 2


def _with_latents(precision: Tensor, x: Tensor, terms: Sequence[_Term]) -> Tensor:
    """Add that of the latents of flows to the precision (n, D, D) of the other terms.

    The curvature at the minimum would exaggerate: Student's t in many dimensions has a narrow peak
    that holds little of its mass. It is a normal density of random scale; its precision given the
    expected length of the latents is the fixed point of variational inference, and 1 for a
    normal base.
    """
    # Joints at rest have latents without an effect.
    free = torch.zeros_like(x, dtype=torch.float64)
    for term in terms:
        own = x[:, term.place]
        free[:, term.place] = (term.slope(torch.ones_like(own)) != 0).double()
    # Directions without any precision are those without an effect; any number inverts them.
    idle = (
        torch.diag_embed(1 - free)
        * FLAT
        * precision.diagonal(dim1=1, dim2=2).amax(-1)[:, None, None].clamp(min=1.0)
    )
    scale = free.clone()
    for _ in range(ROUNDS):
        covariance = torch.linalg.inv(precision + idle + torch.diag_embed(scale))
        square = free * (x.square() + covariance.diagonal(dim1=1, dim2=2))
        for term in terms:
            own = free[:, term.place]
            length = square[:, term.place].sum(dim=-1, keepdim=True)
            along = (length / own.sum(dim=-1, keepdim=True).clamp(min=1)).sqrt() * own
            slope = term.slope(along.to(x))
            scale[:, term.place] = (slope * along).sum(dim=-1, keepdim=True) / (2 * length) * own
    return precision + torch.diag_embed(scale)


@dataclass(frozen=True)
class _OwnShapes:
    """The body of a fit, with the shape of each sample.

    Args:
        objective: The objective, which has the body.
        fitted: (P, 10) betas of the fits.
        sampled: (P, n, 10) betas of the samples.
    """

    objective: KeypointObjective
    fitted: Tensor
    sampled: Tensor

    @property
    def skeleton(self) -> Skeleton:
        """The joints of the body."""
        return self.objective.body.skeleton

    def keypoints(
        self, theta: Tensor, skeleton: Skeleton | None = None, betas: Tensor | None = None
    ) -> Tensor:
        """Keypoints (P, n, K, 3) of poses (P, n, J, 3, 3) from the pelvis."""
        own = self.sampled if theta.shape[1] == self.sampled.shape[1] else self.fitted[:, None]
        body = self.objective.body
        points = body.keypoints(theta, skeleton, own)
        return points - body.keypoints(theta, body.skeleton, own)[..., :1, :]


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    """Gradients (n, D) of values (n,), each of which depends on its own row of x."""
    (found,) = torch.autograd.grad(value.sum(), x, retain_graph=True, materialize_grads=True)
    return found
