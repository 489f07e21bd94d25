"""Published evaluation protocols, and the errors of samples under them.

`evaluate_samples` evaluates thousands of samples without keeping their bodies, so memory does not
grow with the number of samples.
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
    """The joints over which errors are averaged, and the root they are relative to.

    Args:
        name: Common name of the protocol.
        skeleton: Joint set of predictions and truth.
        joints: Indices into ``skeleton``, over which errors are averaged.
        root: Index into ``skeleton`` of the joint that is subtracted first.

    Raises:
        ValueError: If a joint or the root is not in the skeleton, or there are no joints.
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
        """Select the joints of the protocol, relative to the root.

        Args:
            joints: (..., J, 3) of ``skeleton``, in metres.

        Returns:
            (..., number of ``self.joints``, 3), in metres.

        Raises:
            ValueError: If the shape is wrong.
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
        """Compute MPJPE and PA-MPJPE under this protocol.

        Args:
            pred: (..., J, 3) of ``skeleton``, in metres.
            target: (..., J, 3) of ``skeleton``, in metres; leading axes as in
                `flowprior.metrics.mpjpe`.
            valid: Which joints count, (J,) or (..., J), as bool or 0 / 1; all if None, as in the
                published figures. The root is subtracted even if it does not count.

        Returns:
            "mpjpe" and "pa_mpjpe", each (...), in metres.

        Raises:
            ValueError: If a shape is wrong.
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
"""The protocols of ProHMR's tables, and that of 2D-to-3D lifting, by name.

Frames: Human3.6M uses every fifth frame of subjects S9 and S11; P2 uses only their frontal camera
60457274, multi-view uses groups of the four cameras. In lifting the root is among the joints, with
an error of zero.
"""


class SupportsSampling(typing.Protocol):
    """A distribution to evaluate, such as `flowprior.prior.PosePosterior`."""

    def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw samples (*batch, n, J, k)."""

    def mode(self) -> Tensor:
        """The point estimate (*batch, J, k)."""


@dataclass(frozen=True, eq=False)
class SampleErrors:
    """Errors of the mode and of the best of n samples, for each person.

    The best samples for MPJPE and for PA-MPJPE may differ. Errors are NaN where no joint is valid
    or a sample is not finite; `flowprior.metrics.Tally` excludes and counts them.

    Attributes:
        mode: Error (*batch) of the mode in metres, by metric, "mpjpe" and "pa_mpjpe".
        best: Least error (*batch) of the first n samples in metres, by n and metric.
        quantised: Least error (*batch) of n centroids of all samples in metres, by n and metric.
        samples: The joints (*batch, N, joints, 3) of all samples relative to the root, in metres,
            with ``keep_samples``; otherwise None.
    """

    mode: dict[str, Tensor]
    best: dict[int, dict[str, Tensor]]
    quantised: dict[int, dict[str, Tensor]]
    samples: Tensor | None = None

    def values_mm(self) -> dict[str, Tensor]:
        """All errors by name, flat and in millimetres, for ``Tally.add``.

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

    The function draws samples, poses bodies and computes errors block by block, so memory does not
    grow with the number of samples. It keeps only the joints of the protocol, and only on request.

    Args:
        posterior: Posterior of a batch of people.
        joints: Maps theta (*batch, n, J, k) to joints (*batch, n, joints of the skeleton, 3) in
            metres, for example a body model and a regressor with the betas of the people. It is
            called with at most ``block`` samples of each person.
        target: (*batch, joints of the skeleton, 3), in metres.
        protocol: The joints to evaluate, such as ``PROTOCOLS["3DPW"]``.
        counts: Values of n to report. The largest is the number of samples drawn.
        quantised: Values of n to report after k-means reduces the samples, in the joints of the
            protocol, to n centroids. Needs scikit-learn.
        include_mode: Whether the mode is the first sample, as in ProHMR's tables.
        valid: Which joints of the skeleton count, as in `Protocol.errors`.
        block: Number of samples of each person per block. The samples that a generator produces
            depend on it.
        keep_samples: Whether to return the joints of all samples too.
        generator: Random generator, on the device of the posterior.

    Returns:
        Errors in metres, in the dtype of joints and target.

    Raises:
        ValueError: If a count is not positive, ``quantised`` exceeds the number of samples, or
            ``joints`` or ``target`` are not joints of the skeleton.

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
    """Least errors of n centroids; NaN where a sample is not finite."""
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
