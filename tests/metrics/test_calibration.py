import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from flowprior import metrics
from flowprior.flow import StudentT
from flowprior.metrics import (
    JointCalibration,
    calibration,
    calibration_error,
    coverage,
    energy_score,
    expected_calibration_error,
    latent_pit,
    sample_spread,
)

SEEDS = st.integers(0, 2**32 - 1)
LEVELS = torch.linspace(0, 1, 21, dtype=torch.float64)


def normal(seed, *shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def chi_square_cdf(x, features):
    """Exact for an even number of degrees of freedom: one less a Poisson sum."""
    terms = [math.exp(-x / 2 + i * math.log(x / 2) - math.lgamma(i + 1)) for i in range(features)]
    return 1 - math.fsum(terms[: features // 2])


# The latent


def test_pit_of_one_and_two_dimensions_in_closed_form():
    z = torch.tensor([[0.0], [1.0], [-1.959963984540054], [3.0]], dtype=torch.float64)
    expected = torch.erf(z[:, 0].abs() / math.sqrt(2))
    torch.testing.assert_close(latent_pit(z), expected)
    assert latent_pit(z)[2] == pytest.approx(0.95)
    plane = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, math.sqrt(2 * math.log(2))]]).double()
    expected = torch.tensor([0.0, 1 - math.exp(-1), 0.5], dtype=torch.float64)
    torch.testing.assert_close(latent_pit(plane), expected)


@pytest.mark.parametrize("features", [2, 48, 144])
@pytest.mark.parametrize("scale", [0.5, 0.9, 1.0, 1.1, 1.6])
def test_pit_agrees_with_the_poisson_sum(features, scale):
    z = torch.full((features,), scale, dtype=torch.float64)
    expected = chi_square_cdf(features * scale**2, features)
    assert latent_pit(z).item() == pytest.approx(expected, abs=1e-9)  # what gammainc is good for


@pytest.mark.parametrize("features", [1, 3, 48, 144])
def test_pit_of_normal_draws_is_uniform(features):
    count = 4000
    pit = latent_pit(normal(features, count, features)).sort().values
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    distance = torch.maximum((steps[1:] - pit).max(), (pit - steps[:-1]).max())
    assert distance < 1.95 / math.sqrt(count)  # Kolmogorov-Smirnov, one in a thousand
    assert calibration_error(coverage(pit)) < 2 * 0.3 / math.sqrt(count)


def test_pit_keeps_batch_axes_and_works_in_float64():
    z = normal(0, 2, 5, 48)
    pit = latent_pit(z)
    assert pit.shape == (2, 5)
    assert pit.dtype == torch.float64
    half = latent_pit(z.half())
    assert half.dtype == torch.float64
    torch.testing.assert_close(half, latent_pit(z.half().double()), rtol=0, atol=0)
    assert latent_pit(z[:0]).shape == (0, 5)
    assert latent_pit(1e300 * z).eq(1).all()


@pytest.mark.parametrize("features", [1, 2, 7, 72, 144])
@pytest.mark.parametrize("nu", [0.5, 1.0, 2.5, 8.0, 32.0, 1000.0, 1e5])
def test_pit_of_a_t_agrees_with_the_f_law(features, nu):
    square = features * torch.linspace(0, 4, 60, dtype=torch.float64) ** 2
    z = torch.cat((square[:, None].sqrt(), torch.zeros(60, features - 1)), dim=-1)
    expected = stats.f(features, nu).cdf((square / features).numpy())
    np.testing.assert_allclose(latent_pit(z, nu), expected, rtol=0, atol=2e-9)


def test_pit_of_a_t_in_closed_form():
    # One dimension, one degree of freedom: the Cauchy law.
    z = torch.tensor([[0.0], [1.0], [-1.0], [50.0]], dtype=torch.float64)
    expected = 2 / math.pi * z[:, 0].abs().atan()
    torch.testing.assert_close(latent_pit(z, 1), expected)
    # Two dimensions: 1 - (1 + |z|^2 / nu)^(-nu / 2).
    plane = normal(0, 30, 2)
    expected = 1 - (1 + plane.square().sum(-1) / 5) ** -2.5
    torch.testing.assert_close(latent_pit(plane, 5.0), expected)


