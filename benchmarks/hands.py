"""The prior over hands on hands that it was not trained on, next to a Gaussian and to no prior.

    python -m benchmarks.hands --threads 1

Tasks: inverse kinematics from the five fingertips, exact or with noise; completion of one finger
from the other four; the density of poses. The hands are the procedural test poses of
``tools.priors``, of average shape, which neither prior has seen. The Gaussian has a full covariance
over the 45 numbers of the rotation vectors, as MANO's principal components have, and is fitted to
the same training poses. Both priors minimise the same objective: squared distances at the
fingertips, in units of 2 mm or of the noise, minus twice the log-density, from the best of the mode
and 16 samples. Without a prior, it is the distances alone, from the mean pose.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.priors.data import log_haar
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.fitting import inverse_kinematics, minimize
from flowprior.prior import PosePrior
from flowprior.skeleton import MANO_16
from tools.priors.drawing import noisy
from tools.priors.hand_chain import HandChain
from tools.priors.hand_drawing import FINGERS, TIPS, finger_joints, points_of
from tools.priors.hand_poses import wrong_way
from tools.priors.hands import SIZE, Hands, load_hands

__all__ = ["GaussianHand", "main"]

PRIOR = "flowprior/hands-procedural"
SIGMA_M = 0.002
NOISE_M = 0.005
STARTS = 16
BEST_OF = 10
STEPS = 100
BACKWARDS_DEGREES = -10.0
# The knuckles do not move in the frame of the wrist.
JOINTS = [n for n in range(1, MANO_16.num_joints) if not MANO_16.joint_names[n].endswith("1")]
NAMES = {"pinky": "little"}


class GaussianHand:
    """A Gaussian over the rotation vectors of a hand.

    Args:
        rotvecs: (N, 15, 3) training poses. They get the noise of a degree that the shipped prior is
            trained with: exact hinges have no finite density.
    """

    def __init__(self, rotvecs: Tensor) -> None:
        generator = torch.Generator().manual_seed(1)
        theta = noisy(rotations.rotvec_to_matrix(rotvecs), generator)
        flat = rotations.matrix_to_rotvec(theta).flatten(1).double()
        self.mean = flat.mean(dim=0)
        self.covariance = flat.T.cov()
        self.factor = torch.linalg.cholesky(self.covariance)

    def blurred(self, size: float, validation: Tensor) -> "GaussianHand":
        """With further noise, radians, and a temperature that fits validation poses (N, 15, 3)."""
        found = copy.copy(self)
        found.covariance = self.covariance + size**2 * torch.eye(len(self.mean)).double()
        found.factor = torch.linalg.cholesky(found.covariance)
        away = (validation.flatten(1).double() - self.mean).T
        z = torch.linalg.solve_triangular(found.factor, away, upper=False)
        found.factor = found.factor * z.square().mean().sqrt()
        return found

    def pose(self, z: Tensor) -> Tensor:
        """Latents (..., 45) -> rotation vectors (..., 15, 3)."""
        flat = self.mean.to(z) + z @ self.factor.T.to(z)
        return flat.unflatten(-1, (-1, 3))

    def complete(self, rotvecs: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (N, n) and covariance (n, n) of the unknown numbers, given joints (15,) bool."""
        told = known.repeat_interleave(3)
        cross = self.covariance[~told][:, told]
        gain = torch.linalg.solve(self.covariance[told][:, told], cross.T).T
        away = rotvecs.flatten(1).double()[:, told] - self.mean[told]
        return (
            self.mean[~told] + away @ gain.T,
            self.covariance[~told][:, ~told] - gain @ cross.T,
        )

    def log_prob(self, rotvecs: Tensor) -> Tensor:
        """Log-density (N,) with respect to the Haar measure of mass 1."""
        flat = rotvecs.flatten(1).double()
        normal = torch.distributions.MultivariateNormal(self.mean, scale_tril=self.factor)
        return normal.log_prob(flat) - log_haar(rotvecs.double()).sum(dim=-1)


def distances_mm(chain: HandChain, rotation: Tensor, points: Tensor, which: list[int]) -> Tensor:
    """Mean distances (N, n) in mm of poses (N, n, 15, 3, 3) from points (N, 21, 3)."""
    found = chain(rotation.flatten(0, 1)).unflatten(0, rotation.shape[:2])
    away = (found - points[:, None])[..., which, :].norm(dim=-1)
    return 1000 * away.mean(dim=-1)


