"""Every number of an uncertainty against numpy, and the scores that factors are fitted to."""

import numpy as np
import pytest
import torch

from flowprior import rotations
from flowprior.body import BodyModel
from flowprior.prior import JointFactors
from flowprior.prior.joint_factors import LEVELS
from flowprior.prior.uncertainty import (
    KEPT,
    Measurement,
    assembled,
    joined,
    nearest_joints,
    positions,
    uncertainty_of,
)
from flowprior.skeleton import COCO_17, SMPL_24
from tests.prior.test_posterior import made


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel().double()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def turns(*shape: int, size: float, seed: int = 0) -> torch.Tensor:
    vector = size * torch.randn(*shape, 3, generator=seeded(seed)).double()
    return rotations.rotvec_to_matrix(vector)


def numbers(body, skeleton=None):
    mode = turns(2, 24, size=0.5)
    samples = mode[:, None] @ turns(2, 11, 24, size=0.1, seed=1)
    return mode, samples, uncertainty_of(samples, mode, body, skeleton)


@pytest.mark.parametrize("skeleton", [SMPL_24, COCO_17])
def test_numbers_are_those_of_the_samples(body, skeleton):
    mode, samples, found = numbers(body, skeleton)
    centre = 1000 * body.keypoints(mode, skeleton).numpy()
    moved = 1000 * body.keypoints(samples, skeleton).numpy() - centre[:, None]
    lengths = np.sort(np.linalg.norm(moved, axis=-1), axis=1)
    trace = (samples.mT @ mode[:, None]).diagonal(dim1=-2, dim2=-1).sum(dim=-1).numpy()
    angles = np.sort(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))), axis=1)
    close = {"atol": 1e-6, "rtol": 1e-6}
    np.testing.assert_allclose(found.distances_mm, lengths, **close)
    np.testing.assert_allclose(found.distances_degrees, angles, **close)
    for level in (0.0, 0.17, 0.5, 0.9, 1.0):
        np.testing.assert_allclose(
            found.radius_mm(level), np.quantile(lengths, level, axis=1), **close
        )
        np.testing.assert_allclose(
            found.radius_degrees(level), np.quantile(angles, level, axis=1), **close
        )
    assert torch.equal(found.radius_50_mm, found.radius_mm(0.5))
    assert torch.equal(found.radius_90_mm, found.radius_mm(0.9))
    assert torch.equal(found.radius_50_degrees, found.radius_degrees(0.5))
    assert torch.equal(found.radius_90_degrees, found.radius_degrees(0.9))
    np.testing.assert_allclose(found.std_degrees, np.sqrt(np.square(angles).mean(axis=1)), **close)
    for row in range(2):
        for joint in range(3, skeleton.num_joints):
            values, vectors = np.linalg.eigh(np.cov(moved[row, :, joint].T, bias=True))
            assert found.std_mm[row, joint] == pytest.approx(np.sqrt(values.sum()), rel=1e-5)
            share = values[-1] / values.sum()
            assert found.direction_share[row, joint] == pytest.approx(share, rel=1e-4)
            along = abs(float(found.direction[row, joint].numpy() @ vectors[:, -1]))
            assert along == pytest.approx(1, abs=1e-5)
    limit = float(found.distances_mm[0, 4, 15])
    np.testing.assert_allclose(found.confidence(limit), (lengths <= limit).mean(axis=1))
    limit = float(found.distances_degrees[1, 6, 3])
    np.testing.assert_allclose(found.rotation_confidence(limit), (angles <= limit).mean(axis=1))
    assert found.confidence(0.0).shape == (2, skeleton.num_joints)
    assert not found.calibrated


