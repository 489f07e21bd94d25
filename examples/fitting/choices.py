"""From the words of a command line to priors, pose variables and cameras."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.data.image_names import match_people
from examples.data.keypoints import to_prohmr_44
from examples.fitting.priors import KeypointPrior
from examples.fitting.train_prior import CONDITIONAL, MIXTURE, UNCONDITIONAL
from examples.training.encoded import MODEL_FILE
from flowprior import ConditionalPosePrior
from flowprior.files.numpy_file import read_npz
from flowprior.fitting.cameras import CROP_PX, FOCAL_PX, Cameras
from flowprior.fitting.focal_lengths import check_focal
from flowprior.fitting.mixture import PoseMixture
from flowprior.fitting.pose_variables import AnglePose, DensityPose, LatentPose, PoseVariables
from flowprior.fitting.solver import with_spare
from flowprior.keypoints import keypoint_squares, seen_keypoints
from flowprior.prior.posterior import PosePrior
from flowprior.skeleton import BODY_25, Skeleton

__all__ = [
    "FRAMES",
    "KINDS",
    "POSE_WEIGHTS",
    "PRIOR_FILE",
    "Evidence",
    "PriorFolder",
    "cameras_for",
    "flow_pose",
    "given_context",
    "to_body_25",
]

KINDS = ("conditional", "unconditional", "mixture", "isotropic", "none")
FRAMES = ("crop", "full", "full-original")

PRIOR_FILE = "prior.safetensors"
"""In the folder of the conditional prior: the flow of a network of the user's."""

CONTEXT_ROWS = 32
"""People whose contexts are computed at once."""

POSE_WEIGHTS = {
    "conditional": 64.0,
    "unconditional": 64.0,
    "mixture": 30.0,
    "isotropic": 1000.0,
    "none": 0.0,
}
"""The weight of each prior's penalty that was best for held-out people; see `compare`."""


def to_body_25(keypoints: NDArray[np.float32], skeleton: Skeleton) -> NDArray[np.float32]:
    """Keypoints (N, J, 3) of a detector in OpenPose's order, zeros for those that are not there."""
    return to_prohmr_44(keypoints, skeleton)[:, : BODY_25.num_joints]


@dataclass(frozen=True)
class Evidence:
    """What a network of the user's own says of P people.

    Args:
        context: (P, C), of the conditional prior.
        betas: (P, 10) regressed shape, where a fit starts; None for the mean body.
    """

    context: Tensor
    betas: Tensor | None = None


