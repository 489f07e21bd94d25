"""Published evaluation protocols, and what samples of a posterior are worth under them.

`evaluate_samples` draws thousands of samples and keeps none of their bodies: memory does not grow
with their number.
"""

import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowprior._checks import require_count
from flowprior.metrics.errors import best_of_n, mpjpe, pa_mpjpe, quantise
from flowprior.skeleton import (
    H36M_17,
    PROHMR_44,
    PROHMR_EVAL_3DHP_17,
    PROHMR_EVAL_14,
    PROHMR_EVAL_H36M_17,
    PROHMR_PELVIS,
    Skeleton,
)

__all__ = ["PROTOCOLS", "Protocol", "SampleErrors", "SupportsSampling", "evaluate_samples"]


@dataclass(frozen=True)
class Protocol:
    """Which joints are judged, and from where they are seen.

    Args:
        name: What people call it.
        skeleton: The joint set of predictions and truth.
        joints: Indices into ``skeleton``, over which errors are averaged.
        root: Index into ``skeleton`` of the joint that is subtracted first.

    Raises:
        ValueError: A joint or the root is none of the skeleton, or there is no joint.
    """

    name: str
    skeleton: Skeleton
    joints: tuple[int, ...]
    root: int

    def __post_init__(self) -> None:
        known = range(self.skeleton.num_joints)
        if not self.joints or any(joint not in known for joint in (*self.joints, self.root)):
            raise ValueError(
                f"{self.name}: expected joints and a root of {self.skeleton.name}, 0 to "
                f"{known[-1]}, got {self.joints} and {self.root}"
            )

    def select(self, joints: Tensor) -> Tensor:
        """The joints that are judged, seen from the root.

        Args:
            joints: (..., J, 3) of ``skeleton``, in metres.

        Returns:
            (..., number of ``self.joints``, 3), in metres.

        Raises:
            ValueError: The shape is another.
        """
        if joints.ndim < 2 or joints.shape[-2:] != (self.skeleton.num_joints, 3):
            raise ValueError(
                f"{self.name}: expected joints (..., {self.skeleton.num_joints}, 3) of "
                f"{self.skeleton.name}, got {tuple(joints.shape)}"
            )
        root = joints[..., self.root, None, :]
        return joints[..., list(self.joints), :] - root

    def errors(
        self, pred: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """MPJPE and PA-MPJPE as this protocol has them.

        Args:
            pred: (..., J, 3) of ``skeleton``, in metres.
            target: (..., J, 3) likewise, leading axes as in `flowprior.metrics.mpjpe`.
            valid: Which joints count, (J,) or (..., J), of bool or 0 / 1; all if None, as in the
                published figures. A root that does not count still is the root.

        Returns:
            "mpjpe" and "pa_mpjpe", each (...), in metres.

        Raises:
            ValueError: A shape is another.
        """
        pred, target = self.select(pred), self.select(target)
        if valid is not None:
            if valid.ndim == 0 or valid.shape[-1] != self.skeleton.num_joints:
                raise ValueError(
                    f"{self.name}: expected valid (..., {self.skeleton.num_joints}) of "
                    f"{self.skeleton.name}, got {tuple(valid.shape)}"
                )
            valid = valid[..., list(self.joints)]
        return {
            "mpjpe": mpjpe(pred, target, valid),
            "pa_mpjpe": pa_mpjpe(pred, target, valid),
        }


def _prohmr(name: str, joints: tuple[int, ...]) -> Protocol:
    return Protocol(name, PROHMR_44, joints, PROHMR_PELVIS)


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        _prohmr("Human3.6M P2", PROHMR_EVAL_14),
        _prohmr("Human3.6M all cameras", PROHMR_EVAL_H36M_17),
        _prohmr("Human3.6M multi-view", PROHMR_EVAL_14),
        _prohmr("3DPW", PROHMR_EVAL_14),
        _prohmr("MPI-INF-3DHP", PROHMR_EVAL_3DHP_17),
        Protocol("Human3.6M lifting", H36M_17, tuple(range(17)), H36M_17.root),
    )
}
"""The protocols of ProHMR's tables by name, and that of 2D-to-3D lifting.

Frames: Human3.6M has subjects S9 and S11 with every fifth frame, P2 their frontal camera 60457274
only; multi-view has groups of the four cameras. In lifting the root is among the joints, with an
error of zero.
"""