def backwards(chain: HandChain, rotation: Tensor) -> float:
    """Share of hands (N, 15, 3, 3) with a middle or end joint bent backwards by over 10 degrees."""
    rotvecs = rotations.matrix_to_rotvec(rotation)
    found = torch.zeros(len(rotvecs), dtype=torch.bool)
    for finger in FINGERS:
        for number in (2, 3) if finger != "thumb" else ():
            name = f"{finger}{number}"
            joint = MANO_16.index(name) - 1
            axis = -wrong_way(torch.zeros(1, 15, 3), name, 1.0, chain)[0, joint]
            degrees = torch.rad2deg(rotvecs[:, joint] @ torch.nn.functional.normalize(axis, dim=0))
            found |= degrees < BACKWARDS_DEGREES
    return float(found.float().mean())


def searched(
    gaussian: GaussianHand, chain: HandChain, tips: Tensor, sigma: float, *, density: bool
) -> Tensor:
    """Rotations (N, 15, 3, 3) for fingertips (N, 5, 3), with the Gaussian or without a prior."""
    generator = torch.Generator().manual_seed(5)

    def pose(z: Tensor) -> Tensor:  # without a prior, radians from the mean pose
        flat = gaussian.mean.to(z).expand_as(z) + z
        return gaussian.pose(z) if density else flat.unflatten(-1, (-1, 3))

    def value(z: Tensor, rows: Tensor) -> Tensor:
        theta = rotations.rotvec_to_matrix(pose(z))
        away = chain(theta)[:, list(TIPS)] - tips[rows]
        prior = z.square().sum(dim=-1) if density else 0.0
        return away.square().sum(dim=(1, 2)) / sigma**2 + prior

    count, width = len(tips), len(gaussian.mean)
    start = torch.zeros(count, width)
    if density:
        drawn = torch.randn(STARTS, count, width, generator=generator)
        each = torch.cat([start[None], drawn])
        rows = torch.arange(count)
        with torch.no_grad():
            best = torch.stack([value(z, rows) for z in each]).argmin(dim=0)
        start = each[best, rows]
    found = minimize(value, start, max_iterations=STEPS)
    return rotations.rotvec_to_matrix(pose(found.x))


def ik_table(
    prior: PosePrior,
    gaussian: GaussianHand,
    chain: HandChain,
    rotvecs: Tensor,
    body: BodyModel,
) -> list[str]:
    """Errors of inverse kinematics from fingertips."""
    truth = rotations.rotvec_to_matrix(rotvecs)
    points = chain(truth)
    lines = [
        "| fingertips | method | fingertips, mm | joints, mm | best of ten, joints, mm "
        "| bent backwards |",
        "|---|---|---|---|---|---|",
    ]
    for name, size in (("exact", 0.0), ("5 mm of noise", NOISE_M)):
        generator = torch.Generator().manual_seed(11)
        given = torch.full_like(points, torch.nan)
        seen = points[:, list(TIPS)]
        given[:, list(TIPS)] = seen + size * torch.randn(seen.shape, generator=generator)
        sigma = max(SIGMA_M, size)
        with torch.no_grad():
            posterior = prior.given(joints_3d=given)
            mode = posterior.mode()
            several = posterior.sample(BEST_OF, generator=generator)
        refined = inverse_kinematics(
            prior, given, body=body, sigma=sigma, num_samples=STARTS, max_iterations=STEPS
        )
        rows: dict[str, tuple[Tensor, Tensor | None]] = {
            "mode": (rotations.rot6d_to_matrix(mode), rotations.rot6d_to_matrix(several)),
            "refined": (rotations.rot6d_to_matrix(refined.theta), None),
        }
        for method, density in (("Gaussian", True), ("no prior", False)):
            theta = searched(gaussian, chain, given[:, list(TIPS)], sigma, density=density)
            rows[method] = (theta, None)
        rows["mean pose"] = (
            rotations.rotvec_to_matrix(gaussian.pose(torch.zeros(len(rotvecs), 45))),
            None,
        )
        for method, (rotation, more) in rows.items():
            at_tips = distances_mm(chain, rotation[:, None], points, list(TIPS)).mean()
            at_joints = distances_mm(chain, rotation[:, None], points, JOINTS).mean()
            best = "" if more is None else f"{_best(chain, more, points, JOINTS):.1f}"
            lines.append(
                f"| {name} | {method} | {at_tips:.1f} | {at_joints:.1f} | {best} "
                f"| {100 * backwards(chain, rotation):.0f} % |"
            )
    return lines


def _best(chain: HandChain, rotation: Tensor, points: Tensor, which: list[int]) -> float:
    return float(distances_mm(chain, rotation, points, which).amin(dim=1).mean())


