import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from flowprior.metrics import (
    Tally,
    best_of_n,
    consistency_2d,
    mpjpe,
    pa_mpjpe,
    pve,
    quantise,
    sample_diversity,
)
from tests.processes import run_python

SEEDS = st.integers(0, 2**32 - 1)


def random_joints(seed, *shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 3, generator=generator, dtype=dtype)


def random_rotation(seed):
    quaternion = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return roma.unitquat_to_rotmat(quaternion / quaternion.norm())


def procrustes_numpy(pred, target):
    """Umeyama's closed form for one pose, step by step."""
    x, y = pred - pred.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(y.T @ x)
    sign = np.array([1.0, 1.0, np.linalg.det(u) * np.linalg.det(vt)])
    rotation = u @ np.diag(sign) @ vt
    aligned = (s * sign).sum() / (x**2).sum() * x @ rotation.T
    return np.sqrt(((aligned - y) ** 2).sum(-1)).mean()


def test_mpjpe_of_a_known_displacement():
    target = random_joints(0, 5, 17)
    pred = target.clone()
    pred[:, 3] += torch.tensor([3.0, 0.0, 4.0])
    torch.testing.assert_close(mpjpe(pred, target), torch.full((5,), 5 / 17).double())


@given(seed=SEEDS, joints=st.integers(4, 25))
@settings(max_examples=50, deadline=None)
def test_pa_mpjpe_agrees_with_svd_procrustes(seed, joints):
    pred, target = random_joints(seed, 2, 3, joints)
    expected = [procrustes_numpy(p, t) for p, t in zip(pred.numpy(), target.numpy(), strict=True)]
    np.testing.assert_allclose(pa_mpjpe(pred, target).numpy(), expected, rtol=1e-9)


@given(
    seed=SEEDS,
    scale=st.floats(0.01, 100),
    shift=st.lists(st.floats(-10, 10), min_size=3, max_size=3),
)
@settings(max_examples=50, deadline=None)
def test_pa_mpjpe_does_not_see_a_similarity(seed, scale, shift):
    pred, target = random_joints(seed, 2, 17)
    moved = scale * pred @ random_rotation(seed).T + torch.tensor(shift, dtype=torch.float64)
    torch.testing.assert_close(pa_mpjpe(moved, target), pa_mpjpe(pred, target))
    assert pa_mpjpe(moved, pred) < 1e-9


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_pa_mpjpe_does_not_align_a_mirror_image(seed):
    pose = random_joints(seed, 17)
    mirrored = pose * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    # A reflection would bring this to zero.
    assert pa_mpjpe(mirrored, pose) > 0.05


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_aligning_does_not_raise_the_squared_error(seed):
    # Least squares bounds the squared error; the mean of the norms is at most its root.
    pred, target = random_joints(seed, 2, 17)
    root_mean_square = (pred - target).square().sum(-1).mean().sqrt()
    assert pa_mpjpe(pred, target) <= root_mean_square + 1e-12


def test_aligning_helps_random_poses():
    pred, target = random_joints(1, 2, 500, 17)
    assert (pa_mpjpe(pred, target) <= mpjpe(pred, target)).all()


LINE = torch.linspace(-1, 1, 17)[:, None] * torch.tensor([1.0, 2.0, 3.0])
POSE = random_joints(3, 17, dtype=torch.float32)
DEGENERATE = {
    "pred in one point": (torch.full((17, 3), 5.3), POSE),
    "pred at the origin": (torch.zeros(17, 3), POSE),
    "target in one point": (POSE, torch.full((17, 3), 1.1)),
    "both at the origin": (torch.zeros(17, 3), torch.zeros(17, 3)),
    "pred on a line": (LINE, POSE),
    "target on a line": (POSE, LINE),
    "both on lines": (LINE, LINE.flip(-1)),
    "pred in a plane": (POSE * torch.tensor([1.0, 1.0, 0.0]), POSE),
    "one joint": (POSE[:1], LINE[:1]),
    "two joints": (POSE[:2], LINE[:2]),
    "equal": (POSE, POSE),
}