class SupportsSampling(typing.Protocol):
    """What can be judged: `flowprior.prior.PosePosterior`, or anything with these two verbs."""

    def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw samples (*batch, n, J, k)."""

    def mode(self) -> Tensor:
        """The one answer (*batch, J, k)."""


@dataclass(frozen=True, eq=False)
class SampleErrors:
    """Errors of the mode and of the best of n samples, of each person by itself.

    The best sample for MPJPE and the best for PA-MPJPE are two samples. What is NaN has no joint
    that counts or a sample that is not finite; `flowprior.metrics.Tally` leaves it out and counts
    it.

    Attributes:
        mode: By metric, "mpjpe" and "pa_mpjpe", the error (*batch) of the mode, in metres.
        best: By n and metric, the least error (*batch) of the first n samples.
        quantised: By n and metric, the least error (*batch) of n centroids of all samples.
        samples: The samples (*batch, N, joints, 3) that were judged, seen from the root, if they
            were to be kept.
    """

    mode: dict[str, Tensor]
    best: dict[int, dict[str, Tensor]]
    quantised: dict[int, dict[str, Tensor]]
    samples: Tensor | None = None

    def values_mm(self) -> dict[str, Tensor]:
        """Every error by a name, in millimetres, flat: for ``Tally.add``.

        Returns:
            (B,) each: "mode_mpjpe_mm", "best_of_25_pa_mpjpe_mm", "best_of_25_quantised_mpjpe_mm".
        """
        groups = {
            "mode": self.mode,
            **{f"best_of_{n}": errors for n, errors in self.best.items()},
            **{f"best_of_{n}_quantised": errors for n, errors in self.quantised.items()},
        }
        return {
            f"{group}_{metric}_mm": 1000 * error.flatten()
            for group, errors in groups.items()
            for metric, error in errors.items()
        }


@torch.no_grad()
def evaluate_samples(
    posterior: SupportsSampling,
    joints: Callable[[Tensor], Tensor],
    target: Tensor,
    protocol: Protocol,
    *,
    counts: Sequence[int] = (1, 5, 10, 25, 100, 4096),
    quantised: Sequence[int] = (),
    include_mode: bool = True,
    valid: Tensor | None = None,
    block: int = 64,
    keep_samples: bool = False,
    generator: torch.Generator | None = None,
) -> SampleErrors:
    """Errors of the mode and of the best of n samples, for several n in one pass.

    Samples are drawn, made bodies of and judged in blocks, and then forgotten. So memory is that of
    one block whatever the number of samples; the judged joints alone are kept where asked for.

    Args:
        posterior: Of a batch of people.
        joints: Makes theta (*batch, n, J, k) the joints (*batch, n, joints of the skeleton, 3), in
            metres: a body model and a regressor, say, with the people's betas. It gets at most
            ``block`` samples of each person at a time.
        target: (*batch, joints of the skeleton, 3), in metres.
        protocol: Which joints are judged, such as ``PROTOCOLS["3DPW"]``.
        counts: Each n to report. The largest is how many samples are drawn.
        quantised: Each n to report after the samples were reduced to n by k-means, of the judged
            joints. Needs scikit-learn.
        include_mode: Whether the mode is the first of the samples, as in ProHMR's tables.
        valid: Which joints of the skeleton count, as in `Protocol.errors`.
        block: Samples of each person at a time. Which samples a generator gives depends on it.
        keep_samples: Return the judged joints of all samples too.
        generator: Source of the samples, on the device of the posterior.

    Returns:
        Errors in metres, in the dtype of joints and target.

    Raises:
        ValueError: A count is not positive, or larger than the number of samples it is made of;
            ``joints`` or ``target`` are no joints of the skeleton.

    References:
        Kolotouros et al., *Probabilistic Modeling for Human Mesh Recovery*, 2021, table 2 and
        supplement 5.2; ``eval/eval_regression.py`` of ``nkolot/ProHMR``.
    """
    for name, numbers in (("counts", counts), ("quantised", quantised), ("block", (block,))):
        for number in numbers:
            require_count(name, number, least=1)
    total = max(counts, default=1)
    if max(quantised, default=1) > total:
        raise ValueError(f"cannot quantise {total} samples to {max(quantised)}: raise counts")
    truth = target.unsqueeze(-3)
    counting = valid if valid is None or valid.ndim == 1 else valid.unsqueeze(-2)

    def blocks() -> Iterator[Tensor]:
        left = total
        if include_mode:
            yield mode_joints
            left -= 1
        while left:
            size = min(block, left)
            yield joints(posterior.sample(size, generator=generator))
            left -= size

    mode_joints = joints(posterior.mode().unsqueeze(-3))
    mode = protocol.errors(mode_joints, truth, counting)
    least = {metric: torch.full_like(error, torch.inf) for metric, error in mode.items()}
    best: dict[int, dict[str, Tensor]] = {n: {} for n in sorted(set(counts))}
    kept, seen = [], 0
    for placed in blocks():
        size = placed.shape[-3]
        for metric, error in protocol.errors(placed, truth, counting).items():
            running = torch.cat([least[metric], error], dim=-1).cummin(dim=-1).values
            least[metric] = running[..., -1:]
            for n in best:
                if seen < n <= seen + size:
                    best[n][metric] = running[..., n - seen]
        seen += size
        if keep_samples or quantised:
            kept.append(protocol.select(placed))
    samples = torch.cat(kept, dim=-3) if kept else None
    return SampleErrors(
        mode={metric: error.squeeze(-1) for metric, error in mode.items()},
        best=best,
        quantised={}
        if samples is None
        else {n: _quantised(samples, n, protocol, truth, counting) for n in quantised},
        samples=samples if keep_samples else None,
    )


def _quantised(
    samples: Tensor, n: int, protocol: Protocol, truth: Tensor, valid: Tensor | None
) -> dict[str, Tensor]:
    """The least errors of n centroids; NaN where a sample is not finite."""
    finite = samples.isfinite().flatten(-3).all(dim=-1)
    centroids = quantise(samples[finite], n)
    if valid is not None:
        valid = valid[..., list(protocol.joints)]
        valid = valid if valid.ndim == 1 else valid[finite]
    errors = {}
    for name, metric in (("mpjpe", mpjpe), ("pa_mpjpe", pa_mpjpe)):
        error = best_of_n(metric(centroids, protocol.select(truth)[finite], valid), n)
        errors[name] = error.new_full(finite.shape, torch.nan).masked_scatter(finite, error)
    return errors
