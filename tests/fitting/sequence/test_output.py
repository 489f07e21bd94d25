"""Uncertainty relative to the pelvis, and sampled motions."""

import math

import pytest
import torch

from flowprior.fitting.sequence import SequenceOptions, fit_sequence, rig_of
from flowprior.rotations import matrix_to_rotvec, rotvec_to_matrix
from flowprior.skeleton import COCO_17


@pytest.fixture(scope="module")
def prior(priors):
    return priors.people.freeze()


@pytest.fixture(scope="module")
def motion():
    """Somebody who swings the arms, (40, 24, 3, 3), in a camera's axes."""
    swing = torch.sin(2 * math.pi * torch.arange(40) / 30)
    pose = torch.zeros(40, 24, 3)
    pose[:, 16, 2], pose[:, 17, 2] = -1.1 + 0.3 * swing, 1.1
    pose[:, 0, 0] = math.pi
    return rotvec_to_matrix(pose)


def test_samples_have_the_uncertainty_of_the_fit(prior, body, motion):
    generator = torch.Generator().manual_seed(0)
    joints = body(motion).joints + torch.tensor([0.0, 0.0, 4.0])
    seen = joints + 0.02 * torch.randn(joints.shape, generator=generator)
    fit = fit_sequence(
        prior, joints_3d=seen, sigma=0.02, fps=30, num_samples=200, generator=generator
    )
    assert fit.samples.shape == (40, 200, 24, 3, 3)
    turn = matrix_to_rotvec(fit.rotation[:, None].mT @ fit.samples)
    spread = torch.rad2deg(turn.square().sum(dim=-1).mean(dim=1).sqrt())[:, :22]
    torch.testing.assert_close(spread, fit.rotation_std_degrees[:, :22], rtol=0.25, atol=0.1)
    # Poses make up for shapes, so with the shape of the fit, joints spread slightly more.
    places = body(fit.samples.flatten(0, 1), fit.shape.expand(8000, -1)).joints
    places = (places - places[:, :1]).unflatten(0, (40, 200))
    sampled = places.var(dim=1).sum(dim=-1).sqrt()[:, 1:22]
    stated = fit.joint_covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()[:, 1:22]
    assert (fit.joint_covariance[:, 0] == 0).all()
    ratio = (sampled / stated).mean(dim=0)
    assert ((ratio > 0.8) & (ratio < 1.3)).all(), ratio
    # Motions, not independent poses: neighbouring frames are alike.
    steps = matrix_to_rotvec(fit.samples[:-1].mT @ fit.samples[1:])[:, :, 16].norm(dim=-1)
    assert steps.mean() < 0.5 * turn[:, :, 16].norm(dim=-1).mean() + 0.1


def test_samples_are_continuous_from_window_to_window(prior, body, motion):
    joints = body(motion).joints + torch.tensor([0.0, 0.0, 4.0])

    def sampled(options):
        draw = torch.Generator().manual_seed(1)
        return fit_sequence(
            *(prior,),
            joints_3d=joints,
            sigma=0.02,
            fps=30,
            num_samples=3,
            generator=draw,
            options=options,
        )

    whole = sampled(SequenceOptions())
    parts = sampled(SequenceOptions(window=1.0, overlap=0.3))
    turn = matrix_to_rotvec(whole.samples.mT @ parts.samples).norm(dim=-1)
    size = matrix_to_rotvec(whole.rotation[:, None].mT @ whole.samples).norm(dim=-1)
    assert turn[..., :22].mean() < 0.3 * size[..., :22].mean()


def test_without_a_body_or_samples(prior, body, motion):
    points = body.keypoints(motion, COCO_17)
    rig = rig_of(body, COCO_17)
    fit = fit_sequence(prior, joints_3d=points, rig=rig, start=motion, fps=30)
    assert fit.joint_covariance is None
    assert fit.samples is None
