"""How the priors that come with the library are trained."""

import json
import math

import numpy as np
import pytest
import torch

from examples.data.poses import load_poses
from examples.data.procedural import sample_person, sample_poses
from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel
from flowprior.skeleton import COCO_17, SMPL_24
from tools.priors import __main__ as program
from tools.priors import drawing, factors, figures, training
from tools.priors.chain import SCORED, Chain
from tools.priors.drawing import FIVE_POINTS, HANDS, LIMBS, draw, noisy, photographed, pose
from tools.priors.figures import body_figures, people_figures
from tools.priors.half import multiply_in_bfloat16
from tools.priors.step import held_joints, losses
from tools.priors.training import Run, Settings, context_of, train, train_flow

KINDS = ("people", "body-pose")
SMALL = {"encoder_features": 16, "head_features": 16, "hidden_features": 8, "num_steps": 2}


@pytest.fixture(scope="module")
def body():
    return BodyModel()


@pytest.fixture(scope="module")
def rotvecs():
    rng = np.random.default_rng(987)
    return torch.from_numpy(np.concatenate([sample_poses(sample_person(rng), 50, rng)[1]]))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def examples(kind, rotvecs, body, count=400, **options):
    rows = torch.randint(len(rotvecs), (count,), generator=generator(1))
    return draw(kind, rotvecs, rows, body, generator(), **options)


def small_prior(kind):
    torch.manual_seed(0)
    return program.make_prior(kind, **SMALL)


# --- forward kinematics ---


def test_the_chain_is_the_average_body(body, rotvecs):
    theta = rotations.rotvec_to_matrix(rotvecs)
    joints = body.keypoints(theta, SMPL_24)[:, :SCORED]
    torch.testing.assert_close(Chain(body)(theta), joints - joints[:, :1], rtol=0, atol=1e-6)


def test_hands_move_no_scored_joint(body, rotvecs):
    theta = rotations.rotvec_to_matrix(rotvecs)
    turned = theta.clone()
    turned[:, list(HANDS)] = theta[:, :2]
    chain = Chain(body)
    assert torch.equal(chain(theta), chain(turned))


# --- what is known ---


def test_people_get_every_combination_of_evidence(body, rotvecs):
    drawn = examples("people", rotvecs, body)
    seen = (drawn.keypoints_2d[..., 2] > 0.1).any(dim=1)
    placed = drawn.joints_3d.isfinite().all(dim=-1).any(dim=1)
    for two, three, share in ((1, 0, 0.60), (0, 1, 0.20), (1, 1, 0.14), (0, 0, 0.06)):
        found = ((seen == bool(two)) & (placed == bool(three))).float().mean()
        assert float(found) == pytest.approx(share, abs=0.08)
    assert not drawn.known.any()
    complete = (drawn.keypoints_2d[seen][..., 2] > 0.1).all(dim=1).float().mean()
    assert 0.3 < float(complete) < 0.5


def test_bodies_get_every_combination_of_evidence(body, rotvecs):
    drawn = examples("body-pose", rotvecs, body)
    given = drawn.known.any(dim=1)
    placed = drawn.joints_3d.isfinite().all(dim=-1).any(dim=1)
    for turned, three, share in ((1, 0, 0.40), (0, 1, 0.35), (1, 1, 0.10), (0, 0, 0.15)):
        found = ((given == bool(turned)) & (placed == bool(three))).float().mean()
        assert float(found) == pytest.approx(share, abs=0.08)
    assert not drawn.known[:, [joint - 1 for joint in HANDS]].any()
    assert not drawn.known[:, : HANDS[0] - 1].all(dim=1).all()
    assert not drawn.keypoints_2d.any()


@pytest.mark.parametrize("kind", KINDS)
def test_known_joints_are_near_the_truth(kind, body, rotvecs):
    drawn = examples(kind, rotvecs, body)
    known = drawn.joints_3d.isfinite().all(dim=-1)
    off = (drawn.joints_3d - drawn.joints).norm(dim=-1)[known]
    assert 0.005 < float(off.mean()) < 0.03
    assert float((off == 0).float().mean()) > 0.15  # exact ones
    assert not torch.isnan(context_of(small_prior(kind), drawn)).any()