def test_blocks_of_samples_add_up(body):
    mode, samples, whole = numbers(body)
    measurement = Measurement(mode, body, SMPL_24, None)
    measurement.add(samples[:, :4])
    measurement.add(samples[:, 4:])
    parts = measurement.result()
    torch.testing.assert_close(parts.std_mm, whole.std_mm, atol=1e-4, rtol=1e-6)
    assert torch.equal(parts.distances_mm, whole.distances_mm)
    rows = [uncertainty_of(samples[k : k + 1], mode[k : k + 1], body) for k in range(2)]
    both = joined(rows, torch.Size([1, 2]))
    assert both.distances_degrees.shape == (1, 2, 11, 24)
    torch.testing.assert_close(both.radius_90_mm[0], whole.radius_90_mm)
    assert not both.calibrated


@pytest.mark.parametrize("count", [KEPT, KEPT + 1, 3 * KEPT])
def test_many_distances_are_kept_as_quantiles(count):
    lengths = torch.rand(2, count, 3, generator=seeded()).double().sort(dim=1).values
    found = assembled(
        lengths, torch.eye(3).double().expand(2, 3, 3, 3), lengths[..., :1], None, None
    )
    assert found.distances_mm.shape == (2, KEPT, 3)
    assert found.distances_degrees.shape == (2, KEPT, 1)
    expected = np.quantile(lengths, np.linspace(0, 1, KEPT), axis=1).swapaxes(0, 1)
    np.testing.assert_allclose(found.distances_mm, expected, atol=1e-6)
    torch.testing.assert_close(found.std_mm, torch.full((2, 3), 3**0.5).double())
    torch.testing.assert_close(found.direction_share, torch.full((2, 3), 1 / 3).double())


def test_factors_stretch_distances_and_deviations():
    levels = torch.tensor([0.25, 0.5, 0.75])
    table = torch.tensor([[2.0], [1.0], [3.0]]) * torch.linspace(1, 2, 24)
    factors = JointFactors(table, table[:, :2], 5, levels)
    lengths = torch.rand(2, 9, 3, generator=seeded()).double().sort(dim=1).values
    degrees = 10 * lengths[..., :2]
    nearest = [5, 0, 23]
    found = assembled(lengths, torch.eye(3).double().expand(2, 3, 3, 3), degrees, factors, nearest)
    assert found.calibrated
    level = np.linspace(0, 1, 9)
    for joint, source in enumerate(nearest):
        by_level = np.interp(level, levels, table[:, source])
        stretched = np.maximum.accumulate(lengths[..., joint].numpy() * by_level, axis=1)
        np.testing.assert_allclose(found.distances_mm[..., joint], stretched, rtol=1e-6)
        size = np.square(stretched).mean(axis=1) / np.square(lengths[..., joint].numpy()).mean(
            axis=1
        )
        np.testing.assert_allclose(found.std_mm[:, joint], np.sqrt(3 * size), rtol=1e-6)
        if joint < 2:
            by_level = np.interp(level, levels, table[:, joint])
            turned = np.maximum.accumulate(degrees[..., joint].numpy() * by_level, axis=1)
            np.testing.assert_allclose(found.distances_degrees[..., joint], turned, rtol=1e-6)
            expected = np.sqrt(np.square(turned).mean(axis=1))
            np.testing.assert_allclose(found.std_degrees[:, joint], expected, rtol=1e-6)


def test_other_joints_are_near_those_of_smpl(body):
    assert nearest_joints(body, SMPL_24) == list(range(24))
    rest = torch.eye(3).double().expand(24, 3, 3)
    ours, theirs = body.keypoints(rest, SMPL_24).numpy(), body.keypoints(rest, COCO_17).numpy()
    apart = np.linalg.norm(theirs[:, None] - ours[None], axis=-1)
    assert nearest_joints(body.float(), COCO_17) == apart.argmin(axis=1).tolist()
    body.double()


