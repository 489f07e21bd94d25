"""Fits to keypoints and to several views, with the model's posterior as the prior.

Variables, objective and solver come from `flowprior.fitting`; fits start at the mode, with the
regressed shape and camera.
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
"""Fewer keypoints do not determine a fit: the camera alone has three parameters."""

LEAST_SCALE = 0.1  # least scale of a regressed camera; a smaller body in its box is an error


@dataclass(frozen=True)
class FitOptions:
    """Options of fits; the defaults follow the paper.

    Args:
        keypoints: Weights of a fit to one image.
        views: Weights of a refinement over several.
        frame: One of `flowprior.fitting.FRAMES`.
        theta: Whether to optimise theta instead of the flow's latent.
        max_iterations: Largest number of iterations.
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
    """Keypoints and boxes of P people in their images.

    Args:
        keypoints_2d: (P, 44, 3), pixels of the image and confidence, PROHMR-44.
        center: (P, 2) centre of the box, pixels of the image.
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
    """Fits bodies to keypoints, with p(theta | image) as the prior.

    Args:
        model: The model, in evaluation mode. The fitter copies its current flow.
        body: The body, on the same device, in layout "columns".
        options: The options of fits.
    """

    def __init__(self, model: ProHMR, body: BodyModel, options: FitOptions | None = None) -> None:
        self.prior = model.prior.freeze()
        self.body = body
        self.options = options or FitOptions()

    def pose(self, context: Tensor) -> PoseVariables:
        """The pose variables of people with contexts (P, C)."""
        return flow_pose(self.prior, context, theta=self.options.theta)

    def cameras(self, seen: Seen) -> Cameras:
        """The cameras of people: of the model's crops, or of the whole images."""
        frame = self.options.frame
        return cameras_for(
            seen.keypoints_2d,
            seen.img_size,
            # ProHMR's, for whole images too.
            focal_px=None if frame == "crop" else FOCAL_PX,
            frame=frame,
            box=(seen.center, seen.box_size),
        )

    def countable(self, keypoints_2d: Tensor) -> Tensor:
        """Number (P,) of keypoints (P, 44, 3) that a fit uses."""
        counts = keypoints_2d[..., 2] > LEAST_CONF
        if not self.options.keypoints.use_hips:
            counts = counts.clone()
            counts[:, list(IGNORED[PROHMR_44.name])] = False
        return counts.sum(dim=1)

    def fit(self, prediction: Prediction, seen: Seen) -> Fits:
        """Fit each person of a batch to its keypoints.

        Args:
            prediction: Finite predictions for P people.
            seen: Keypoints and boxes of the same people.

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
        """Refine the poses of people jointly over their views.

        Args:
            prediction: Finite predictions for all views.
            seen: Keypoints and boxes of the same views.
            groups: For each person, the indices of its views.

        Returns:
            The people.

        Raises:
            ValueError: A person has no views.
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
        """Translations (P, 3) in metres: regressed, or from the keypoints if implausible."""
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
    """Fit the people of some images to their keypoints, and evaluate the fits.

    People with fewer than `FEWEST_KEYPOINTS` keypoints keep the regression.

    Args:
        model: The model, in evaluation mode.
        fitter: A fitter of this model.
        batch: The images, on its device.
        protocol: The evaluated joints.

    Returns:
        (B,) each: "fit_mpjpe_mm", "fit_pa_mpjpe_mm"; "fitted_share", 1 for fitted people;
        "fit_error_of_box", the reprojection error in sides of the person's box. NaN for rows
        without an image or ground truth.
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
    """Refine the poses of people in several views, and evaluate every view.

    Args:
        model: The model, in evaluation mode.
        fitter: A fitter of this model.
        batch: All views, on its device.
        groups: For each person, the rows of its views. Views without an image are left out.
        protocol: The evaluated joints.

    Returns:
        (B,) each: "averaged_mpjpe_mm" and "averaged_pa_mpjpe_mm" of the views' mean on SO(3), and
        "together_..." after the refinement. NaN for views without an image or ground truth.
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
    """The mask (B,) of rows to evaluate, the true keypoints (B, 44, 3), and the prediction."""
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