@pytest.mark.parametrize(("pred", "target"), DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_poses_have_finite_errors_and_gradients(pred, target):
    pred, target = pred.clone().requires_grad_(), target.clone().requires_grad_()
    error = pa_mpjpe(pred, target)
    error.backward()
    assert error.isfinite()
    assert pred.grad.isfinite().all()
    assert target.grad.isfinite().all()
    spread = (target - target.mean(0)).norm(dim=-1)
    assert error <= spread.square().mean().sqrt() + 1e-5  # scale zero is always open


def test_a_point_is_aligned_to_the_mean_of_the_target():
    expected = (POSE - POSE.mean(0)).norm(dim=-1).mean()
    torch.testing.assert_close(pa_mpjpe(torch.full((17, 3), 5.3), POSE), expected)


def test_pa_mpjpe_gradient():
    pred, target = random_joints(5, 2, 6)
    assert torch.autograd.gradcheck(pa_mpjpe, (pred.requires_grad_(), target.requires_grad_()))


@pytest.mark.parametrize("metric", [mpjpe, pa_mpjpe])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dtype_and_shape_of_the_input_are_kept(metric, dtype):
    samples = random_joints(0, 4, 7, 17).to(dtype)
    target = random_joints(1, 4, 1, 17).to(dtype)
    errors = metric(samples, target)
    assert errors.shape == (4, 7)
    assert errors.dtype == dtype
    torch.testing.assert_close(errors[2, 5], metric(samples[2, 5], target[2, 0]))
    assert metric(samples[:0], target[:0]).shape == (0, 7)


@pytest.mark.parametrize("metric", [mpjpe, pa_mpjpe])
def test_bad_row_does_not_affect_others(metric):
    pred, target = random_joints(0, 2, 3, 17)
    expected = metric(pred, target)
    pred[1, 4] = float("nan")
    errors = metric(pred, target)
    assert errors[1].isnan()
    torch.testing.assert_close(errors[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("metric", [mpjpe, pa_mpjpe])
@pytest.mark.parametrize(
    ("pred", "target", "message"),
    [
        (torch.zeros(2, 17, 3), torch.zeros(2, 16, 3), r"\(2, 17, 3\) and \(2, 16, 3\)"),
        (torch.zeros(2, 17, 3), torch.zeros(3, 17, 3), r"\(2, 17, 3\) and \(3, 17, 3\)"),
        (torch.zeros(2, 17, 3), torch.zeros(17, 3), "same shape"),
        (torch.zeros(2, 1, 17, 3), torch.zeros(2, 17, 3), "same shape"),
        (torch.zeros(2, 1, 3), torch.zeros(2, 17, 3), "same shape"),
        (torch.zeros(2, 51), torch.zeros(2, 51), r"pred of shape .* got \(2, 51\)"),
        (torch.zeros(3), torch.zeros(3), r"\(\.\.\., J, 3\)"),
        (torch.zeros(2, 0, 3), torch.zeros(2, 0, 3), "at least one joint"),
        (torch.zeros(17, 3), torch.zeros(17, 2), r"target of shape .* got \(17, 2\)"),
        (torch.zeros(17, 3).long(), torch.zeros(17, 3), "floating-point dtype, got torch.int64"),
    ],
)
def test_bad_shapes_are_refused(metric, pred, target, message):
    with pytest.raises(ValueError, match=message):
        metric(pred, target)


@given(seed=SEEDS, n=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_best_of_n_is_the_running_minimum(seed, n):
    errors = random_joints(seed, 5, 20)[..., 0]
    torch.testing.assert_close(best_of_n(errors, n), errors.cummin(-1).values[:, n - 1])


def test_best_of_one_is_the_first_sample():
    errors = torch.tensor([[3.0, 1.0], [2.0, 5.0]])
    assert best_of_n(errors, 1).tolist() == [3.0, 2.0]
    assert best_of_n(errors, 2).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("n", [-1, 0, 8])
def test_best_of_n_refuses_more_samples_than_there_are(n):
    with pytest.raises(ValueError, match=f"from 1 to the 7 samples given, got {n}"):
        best_of_n(torch.zeros(3, 7), n)


def test_best_of_n_needs_a_sample_axis():
    with pytest.raises(ValueError, match="sample axis"):
        best_of_n(torch.tensor(1.0), 1)


# --- joints that do not count --------------------------------------------------------------------


@pytest.mark.parametrize("metric", [mpjpe, pa_mpjpe])
def test_a_mask_is_a_selection(metric):
    pred, target = torch.randn(5, 8, 3), torch.randn(5, 8, 3)
    valid = torch.tensor([True, False, True, True, True, False, True, True])
    expected = metric(pred[:, valid], target[:, valid])
    pred[:, ~valid], target[:, 1] = torch.nan, torch.inf
    for mask in (valid, valid.float(), valid.expand(5, 8)):
        torch.testing.assert_close(metric(pred, target, mask), expected)
    samples = pred[:, None].expand(5, 3, 8, 3)
    several = metric(samples, target[:, None], valid.expand(5, 1, 8))
    torch.testing.assert_close(several, expected[:, None].expand(5, 3))


@pytest.mark.parametrize("metric", [mpjpe, pa_mpjpe])
def test_poses_without_a_joint_that_counts_are_nan_and_leave_the_others_alone(metric):
    pred, target = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    valid = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])
    error = metric(pred, target, valid)
    assert error[0].isnan()
    torch.testing.assert_close(error[1], metric(pred[1], target[1]))


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="expected valid of shape"):
        mpjpe(torch.zeros(2, 4, 3), torch.zeros(2, 4, 3), torch.ones(3))


def test_pve_is_the_mean_distance_of_vertices():
    pred = torch.zeros(2, 100, 3)
    target = pred + torch.tensor([0.0, 3.0, 4.0])
    torch.testing.assert_close(pve(pred, target), torch.full((2,), 5.0))


@pytest.mark.filterwarnings("ignore:Optimal rotation is not uniquely")
@settings(max_examples=120)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["random", "flat", "line", "lines", "mirrored", "same", "pair", "point"]),
    st.sampled_from([1e-3, 1.0, 1e3]),
    st.sampled_from([0.0, 100.0]),
)
def test_pa_mpjpe_agrees_with_scipy(seed, kind, size, shift):
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(2, 10, 3))
    if kind == "flat":
        x[:, 2] = 0
    elif kind == "line":
        y = np.outer(np.arange(10.0), y[0])
    elif kind == "lines":
        x, y = np.outer(generator.normal(size=10), x[0]), np.outer(np.arange(10.0), y[0])
    elif kind == "mirrored":
        x = y * [-1, 1, 1]
    elif kind == "same":
        x = y.copy()
    elif kind == "pair":
        x, y = x[:2], y[:2]
    elif kind == "point":
        x[:] = x[0]
    x = size * x + shift
    centred = [each - each.mean(axis=0) for each in (x, y)]
    rotation, _ = Rotation.align_vectors(centred[1], centred[0])
    turned = rotation.apply(centred[0])
    square = np.square(turned).sum()
    scale = (turned * centred[1]).sum() / square if square > 1e-20 else 0.0
    expected = np.linalg.norm(scale * turned - centred[1], axis=-1).mean()
    actual = pa_mpjpe(torch.from_numpy(x), torch.from_numpy(y))
    # On a line the best rotation is not unique, the error is.
    assert actual.item() == pytest.approx(expected, abs=1e-7)


