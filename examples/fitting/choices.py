"""Priors and pose variables, from command-line arguments."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.fitting.priors import KeypointPrior
from examples.fitting.train_prior import CONDITIONAL, MIXTURE, UNCONDITIONAL
from examples.training.encoded import MODEL_FILE
from flowprior import ConditionalPosePrior, PosePosterior, fitting, rotations
from flowprior.files.model_folder import BUNDLED, WEIGHTS_FILE
from flowprior.files.numpy_file import read_npz
from flowprior.fitting import (
    DEFAULT_PRIOR,
    AnglePose,
    DensityPose,
    KeypointWeights,
    LatentPose,
    PoseMixture,
    PoseVariables,
    with_spare,
)
from flowprior.fitting.pose_variables import variables_of
from flowprior.keypoint_files.image_names import match_people
from flowprior.keypoint_files.people import to_prohmr_44
from flowprior.keypoints import seen_keypoints
from flowprior.prior.posterior import PosePrior
from flowprior.skeleton import BODY_25, Skeleton

__all__ = [
    "BODY_PRIOR",
    "KINDS",
    "PRIOR_FILE",
    "WEIGHTS",
    "Evidence",
    "PretrainedPrior",
    "PriorFolder",
    "Priors",
    "add_prior_argument",
    "flow_pose",
    "given_context",
    "model_folder",
    "open_priors",
    "to_body_25",
]

KINDS = ("conditional", "unconditional", "mixture", "isotropic", "none")

BODY_PRIOR = "flowprior/body-pose"
"""Name of the unconditional prior that ships with the library."""

PRIOR_FILE = "prior.safetensors"
"""File in the folder of the conditional prior: a flow conditioned on the user's own network."""

CONTEXT_ROWS = 32
"""Block size for the computation of contexts."""

WEIGHTS = {
    kind: KeypointWeights.of_noise()
    if kind.endswith("conditional")
    else KeypointWeights(pose=fitting.POSE_WEIGHTS[kind])
    for kind in KINDS
}
"""Weights of the terms by kind of prior, those of `flowprior.fitting.suited_weights`."""


def to_body_25(keypoints: NDArray[np.float32], skeleton: Skeleton) -> NDArray[np.float32]:
    """Reorder keypoints (N, J, 3) of a detector to BODY-25 (N, 25, 3), zeros for missing ones."""
    return to_prohmr_44(keypoints, skeleton)[:, : BODY_25.num_joints]


@dataclass(frozen=True)
class Evidence:
    """Outputs of the user's own network for P people.

    Args:
        context: (P, C) contexts for the conditional prior.
        betas: (P, 10) regressed shape, the start of a fit; None for the average shape.
    """

    context: Tensor
    betas: Tensor | None = None


def given_context(
    path: Path, people: Sequence[tuple[str, int]], device: torch.device
) -> tuple[Evidence, NDArray[np.intp]]:
    """Read the contexts of some people.

    Args:
        path: An ``.npz`` file with ``context`` (N, C) and optionally ``betas`` (N, 10), one row per
            person. It may also contain ``image_names`` (N,) and ``person`` (N,), which identify
            the person of each row, as in the files of `examples.prohmr.contexts`.
        people: Image name and number of each person.
        device: Device of the result.

    Returns:
        The evidence, and the indices of the people it belongs to: all people with finite evidence
        if the file has no names, otherwise those among them that the file names.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not of this kind, belongs to other people, names a person twice, has
            names that match several images, or contains no finite evidence.
    """
    content = read_npz(path)
    rows: NDArray[np.intp] = np.arange(len(people))
    places: NDArray[np.intp] = rows
    count = len(people)
    if "image_names" in content and "person" in content:
        images, numbers = (np.asarray(content[name]) for name in ("image_names", "person"))
        known = [(str(name), int(number)) for name, number in zip(images, numbers, strict=True)]
        found = match_people(people, known, str(path))
        rows = np.array([n for n, place in enumerate(found) if place is not None], np.intp)
        places = np.array([place for place in found if place is not None], np.intp)
        count = len(images)
        if not len(rows):
            raise ValueError(f"{path} is of other people: {images[:1]}, not {people[:1]}")
    arrays: dict[str, NDArray[np.float32]] = {}
    usable = np.ones(len(rows), np.bool_)
    for name, width in (("context", None), ("betas", 10)):
        if name not in content and name != "context":
            continue
        array = np.asarray(content.get(name, ()), np.float32)
        if array.ndim != 2 or len(array) != count or width not in (None, array.shape[1]):
            raise ValueError(
                f"{path}: expected {name} ({count}, {width or 'C'}), one row for each person, got "
                f"{array.shape}"
            )
        arrays[name] = array[places]
        usable &= np.isfinite(arrays[name]).all(axis=1)
    if len(rows) and not usable.any():
        raise ValueError(f"{path}: {' or '.join(arrays)} of everybody have NaN or infinity")
    tensors = {name: torch.from_numpy(array[usable]).to(device) for name, array in arrays.items()}
    return Evidence(**tensors), rows[usable]


