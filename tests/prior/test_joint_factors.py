"""Conformal factors: coverage on new people, files, copies, and what they change."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprior import CheckpointError, ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.files import model_file
from flowprior.prior import JointFactors
from flowprior.prior.joint_factors import LEVELS, fit_factors, numbered
from flowprior.skeleton import COCO_17, SMPL_24
from tests.prior.test_evidence import make, masks, poses
from tests.prior.test_uncertainty import seeded, with_scale

JOINTS = 4
SOME = (0.1, 0.5, 0.9)
FLIP = (0, 2, 1, 3)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


def chi_radii(rows: int, joints: int = JOINTS) -> torch.Tensor:
    """Radii (L, N, J) of three standard normal numbers, by sampling."""
    lengths = torch.randn(40000, 3, generator=seeded()).norm(dim=-1)
    return lengths.quantile(torch.tensor(SOME))[:, None, None].expand(-1, rows, joints)


def errors_of(people: int, each: int, between: float, seed: int) -> torch.Tensor:
    """Errors (people * each, J) that are normal, times a factor of the person."""
    generator = torch.Generator().manual_seed(seed)
    factor = (between * torch.randn(people, 1, JOINTS, generator=generator)).exp()
    lengths = torch.randn(people, each, JOINTS, 3, generator=generator).norm(dim=-1)
    return (2 * factor * lengths).flatten(0, 1)


def test_equal_people_need_one_factor():
    errors = errors_of(8, 500, 0.0, 1)
    found = fit_factors(
        errors, chi_radii(len(errors)), torch.arange(8).repeat_interleave(500), SOME, FLIP
    )
    torch.testing.assert_close(found, torch.full_like(found, 2.0), rtol=0.06, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("people", "tolerance"), [(3, 0.05), (12, 0.03)])
def test_new_people_are_covered_on_average(people, tolerance):
    """Three people with a Student's t for the fourth cover too much rather than too little."""
    shares = []
    for seed in range(12):
        errors = errors_of(people, 150, 0.4, seed)
        groups = torch.arange(people).repeat_interleave(150)
        factors = fit_factors(errors, chi_radii(len(errors)), groups, SOME, FLIP)
        new = errors_of(40, 50, 0.4, 1000 + seed)
        radii = factors[:, None] * chi_radii(len(new))
        shares.append((new <= radii).double().mean(dim=(1, 2)))
    covered = torch.stack(shares).mean(dim=0)
    levels = torch.tensor(SOME, dtype=torch.float64)
    assert (covered - levels)[1:].min() > -tolerance
    assert (covered - levels).abs().max() < 2 * tolerance


def test_every_person_has_the_same_weight():
    errors = errors_of(3, 400, 0.5, 2)
    groups = torch.arange(3).repeat_interleave(400)
    more = torch.cat([errors, errors[:400].repeat(5, 1)])
    again = torch.cat([groups, groups[:400].repeat(5)])
    found = fit_factors(errors, chi_radii(len(errors)), groups, SOME, FLIP)
    torch.testing.assert_close(
        fit_factors(more, chi_radii(len(more)), again, SOME, FLIP), found, rtol=0.02, atol=0
    )


@settings(max_examples=8, deadline=None)
@given(scale=st.floats(0.1, 10.0), people=st.integers(2, 5))
def test_factors_follow_the_unit_and_the_sides(scale, people):
    errors = errors_of(people, 30, 0.3, people)
    groups = torch.arange(people).repeat_interleave(30)
    radii = chi_radii(len(errors))
    found = fit_factors(errors, radii, groups, SOME, FLIP)
    torch.testing.assert_close(
        fit_factors(scale * errors, radii, groups, SOME, FLIP), scale * found, rtol=1e-4, atol=0
    )
    assert torch.equal(found[:, 1], found[:, 2])
    mirrored = fit_factors(errors[:, list(FLIP)], radii, groups, SOME, FLIP)
    torch.testing.assert_close(mirrored, found[:, list(FLIP)])


def test_rows_without_spread_are_left_out():
    errors = errors_of(3, 100, 0.2, 3)
    groups = torch.arange(3).repeat_interleave(100)
    radii = chi_radii(len(errors)).clone()
    found = fit_factors(errors, radii, groups, SOME, FLIP)
    more = torch.cat([errors, torch.full((60, JOINTS), 77.0)])
    known = torch.cat([radii, torch.zeros(len(SOME), 60, JOINTS)], dim=1)
    again = torch.cat([groups, torch.arange(60) % 3])
    torch.testing.assert_close(fit_factors(more, known, again, SOME, FLIP), found)
    radii[..., 3] = 0
    assert fit_factors(errors, radii, groups, SOME, FLIP)[:, 3].eq(1).all()