# --- samples -------------------------------------------------------------------------------------


def clusters(centres, n=40):
    return centres[torch.arange(n) % len(centres)] + 0.01 * torch.randn(2, n, 4, 3)


def test_quantised_samples_are_samples_and_stand_for_every_cluster():
    pytest.importorskip("sklearn", reason="quantised samples need scikit-learn")
    centres = 10 * torch.randn(5, 4, 3)
    samples = clusters(centres)
    kept = quantise(samples, 5, nearest=True)
    assert kept.shape == (2, 5, 4, 3)
    for row in range(2):
        same = (kept[row][:, None] == samples[row]).flatten(2).all(dim=-1)
        assert same.any(dim=-1).all()
        nearest = torch.cdist(kept[row].flatten(-2), centres.flatten(-2)).argmin(dim=-1)
        assert sorted(nearest.tolist()) == [0, 1, 2, 3, 4]
    assert torch.equal(kept, quantise(samples, 5, nearest=True))
    means = quantise(samples[0], 5)
    assert (torch.cdist(means.flatten(-2), centres.flatten(-2)).amin(dim=-1) < 0.02).all()
    torch.testing.assert_close(quantise(samples, 1)[:, 0], samples.mean(dim=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("samples", "n", "message"),
    [
        (torch.zeros(4, 3), 1, "shape"),
        (torch.zeros(2, 4, 3), 3, "from 1 to the 2"),
        (torch.zeros(2, 4, 3), 0, "from 1 to the 2"),
        (torch.full((2, 4, 3), torch.nan), 1, "NaN"),
    ],
)
def test_quantisation_rejects_unsuitable_input(samples, n, message):
    with pytest.raises(ValueError, match=message):
        quantise(samples, n)


def test_diversity_by_visibility():
    samples = torch.zeros(1, 2, 3, 3)
    samples[0, 0, 0, 0], samples[0, 1, 0, 0] = 1.0, -1.0
    samples[0, 0, 1, 0], samples[0, 1, 1, 0] = 5.0, 1.0
    seen, hidden = sample_diversity(samples, torch.tensor([[1, 0, 1]]))
    assert (seen.tolist(), hidden.tolist()) == ([1.0, 0.0], [2.0])
    assert sample_diversity(samples, torch.ones(1, 3))[1].shape == (0,)
    # Batches with different numbers of hidden joints add up to the mean over all joints.
    tally, many = Tally(), torch.randn(5, 20, 6, 3)
    visible = torch.rand(5, 6) < 0.6
    for rows in (slice(2), slice(2, 5)):
        seen, hidden = sample_diversity(many[rows], visible[rows])
        tally.add({"visible": seen, "hidden": hidden})
    expected = (many - many.mean(dim=1, keepdim=True)).norm(dim=-1).mean(dim=1)
    assert tally.mean("visible") == pytest.approx(expected[visible].mean().item())
    assert tally.mean("hidden") == pytest.approx(expected[~visible].mean().item())
    assert tally.count("visible") + tally.count("hidden") == 30
    with pytest.raises(ValueError, match=r"\(B, n, J, 3\)"):
        sample_diversity(samples, torch.ones(3))


def test_consistency_counts_keypoints_with_confidence_only():
    samples = torch.zeros(2, 4, 3, 2)
    keypoints = torch.tensor([3.0, 4.0]).expand(2, 3, 2).clone()
    keypoints[:, 1] = torch.nan
    conf = torch.tensor([[1.0, 0.0, 0.3], [0.0, 0.0, 0.0]])
    error = consistency_2d(samples, keypoints, conf)
    torch.testing.assert_close(error[0], torch.full((4,), 5.0))
    assert error[1].isnan().all()
    with pytest.raises(ValueError, match="samples_2d"):
        consistency_2d(samples[0], keypoints, conf)


# --- datasets ------------------------------------------------------------------------------------


def test_tally_counts_excluded_rows():
    tally = Tally()
    tally.add({"mpjpe": torch.tensor([1.0, torch.nan, 3.0])}, ["walk", "sit", "walk"])
    tally.add({"mpjpe": torch.tensor([6.0, torch.inf])}, ["sit", "sit"])
    assert (tally.mean("mpjpe"), tally.count("mpjpe"), tally.left_out["mpjpe"]) == (10 / 3, 3, 2)
    assert tally.group_means("mpjpe") == {"walk": 2.0, "sit": 6.0}
    assert tally.mean_of_groups("mpjpe") == 4.0
    assert np.isnan(tally.mean("other"))
    assert np.isnan(tally.mean_of_groups("other"))


@given(st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), max_size=12), st.integers(0, 12))
def test_tallies_of_parts_add_up(values, cut):
    names = ["a" if index % 3 else "b" for index in range(len(values))]
    whole, parts = Tally(), (Tally(), Tally())
    tensor = torch.tensor(values, dtype=torch.float64)
    whole.add({"m": tensor}, names)
    for tally, part in zip(parts, (slice(cut), slice(cut, None)), strict=True):
        tally.add({"m": tensor[part]}, names[part])
    both = parts[0] + parts[1]
    assert both.counts == whole.counts
    assert both.left_out == whole.left_out
    assert both.mean("m") == pytest.approx(whole.mean("m"), nan_ok=True, abs=1e-9)


def test_a_tally_refuses_errors_without_a_row_each():
    with pytest.raises(ValueError, match="shape"):
        Tally().add({"m": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="shape"):
        Tally().add({"m": torch.zeros(2)}, ["a"])


def test_inference_mode_does_not_forbid_later_gradients():
    program = """
import torch
from flowprior.metrics import pa_mpjpe
pred, target = torch.randn(2, 2, 5, 3)
with torch.inference_mode():
    first = pa_mpjpe(pred, target)
pred.requires_grad_()
again = pa_mpjpe(pred, target)
again.sum().backward()
assert torch.equal(first, again) and pred.grad.isfinite().all()
with torch.no_grad():
    assert not pa_mpjpe(pred, target).requires_grad
"""
    run_python(program)
