"""Fits to keypoints, and to several views, with the model's posterior of the image as the prior.

The variables, the objective and the solver are those of `examples.fitting`; the start is the mode,
with the regressed shape and camera.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from examples.data.images import ImageBatch
from examples.data.weak_perspective import FOCAL_PX, crop_translation, full_frame_translation
from examples.fitting.choices import flow_pose
from examples.prohmr.judging import crop_batch, supervise
from examples.prohmr.model import Prediction, ProHMR
from flowprior.body import BodyModel
from flowprior.fitting import (
    FRAMES,
    IGNORED,
    Cameras,
    Fits,
    KeypointWeights,
    MultiviewWeights,
    PoseVariables,
    ViewFits,
    cameras_for,
    first_translation,
    fit_keypoints,
    fit_views,
)
from flowprior.keypoints import LEAST_CONF
from flowprior.metrics.protocols import Protocol
from flowprior.skeleton import PROHMR_44

__all__ = ["FEWEST_KEYPOINTS", "FitOptions", "ImageFitter", "Seen", "judge_fits", "judge_views"]

FEWEST_KEYPOINTS = 3
"""With fewer, there is nothing to fit to: a camera alone has three numbers."""

LEAST_SCALE = 0.1  # of a regressed camera; a body that is smaller in its box is a mistake


@dataclass(frozen=True)
class FitOptions:
    """How is fitted; left as it is, as in the paper.

    Args:
        keypoints: Weights of a fit to one image.
        views: Weights of a refinement over several.
        frame: One of `flowprior.fitting.FRAMES`.
        theta: Whether theta is fitted instead of the flow's latent.
        max_iterations: Most steps.
    """

    keypoints: KeypointWeights = field(default_factory=KeypointWeights)
    views: MultiviewWeights = field(default_factory=MultiviewWeights)
    frame: str = "crop"
    theta: bool = False
    max_iterations: int = 150

    def __post_init__(self) -> None:
        if self.frame not in FRAMES:
            raise ValueError(f"the frame must be one of {', '.join(FRAMES)}, got {self.frame!r}")
        if self.max_iterations < 1:
            raise ValueError(f"expected at least one step of a fit, got {self.max_iterations}")


@dataclass(frozen=True, eq=False)
class Seen:
    """Where P people are in their images.

    Args:
        keypoints_2d: (P, 44, 3), pixels of the image and confidence, PROHMR-44.
        center: (P, 2) middle of the box, pixels of the image.
        box_size: (P,) its side.
        img_size: (P, 2) width and height of the image.
    """

    keypoints_2d: Tensor
    center: Tensor
    box_size: Tensor
    img_size: Tensor

    @classmethod
    def of(cls, batch: ImageBatch) -> "Seen":
        """The people of a batch."""
        return cls(batch.keypoints_2d, batch.center, batch.box_size, batch.img_size)

    def __getitem__(self, rows: Tensor) -> "Seen":
        """Some of the people."""
        return Seen(*(getattr(self, each.name)[rows] for each in fields(self)))


class ImageFitter:
    """Fits bodies to what is seen of people, with p(theta | image) as the prior.

    Args:
        model: In evaluation mode. Its flow is copied as it is now.
        body: On the same device, in layout "columns".
        options: How is fitted.
    """

    def __init__(self, model: ProHMR, body: BodyModel, options: FitOptions | None = None) -> None:
        self.prior = model.prior.freeze()
        self.body = body
        self.options = options or FitOptions()

    def pose(self, context: Tensor) -> PoseVariables:
        """The pose variables of people whose contexts (P, C) are known."""
        return flow_pose(self.prior, context, theta=self.options.theta)

    def cameras(self, seen: Seen) -> Cameras:
        """The cameras of people: of the crops that the model has seen, or of the whole images."""
        box = seen.center, seen.box_size
        return cameras_for(seen.keypoints_2d, seen.img_size, frame=self.options.frame, box=box)

    def countable(self, keypoints_2d: Tensor) -> Tensor:
        """How many keypoints (P,) of (P, 44, 3) a fit would see."""
        counts = keypoints_2d[..., 2] > LEAST_CONF
        if not self.options.keypoints.use_hips:
            counts = counts.clone()
            counts[:, list(IGNORED[PROHMR_44.name])] = False
        return counts.sum(dim=1)

    def fit(self, prediction: Prediction, seen: Seen) -> Fits:
        """Fit each person of a batch to its keypoints.

        Args:
            prediction: Of P people, without NaN or infinity.
            seen: The same people.

        Returns:
            The fits.
        """
        pose, cameras = self.pose(prediction.context), self.cameras(seen)
        return fit_keypoints(
            seen.keypoints_2d,
            pose,
            body=self.body,
            skeleton=PROHMR_44,
            cameras=cameras,
            betas=prediction.betas.detach(),
            transl=self._translation(prediction, seen, cameras, pose),
            weights=self.options.keypoints,
            max_iterations=self.options.max_iterations,
        )

    def refine(
        self, prediction: Prediction, seen: Seen, groups: Sequence[Sequence[int]]
    ) -> ViewFits:
        """Refine the poses of people over their views.

        Args:
            prediction: Of all views, without NaN or infinity.
            seen: The same views.
            groups: For each person, the numbers of its views.

        Returns:
            The people.

        Raises:
            ValueError: A person has no view.
        """
        return fit_views(
            seen.keypoints_2d,
            self.pose(prediction.context),
            groups,
            body=self.body,
            skeleton=PROHMR_44,
            cameras=self.cameras(seen),
            betas=prediction.betas.detach(),
            weights=self.options.views,
            use_hips=self.options.keypoints.use_hips,
            max_iterations=self.options.max_iterations,
        )

    @torch.no_grad()
    def _translation(
        self, prediction: Prediction, seen: Seen, cameras: Cameras, pose: PoseVariables
    ) -> Tensor:
        """(P, 3) metres, the regressed one, or, where that cannot be, where the keypoints are."""
        camera = prediction.camera
        if self.options.frame == "crop":
            regressed = crop_translation(camera)
        else:
            regressed = full_frame_translation(
                camera, seen.center, seen.box_size, seen.img_size, focal=FOCAL_PX
            )
        found = first_translation(
            self.body,
            seen.keypoints_2d,
            PROHMR_44,
            cameras,
            pose,
            pose.start(len(camera)),
            prediction.betas,
        )
        return torch.where(camera[:, :1] > LEAST_SCALE, regressed, found)


def judge_fits(
    model: ProHMR, fitter: ImageFitter, batch: ImageBatch, protocol: Protocol
) -> dict[str, Tensor]:
    """Fit the people of some images to their keypoints, and judge that.

    Those with fewer than `FEWEST_KEYPOINTS` keypoints keep what was regressed, as they would have
    to anywhere.

    Args:
        model: In evaluation mode.
        fitter: Of this model.
        batch: The images, on its device.
        protocol: Which joints are judged.

    Returns:
        (B,) each: "fit_mpjpe_mm", "fit_pa_mpjpe_mm"; "fitted_share", 1 where there was something to
        fit to; "fit_error_of_box", how far the keypoints still are, in sides of the person's box.
        NaN for rows without an image or a truth.
    """
    known, truth, prediction = _predicted(model, batch, protocol)
    with torch.no_grad():
        mode, betas = prediction.posterior.mode(), prediction.betas.clone()
        rotation = torch.cat(list(model.prior.smpl_params(mode).values()), dim=1)
    rows = (known & (fitter.countable(batch.keypoints_2d) >= FEWEST_KEYPOINTS)).nonzero()[:, 0]
    distance = betas.new_full((len(batch),), torch.nan)
    if len(rows):
        fits = fitter.fit(_some(model, prediction, rows), Seen.of(batch)[rows])
        rotation[rows], betas[rows], distance[rows] = fits.theta, fits.betas, fits.error
    values = _errors("fit", fitter.body, rotation, betas, truth, protocol)
    values["fitted_share"] = torch.zeros_like(distance).index_fill(0, rows, 1.0)
    values["fit_error_of_box"] = distance
    return {name: torch.where(known, value, torch.nan) for name, value in values.items()}


def judge_views(
    model: ProHMR,
    fitter: ImageFitter,
    batch: ImageBatch,
    groups: Sequence[Sequence[int]],
    protocol: Protocol,
) -> dict[str, Tensor]:
    """Refine the poses of people seen in several views, and judge every view.

    Args:
        model: In evaluation mode.
        fitter: Of this model.
        batch: All views, on its device.
        groups: For each person, the rows of its views. Views without an image are left out.
        protocol: Which joints are judged.

    Returns:
        (B,) each: "averaged_mpjpe_mm" and "averaged_pa_mpjpe_mm" of the views' mean on SO(3), and
        "together_..." after the refinement. NaN for views without an image or a truth.
    """
    known, truth, prediction = _predicted(model, batch, protocol)
    valid = batch.valid.tolist()
    there = [[row for row in group if valid[row]] for group in groups]
    there = [group for group in there if group]
    flat = torch.tensor([row for group in there for row in group], device=known.device)
    names = ("mpjpe_mm", "pa_mpjpe_mm")
    blank = truth.new_full((len(batch),), torch.nan)
    values = {f"{way}_{name}": blank.clone() for way in ("averaged", "together") for name in names}
    if not len(flat):
        return values
    places = iter(range(len(flat)))
    refined = fitter.refine(
        _some(model, prediction, flat),
        Seen.of(batch)[flat],
        [[next(places) for _ in group] for group in there],
    )
    for way, theta, betas in (
        ("averaged", refined.averaged, refined.first_betas),
        ("together", refined.together, refined.betas),
    ):
        shape = betas[:, None].expand(-1, theta.shape[1], -1)[refined.mask]
        found = _errors(way, fitter.body, theta[refined.mask], shape, truth[flat], protocol)
        for name, value in found.items():
            values[name][flat] = value
    return {name: torch.where(known, value, torch.nan) for name, value in values.items()}


@torch.no_grad()
def _predicted(
    model: ProHMR, batch: ImageBatch, protocol: Protocol
) -> tuple[Tensor, Tensor, Prediction]:
    """Which rows can be judged, (B,), the true keypoints (B, 44, 3), what the model says."""
    crops = crop_batch(batch, model.size)
    truth = crops.labels.keypoints_3d
    needed = [*protocol.joints, protocol.root]
    known = supervise(batch, crops.labels).valid & (truth[:, needed, -1] > 0).all(dim=1)
    return known, truth[..., :3], model(crops.images)


@torch.no_grad()
def _some(model: ProHMR, prediction: Prediction, rows: Tensor) -> Prediction:
    return model.predict(prediction.context[rows])


@torch.no_grad()
def _errors(
    way: str, body: BodyModel, theta: Tensor, betas: Tensor, truth: Tensor, protocol: Protocol
) -> dict[str, Tensor]:
    errors = protocol.errors(body.keypoints(theta, PROHMR_44, betas), truth)
    return {f"{way}_{name}_mm": 1000 * error for name, error in errors.items()}
