"""Training of heads: the parts, the losses, and contexts in any unit."""

import dataclasses

import pytest
import torch

from examples.heads.features import About, Features
from examples.heads.training import Settings, new_head, resting_joints, split, train
from flowprior import rotations
from flowprior.prior.heads import context_with_answer

QUICK = Settings(
    steps=60,
    batch_size=64,
    rate=5e-3,
    encoder_features=24,
    hidden_features=16,
    num_steps=2,
    turns=0.0,
    patience=20,
)


def changed(people, about=None, **columns):
    return Features(**(people.columns | columns), about=about or people.about)


def without_parts(features):
    about = dataclasses.replace(features.about, datasets=("all",))
    return changed(features, about, dataset=torch.zeros_like(features.dataset))


def test_data_sets_with_these_names_are_the_parts(people):
    parts = split(people)
    assert [len(part) for part in (parts.train, parts.val, parts.test)] == [300, 100, 100]
    assert parts.by == "data set"
    assert (parts.val.dataset == 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_subjects_are_not_shared(people, seed):
    parts = split(without_parts(people), seed)
    assert parts.by == "subject"
    sets = [set(part.subject.tolist()) for part in (parts.train, parts.val, parts.test)]
    assert sum(map(len, sets)) == 10 == len(set.union(*sets))
    assert min(map(len, sets)) >= 1
    assert len(sets[0]) == 7


def test_without_subjects_rows_are_split_with_a_notice(people):
    unknown = torch.full_like(people.subject, -1)
    parts = split(changed(without_parts(people), subject=unknown))
    assert "may share people" in parts.by
    rows = torch.cat([part.row for part in (parts.train, parts.val, parts.test)])
    assert rows.sort().values.tolist() == list(range(500))


def test_people_without_ground_truth_are_left_out(people):
    truth = people.truth.clone()
    truth[:50] = torch.nan
    assert len(split(changed(people, truth=truth)).train) == 250
    with pytest.raises(ValueError, match="no annotated person for train"):
        split(people.take(people.dataset > 0))


def test_joints_that_never_turn_are_held(people):
    assert resting_joints(people) == (22, 23)
    points = changed(people, answer=people.answer[..., 0], truth=people.truth[..., 0])
    assert points.space == "points"
    assert resting_joints(points) == ()


def test_the_answer_stays_and_its_errors_are_learned(people):
    parts = split(people)
    prior, history = train(parts, QUICK)
    assert [each["step"] for each in history] == [20, 40, 60]
    held = parts.test
    context = context_with_answer(held.features, held.answer)
    with torch.no_grad():
        posterior = prior(context, centre=held.answer)
        mode, entropy = posterior.mode(), posterior.entropy()
        trained = -posterior.log_prob(held.truth).mean()
        untrained = new_head(parts.train, QUICK).eval()
        before = -untrained(context, centre=held.answer).log_prob(held.truth).mean()
    expected = rotations.matrix_to_rot6d(held.answer)
    assert torch.equal(mode[:, :22], expected[:, :22])  # the hands are at rest
    assert trained < before - 20
    unsure = held.features[:, 0] > 50
    assert entropy[unsure].mean() > entropy[~unsure].mean() + 20


def test_the_best_weights_on_the_validation_people_are_kept(people):
    parts = split(people)
    rate = dataclasses.replace(QUICK, steps=40, patience=1, turns=1.0)
    prior, history = train(parts, rate)
    with torch.no_grad():
        context = context_with_answer(parts.val.features, parts.val.answer)
        value = prior.nll(parts.val.truth, context, centre=parts.val.answer)
    best = min(each["validation_loss"] for each in history)
    assert value == pytest.approx(best, abs=0.05)  # contexts are no longer standardised


def test_training_repeats_itself(people):
    parts = split(people)
    short = dataclasses.replace(QUICK, steps=5, turns=1.0)
    first, again = (train(parts, short)[0].state_dict() for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = train(parts, dataclasses.replace(short, seed=1))[0].state_dict()
    assert not torch.equal(first["encoder.input.weight"], other["encoder.input.weight"])


def test_a_constant_feature_does_not_matter(people):
    features = people.features.clone()
    features[:, 3] = 7.0
    prior, _ = train(split(changed(people, features=features)), dataclasses.replace(QUICK, steps=3))
    assert all(value.isfinite().all() for value in prior.state_dict().values())


@pytest.mark.slow
def test_separate_answer_is_trained(people):
    """Poses that the features determine, and a regressor that always answers the rest pose."""
    weights = torch.randn(6, 24, 3, generator=torch.Generator().manual_seed(1))
    rotvec = 0.15 * torch.einsum("nf,fjc->njc", (people.features - 50) / 7, weights)
    rest = torch.eye(3).expand(len(people), 24, 3, 3)
    parts = split(changed(people, truth=rotations.rotvec_to_matrix(rotvec), answer=rest))
    prior, _ = train(parts, dataclasses.replace(QUICK, answer="own", steps=100))
    assert prior.head is not None
    held = parts.test
    context = context_with_answer(held.features, held.answer)
    with torch.no_grad():
        mode = prior.space.to_matrix(prior.mode(context))
    error = rotations.geodesic_distance(mode, held.truth).mean()
    assert error < 0.5 * rotations.geodesic_distance(held.answer, held.truth).mean()


def test_points_can_be_answers(people):
    about = About("points", "layer", people.about.datasets, people.about.subjects)
    points = people.features[:, None, :3].repeat(1, 5, 1) / 50
    noise = 0.02 * torch.randn(points.shape, generator=torch.Generator().manual_seed(1))
    features = changed(people, about, answer=points, truth=points + noise)
    parts = split(features)
    prior, _ = train(parts, QUICK)
    context = context_with_answer(parts.test.features, parts.test.answer)
    with torch.no_grad():
        assert torch.equal(prior(context, centre=parts.test.answer).mode(), parts.test.answer)


def test_an_unknown_answer_is_an_error(people):
    with pytest.raises(ValueError, match="answer must be one of"):
        train(split(people), dataclasses.replace(QUICK, answer="mean"))