@pytest.mark.parametrize("features", [1, 3, 72])
@pytest.mark.parametrize("nu", [3.0, 12.0])
def test_pit_of_draws_of_a_t_is_uniform(features, nu):
    count, base = 4000, StudentT(nu)
    generator = torch.Generator().manual_seed(features)
    z = base.sample((count, features), torch.float64, torch.device("cpu"), generator)
    pit = latent_pit(z, base.degrees_of_freedom)
    assert stats.kstest(pit.numpy(), "uniform").pvalue > 1e-3
    assert calibration_error(coverage(pit)) < 2 * 0.3 / math.sqrt(count)
    if features > 10:  # the normal law takes lengths that vary more for miscalibration
        assert calibration_error(coverage(latent_pit(z))) > 0.05


@given(seed=SEEDS, nu=st.floats(0.5, 1e4), features=st.integers(1, 80))
def test_pit_of_a_t_grows_with_the_length(seed, nu, features):
    direction = normal(seed, features)
    pit = latent_pit(torch.linspace(0, 30, 200, dtype=torch.float64)[:, None] * direction, nu)
    assert ((pit >= 0) & (pit <= 1)).all()
    assert pit[0] == 0
    assert (pit.diff() >= -1e-12).all()


def test_pit_of_a_t_of_many_degrees_of_freedom_is_that_of_the_normal():
    z = normal(0, 50, 6)
    torch.testing.assert_close(latent_pit(z, 1e6), latent_pit(z), rtol=0, atol=1e-4)


def test_pit_of_a_t_keeps_batch_axes_and_never_overflows():
    z = normal(0, 2, 5, 48)
    pit = latent_pit(z, torch.tensor(6.0))
    assert pit.shape == (2, 5)
    assert pit.dtype == latent_pit(z.half(), 6).dtype == torch.float64
    assert latent_pit(z[:0], 6).shape == (0, 5)
    for scale in (1e100, 1e155, 1e300):
        torch.testing.assert_close(latent_pit(scale * z, 6), torch.ones(2, 5).double())
    assert latent_pit(1e-300 * z, 6).eq(0).all()


@pytest.mark.parametrize("nu", [0.0, -1.0, math.inf, math.nan])
def test_pit_needs_degrees_of_freedom(nu):
    for value in (nu, torch.tensor(nu)):
        with pytest.raises(ValueError, match="degrees_of_freedom must be positive and finite"):
            latent_pit(torch.zeros(3), value)


def test_coverage_counts_values_up_to_the_level():
    pit = torch.tensor([[0.1, 0.25], [0.5, 1.0]])
    covered = coverage(pit, [0.0, 0.25, 0.3, 0.99, 1.0])
    assert covered.dtype == torch.float64
    assert covered.tolist() == [0, 0.5, 0.5, 0.75, 1]
    assert coverage(pit, torch.tensor([1.0, 0.25])).tolist() == [1, 0.5]  # in any order
    assert coverage(pit).shape == (21,)


@given(pit=st.lists(st.floats(0, 1), min_size=1), levels=st.lists(st.floats(0, 1), min_size=1))
def test_coverage_is_a_mean_of_comparisons(pit, levels):
    covered = coverage(torch.tensor(pit, dtype=torch.float64), levels)
    for q, share in zip(levels, covered.tolist(), strict=True):
        assert share == sum(p <= q for p in pit) / len(pit)


def test_calibration_error_by_hand():
    covered = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.2, 0.7]])  # 0.3 below at two of three
    torch.testing.assert_close(
        calibration_error(covered, [0, 0.5, 1]), torch.tensor([0, 0.2]).double()
    )
    assert calibration_error(LEVELS) == 0
    assert calibration_error(torch.zeros(21)) == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [0.4, 0.8, 1.0, 1.3, 2.5])
def test_coverage_and_error_of_a_wrong_latent_scale_in_closed_form(scale):
    # Two latents of true scale s: coverage(q) = 1 - (1 - q)^(1 / s^2). Evenly spread quantiles of
    # the squared norm stand in for draws, so nothing is left to chance.
    count, power = 20000, scale**-2
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    radius = scale * (-2 * torch.log1p(-u)).sqrt()
    pit = latent_pit(torch.stack([radius, torch.zeros_like(radius)], dim=-1))
    covered = coverage(pit)
    torch.testing.assert_close(covered, 1 - (1 - LEVELS) ** power, rtol=0, atol=1 / count)
    # Over ever finer levels the mean gap tends to an integral.
    fine = torch.linspace(0, 1, 5001, dtype=torch.float64)
    gap = 0.5 - 1 / (1 + power)
    assert (coverage(pit, fine) - fine).mean().item() == pytest.approx(gap, abs=5e-4)
    assert calibration_error(coverage(pit, fine), fine).item() == pytest.approx(abs(gap), abs=5e-4)
    inner = (covered - LEVELS)[1:-1]
    if scale > 1:  # overconfident: the truth lies further out than the model says
        assert (inner < 0).all()
    if scale < 1:
        assert (inner > 0).all()


