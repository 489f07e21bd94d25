"""Sources of views for the lifting programs: people in cameras, with hidden joints."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from examples.data.augment import mirror, vary_bones
from examples.data.virtual_views import Views, crop, occlude, photograph
from flowprior.skeleton import H36M_17

__all__ = [
    "OCCLUSIONS",
    "PoseViews",
    "RecordedViews",
    "ViewOptions",
    "ViewSource",
    "evenly_spaced",
    "without_nose",
]

OCCLUSIONS = ("none", "mixed", "crop")


@dataclass(frozen=True)
class ViewOptions:
    """Options of views.

    Args:
        occlusion: ``"none"``; ``"mixed"``, half of the views lose an edge, a box or a limb; or
            ``"crop"``, each view is a random crop of the image, and joints outside are hidden.
        noise_px: Standard deviation of the detector noise, per coordinate, in pixels.
        nose: Whether to include the Neck/Nose keypoint, which Martinez et al. leave out.
        mirror: Whether half of the training poses are mirrored.
        vary_bones: Standard deviation of the logarithm of the factors on stature and on each bone
            of a training pose; 0 keeps the recorded people.
    """

    occlusion: str = "none"
    noise_px: float = 0.0
    nose: bool = True
    mirror: bool = True
    vary_bones: float = 0.03

    def __post_init__(self) -> None:
        if self.occlusion not in OCCLUSIONS:
            raise ValueError(f"occlusion must be one of {OCCLUSIONS}, got {self.occlusion!r}")
        for name in ("noise_px", "vary_bones"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


class ViewSource(Protocol):
    """A source of views."""

    def __len__(self) -> int:
        """Number of poses."""

    def draw(self, number: int, generator: torch.Generator) -> Views:
        """Training views: random poses, augmented."""

    def held_out(self, number: int, generator: torch.Generator) -> Views:
        """Evaluation views: up to ``number`` poses, evenly spaced, not augmented."""


class PoseViews:
    """Poses seen by virtual cameras, a new camera for every view.

    Args:
        poses: (N, 17, 3) in the world frame (y up), metres, on the device of the views.
        options: The view options.
    """

    def __init__(self, poses: Tensor, options: ViewOptions) -> None:
        self.poses = poses
        self.options = options

    def __len__(self) -> int:
        return len(self.poses)

    def draw(self, number: int, generator: torch.Generator) -> Views:
        """Random poses, augmented, each in its own camera.

        Args:
            number: Number B of views.
            generator: Random generator on the device of the poses.

        Returns:
            B views.
        """
        device = self.poses.device
        rows = torch.randint(len(self.poses), (number,), generator=generator, device=device)
        poses = self.poses[rows]
        if self.options.mirror:
            mirrored = torch.rand(number, generator=generator, device=device) < 0.5
            poses = torch.where(mirrored[:, None, None], mirror(poses), poses)
        spread = self.options.vary_bones
        if spread:
            poses = vary_bones(poses, generator, stature=spread, proportions=spread)
        return _hide(photograph(poses, generator), self.options, generator)

    def held_out(self, number: int, generator: torch.Generator) -> Views:
        """Evenly spaced poses, not augmented, each in its own camera.

        Args:
            number: Largest number of views.
            generator: Random generator on the device of the poses.

        Returns:
            The views.
        """
        poses = self.poses[evenly_spaced(len(self), number).to(self.poses.device)]
        return _hide(photograph(poses, generator), self.options, generator)


class RecordedViews:
    """People seen by real cameras, with detected or projected keypoints.

    Args:
        views: N views, on the device of the results.
        options: The view options; poses stay as recorded, so ``mirror`` and ``vary_bones`` have
            no effect.
        groups: A name for each view, such as its action; may be empty.
    """

    def __init__(self, views: Views, options: ViewOptions, groups: Sequence[str] = ()) -> None:
        self.views = views
        self.options = options
        self.groups = groups

    def __len__(self) -> int:
        return len(self.views)

    def draw(self, number: int, generator: torch.Generator) -> Views:
        """Random views (B = ``number``)."""
        device = self.views.joints.device
        rows = torch.randint(len(self), (number,), generator=generator, device=device)
        return _hide(self.views[rows], self.options, generator)

    def held_out(self, number: int, generator: torch.Generator) -> Views:
        """Up to ``number`` views, evenly spaced."""
        rows = evenly_spaced(len(self), number).to(self.views.joints.device)
        return _hide(self.views[rows], self.options, generator)

    def held_out_groups(self, number: int) -> list[str]:
        """The group names of the views of `held_out`; may be empty."""
        return [self.groups[row] for row in evenly_spaced(len(self.groups), number).tolist()]


def evenly_spaced(total: int, number: int) -> Tensor:
    """Up to ``number`` of ``total`` rows, (B,) int64, including the first and the last."""
    # In float64: float32 cannot count the frames of Human3.6M.
    spaced = torch.linspace(0, total - 1, min(total, number), dtype=torch.float64)
    return spaced.round().long()


def without_nose(views: Views) -> Views:
    """The views with the Neck/Nose keypoint hidden."""
    visible = views.visible.clone()
    visible[:, H36M_17.index("nose")] = False
    return dataclasses.replace(views, visible=visible)


def _hide(views: Views, options: ViewOptions, generator: torch.Generator) -> Views:
    if options.occlusion == "crop":
        views = crop(views, generator, noise_px=options.noise_px)
    else:
        share = 0.5 if options.occlusion == "mixed" else 0.0
        if share or options.noise_px:
            views = occlude(views, generator, share, options.noise_px)
    return views if options.nose else without_nose(views)
