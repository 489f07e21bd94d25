"""Fits with the posterior behind them, and visits to pages, which record their errors."""

import dataclasses
import io

import numpy as np
import pytest
import torch

from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.fitting import fit_keypoints
from flowprior.keypoints import example_keypoints
from flowprior.prior.uncertainty import uncertainty_of
from flowprior.rotations import matrix_to_rotvec
from tests.results.helpers import small_fits


class Visit:
    """An open page and what went wrong on it."""

    def __init__(self, browser, *, width=900, height=700, scheme="light", offline=False):
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, offline=offline
        )
        self.page = self.context.new_page()
        self.errors, self.requests = [], []
        self.page.on("console", self._log)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _log(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def shot(self, selector=""):
        """The pixels (H, W, 3) of an element, or of the window."""
        images = pytest.importorskip("PIL.Image")
        png = self.page.locator(selector).screenshot() if selector else self.page.screenshot()
        return np.asarray(images.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.fixture
def visit(chromium):
    """Open pages with ``visit(width=..., scheme=...)``; they are closed after the test."""
    opened = []

    def open_one(**options):
        opened.append(Visit(chromium, **options))
        return opened[-1]

    yield open_one
    for each in opened:
        each.context.close()


def share_of(pixels, colour, tolerance=60):
    """Share of pixels whose hue is near that of a colour, whatever the light."""
    direction = np.asarray(colour, float) / np.linalg.norm(colour)
    length = np.linalg.norm(pixels, axis=-1)
    away = np.linalg.norm(pixels - length[..., None] * direction, axis=-1)
    return float(((away < tolerance / 255 * length) & (length > 60)).mean())


@pytest.fixture(scope="session")
def prior():
    """The shipped prior over people."""
    return ConditionalPosePrior.from_pretrained("flowprior/people").freeze()


@pytest.fixture(scope="session")
def body():
    """The embedded body."""
    return BodyModel()


@pytest.fixture(scope="session")
def fits(prior, body):
    """Two fits of the example keypoints: all seen, and with the right forearm hidden."""
    keypoints = example_keypoints().expand(2, 17, 3).clone()
    keypoints[1, [8, 10], 2] = 0
    size = torch.tensor([640.0, 640.0])
    found = fit_keypoints(
        keypoints, prior, body=body, image_size=size, focal_px=900.0, max_iterations=40
    )
    given = prior.evidence.context(keypoints_2d=keypoints)
    with torch.no_grad():
        posterior = prior(given, centre=found.theta)
        samples = posterior.sample(6, generator=torch.Generator().manual_seed(1))
        samples = prior.space.to_matrix(samples)
        spread = uncertainty_of(samples, found.theta, body, betas=found.betas)
        joints = body(found.theta, found.betas, found.transl).joints
    vectors = matrix_to_rotvec(found.theta)
    arrays = {
        "global_orient": vectors[:, :1],
        "body_pose": vectors[:, 1:],
        "betas": found.betas,
        "transl": found.transl,
        "joints": joints,
        "keypoints_2d": keypoints,
        "joint_std_mm": spread.std_mm,
        "joint_radius_50_mm": spread.radius_50_mm,
        "joint_radius_90_mm": spread.radius_90_mm,
        "joint_confidence": spread.confidence(100.0),
        "rotation_std_deg": spread.std_degrees,
        "rotation_radius_90_deg": spread.radius_90_degrees,
        "joint_direction": spread.direction,
        "samples": matrix_to_rotvec(samples),
        "focal_px": found.focal_px,
        "centre_px": found.principal_point_px,
        "image_size": size.expand(2, 2),
    }
    return dataclasses.replace(
        small_fits(2, samples=6), **{name: value.numpy() for name, value in arrays.items()}
    )