def test_chance_error_of_a_perfect_model_is_as_documented():
    errors = [calibration_error(coverage(latent_pit(normal(s, 400, 4)))).item() for s in range(200)]
    assert np.mean(errors) * math.sqrt(400) == pytest.approx(0.3, abs=0.03)


# The joints


def ece_slowly(samples, target, levels):
    """The definition, one pose, joint and level at a time; gives coverage (J, L) and the figure."""
    poses, n, joints, _ = samples.shape
    covered = np.zeros((joints, len(levels)))
    for b in range(poses):
        for j in range(joints):
            centre = [sorted(samples[b, :, j, k])[(n - 1) // 2] for k in range(3)]
            spread = [math.dist(samples[b, s, j], centre) for s in range(n)]
            error = math.dist(target[b, j], centre)
            for i, q in enumerate(levels):
                covered[j, i] += np.quantile(spread, q) > error
    covered /= poses
    return covered, np.mean([abs(np.median(covered[:, i]) - q) for i, q in enumerate(levels)])


@given(seed=SEEDS, poses=st.integers(1, 4), n=st.integers(2, 9), joints=st.integers(1, 4))
def test_ece_agrees_with_the_definition(seed, poses, n, joints):
    samples, target = normal(seed, poses, n, joints, 3), normal(seed + 1, poses, joints, 3)
    result = expected_calibration_error(samples, target)
    covered, figure = ece_slowly(samples.numpy(), target.numpy(), np.arange(0, 1.05, 0.05))
    np.testing.assert_allclose(result.coverage.numpy(), covered, rtol=0, atol=1e-15)
    assert result.ece == pytest.approx(figure, abs=1e-15)
    assert result.num_poses == poses
    per_joint = np.abs(covered - LEVELS.numpy()).mean(axis=1)
    np.testing.assert_allclose(result.joint_errors.numpy(), per_joint, atol=1e-15)


def line(*values):
    """Points on the x axis."""
    return torch.stack([torch.tensor([v, 0.0, 0.0]) for v in values])


def test_ece_by_hand():
    # Distances to the centre 2 of these samples are 0, 1, 1, 2, 2; the quantile is met strictly.
    samples = line(0.0, 1.0, 2.0, 3.0, 4.0)[None, :, None]
    levels = [0.0, 0.25, 0.5, 0.75, 1.0]
    for truth, covered in ((2, [0, 1, 1, 1, 1]), (3, [0, 0, 0, 1, 1]), (1.5, [0, 1, 1, 1, 1])):
        result = expected_calibration_error(samples, line(truth)[None], levels)
        assert result.coverage.tolist() == [covered]
    for truth in (4, 4.5, 0):  # as far as the furthest sample is not inside
        result = expected_calibration_error(samples, line(truth)[None], levels)
        assert result.coverage.tolist() == [[0] * 5]
        assert result.ece == 0.5
    # Of an even number the lower middle sample is the centre: 1, so 1.5 is as near as 0.5.
    even = line(0.0, 1.0, 2.0, 3.0)[None, :, None]
    for truth in (0.5, 1.5):
        result = expected_calibration_error(even, line(truth)[None], [0.1, 0.2, 1 / 3])
        assert result.coverage.tolist() == [[0, 1, 1]]  # interpolated: 0.3, 0.6, 1


def test_a_median_over_joints_hides_a_bad_one():
    samples, target = normal(0, 300, 200, 5, 3), normal(1, 300, 5, 3)
    good = expected_calibration_error(samples, target)
    target[:, 2] *= 10
    bad = expected_calibration_error(samples, target)
    assert abs(bad.ece - good.ece) < 0.02
    assert bad.joint_errors[2] > 0.4
    assert bad.joint_errors.argmax() == 2
    assert bad.median_coverage.shape == (21,)


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
def test_ece_of_a_wrong_spread_in_closed_form(scale):
    # In a plane, distances are Rayleigh: coverage(q) = 1 - (1 - q)^(1 / s^2).
    plane = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    samples, target = normal(0, 1500, 200, 3, 3) * plane, scale * normal(1, 1500, 3, 3) * plane
    # At q = 1 the furthest of 200 samples stands for infinity.
    levels = LEVELS[:-1]
    result = expected_calibration_error(samples, target, levels)
    expected = 1 - (1 - levels) ** (scale**-2)
    torch.testing.assert_close(result.median_coverage, expected, rtol=0, atol=0.04)
    error = (expected - levels).abs().mean().item()
    assert result.ece == pytest.approx(error, abs=0.02)
    torch.testing.assert_close(
        result.joint_errors, torch.full((3,), error).double(), atol=0.03, rtol=0
    )


@pytest.mark.parametrize(("n", "figure"), [(9, 0.089), (50, 0.018), (200, 0.004)])
def test_error_of_a_perfect_model_is_as_documented(n, figure):
    samples, target = normal(0, 2500, n, 8, 3), normal(1, 2500, 8, 3)
    result = expected_calibration_error(samples, target)
    mean_curve = result.coverage.mean(dim=0)  # less noise than the median
    assert calibration_error(mean_curve).item() == pytest.approx(figure, abs=0.003)
    # The median leans on the samples, hence a bound and no equality.
    assert mean_curve[-1] < n / (n + 1) + 0.002


def test_a_joint_without_spread_scores_half():
    samples, target = normal(0, 6, 50, 2, 3), normal(1, 6, 2, 3)
    samples[:, :, 0], target[:, 0] = 0, 0
    assert expected_calibration_error(samples, target).joint_errors[0] == 0.5


@given(seed=SEEDS, scale=st.sampled_from([2.0**-10, 1.0, 1024.0]))
def test_ece_has_no_unit(seed, scale):
    samples, target = normal(seed, 3, 11, 4, 3), normal(seed + 1, 3, 4, 3)
    plain = expected_calibration_error(samples, target)
    scaled = expected_calibration_error(scale * samples, scale * target)
    assert scaled.coverage.equal(plain.coverage)


# The energy score


def energy_slowly(samples, target):
    n = len(samples)
    near = sum(math.dist(x, target) for x in samples) / n
    pairs = [math.dist(samples[a], samples[b]) for a in range(n) for b in range(n) if a != b]
    return near - sum(pairs) / len(pairs) / 2


@given(seed=SEEDS, n=st.integers(2, 40), joints=st.integers(1, 4), shift=st.floats(-100, 100))
def test_energy_score_agrees_with_a_double_loop(seed, n, joints, shift):
    samples, target = normal(seed, 2, n, joints, 3) + shift, normal(seed + 1, 2, joints, 3)
    expected = [
        energy_slowly(x, y)
        for x, y in zip(samples.flatten(2).tolist(), target.flatten(1).tolist(), strict=True)
    ]
    np.testing.assert_allclose(energy_score(samples, target).numpy(), expected, rtol=1e-9)


def test_energy_score_by_hand():
    samples = line(0.0, 3.0)[:, None]
    assert energy_score(samples, line(1.0)) == 1.5 - 1.5
    assert energy_score(samples, line(5.0)) == 3.5 - 1.5
    # Samples in one point are a point forecast: the distance of whole poses is left.
    same = torch.ones(40, 2, 3)
    assert energy_score(same, torch.zeros(2, 3)).item() == pytest.approx(math.sqrt(6))


def expected_energy(scale, features):
    """Of samples N(0, s^2) when the truth is N(0, 1)."""
    length = math.sqrt(2) * math.exp(math.lgamma((features + 1) / 2) - math.lgamma(features / 2))
    return (math.sqrt(1 + scale**2) - scale / math.sqrt(2)) * length


def test_energy_score_is_proper_and_as_in_closed_form():
    scales, joints = (0.4, 0.7, 1.0, 1.4, 2.5), 2
    samples, target = normal(0, 4000, 64, joints, 3), normal(1, 4000, joints, 3)
    scores = [energy_score(s * samples, target).mean().item() for s in scales]
    np.testing.assert_allclose(scores, [expected_energy(s, 3 * joints) for s in scales], rtol=0.02)
    assert np.argmin(scores) == scales.index(1.0)
    moved = samples + torch.tensor([0.3, 0.0, 0.0], dtype=torch.float64)
    assert energy_score(moved, target).mean() > scores[2]


def test_energy_score_sees_a_wrong_correlation():
    # Each joint by itself is right; only whole poses can tell.
    pair = normal(0, 3000, 65, 1, 3).expand(-1, -1, 2, -1)
    samples, target = pair[:, 1:], pair[:, 0]
    apart = normal(1, 3000, 64, 2, 3)
    assert energy_score(samples, target).mean() < energy_score(apart, target).mean() - 0.01


def test_energy_score_has_no_bias_in_n():
    samples, target = normal(0, 60000, 2, 1, 3), normal(1, 60000, 1, 3)
    score = energy_score(samples, target)
    error = score.std() / math.sqrt(len(score))
    assert abs(score.mean() - expected_energy(1.0, 3)) < 3.3 * error


def test_energy_score_far_from_the_origin():
    samples, target = normal(0, 3, 50, 4, 3), normal(1, 3, 4, 3)
    score = energy_score(samples, target)
    torch.testing.assert_close(energy_score(samples + 1e6, target + 1e6), score, rtol=1e-8, atol=0)


def test_autocast_does_not_touch_the_arithmetic():
    samples, target = normal(0, 3, 50, 4, 3).float(), normal(1, 3, 4, 3).float()
    plain = energy_score(samples, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert energy_score(samples, target).equal(plain)


def test_energy_score_gradient():
    samples, target = normal(0, 2, 4, 2, 3), normal(1, 2, 2, 3)
    assert torch.autograd.gradcheck(
        energy_score, (samples.requires_grad_(), target.requires_grad_())
    )
    same = torch.ones(30, 2, 3, requires_grad=True)
    energy_score(same, torch.zeros(2, 3)).backward()
    assert same.grad.isfinite().all()


# Sharpness


def test_spread_by_hand():
    samples = torch.stack([line(0.0, 4.0, 2.0), line(7.0, 7.0, 7.0)], dim=1)
    torch.testing.assert_close(sample_spread(samples), torch.tensor([4 / 3, 0.0]))


def test_spread_of_a_normal_is_as_in_closed_form():
    mean_radius = math.sqrt(8 / math.pi)  # of three standard normal coordinates
    spread = sample_spread(0.1 * normal(0, 4000, 5, 1, 3)).mean()
    assert spread.item() == pytest.approx(0.1 * mean_radius * math.sqrt(1 - 1 / 5), rel=0.01)


# All of them

PER_POSE = {
    "ece": lambda x, y: expected_calibration_error(x, y).coverage,
    "energy": energy_score,
    "spread": lambda x, y: sample_spread(x),
}


@pytest.mark.parametrize("metric", PER_POSE.values(), ids=PER_POSE)
@pytest.mark.parametrize("block", [1, 60, 700, 5000])
def test_the_size_of_the_pieces_changes_nothing(monkeypatch, metric, block):
    samples, target = normal(0, 7, 30, 4, 3), normal(1, 7, 4, 3)
    whole = metric(samples, target)
    monkeypatch.setattr(calibration, "_BLOCK", block)
    torch.testing.assert_close(metric(samples, target), whole, rtol=1e-12, atol=1e-14)


def test_memory_is_bounded_for_many_samples():
    samples = normal(0, 1, 4096, 24, 3, dtype=torch.float32)
    target = torch.zeros(1, 24, 3)
    with torch.profiler.profile(profile_memory=True) as profile:
        energy_score(samples, target)
    largest = max(abs(event.self_cpu_memory_usage) for event in profile.events())
    assert largest <= 2 * 8 * calibration._BLOCK  # all pairs at once would be 128 MiB
    assert energy_score(samples, target).item() == pytest.approx(
        expected_energy(1.0, 72) + math.sqrt(72) * (1 - math.sqrt(2)), rel=0.05
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_batch_axes_and_dtype(dtype):
    samples, target = normal(0, 2, 5, 8, 4, 3).to(dtype), normal(1, 2, 5, 4, 3).to(dtype)
    score, spread = energy_score(samples, target), sample_spread(samples)
    assert (score.shape, score.dtype) == ((2, 5), dtype)
    assert (spread.shape, spread.dtype) == ((2, 5, 4), dtype)
    torch.testing.assert_close(energy_score(samples[1, 3], target[1, 3]), score[1, 3])
    torch.testing.assert_close(sample_spread(samples[1, 3]), spread[1, 3])
    exact = energy_score(samples.double(), target.double())
    torch.testing.assert_close(score, exact.to(dtype), rtol=0, atol=0)
    result = expected_calibration_error(samples, target)
    flat = expected_calibration_error(samples.flatten(0, 1), target.flatten(0, 1))
    assert result.num_poses == 10
    assert result.coverage.dtype == torch.float64
    assert result.coverage.equal(flat.coverage)


def test_no_poses():
    samples, target = torch.zeros(0, 8, 4, 3), torch.zeros(0, 4, 3)
    assert energy_score(samples, target).shape == (0,)
    assert sample_spread(samples).shape == (0, 4)
    with pytest.raises(ValueError, match=r"\(0, 4, 3\) contains no poses"):
        expected_calibration_error(samples, target)
    with pytest.raises(ValueError, match="pit is empty"):
        coverage(torch.zeros(0))


def test_metrics_offers_them_all():
    assert set(calibration.__all__) <= set(metrics.__all__)
    assert metrics.JointCalibration is JointCalibration is calibration.JointCalibration


SAMPLES, TARGET = torch.zeros(2, 5, 4, 3), torch.zeros(2, 4, 3)
NAN = TARGET.clone()
NAN[1, 2, 0] = math.nan


@pytest.mark.parametrize("metric", [expected_calibration_error, energy_score])
@pytest.mark.parametrize(
    ("samples", "target", "message"),
    [
        (SAMPLES, TARGET[:1], r"match, got \(2, 5, 4, 3\) and \(1, 4, 3\)"),
        (SAMPLES, TARGET[:, None], "match"),
        (SAMPLES, TARGET[:, :3], "match"),
        (SAMPLES[..., :2], TARGET[..., :2], r"\(\.\.\., n, J, 3\).* got \(2, 5, 4, 2\)"),
        (SAMPLES[:, :, :0], TARGET[:, :0], "at least one joint"),
        (TARGET[0], TARGET[0, 0], r"got \(4, 3\)"),
        (SAMPLES[:, :1], TARGET, r"at least 2 samples .* \(2, 1, 4, 3\)"),
        (SAMPLES[:, :0], TARGET, "at least 2 samples"),
        (SAMPLES, NAN, "target holds NaN or infinity in 1 of 24"),
        (SAMPLES / 0, TARGET, "samples holds NaN or infinity in 120 of 120"),
        (SAMPLES.long(), TARGET, "samples of a floating-point dtype, got torch.int64"),
        (SAMPLES, TARGET.long(), "target of a floating-point dtype"),
    ],
)
def test_bad_samples_are_refused(metric, samples, target, message):
    with pytest.raises(ValueError, match=message):
        metric(samples, target)


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="at least 2 samples"):
        sample_spread(SAMPLES[:, :1])
    with pytest.raises(ValueError, match=r"z of shape \(\.\.\., D\)"):
        latent_pit(torch.tensor(1.0))
    with pytest.raises(ValueError, match="D at least 1"):
        latent_pit(torch.zeros(4, 0))
    with pytest.raises(ValueError, match="z holds NaN or infinity in 1 of 2"):
        latent_pit(torch.tensor([0.0, math.inf]))
    with pytest.raises(ValueError, match=r"pit must be within \[0, 1\], got values from 0.5 to 2"):
        coverage(torch.tensor([0.5, 2.0]))
    with pytest.raises(ValueError, match="pit holds NaN"):
        coverage(torch.tensor([0.5, math.nan]))
    with pytest.raises(ValueError, match="one value per level"):
        calibration_error(torch.zeros(3, 20))
    with pytest.raises(ValueError, match=r"coverage must be within"):
        calibration_error(torch.full((21,), -0.1))
    with pytest.raises(TypeError, match=r"samples must be a torch\.Tensor, got ndarray"):
        sample_spread(SAMPLES.numpy())


@pytest.mark.parametrize("levels", [[], [[0.5]], [1.1], [-0.1, 0.5], [math.nan, 0.5]])
def test_bad_levels_are_refused(levels):
    for call in (
        lambda: coverage(torch.tensor([0.5]), levels),
        lambda: expected_calibration_error(SAMPLES, TARGET, levels),
    ):
        with pytest.raises(ValueError, match="levels"):
            call()