def test_answers_without_error_have_a_small_factor():
    errors = errors_of(3, 50, 0.2, 4)
    errors[:, 3] = 0
    groups = torch.arange(3).repeat_interleave(50)
    radii = chi_radii(len(errors))
    found = fit_factors(errors, radii, groups, SOME, FLIP)
    assert found.isfinite().all()
    assert found[:, 3].max() < 1e-3
    errors[:, 3] = 1e-12
    assert torch.equal(fit_factors(errors, radii, groups, SOME, FLIP), found)


def test_joints_share_what_is_known_of_the_spread_between_people():
    errors = errors_of(3, 400, 0.0, 5)
    groups = torch.arange(3).repeat_interleave(400)
    radii = chi_radii(len(errors))
    plain = fit_factors(errors, radii, groups, SOME, FLIP)
    errors[:, 3] *= torch.tensor([0.3, 1.0, 3.0])[groups]
    varied = fit_factors(errors, radii, groups, SOME, FLIP)
    assert (varied[2] > 1.2 * plain[2]).all()
    assert varied[2, 3] > 1.2 * varied[2, 0]


def test_a_person_is_a_name_or_a_number():
    assert numbered(["b", "a", "b"], 3).tolist() == [0, 1, 0]
    assert numbered(torch.tensor([7, 7, 3]), 3).tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="whose each of the 3 poses is, got 2"):
        numbered(["b", "a"], 3)
    with pytest.raises(ValueError, match="1 people"):
        numbered(["b", "b"], 2)


def table(value: float, joints: int = 24) -> torch.Tensor:
    return torch.full((len(LEVELS), joints), value)


@torch.no_grad()
def test_radii_confidences_and_deviations_agree(body):
    prior = with_scale(0.05)
    plain = prior(torch.zeros(2, 4)).joint_uncertainty(body, generator=seeded())
    prior.joint_factors = JointFactors(table(3.0), table(0.5), 3)
    posterior = prior(torch.zeros(2, 4))
    found = posterior.joint_uncertainty(body, generator=seeded())
    for name, factor in (("mm", 3.0), ("degrees", 0.5)):
        for what in ("std", "radius_50", "radius_90"):
            ours, theirs = (getattr(each, f"{what}_{name}") for each in (found, plain))
            torch.testing.assert_close(ours, factor * theirs, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.direction, plain.direction)
    torch.testing.assert_close(found.confidence(90.0), plain.confidence(30.0))
    torch.testing.assert_close(found.rotation_confidence(2.0), plain.rotation_confidence(4.0))
    torch.testing.assert_close(found.radius_mm(0.9), found.radius_90_mm)
    assert (found.calibrated, plain.calibrated) == (True, False)
    raw = posterior.joint_uncertainty(body, calibrated=False, generator=seeded())
    torch.testing.assert_close(raw.radius_90_mm, plain.radius_90_mm)
    frozen = prior.freeze()(torch.zeros(2, 4)).joint_uncertainty(body, generator=seeded())
    torch.testing.assert_close(frozen.radius_90_mm, found.radius_90_mm, rtol=1e-3, atol=1e-2)


@torch.no_grad()
def test_factors_of_a_level_apply_at_that_level(body):
    levels = torch.tensor(LEVELS)
    factors = (1 + levels)[:, None].expand(-1, 24)
    prior = with_scale(0.05)
    plain = prior(torch.zeros(4)).joint_uncertainty(body, num_samples=401, generator=seeded())
    prior.joint_factors = JointFactors(factors, factors, 5)
    found = prior(torch.zeros(4)).joint_uncertainty(body, num_samples=401, generator=seeded())
    for level in (0.1, 0.5, 0.9):
        torch.testing.assert_close(
            found.radius_degrees(level), (1 + level) * plain.radius_degrees(level)
        )
    share = found.rotation_confidence(float(found.radius_degrees(0.9)[3]) + 1e-3)[3]
    assert float(share) == pytest.approx(0.9, abs=0.01)
    assert (found.distances_mm.diff(dim=0) >= 0).all()