def test_the_joints_of_a_body_are_those_of_its_rotations(body, rotvecs):
    """In the root's axes, of bodies of average shape."""
    drawn = examples("body-pose", rotvecs, body, augmented=False)
    root = torch.eye(3).expand(len(drawn), 1, 3, 3)
    joints = Chain(body)(torch.cat([root, drawn.theta], dim=1))
    off = (joints - drawn.joints[:, :SCORED]).norm(dim=-1).amax(dim=1)
    assert float((off < 1e-5).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert float(off.max()) < 0.3


def test_the_camera_turns_pose_and_joints_together(body, rotvecs):
    posed = pose(rotvecs, body, generator())
    view = photographed(posed, generator())
    joints = body.keypoints(view.theta, SMPL_24, posed.betas)
    torch.testing.assert_close(joints - joints[:, :1], view.joints, rtol=0, atol=1e-5)
    upright = view.joints[:, SMPL_24.index("head"), 1] < view.joints[:, 7, 1]
    assert float(upright.float().mean()) > 0.7  # y points down
    assert (view.keypoints_2d[..., 2] > 0.1).all()


def test_hidden_keypoints_are_missing(body, rotvecs):
    posed = pose(rotvecs, body, generator())
    seen = photographed(posed, generator(), figures.FOREARM).keypoints_2d[..., 2] > 0.1
    missing = [COCO_17.index(name) for name in figures.FOREARM]
    assert not seen[:, missing].any()
    assert seen.sum(dim=1).eq(15).all()


def test_mistakes_are_rare(body, rotvecs):
    view = photographed(pose(rotvecs, body, generator()), generator()).keypoints_2d.repeat(20, 1, 1)
    found = drawing._mistaken(view, generator())
    changed = (found != view).any(dim=-1)
    assert 0.003 < float(changed.float().mean()) < 0.05
    lost = view.clone()
    lost[:, 3:9] = 0
    found = drawing._mistaken(lost, generator())
    assert (found[..., 2] > 0).sum() == (lost[..., 2] > 0).sum()
    assert not found[found[..., 2] == 0].any()


# --- the loss and the loop ---


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_are_those_of_the_prior(kind, body, rotvecs):
    drawn = examples(kind, rotvecs, body, count=32)
    prior = small_prior(kind)
    prior.target_noise = 0.0
    prior.train().nll(drawn.theta, context_of(prior, drawn))
    for parameter in prior.parameters():
        with torch.no_grad():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator(3)))
    prior.eval()
    target = noisy(drawn.theta, generator())
    context = context_of(prior, drawn)
    held = held_joints(prior, drawn.known)
    ours = losses(
        prior, Chain(body), drawn.theta, target, context, held, generator(), likelihood=True
    )
    known = drawn.known if kind == "body-pose" else None
    torch.testing.assert_close(ours[2], prior.nll(target, context, known=known))
    assert ours[0] > 0
    assert ours[1] > 0
    everything = torch.ones_like(drawn.known)
    exact = losses(
        prior, Chain(body), drawn.theta, target, context, everything, generator(), likelihood=False
    )
    assert exact[0] == 0
    assert exact[1] == 0


