r"""The objective of a fit to 2D keypoints: SMPLify's, with a learned prior.

For each person

.. math:: w \sum_{j,xy} c_j^2\, \rho(u_{jxy} - \hat u_{jxy}) + 16\, E(\theta) + 36\, \|\beta\|^2,
    \quad \rho(e) = \sigma^2 e^2 / (\sigma^2 + e^2)

with the data weight w, the detected and projected keypoints u in the units of `cameras`, the
confidences c, and the penalty E of the pose variables, which for latents of a flow is -2 log p(z)
relative to its minimum: ||z||^2 for a normal base.

References:
    Bogo et al., *Keep it SMPL*, 2016. Kolotouros et al., *Probabilistic Modeling for Human Mesh
    Recovery*, 2021, section 3.6, and its code for the weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowprior._precision import without_autocast
from flowprior.body import Body
from flowprior.fitting.cameras import CROP_PX, REFERENCE_PX, Cameras
from flowprior.fitting.pose_variables import PoseVariables
from flowprior.fitting.solver import with_spare
from flowprior.fitting.whole_body_points import finger_joints, sees_hands
from flowprior.fitting.whole_body_pose import WholeBodyPose, theta_on
from flowprior.keypoints import seen_keypoints
from flowprior.skeleton import (
    BODY_25,
    BODY_67,
    COCO_17,
    COCO_18,
    PROHMR_44,
    PROHMR_FITTING_IGNORES,
    Skeleton,
)

__all__ = ["IGNORED", "KeypointObjective", "KeypointWeights", "Parts"]

NUM_BETAS = 10

# Chosen on the validation subjects and on detections in photographs, see benchmarks/RESULTS.md.
NOISE = 0.004
BETAS_STD = 1.5
OUTLIER = 0.13
TRUNK_NOISE = 3.0
# Regressors' joints are not quite where a body of another family has them.
JOINT_NOISE = 0.02

IGNORED: dict[str, tuple[int, ...]] = {
    PROHMR_44.name: PROHMR_FITTING_IGNORES,
    BODY_25.name: tuple(joint for joint in PROHMR_FITTING_IGNORES if joint < BODY_25.num_joints),
    BODY_67.name: tuple(joint for joint in PROHMR_FITTING_IGNORES if joint < BODY_25.num_joints),
    COCO_17.name: (COCO_17.index("left_hip"), COCO_17.index("right_hip")),
    COCO_18.name: (COCO_18.index("left_hip"), COCO_18.index("right_hip")),
}
"""Indices of the hips, by joint set: detectors place them elsewhere than SMPL does."""


@dataclass(frozen=True)
class KeypointWeights:
    """Weights of the terms of a fit to keypoints; the defaults are ProHMR's.

    Divided by ``pose``, the objective is minus twice a log-density, so weights are variances:
    `of_noise` computes them from standard deviations, and `noise` is the one that they imply.

    Args:
        pose: Weight of the penalty of the pose variables.
        shape: Weight of ||betas||^2.
        focal: Weight of the squared relative change of the focal length, where that is free.
        sigma: Scale of the robust loss, which saturates for larger errors, units.
        use_hips: Whether hips count.
        trunk_noise: Standard deviation of the neck, and of the hips where they count, relative to
            that of other keypoints.
        hands: Weight of the penalty of the fingers, -2 log p, on bodies that have some.
        hand_noise: Standard deviation of the keypoints of fingers relative to that of others.
        joints: Weight of squared distances in m^2 from joints in space, where they are given.

    Raises:
        ValueError: A weight is negative or NaN, or sigma, trunk_noise or hand_noise is not
            positive.
    """

    pose: float = 16.0
    shape: float = 36.0
    focal: float = 1000.0
    sigma: float = 100.0
    use_hips: bool = False
    trunk_noise: float = 1.0
    hands: float = 16.0
    hand_noise: float = 1.0
    joints: float = 16.0 / JOINT_NOISE**2

    def __post_init__(self) -> None:
        for name in ("pose", "shape", "focal", "hands", "joints"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"weight {name} must be at least 0, got {getattr(self, name)}")
        for name in ("sigma", "trunk_noise", "hand_noise"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @classmethod
    def of_noise(
        cls,
        noise: float = NOISE,
        *,
        betas: float = BETAS_STD,
        focal: float = 0.1,
        outlier: float = OUTLIER,
        trunk_noise: float = TRUNK_NOISE,
        use_hips: bool = True,
        hand_noise: float = 1.0,
        joint_noise: float = JOINT_NOISE,
    ) -> "KeypointWeights":
        """Weights from standard deviations, for priors whose penalty is -2 log p.

        A keypoint of confidence c has a normal error with standard deviation ``noise`` / c along
        each axis: one that the detector is half sure of may lie twice as far off.

        Args:
            noise: Standard deviation of a keypoint of confidence 1, in sides of the square around
                the person (of 1.2 times the extent of the keypoints).
            betas: Standard deviation of each shape coefficient.
            focal: Standard deviation of the relative change of the focal length, where it is free.
            outlier: Error at which the robust loss reaches half its maximum, in sides of the
                square.
            trunk_noise: Standard deviation of hips and neck relative to other keypoints: detectors
                place them elsewhere than SMPL does.
            use_hips: Whether hips count.
            hand_noise: Standard deviation of the keypoints of fingers relative to that of others.
            joint_noise: Standard deviation of joints in space along each axis, metres.

        Raises:
            ValueError: A standard deviation is not positive.
        """
        given = {"noise": noise, "betas": betas, "focal": focal, "outlier": outlier}
        given["joint_noise"] = joint_noise
        for name, value in given.items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        pose = (REFERENCE_PX * noise) ** 2
        return cls(
            pose=pose,
            shape=pose / betas**2,
            focal=pose / focal**2,
            sigma=CROP_PX * outlier,
            use_hips=use_hips,
            trunk_noise=trunk_noise,
            hands=pose,
            hand_noise=hand_noise,
            joints=pose / joint_noise**2,
        )

    @property
    def noise(self) -> float:
        """The standard deviation of a certain keypoint that the weights imply, see `of_noise`."""
        return math.sqrt(self.pose) / REFERENCE_PX


@dataclass(frozen=True)
class Parts:
    """Body and camera for given variables of a fit.

    Args:
        theta: (P, J, 6) in layout "columns", of the J joints of the body.
        betas: (P, 10) shape.
        transl: (P, 3) metres, camera frame.
        focal: (P,) focal length, units.
    """

    theta: Tensor
    betas: Tensor
    transl: Tensor
    focal: Tensor


@dataclass(frozen=True)
class _Data:
    """Data of the people, row by row."""

    pose: PoseVariables
    cameras: Cameras
    keypoints: Tensor
    weight: Tensor
    transl: Tensor
    betas: Tensor
    joints_3d: Tensor | None = None

    def select(self, rows: Tensor) -> "_Data":
        return _Data(
            self.pose.select(rows),
            self.cameras[rows],
            self.keypoints[rows],
            self.weight[rows],
            self.transl[rows],
            self.betas[rows],
            None if self.joints_3d is None else self.joints_3d[rows],
        )


@dataclass(frozen=True)
class _Group:
    """People with the same joint set: the first ``count`` of ``rows``, all of a batch if None."""

    skeleton: Skeleton
    rows: Tensor | None
    count: int
    cameras: Cameras
    keypoints: Tensor
    weight: Tensor

    @classmethod
    def of(cls, skeleton: Skeleton, few: _Data, rows: Tensor | None, count: int) -> "_Group":
        """The first joints of ``few``, as many as ``skeleton`` has."""
        cameras, keypoints, weight = few.cameras, few.keypoints, few.weight
        if rows is not None:
            cameras, keypoints, weight = cameras[rows], keypoints[rows], weight[rows]
        joints = skeleton.num_joints
        return cls(skeleton, rows, count, cameras, keypoints[:, :joints], weight[:, :joints])


class KeypointObjective:
    """The objective of P people over x (P, D): pose, betas, camera translation, focal length.

    It is an `Objective` for :func:`minimize`. The translation is parametrised as (u, v, w) in
    ``(1 + w / 2)^2 (t + (u, v, 0))`` around the start t, so that depth and place in the image have
    the same order of magnitude and are decoupled. A free focal length changes together with the
    depth, which keeps the size in the image.

    Args:
        body: The body, in layout "columns".
        keypoints: (P, K, 3) pixels of the image and confidence. Keypoints with a confidence of at
            most `flowprior.keypoints.LEAST_CONF` are ignored.
        skeleton: Their joint set, which the body must have.
        cameras: Cameras of the P people.
        pose: Pose variables of the P people.
        transl: (P, 3) initial translation, metres.
        betas: (P, 10) initial shape; the average shape if None.
        weights: Weights of the terms.
        free_focal: Whether focal lengths are optimised too.
        joints_3d: (P, K, 3) the keypoints in space in the axes of the camera, metres from any
            origin; NaN where unknown. None if all are.

    Raises:
        ValueError: Shapes do not fit, the body has no such keypoints, or keypoints are not in
            pixels or confidences are not probabilities.
    """

    def __init__(
        self,
        body: Body,
        keypoints: Tensor,
        skeleton: Skeleton,
        cameras: Cameras,
        pose: PoseVariables,
        transl: Tensor,
        betas: Tensor | None = None,
        weights: KeypointWeights | None = None,
        *,
        free_focal: bool = False,
        joints_3d: Tensor | None = None,
    ) -> None:
        people = len(keypoints)
        if keypoints.shape != (people, skeleton.num_joints, 3):
            raise ValueError(
                f"expected keypoints of shape (P, {skeleton.num_joints}, 3) for {skeleton.name}, "
                f"got {tuple(keypoints.shape)}"
            )
        if len(cameras) != people or transl.shape != (people, 3):
            raise ValueError(
                f"expected a camera and a translation for each of {people} people, got "
                f"{len(cameras)} and {tuple(transl.shape)}"
            )
        if betas is None:
            betas = keypoints.new_zeros(people, NUM_BETAS)
        if betas.shape != (people, NUM_BETAS):
            raise ValueError(f"expected betas ({people}, {NUM_BETAS}), got {tuple(betas.shape)}")
        if joints_3d is not None and joints_3d.shape != keypoints.shape:
            raise ValueError(
                f"expected joints_3d {tuple(keypoints.shape)}, got {tuple(joints_3d.shape)}"
            )
        keypoints = seen_keypoints(keypoints)
        self.body = body
        self.skeleton = skeleton
        self.weights = weights or KeypointWeights()
        self.free_focal = free_focal
        conf = keypoints[..., 2].clone()
        hips = list(IGNORED.get(skeleton.name, ()))
        if not self.weights.use_hips:
            conf[:, hips] = 0
        neck = [joint for joint, name in enumerate(skeleton.joint_names) if name == "neck"]
        conf[:, hips + neck] /= self.weights.trunk_noise
        fingers = list(finger_joints(skeleton))
        if fingers:
            conf[:, fingers] /= self.weights.hand_noise
        # The 19 extra keypoints of the 44 need most of the surface, which others do without. Each
        # person decides for themselves, so that rounding does not depend on the neighbours.
        self._whole = torch.ones(people, dtype=torch.bool, device=keypoints.device)
        if skeleton is PROHMR_44:
            self._whole = (conf[:, BODY_25.num_joints :] > 0).any(dim=1)
        self._data = _Data(
            pose,
            cameras,
            cameras.to_units(keypoints[..., :2]),
            conf.square() * cameras.data_weight[:, None],
            transl,
            betas,
            None if joints_3d is None else joints_3d.to(keypoints),
        )
        self._rows: Tensor | None = None
        self._order = torch.arange(0, device=keypoints.device)
        self._few = self._data
        self._groups = self._grouped(self._data, self._whole)
        self.frozen: tuple[slice, ...] = ()
        self._start: Tensor | None = None

    def __len__(self) -> int:
        return len(self._data.keypoints)

    @property
    def pose(self) -> PoseVariables:
        """The pose variables of all people."""
        return self._data.pose

    @property
    def cameras(self) -> Cameras:
        """The cameras of all people."""
        return self._data.cameras

    @property
    def seen(self) -> Tensor:
        """(P, K, 3) keypoints in units, and their weights, zero where they do not count."""
        return torch.cat([self._data.keypoints, self._data.weight[..., None]], dim=-1)

    @property
    def hands_seen(self) -> Tensor:
        """(P, 2) bool, whether keypoints of the left and the right fingers count."""
        return sees_hands(self.seen, self.skeleton)

    @property
    def transl(self) -> Tensor:
        """(P, 3) initial translation, metres."""
        return self._data.transl

    @property
    def has_keypoints(self) -> Tensor:
        """(P,) bool, whether any keypoint of the person counts."""
        return (self._data.weight > 0).any(dim=-1)

    @property
    def size(self) -> int:
        """Number D of variables per person."""
        return self.slices["camera"].stop

    @property
    def slices(self) -> dict[str, slice]:
        """Slices of x: "root" (empty unless free), "body", "hands" if any, "betas", "camera"."""
        pose = self.pose.size
        root = 6 * self.pose.free_root
        end = pose + NUM_BETAS
        hands = {}
        if isinstance(self.pose, WholeBodyPose):
            hands = {"hands": slice(self.pose.body.size, pose)}
        return {
            "root": slice(0, root),
            "body": slice(root, hands["hands"].start if hands else pose),
            **hands,
            "betas": slice(pose, end),
            "camera": slice(end, end + 3 + self.free_focal),
        }

    def start(self) -> Tensor:
        """Initial variables x (P, D)."""
        pose = self.pose.start(len(self))
        return torch.cat(
            [pose, self._data.betas, pose.new_zeros(len(pose), 3 + self.free_focal)], dim=-1
        )

    def only(self, x: Tensor, free: Sequence[str], weights: KeypointWeights) -> "KeypointObjective":
        """The same objective with other weights and all but some `slices` frozen.

        Args:
            x: (P, D) variables that provide the values of the frozen slices.
            free: Names of the slices to optimise.
            weights: Weights of the terms; those of the keypoints of hips and neck stay.

        Raises:
            ValueError: There is no slice of that name.
        """
        unknown = set(free) - set(self.slices)
        if unknown:
            raise ValueError(
                f"there is no {', '.join(unknown)}; there are {', '.join(self.slices)}"
            )
        other = object.__new__(KeypointObjective)
        other.__dict__.update(self.__dict__)
        own = self.weights
        other.weights = replace(weights, use_hips=own.use_hips, trunk_noise=own.trunk_noise)
        fingers = list(finger_joints(self.skeleton))
        if fingers and weights.hand_noise != own.hand_noise:
            weight = self._data.weight.clone()
            weight[:, fingers] *= (own.hand_noise / weights.hand_noise) ** 2
            other._data = other._few = replace(self._data, weight=weight)
            other._rows = None
            other._groups = other._grouped(other._data, other._whole)
        other.frozen = tuple(place for name, place in self.slices.items() if name not in free)
        other._start = x.detach()
        return other

    def parts(self, x: Tensor, rows: Tensor | None = None) -> Parts:
        """Body and camera of the people ``rows`` (n,), all if None, for x (n, D)."""
        return self._parts(x, self._data if rows is None else self._selected(rows))

    def keypoints(self, parts: Parts, skeleton: Skeleton | None = None) -> Tensor:
        """Keypoints (P, K, 3) of the bodies, metres, camera frame."""
        points = self.body.keypoints(parts.theta, skeleton or self.skeleton, parts.betas)
        # A matrix product: the gradient of a broadcast sums over the points in an order that
        # depends on the number of people.
        with without_autocast(points.device):
            return points + points.new_ones(*points.shape[:2], 1) @ parts.transl[:, None]

    def penalty(self, x: Tensor, rows: Tensor) -> Tensor:
        """Pose penalty (n,) of the people ``rows`` (n,) at x (n, D)."""
        return self._selected(rows).pose.penalty(x[:, : self.pose.size])

    def projections(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Projected keypoints of the people ``rows`` (n,) at x (n, D), and their weights.

        Returns:
            Coordinates (n, 2 K) in units, and how fast the image term grows with half the square of
            each around here (n, 2 K), in the weight of the robust loss at the present error; no
            gradient flows through it. Joints in space, if given, follow as 3 K coordinates.
        """
        few = self._selected(rows)
        parts = self._parts(x, few)
        units = few.cameras.project(self.keypoints(parts), parts.focal)
        with torch.no_grad():
            variance = self.weights.sigma**2
            square = (units - few.keypoints).square()
            weight = few.weight[..., None] * (variance / (variance + square)).square()
        if few.joints_3d is None:
            return units.flatten(1), weight.flatten(1)
        found, _, known = self._in_space(parts, few.joints_3d)
        strength = (self.weights.joints * known).expand_as(found)
        return (
            torch.cat([units.flatten(1), found.flatten(1)], dim=1),
            torch.cat([weight.flatten(1), strength.flatten(1)], dim=1),
        )

    def image_term(self, parts: Parts, rows: Tensor) -> Tensor:
        """Weighted robust reprojection error (n,) of the people ``rows`` (n,)."""
        self._selected(rows)
        terms = []
        for group in self._groups:
            some = parts if group.rows is None else _part(parts, group.rows)
            seen = group.cameras.project(self.keypoints(some, group.skeleton), some.focal)
            square = (seen - group.keypoints).square()
            variance = self.weights.sigma**2
            loss = (variance * square / (variance + square)).sum(dim=-1)
            terms.append((group.weight * loss).sum(dim=-1)[: group.count])
        if len(terms) == 1:
            return terms[0]
        return torch.cat(terms)[self._order]

    def space_term(self, parts: Parts, rows: Tensor) -> Tensor:
        """Squared distances (n,) from the given joints in space, m^2; both about their means."""
        given = self._selected(rows).joints_3d
        if given is None:
            return parts.betas.new_zeros(len(parts.betas))
        found, expected, known = self._in_space(parts, given)
        return (known * (found - expected).square()).sum(dim=(1, 2))

    def _in_space(self, parts: Parts, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Joints of the bodies and the given ones about the means of the known ones (n, K, 1)."""
        known = given.isfinite().all(dim=-1, keepdim=True)
        share = known.to(given) / known.sum(dim=1, keepdim=True).clamp(min=1)
        found = self.keypoints(parts)
        expected = torch.where(known, given, 0)
        centred = [each - (share * each).sum(dim=1, keepdim=True) for each in (found, expected)]
        return centred[0], centred[1], known.to(given)

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        """Objective (n,) of the people ``rows`` (n,) at x (n, D)."""
        x = self._with_frozen(x, rows)
        parts = self.parts(x, rows)
        total = self.image_term(parts, rows) + self.weights.pose * self.penalty(x, rows)
        total = total + self.weights.shape * parts.betas.square().sum(dim=-1)
        if isinstance(self.pose, WholeBodyPose):
            total = total + self.weights.hands * self.pose.hands_penalty(x[:, : self.pose.size])
        if self._data.joints_3d is not None:
            total = total + self.weights.joints * self.space_term(parts, rows)
        if self.free_focal:
            total = total + self.weights.focal * x[:, -1].square()
        return total

    def _with_frozen(self, x: Tensor, rows: Tensor) -> Tensor:
        if self._start is None or not self.frozen:
            return x
        # Values from the start have no gradient.
        kept = self._start[rows]
        x = x.clone()
        for place in self.frozen:
            x[:, place] = kept[:, place]
        return x

    def _parts(self, x: Tensor, few: _Data) -> Parts:
        size = self.pose.size
        theta = theta_on(few.pose.theta(x[:, :size]), self.body.skeleton)
        betas = x[:, size : size + NUM_BETAS]
        moved = x[:, size + NUM_BETAS :]
        across = torch.cat([moved[:, :2], x.new_zeros(len(x), 1)], dim=-1)
        transl = _factor(moved[:, 2:3]) * (few.transl + across)
        if not self.free_focal:
            return Parts(theta, betas, transl, few.cameras.focal)
        longer = _factor(moved[:, 3])
        transl = torch.cat([transl[:, :2], transl[:, 2:] * longer[:, None]], dim=-1)
        return Parts(theta, betas, transl, few.cameras.focal * longer)

    def _selected(self, rows: Tensor) -> _Data:
        if rows is not self._rows:
            self._rows, self._few = rows, self._data.select(rows)
            self._groups = self._grouped(self._few, self._whole[rows])
        return self._few

    def _grouped(self, few: _Data, whole: Tensor) -> "tuple[_Group, ...]":
        """Groups of people by the joint set to compute: all of it, or only OpenPose's part."""
        if self.skeleton is not PROHMR_44 or bool(whole.all()):
            return (_Group.of(self.skeleton, few, None, len(whole)),)
        if not bool(whole.any()):
            return (_Group.of(BODY_25, few, None, len(whole)),)
        groups, order = [], []
        for skeleton, mask in ((self.skeleton, whole), (BODY_25, ~whole)):
            places = mask.nonzero()[:, 0]
            padded = places[with_spare(torch.arange(len(places), device=places.device))]
            groups.append(_Group.of(skeleton, few, padded, len(places)))
            order.append(places)
        self._order = torch.cat(order).argsort()
        return tuple(groups)


def _factor(number: Tensor) -> Tensor:
    """A positive factor, about 1 + number.

    Other instructions compute an exponential at the end of a batch, with different rounding.
    """
    return (1 + number / 2).square()


def _part(parts: Parts, rows: Tensor) -> Parts:
    return Parts(parts.theta[rows], parts.betas[rows], parts.transl[rows], parts.focal[rows])