def given_context(
    path: Path, people: Sequence[tuple[str, int]], device: torch.device
) -> tuple[Evidence, NDArray[np.intp]]:
    """Read the contexts of some people.

    Args:
        path: An ``.npz`` file with ``context`` (N, C) and perhaps ``betas`` (N, 10), a row for each
            person; or with ``image_names`` (N,) and ``person`` (N,) too, which say who is in which
            row, as `examples.prohmr.contexts` writes it.
        people: Image and number of each person.
        device: Where it shall be.

    Returns:
        The evidence, and indices of the people that it belongs to: of all whose evidence is finite
        if the file has no names, otherwise of those among them that the file names.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, is of other people, names somebody twice, has names that fit
            several images, or nothing in it is finite.
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
    """Pose variables of people whose contexts are known.

    Args:
        prior: Over SMPL's rotations, in evaluation mode; a frozen one is faster.
        context: (P, C).
        theta: Whether theta is fitted instead of the latent.
    """
    people = torch.arange(len(context), device=context.device)
    form = DensityPose if theta else LatentPose
    with torch.no_grad():
        return form(prior(context[with_spare(people)])).select(people)


@dataclass
class PriorFolder:
    """The priors that `examples.fitting.train_prior` has written, read when they are asked for.

    Args:
        folder: The folder.
        device: Where their weights shall be.

    Raises:
        FileNotFoundError: A file is missing; the message says how to make it.
    """

    folder: Path
    device: torch.device

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"no folder of priors: {self.folder}. Make one by python -m "
                f"examples.fitting.train_prior --out {self.folder}"
            )
        self._frozen: dict[str, PosePrior] = {}
        self._network: KeypointPrior | None = None
        self._mixture: PoseMixture | None = None

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
        """The flow conditioned on a network of the user's, frozen.

        It is ``prior.safetensors``, as `examples.prohmr.contexts` writes it, or else `conditional`.
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
        """Contexts of people, by the network of the conditional prior.

        Blocks of always the same size make a context independent of the other people bit by bit:
        how matrix products round depends on the number of rows, and fits amplify the difference.

        Args:
            keypoints: (N, 25, 3) pixels and confidence.

        Returns:
            (N, C).

        Raises:
            FileNotFoundError: The folder has no conditional prior with its network.
        """
        keypoints = seen_keypoints(keypoints)
        if not len(keypoints):
            return self.network.context(keypoints)
        parts = []
        for some in keypoints.split(CONTEXT_ROWS):
            spare = some[-1:].expand(CONTEXT_ROWS - len(some), -1, -1)
            parts.append(self.network.context(torch.cat([some, spare]))[: len(some)])
        return torch.cat(parts)

    def variables(
        self, kind: str, keypoints: Tensor, *, theta: bool = False, context: Tensor | None = None
    ) -> PoseVariables:
        """Pose variables for some people.

        Args:
            kind: One of `KINDS`.
            keypoints: (N, 25, 3) what the conditional prior sees, pixels and confidence.
            theta: Whether a flow's theta is fitted instead of its latent.
            context: (N, C) of a network of the user's own, instead of that of the keypoints; the
                folder's conditional prior must take it.

        Raises:
            FileNotFoundError: The folder has no such prior.
            ValueError: There is no such kind, or the contexts are of another width.
        """
        if kind not in KINDS:
            raise ValueError(f"the prior must be one of {', '.join(KINDS)}, got {kind!r}")
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


def cameras_for(
    frame: str,
    keypoints: Tensor,
    image_size: Tensor | None,
    focal: float | None,
    *,
    box: tuple[Tensor, Tensor] | None = None,
) -> Cameras:
    """Cameras of people.

    Args:
        frame: One of `FRAMES`: "crop" looks at the middle of the person; "full" is the camera of
            the whole image with distances in units of the crop; "full-original" measures them in
            pixels of the image, as ProHMR's code does.
        keypoints: (N, K, 3) pixels and confidence, for the boxes.
        image_size: (N, 2) width and height in pixels, which "crop" does without; people with NaN,
            infinity or no positive size get "crop" whatever the frame of the others.
        focal: In pixels of the crop or of the image; 5000 if None.
        box: Centres (N, 2) and sides (N,) of the crops, pixels; squares around the keypoints if
            None.

    Raises:
        ValueError: The frame needs the size of the image, there is no such frame, or the focal
            length is not positive or must be in millimetres, whichever of the images it is of.
    """
    centre, side = keypoint_squares(seen_keypoints(keypoints)) if box is None else box
    if frame not in FRAMES:
        raise ValueError(f"the frame must be one of {', '.join(FRAMES)}, got {frame!r}")
    if frame != "crop" and image_size is None:
        raise ValueError(f"frame {frame!r} needs the size of the images: give the images, or crop")
    if focal is not None:
        _check_focal(focal, None if frame == "crop" else image_size)
    crop = Cameras.crop(centre, side, FOCAL_PX if focal is None else focal)
    if frame == "crop" or image_size is None:
        return crop
    known = (image_size.isfinite() & (image_size > 0)).all(dim=-1)
    full = Cameras.full(
        torch.where(known[:, None], image_size, CROP_PX),
        centre,
        side,
        FOCAL_PX if focal is None else focal,
        original_units=frame == "full-original",
    )
    return full.where(known, crop)


def _check_focal(focal: float, image_size: Tensor | None) -> None:
    """Check a focal length for all people: one image of another camera is no reason to stop."""
    sides = torch.empty(0) if image_size is None else image_size.amax(dim=-1)
    known = sides[sides.isfinite() & (sides > 0)]
    if len(known):
        check_focal(focal, float(known.min()))
    else:
        # A person fills the crop: whoever is seen under more than 90 degrees is within reach.
        check_focal(focal, CROP_PX, shortest=0.5)