def test_products_in_bfloat16_are_nearly_those_in_float32(body, rotvecs):
    drawn = examples("people", rotvecs, body, count=64)
    prior = small_prior("people")
    plain = small_prior("people")
    multiply_in_bfloat16(prior)
    context = context_of(prior, drawn)
    features = prior.train().encoder(context)
    exact = plain.train().encoder(context)
    assert not torch.equal(features, exact)
    torch.testing.assert_close(features, exact, rtol=0.02, atol=0.02)
    for network in (prior, plain):
        network.encoder(context).square().mean().backward()
    for ours, theirs in zip(prior.encoder.parameters(), plain.encoder.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() < 0.03 * theirs.grad.norm() + 1e-6
    assert torch.equal(prior.eval().encoder(context), plain.eval().encoder(context))
    assert prior.state_dict().keys() == plain.state_dict().keys()


class KilledError(Exception):
    pass


def run_of(kind, rotvecs, body, folder, evaluate=lambda _: {}):
    folder.mkdir(exist_ok=True)
    return Run(kind, small_prior(kind), rotvecs, body, folder, evaluate, say=lambda _: None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_ends_at_the_same_weights(kind, body, rotvecs, tmp_path):
    settings = Settings(steps=24, batch=4, evaluate_every=20, checkpoint_seconds=0.0)

    def killed(_):
        raise KilledError

    unbroken = run_of(kind, rotvecs, body, tmp_path / "whole")
    assert train(unbroken, settings)["steps"] == 24
    broken = run_of(kind, rotvecs, body, tmp_path / "parts", killed)
    with pytest.raises(KilledError):
        train(broken, settings)
    resumed = run_of(kind, rotvecs, body, tmp_path / "parts")
    assert train(resumed, settings)["steps"] == 24
    for name, value in unbroken.prior.state_dict().items():
        assert torch.equal(value, resumed.prior.state_dict()[name]), name


def test_the_last_phase_trains_the_flow_alone(body, rotvecs, tmp_path):
    settings = Settings(
        steps=8, flow_steps=8, batch=4, evaluate_every=20, checkpoint_seconds=0.0, head_share=0.5
    )
    run = run_of("people", rotvecs, body, tmp_path)
    train(run, settings)
    before = {name: value.clone() for name, value in run.prior.state_dict().items()}
    assert train_flow(run, settings)["steps"] == 8
    changed = {
        name
        for name, value in run.prior.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed
    assert all(name.startswith("flow.") for name in changed)
    again = run_of("people", rotvecs, body, tmp_path)  # both checkpoints are complete
    train(again, settings)
    train_flow(again, settings)
    for name, value in run.prior.state_dict().items():
        assert torch.equal(value, again.prior.state_dict()[name]), name


@pytest.mark.slow
def test_training_lowers_the_errors(body, rotvecs, tmp_path):
    drawn = examples("people", rotvecs, body, augmented=False)
    target = noisy(drawn.theta, generator())
    run = run_of("people", rotvecs, body, tmp_path)

    def errors():
        with torch.no_grad():
            context = context_of(run.prior, drawn)
            return losses(
                run.prior.eval(),
                run.chain,
                drawn.theta,
                target,
                context,
                held_joints(run.prior, drawn.known),
                generator(),
                likelihood=True,
            )

    before = errors()
    train(run, Settings(steps=150, batch=32, average=0.9, evaluate_every=75, rate=1e-2))
    after = errors()
    assert after[0] < 0.8 * before[0]
    assert after[2] < before[2] - 10
    lines = [
        json.loads(line)
        for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["step"] for line in lines] == [75, 150]


def test_the_rate_rises_and_falls():
    rates = [training.schedule(done, 0.03) for done in (0, 0.015, 0.03, 0.5, 1.0)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.524, 0.0], abs=0.01)


# --- figures and program ---


def test_figures_of_people_are_complete(body, rotvecs):
    found = people_figures(small_prior("people").eval(), rotvecs[:8], body)
    assert all(math.isfinite(value) for value in found.values())
    for name in ("", "own shape, "):
        assert found[f"best of 100, {name}mm"] <= found[f"best of 10, {name}mm"]
        assert found[f"best of 10, {name}mm"] <= found[f"sample, {name}mm"]


def test_figures_of_bodies_are_complete(body, rotvecs):
    found = body_figures(small_prior("body-pose").eval(), rotvecs[:8], body)
    assert all(math.isfinite(value) for value in found.values())
    for mask in figures.MASKS:
        assert found[f"{mask}: best of 10, mm"] <= found[f"{mask}: mean of 10, mm"]


def test_unknown_rotations_move_what_lies_below():
    legs = {SMPL_24.index(f"{s}_{j}") for s in ("left", "right") for j in ("knee", "ankle", "foot")}
    assert set(figures._moved(LIMBS["both legs"])) == legs
    assert not set(figures._moved(LIMBS["both arms"])) & {0, *FIVE_POINTS[2:]}


def test_distances_between_sets_of_poses(body, rotvecs):
    joints = Chain(body)(rotations.rotvec_to_matrix(rotvecs))
    moved = joints + torch.tensor([0.03, 0, 0]) * (torch.arange(SCORED) > 0)[:, None]
    assert figures._frechet(joints, joints) == pytest.approx(0, abs=1e-4)
    assert figures._frechet(joints, moved) == pytest.approx(0.03 * math.sqrt(21), rel=1e-3)
    pair = torch.stack([joints[0], joints[0] + 0.01 * torch.tensor([1.0, 0, 0])])
    assert figures._pairwise(pair[None]) == pytest.approx(10, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_program_writes_a_prior_and_its_card(kind, tmp_path, monkeypatch):
    """From the first step to the card, on procedural poses."""
    monkeypatch.setitem(program.SIZES, kind, {**program.SIZES[kind], **SMALL})
    for name in ("JUDGED", "VALIDATED", "CALIBRATED"):
        monkeypatch.setattr(program, name, 10)
    threads = torch.get_num_threads()
    try:
        short = ("--steps", "20", "--flow-steps", "5", "--batch", "8")
        assert program.main([kind, "--out", str(tmp_path), *short]) == 0
    finally:
        torch.set_num_threads(threads)
    made = ConditionalPosePrior.from_pretrained(str(tmp_path))
    assert made.has_exact_mode
    assert made.given().sample(3).shape == (3, 24 if kind == "people" else 23, 6)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "mocap.cs.cmu.edu" in text
    assert "NSF EIA-0196217" in text
    assert "**Not for**" in text
    figures_of = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["figures"]
    assert all(f"| {name} |" in text for name in figures_of)


def test_missing_data_is_reported(tmp_path, capsys):
    assert program.main(["people", "--data", str(tmp_path / "none.npz")]) == 2
    assert "none.npz" in capsys.readouterr().err


# --- the priors of the library, on recorded people ---


def recorded(path):
    poses = load_poses(path, 0)
    return figures.evenly(torch.from_numpy(poses.rotvecs("test")), 150)


@torch.no_grad()
def test_recorded_poses_are_likelier_than_broken_ones(mocap_file, body):
    prior = ConditionalPosePrior.from_pretrained("flowprior/body-pose").freeze()
    found = body_figures(prior, recorded(mocap_file), body)
    assert found["poses above the same with a joint bent backwards"] > 0.95
    assert found["all joints: mode, mm"] < 30


@torch.no_grad()
def test_errors_on_recorded_people(mocap_file, body):
    prior = ConditionalPosePrior.from_pretrained("flowprior/people").freeze()
    found = people_figures(prior, recorded(mocap_file), body)
    assert found["mode, mm"] < 75
    assert found["best of 100, mm"] < 0.93 * found["mode, mm"]
    hidden, seen = (f"{s} wrist, right forearm hidden, spread in mm" for s in ("right", "left"))
    assert found[hidden] > 1.4 * found[seen]
    assert 0.8 < found["joint positions in 90 % regions"] < 0.95


# --- conformal factors ---


def write_people(path, rotvecs, subjects=6):
    """A file of people: two to train on, two for validation, two for tests."""
    count = len(rotvecs) // subjects
    subject = np.repeat(np.arange(subjects), count)
    np.savez(
        path,
        poses=rotvecs[: len(subject)].reshape(len(subject), 72).numpy(),
        joints17=np.zeros((len(subject), 17, 3), np.float32) + np.arange(17)[:, None] / 10,
        subject=subject.astype(np.int16),
        subject_names=np.array([f"p{number}" for number in range(subjects)]),
        split=np.repeat([0, 1, 2], 2 * count).astype(np.int8),
    )
    return path


def test_people_of_a_part_are_kept_apart(tmp_path, rotvecs):
    path = write_people(tmp_path / "people.npz", rotvecs)
    assert [*factors.read_people(path, "val")] == ["p2", "p3"]
    few = factors.read_people(path, "test", per_person=3)
    assert [len(poses) for poses in few.values()] == [3, 3]
    assert len(factors.without(path, ["p0"])) == len(rotvecs) // 6
    with pytest.raises(ValueError, match="p9"):
        factors.without(path, ["p9"])
    with pytest.raises(ValueError, match="--data"):
        factors.without(None, ["p0"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_factors_are_fitted_again_and_nothing_else(tmp_path, rotvecs, kind):
    path = write_people(tmp_path / "people.npz", rotvecs)
    prior, folder = small_prior(kind).eval(), tmp_path / kind
    prior.save_pretrained(folder)
    options = [kind, "--data", str(path), "--out", str(folder), "--only-factors"]
    assert program.main(options) == 0
    found = ConditionalPosePrior.from_pretrained(folder)
    assert int(found.joint_factors.people) == 2
    for name, weight in prior.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight)
    other = small_prior(kind).eval()
    other.save_pretrained(tmp_path / "everybody")
    assert program.main([*options, "--cross-fitted", str(tmp_path / "everybody")]) == 2
    other.provenance = {"without": "p0, p1"}
    other.save_pretrained(tmp_path / "fold")
    assert program.main([*options, "--cross-fitted", str(tmp_path / "fold")]) == 0
    found = ConditionalPosePrior.from_pretrained(folder)
    assert int(found.joint_factors.people) == 4
    assert program.main([kind, "--out", str(folder), "--only-factors"]) == 2
