"""Reports: a posterior that is right covers what it promises, one that is not does not."""

import math

import pytest
import torch

from examples.heads.features import About, Features
from examples.heads.reports import (
    Judged,
    calibrate,
    judge,
    posterior_of,
    report,
    save_picture,
    tables,
)
from examples.heads.training import Settings, new_head
from flowprior.body import BodyModel
from flowprior.skeleton import SMPL_24

SMALL = Settings(encoder_features=8, hidden_features=8, num_steps=1)


@pytest.fixture(scope="module")
def body():
    return BodyModel()


@pytest.fixture(scope="module")
def prior(people):
    """A narrow prior around the answers, of about 0.1 radians per joint."""
    prior = new_head(people, SMALL).eval().requires_grad_(False)
    prior.flow.steps[0].actnorm.log_scale.data += -math.log(0.1)
    for step in prior.flow.steps:
        step.actnorm.initialized.fill_(True)
    return prior


@pytest.fixture(scope="module")
def drawn(prior, people):
    """People whose true poses are samples of the posterior."""
    posterior = posterior_of(prior, people, "regressor")
    samples = posterior.sample(1, generator=torch.Generator().manual_seed(0))[:, 0]
    columns = people.columns | {"truth": prior.space.to_matrix(samples)}
    return Features(**columns, about=people.about)


@pytest.fixture(scope="module")
def judged(prior, drawn, body):
    return judge(prior, drawn, body, num_samples=100)


def test_coverage_of_a_correct_posterior_is_nominal(judged, drawn):
    summary = report(judged, drawn)["overall"]
    for unit in ("mm", "degrees"):
        assert summary[f"inside_50_{unit}"] == pytest.approx(0.5, abs=0.03)
        assert summary[f"inside_90_{unit}"] == pytest.approx(0.9, abs=0.02)
        assert summary[f"least_inside_90_{unit}"] > 0.84
    assert summary["ece"] < 0.02
    assert summary["worst_joint_ece"] < 0.06


@pytest.mark.slow
def test_an_overconfident_posterior_is_seen_and_calibrated(people, drawn, body, prior):
    narrow = new_head(people, SMALL).eval().requires_grad_(False)
    narrow.load_state_dict(prior.state_dict())
    narrow.flow.steps[0].actnorm.log_scale.data += math.log(2.0)
    some = drawn.take(torch.arange(300))
    before = report(judge(narrow, some, body, num_samples=50), some)["overall"]
    assert before["inside_90_mm"] < 0.7
    assert before["ece"] > 0.1
    facts = calibrate(narrow, drawn, "regressor", body)
    assert facts["temperature"] == pytest.approx(2.0, rel=0.1)
    assert facts["subjects"] == 10
    after = report(judge(narrow, some, body, num_samples=50), some)["overall"]
    assert after["inside_90_mm"] == pytest.approx(0.9, abs=0.03)
    assert after["nll_nats"] < before["nll_nats"] - 5


def test_constant_joints_are_excluded(judged):
    assert "pelvis" not in judged.joints
    assert {"left_hand", "right_hand"} <= set(judged.joints)
    assert "pelvis" in judged.rotated
    assert not {"left_hand", "right_hand"} & set(judged.rotated)
    assert judged.error_mm.shape == (500, 23)
    assert judged.error_degrees.shape == (500, 22)


def test_errors_are_those_of_the_mode(judged, drawn, body):
    places = [1000 * body.keypoints(each, SMPL_24) for each in (drawn.answer, drawn.truth)]
    error = (places[0] - places[1]).norm(dim=-1)[:, 4]
    found = judged.error_mm[:, judged.joints.index("left_knee")]
    torch.testing.assert_close(found, error, atol=0.5, rtol=1e-3)


def test_groups_are_subjects_and_visibility(judged, drawn):
    groups = report(judged, drawn)["groups"]
    assert set(groups) == {*(f"subject person{i}" for i in range(10)), "clear", "occluded"}
    assert sum(groups[f"subject person{i}"]["people"] for i in range(10)) == 500
    mean = sum(groups[f"subject person{i}"]["nll_nats"] for i in range(10)) / 10
    assert mean == pytest.approx(report(judged, drawn)["overall"]["nll_nats"], abs=1e-3)
    unknown = torch.full_like(drawn.subject, -1)
    columns = drawn.columns | {"subject": unknown, "hidden": unknown}
    assert report(judged, Features(**columns, about=drawn.about))["groups"] == {}


def test_points(people):
    about = About("points", "layer", people.about.datasets)
    answer = people.features[:, None, :3].repeat(1, 4, 1) / 50
    columns = people.columns | {"answer": answer, "truth": answer}
    columns["subject"] = torch.full_like(people.subject, -1)
    features = Features(**columns, about=about)
    prior = new_head(features, SMALL).eval().requires_grad_(False)
    prior.flow.steps[0].actnorm.log_scale.data += -math.log(0.05)
    for step in prior.flow.steps:
        step.actnorm.initialized.fill_(True)
    samples = posterior_of(prior, features, "regressor").sample(1)[:, 0]
    features = Features(**(columns | {"truth": samples}), about=about)
    judged = judge(prior, features, BodyModel(), num_samples=100)
    assert judged.joints == ("0", "1", "2", "3")
    assert judged.rotated == ()
    found = report(judged, features)
    assert found["overall"]["inside_90_mm"] == pytest.approx(0.9, abs=0.04)
    assert "inside_90_degrees" not in found["overall"]
    assert "| 0 |" in tables(found)


def test_tables_show_every_joint_and_group(judged, drawn):
    found = report(judged, drawn)
    text = tables(found)
    for name in (*judged.joints, *judged.rotated, "subject person3", "occluded"):
        assert f"| {name} |" in text
    first = text.splitlines()[2]
    assert f"| all | 500 | {found['overall']['nll_nats']:.1f} |" in first


def test_people_are_ranked_by_spread():
    size = torch.linspace(1, 10, 10)[:, None]
    nothing = torch.zeros(10, 0)
    radii = {50: size, 90: 2 * size}
    judged = Judged(
        ("a",),
        (),
        size,
        radii,
        size,
        torch.zeros(10, 1),
        nothing,
        {50: nothing, 90: nothing},
        torch.zeros(10),
        torch.zeros(10),
    )
    columns = {
        "features": torch.zeros(10, 1),
        "answer": torch.zeros(10, 1, 3),
        "truth": torch.zeros(10, 1, 3),
        **dict.fromkeys(("dataset", "row", "subject", "hidden"), torch.full((10,), -1)),
    }
    features = Features(**columns, about=About("", ""))
    summary = report(judged, features)["overall"]
    assert summary["mode_mm"] == pytest.approx(5.5)
    assert summary["surest_half_mm"] == pytest.approx(3.0)
    assert summary["rank_correlation"] == pytest.approx(1.0)


def test_the_picture_is_written(judged, tmp_path):
    save_picture(tmp_path / "calibration.png", judged, judged)
    assert (tmp_path / "calibration.png").read_bytes()[:4] == b"\x89PNG"