@torch.no_grad()
def test_other_joint_sets_take_the_nearest_factors(body):
    positions = table(1.0)
    positions[:, SMPL_24.index("left_knee")] = 2.0
    prior = with_scale(0.05)
    plain = prior(torch.zeros(4)).joint_uncertainty(body, skeleton=COCO_17, generator=seeded())
    prior.joint_factors = JointFactors(positions, table(1.0), 3)
    found = prior(torch.zeros(4)).joint_uncertainty(body, skeleton=COCO_17, generator=seeded())
    ratio = found.radius_90_mm / plain.radius_90_mm
    expected = torch.ones(17)
    expected[COCO_17.index("left_knee")] = 2.0
    torch.testing.assert_close(ratio, expected, rtol=1e-4, atol=0)


def wide_people(body, scale=0.15, people=6, each=20):
    """A prior that claims rotations of 0.05, and people whose rotations differ by ``scale``."""
    prior = with_scale(0.05)
    generator = torch.Generator().manual_seed(4)
    theta = scale * torch.randn(people * each, 24, 3, generator=generator)
    groups = torch.arange(people).repeat_interleave(each)
    return prior, theta, torch.zeros(people * each, 4), groups


@pytest.mark.slow
def test_calibration_makes_joints_cover(body):
    prior, theta, context, groups = wide_people(body)
    mode, sample = prior.mode(context[0]), prior.sample(context[0], 3, generator=seeded())
    factors = prior.calibrate_joints(theta, context, groups=groups, body=body, generator=seeded())
    assert factors is prior.joint_factors
    assert int(factors.people) == 6
    assert factors.rotations[:, 1:].sub(3).abs().max() < 1.0
    assert factors.positions[:, 0].eq(1).all()  # the pelvis
    assert torch.equal(mode, prior.mode(context[0]))
    assert torch.equal(sample, prior.sample(context[0], 3, generator=seeded()))
    new = 0.15 * torch.randn(300, 24, 3, generator=torch.Generator().manual_seed(5))
    scores = prior.joint_scores(
        new, torch.zeros(300, 4), groups=["new"] * 300, body=body, generator=seeded()
    )
    level = LEVELS.index(0.9)
    for errors, radii, table_of in (
        (scores.errors_mm[:, 1:], scores.radii_mm[level, :, 1:], factors.positions[level, 1:]),
        (scores.errors_degrees, scores.radii_degrees[level], factors.rotations[level]),
    ):
        covered = (errors <= table_of * radii).double().mean(dim=0)
        assert 0.87 < covered.mean() < 0.95
        assert covered.min() > 0.8


def test_scores_of_several_priors_add_up(body):
    prior, theta, context, groups = wide_people(body, people=2, each=5)
    first, second = (
        prior.joint_scores(
            theta, context, groups=names, body=body, num_samples=20, generator=seeded()
        )
        for names in (groups, [f"other {each}" for each in groups.tolist()])
    )
    both = first + second
    assert len(both.errors_mm) == len(both.groups) == 20
    assert int(JointFactors.fit(both).people) == 4
    assert torch.equal(both.of({0, 1}).radii_mm, first.radii_mm)


def test_true_joints_count_instead_of_posed_ones(body):
    prior, theta, context, groups = wide_people(body, people=2, each=5)
    options = {"groups": groups, "body": body, "num_samples": 20}
    posed = prior.joint_scores(theta, context, generator=seeded(), **options)
    matrix = prior.space.to_matrix(theta)
    tall = 1.1 * body.keypoints(matrix, SMPL_24)
    taller = prior.joint_scores(theta, context, joints=tall, generator=seeded(), **options)
    assert torch.equal(posed.radii_mm, taller.radii_mm)
    assert (taller.errors_mm.mean(dim=0)[1:] > posed.errors_mm.mean(dim=0)[1:]).all()
    same = prior.joint_scores(theta, context, joints=7 + tall / 1.1, generator=seeded(), **options)
    torch.testing.assert_close(same.errors_mm, posed.errors_mm, atol=1e-2, rtol=1e-4)


def test_calibrating_the_base_drops_old_factors(body):
    prior, theta, context, groups = wide_people(body)
    prior.calibrate(theta, context, groups=groups, body=body, generator=seeded())
    assert prior.joint_factors is not None
    # The base already has the right width.
    assert prior.joint_factors.rotations.sub(1).abs().max() < 0.4
    prior.calibrate(theta, context)
    assert prior.joint_factors is None


@torch.no_grad()
def test_known_rotations_need_no_factor(body):
    prior = make()
    theta, known = poses(12, 23), masks(12, 23)
    known[:, [3, 4]] = True  # both knees: opposite joints share a factor
    factors = prior.calibrate_joints(
        theta,
        prior.evidence.context(rotations=theta, known=known),
        groups=torch.arange(12) % 3,
        body=body,
        known=known,
        num_samples=20,
        generator=seeded(),
    )
    assert factors.rotations.shape == (len(LEVELS), 23)
    assert factors.rotations[:, [3, 4]].eq(1).all()
    found = prior.given(rotations=theta, known=known).joint_uncertainty(body, num_samples=20)
    assert not found.radius_90_degrees[known].any()
    assert found.radius_90_mm.isfinite().all()