@torch.no_grad()
def completion_table(
    prior: PosePrior, gaussian: GaussianHand, chain: HandChain, rotvecs: Tensor
) -> list[str]:
    """Errors of one finger, given the other four."""
    truth = rotations.rotvec_to_matrix(rotvecs)
    points = chain(truth)
    generator = torch.Generator().manual_seed(7)
    lines = [
        "| unknown finger | mode | Gaussian | mean pose | best of ten | Gaussian, best of ten |",
        "|---|---|---|---|---|---|",
    ]
    for finger in FINGERS:
        known = torch.ones(chain.joints, dtype=torch.bool)
        known[finger_joints(finger)] = False
        which = points_of(finger)[1:]
        posterior = prior.given(rotations=truth, known=known.expand(len(truth), -1))
        ours = rotations.rot6d_to_matrix(posterior.mode())[:, None]
        samples = rotations.rot6d_to_matrix(posterior.sample(BEST_OF, generator=generator))
        mean, covariance = gaussian.complete(rotvecs, known)
        factor = torch.linalg.cholesky(covariance)
        noise = torch.randn(len(mean), BEST_OF, len(factor), generator=generator).double()

        def filled(numbers: Tensor, unknown: Tensor = ~known) -> Tensor:
            whole = rotvecs[:, None].expand(-1, numbers.shape[1], -1, -1).clone()
            whole[:, :, unknown] = numbers.float().unflatten(-1, (-1, 3))
            return rotations.rotvec_to_matrix(whole)

        average = gaussian.mean.unflatten(0, (-1, 3))[~known].flatten()
        poses = {
            "mode": ours,
            "Gaussian": filled(mean[:, None]),
            "mean pose": filled(average.expand(len(rotvecs), 1, -1)),
            "best of ten": samples,
            "Gaussian, best of ten": filled(mean[:, None] + noise @ factor.T),
        }
        cells = [f"{_best(chain, rotation, points, which):.1f}" for rotation in poses.values()]
        lines.append(f"| {NAMES.get(finger, finger)} | {' | '.join(cells)} |")
    return lines


@torch.no_grad()
def density_table(
    prior: PosePrior, gaussian: GaussianHand, chain: HandChain, hands: Hands, number: int
) -> list[str]:
    """Densities of poses with a degree of noise, and of the same with a finger bent backwards."""
    rotvecs = hands.test[:number]
    generator = torch.Generator().manual_seed(3)
    natural = noisy(rotations.rotvec_to_matrix(rotvecs), generator)
    bent = rotations.rotvec_to_matrix(wrong_way(rotvecs, "index2", 60.0, chain))
    odd = noisy(bent, generator)
    marginal = prior.given()
    validation = noisy(rotations.rotvec_to_matrix(hands.val), generator)
    blurred = gaussian.blurred(SIZE["target_noise"], rotations.matrix_to_rotvec(validation))
    methods: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": lambda theta: marginal.log_prob(theta),
        "Gaussian": lambda theta: gaussian.log_prob(rotations.matrix_to_rotvec(theta)),
        "Gaussian with our noise of training": lambda theta: blurred.log_prob(
            rotations.matrix_to_rotvec(theta)
        ),
    }
    lines = [
        "| density | NLL, nats | above the same with a finger bent backwards |",
        "|---|---|---|",
    ]
    for name, log_prob in methods.items():
        found, other = log_prob(natural), log_prob(odd)
        share = 100 * (found > other).float().mean()
        lines.append(f"| {name} | {-found.mean():.1f} | {share:.1f} % |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hands",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--prior", default=PRIOR, help="a prior over hands: %(default)s")
    parser.add_argument("--data", type=Path, help="flat MANO poses (default: procedural)")
    parser.add_argument("--hands", type=int, default=1000, help="test poses (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the procedural poses")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    began = time.monotonic()
    body = BodyModel(hands=True)
    chain = HandChain(body)
    hands = load_hands(args.data, chain, args.seed)
    test = hands.test[: args.hands]
    prior = ConditionalPosePrior.from_pretrained(args.prior).freeze()
    gaussian = GaussianHand(hands.train)
    tables = {
        "Inverse kinematics from fingertips": ik_table(prior, gaussian, chain, test, body),
        "One finger unknown, mm over its joints and its tip": completion_table(
            prior, gaussian, chain, test
        ),
        "Density": density_table(prior, gaussian, chain, hands, args.hands),
    }
    for title, lines in tables.items():
        print(f"\n{title}, {len(test)} hands\n")
        print("\n".join(lines))
    print(f"\n{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