def flow_pose(prior: PosePrior, context: Tensor, *, theta: bool = False) -> PoseVariables:
    """Pose variables of people with known contexts.

    Args:
        prior: Prior over SMPL's rotations, in evaluation mode; a frozen one is faster.
        context: (P, C).
        theta: Whether theta is optimised instead of the latent.
    """
    people = torch.arange(len(context), device=context.device)
    form = DensityPose if theta else LatentPose
    with torch.no_grad():
        return form(prior(context[with_spare(people)])).select(people)


class Priors(Protocol):
    """What the programs need of priors."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are there, some of `KINDS`."""

    def posterior(self, keypoints: Tensor) -> PosePosterior:
        """The conditional prior given keypoints (N, 25, 3) in pixels, with confidence."""

    def variables(
        self, kind: str, keypoints: Tensor, *, theta: bool = False, context: Tensor | None = None
    ) -> PoseVariables:
        """Pose variables of N people, see `PriorFolder.variables`."""


def add_prior_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``--prior``, for `open_priors`."""
    parser.add_argument(
        "--prior",
        default=DEFAULT_PRIOR,
        metavar="NAME",
        help=f"{DEFAULT_PRIOR} (default), the folder of a saved prior, or that of "
        "examples.fitting.train_prior",
    )


def open_priors(name: str, device: torch.device) -> Priors:
    """The priors that ``--prior`` names.

    Args:
        name: A prior that ships with the library; a folder of ``save_pretrained``; or the output
            folder of `examples.fitting.train_prior`.
        device: Device of the weights.

    Raises:
        FileNotFoundError: There is neither such a prior nor such a folder.
        CheckpointError: The folder contains another model.
    """
    if model_folder(name) is None:
        return PriorFolder(Path(name), device)
    return PretrainedPrior(name, device)


def model_folder(name: str) -> Path | None:
    """The folder of a pretrained prior; None if ``--prior`` names another folder."""
    folder = Path(name)
    if folder.is_dir():
        return folder if (folder / WEIGHTS_FILE).is_file() else None
    return BUNDLED.get(name)


class PretrainedPrior:
    """A pretrained prior that takes 2D keypoints as evidence, such as ``flowprior/people``.

    The kinds beside "conditional" come from ``flowprior/body-pose``: its marginal, and its mode as
    the mean pose.

    Args:
        name: Name or folder of the prior.
        device: Device of the weights.

    Raises:
        CheckpointError: The folder contains another model.
        ValueError: The prior does not take 2D keypoints as evidence.
    """

    kinds = tuple(kind for kind in KINDS if kind != "mixture")

    def __init__(self, name: str, device: torch.device) -> None:
        self.device = device
        self.prior = ConditionalPosePrior.from_pretrained(name, device=device).freeze()
        evidence = self.prior.evidence
        if evidence is None or "keypoints_2d" not in evidence.kinds:
            raise ValueError(f"--prior {name} does not take 2D keypoints as evidence")

    @cached_property
    def body(self) -> PosePosterior:
        """The marginal over the 23 joints below the root."""
        prior = ConditionalPosePrior.from_pretrained(BODY_PRIOR, device=self.device).freeze()
        with torch.no_grad():
            return prior.given()

    def posterior(self, keypoints: Tensor) -> PosePosterior:
        """The prior given keypoints (N, 25, 3) in pixels, with confidence."""
        return self.prior.given(keypoints_2d=seen_keypoints(keypoints))

    def variables(
        self, kind: str, keypoints: Tensor, *, theta: bool = False, context: Tensor | None = None
    ) -> PoseVariables:
        """Pose variables of N people.

        Args:
            kind: One of `KINDS` but "mixture".
            keypoints: (N, 25, 3) pixels and confidence, the evidence of the conditional prior.
            theta: Whether a flow's theta is optimised instead of its latent.
            context: Must be None: contexts belong to a prior that was trained with them.

        Raises:
            ValueError: There is no such kind, or contexts are given.
        """
        _require_kind(kind)
        if context is not None and kind == "conditional":
            raise ValueError(
                "contexts of your own network need a prior that was trained with them: --prior DIR"
            )
        if kind == "conditional":
            pose = variables_of(self.prior, seen_keypoints(keypoints), BODY_25)
            return DensityPose(pose.posterior) if theta and isinstance(pose, LatentPose) else pose
        if kind == "unconditional":
            return (DensityPose if theta else LatentPose)(self.body)
        if kind == "mixture":
            raise ValueError(
                "SMPLify's mixture does not ship with the library: python -m "
                "examples.fitting.train_prior --out DIR fits one, for --prior DIR"
            )
        mean = rotations.matrix_to_rotvec(rotations.rot6d_to_matrix(self.body.mode()))
        return AnglePose(mean.flatten(), kind)


def _require_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"the prior must be one of {', '.join(KINDS)}, got {kind!r}")


@dataclass
class PriorFolder:
    """The priors written by `examples.fitting.train_prior`, read on first use.

    Args:
        folder: The folder.
        device: Device of the weights.

    Raises:
        FileNotFoundError: A file is missing; the message contains the command that creates it.
    """

    folder: Path
    device: torch.device

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"no folder of priors: {self.folder}. Make one by python -m "
                f"examples.fitting.train_prior --out {self.folder}, or leave out --prior for the "
                f"one of the library, {DEFAULT_PRIOR}"
            )
        self._frozen: dict[str, PosePrior] = {}
        self._network: KeypointPrior | None = None
        self._mixture: PoseMixture | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of priors in the folder: all of `KINDS`."""
        return KINDS

    @property
    def network(self) -> KeypointPrior:
        """The prior conditioned on keypoints, with its encoder."""
        if self._network is None:
            self._network = KeypointPrior.load(self.folder / CONDITIONAL, self.device)
        return self._network

    @property
    def conditional(self) -> PosePrior:
        """The flow conditioned on the keypoints, without their encoder, frozen."""
        if MODEL_FILE not in self._frozen:
            self._frozen[MODEL_FILE] = self.network.prior.freeze()
        return self._frozen[MODEL_FILE]

    @property
    def of_contexts(self) -> PosePrior:
        """The flow conditioned on the user's own network, frozen.

        Read from ``prior.safetensors``, a file of `examples.prohmr.contexts`; `conditional` if
        there is none.
        """
        path = self.folder / CONDITIONAL / PRIOR_FILE
        if not path.exists() and (path.parent / MODEL_FILE).exists():
            return self.conditional
        if PRIOR_FILE not in self._frozen:
            self._frozen[PRIOR_FILE] = ConditionalPosePrior.load(path, self.device).freeze()
        return self._frozen[PRIOR_FILE]

    @property
    def mixture(self) -> PoseMixture:
        """The Gaussian mixture."""
        if self._mixture is None:
            self._mixture = PoseMixture.load(self.folder / MIXTURE).to(self.device)
        return self._mixture

    @property
    def unconditional(self) -> PosePrior:
        """The unconditional flow, frozen."""
        if UNCONDITIONAL not in self._frozen:
            free = ConditionalPosePrior.load(self.folder / UNCONDITIONAL, self.device)
            self._frozen[UNCONDITIONAL] = free.freeze()
        return self._frozen[UNCONDITIONAL]

    @torch.no_grad()
    def context(self, keypoints: Tensor) -> Tensor:
        """Compute contexts with the network of the conditional prior.

        Blocks of constant size make the context of a person independent of the others, bit by
        bit: matrix products round differently for other numbers of rows, and fits amplify that.

        Args:
            keypoints: (N, 25, 3) pixels and confidence.

        Returns:
            (N, C).

        Raises:
            FileNotFoundError: The folder contains no conditional prior with its network.
        """
        keypoints = seen_keypoints(keypoints)
        if not len(keypoints):
            return self.network.context(keypoints)
        parts = []
        for some in keypoints.split(CONTEXT_ROWS):
            spare = some[-1:].expand(CONTEXT_ROWS - len(some), -1, -1)
            parts.append(self.network.context(torch.cat([some, spare]))[: len(some)])
        return torch.cat(parts)

    def posterior(self, keypoints: Tensor) -> PosePosterior:
        """The conditional prior given keypoints (N, 25, 3) in pixels, with confidence."""
        return self.network(keypoints)

    def variables(
        self, kind: str, keypoints: Tensor, *, theta: bool = False, context: Tensor | None = None
    ) -> PoseVariables:
        """Pose variables of N people.

        Args:
            kind: One of `KINDS`.
            keypoints: (N, 25, 3) pixels and confidence, the evidence of the conditional prior.
            theta: Whether a flow's theta is optimised instead of its latent.
            context: (N, C) contexts of the user's own network, instead of those of the keypoints.

        Raises:
            FileNotFoundError: The folder contains no such prior.
            ValueError: There is no such kind, or the contexts have another width.
        """
        _require_kind(kind)
        if kind == "conditional":
            if context is not None:
                return flow_pose(self.of_contexts, context, theta=theta)
            context = self.context(keypoints)
            return flow_pose(self.conditional, context, theta=theta)
        if kind == "unconditional":
            with torch.no_grad():
                return (DensityPose if theta else LatentPose)(self.unconditional(None))
        mixture = self.mixture
        return AnglePose(mixture.mean_pose, kind, mixture if kind == "mixture" else None)