# --- files and copies ---


def calibrated() -> ConditionalPosePrior:
    prior = with_scale(0.05)
    prior.joint_factors = JointFactors(torch.rand(len(LEVELS), 24), torch.rand(len(LEVELS), 24), 3)
    return prior


def same(first: ConditionalPosePrior, second: ConditionalPosePrior) -> bool:
    ours, theirs = (each.joint_factors.state_dict() for each in (first, second))
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_files_folders_and_copies_keep_factors(tmp_path):
    prior = calibrated()
    prior.save(tmp_path / "prior.safetensors")
    prior.save_pretrained(tmp_path / "folder")
    assert same(ConditionalPosePrior.load(tmp_path / "prior.safetensors"), prior)
    assert same(ConditionalPosePrior.from_pretrained(tmp_path / "folder"), prior)
    assert same(copy.deepcopy(prior), prior)
    assert same(pickle.loads(pickle.dumps(prior)), prior)
    assert same(prior.freeze(), prior)
    assert same(pickle.loads(pickle.dumps(prior.freeze())), prior)
    assert prior.double().joint_factors.positions.dtype == torch.float64


def test_a_file_without_factors_loads(tmp_path):
    prior = with_scale(0.05)
    prior.save(tmp_path / "old.safetensors")
    assert not any("factors" in name for name in prior.state_dict())
    assert ConditionalPosePrior.load(tmp_path / "old.safetensors").joint_factors is None


def test_factors_come_and_go_with_the_weights():
    prior, plain = calibrated(), with_scale(0.05)
    other = with_scale(0.05)
    other.load_state_dict(prior.state_dict())
    assert same(other, prior)
    other.load_state_dict(plain.state_dict())
    assert other.joint_factors is None


@pytest.mark.parametrize("name", ["positions", "rotations", "levels", "people"])
def test_damaged_factors_are_an_error(tmp_path, name):
    path = tmp_path / "prior.safetensors"
    calibrated().save(path)
    content = model_file.load(path)
    tensors = dict(content.tensors)
    shape = {"people": (2,), "levels": (3,)}.get(name, (len(LEVELS), 5))
    tensors[f"joint_factors.{name}"] = torch.zeros(shape)
    model_file.save(path, model_file.ModelFile(tensors, content.config))
    with pytest.raises(CheckpointError, match="joint"):
        ConditionalPosePrior.load(path)
    del tensors[f"joint_factors.{name}"]
    model_file.save(path, model_file.ModelFile(tensors, content.config))
    with pytest.raises(CheckpointError, match="unexpected joint_factors"):
        ConditionalPosePrior.load(path)


def test_mismatched_input_is_an_error(body):
    prior, theta, context, groups = wide_people(body, people=2, each=3)
    before = prior.flow.temperature.clone()
    with pytest.raises(ValueError, match="take both"):
        prior.calibrate(theta, context, groups=groups)
    with pytest.raises(ValueError, match="take both"):
        prior.calibrate(theta, context, body=body)
    with pytest.raises(ValueError, match="at least two"):
        prior.calibrate(theta, context, groups=["one"] * 6, body=body)
    with pytest.raises(ValueError, match="whose each of the 6"):
        prior.calibrate_joints(theta, context, groups=groups[:2], body=body)
    with pytest.raises(ValueError, match="one pose for each context"):
        prior.calibrate_joints(theta[:, None], context, groups=groups, body=body)
    with pytest.raises(ValueError, match="at least one"):
        prior.calibrate_joints(theta[:0], context[:0], groups=groups[:0], body=body)
    with pytest.raises(ValueError, match=r"joints must be \(6, 24, 3\)"):
        prior.calibrate_joints(
            theta, context, groups=groups, body=body, joints=torch.zeros(6, 22, 3)
        )
    points = ConditionalPosePrior(3, joints=17, space="points")
    with pytest.raises(ValueError, match="SMPL's 24 joints"):
        points.calibrate_joints(
            torch.zeros(4, 17, 3), torch.zeros(4, 3), groups=[0, 0, 1, 1], body=body
        )
    assert prior.joint_factors is None
    assert torch.equal(prior.flow.temperature, before)
    assert math.isfinite(prior.calibrate(theta, context))