@pytest.mark.parametrize("value", [-1e-9, float("nan")])
def test_limits_are_not_negative(body, value):
    found = numbers(body)[2]
    with pytest.raises(ValueError, match=r"^within_mm must be at least 0, got"):
        found.confidence(value)
    with pytest.raises(ValueError, match=r"^within_degrees must be at least 0, got"):
        found.rotation_confidence(value)
    for level in (value, 1.0000001):
        for radius in (found.radius_mm, found.radius_degrees):
            with pytest.raises(ValueError, match=r"^level must be in \[0, 1\], got"):
                radius(level)


@pytest.mark.parametrize("shaped", [False, True])
@torch.no_grad()
def test_scores_are_errors_and_radii(body, shaped):
    prior = made(24, space="so3", head_features=8)
    for step in prior.flow.steps:
        step.actnorm.log_scale.fill_(2.0)
    context = torch.randn(2, 2, 3, generator=seeded()).double()
    mode = prior.space.to_matrix(prior.mode(context))
    truth = mode @ turns(2, 2, 24, size=0.1)
    betas = torch.randn(10, generator=seeded(1)).double() if shaped else None
    arguments = {"groups": [1, 2, 1, 2], "body": body, "betas": betas}
    scores = prior.joint_scores(truth, context, generator=seeded(), **arguments)
    places = positions(body, truth, SMPL_24, betas) - positions(body, mode, SMPL_24, betas)
    torch.testing.assert_close(scores.errors_mm, places.norm(dim=-1).flatten(0, 1))
    angles = torch.rad2deg(rotations.geodesic_distance(truth, mode)).flatten(0, 1)
    torch.testing.assert_close(scores.errors_degrees, angles)
    assert scores.groups == (1, 2, 1, 2)
    found = prior(context).joint_uncertainty(body, betas=betas, generator=seeded())
    for row, level in enumerate(LEVELS):
        radius = found.radius_degrees(level).flatten(0, 1)
        torch.testing.assert_close(scores.radii_degrees[row], radius)
        # The pelvis does not move, so it has no radius.
        radius = found.radius_mm(level).flatten(0, 1)
        torch.testing.assert_close(scores.radii_mm[row, :, 1:], radius[:, 1:])
        assert not scores.radii_mm[row, :, 0].any()
    joints = torch.randn(2, 2, 24, 3, generator=seeded(2)).double()
    given = prior.joint_scores(truth, context, joints=joints, num_samples=2, **arguments)
    expected = positions(body, mode, SMPL_24, betas)
    apart = 1000 * (joints - joints[..., :1, :]) - (expected - expected[..., :1, :])
    torch.testing.assert_close(given.errors_mm, apart.norm(dim=-1).flatten(0, 1))
    assert (given + scores).errors_mm.shape == (8, 24)
    assert torch.equal((given + scores).of([2]).errors_mm[:2], given.errors_mm[1::2])


def test_scores_name_what_does_not_fit(body):
    prior = made(24, space="so3", head_features=8)
    context, theta = torch.zeros(2, 3).double(), turns(2, 24, size=0.1)
    for changes, message in (
        ({"groups": [1]}, r"^groups must say whose each of the 2 poses is, got 1$"),
        ({"joints": torch.zeros(2, 22, 3)}, r"^joints must be \(2, 24, 3\), got \(2, 22, 3\)$"),
        ({"theta": theta[:, None]}, r"one pose for each context, at least one: theta"),
        ({"theta": theta[:0], "context": context[:0], "groups": []}, "at least one"),
        (
            {"known": torch.zeros(2, 23, dtype=torch.bool)},
            r"known must be \(2, 24\) and theta \(2, 24, 6\), got \(2, 23\)",
        ),
    ):
        given = {"theta": theta, "context": context, "groups": [1, 2], "body": body, **changes}
        with pytest.raises(ValueError, match=message):
            prior.joint_scores(given.pop("theta"), given.pop("context"), num_samples=2, **given)
    for given in ({"groups": [1, 2]}, {"body": body}):
        with pytest.raises(ValueError, match=r"^factors of the joints take both"):
            prior.calibrate(theta, context, **given)
