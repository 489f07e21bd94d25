"""The prior over hands: procedural poses and its training."""

import json

import numpy as np
import pytest
import torch

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel, hand_points
from flowprior.skeleton import MANO_16, MANO_21
from tests.body.made_up import mano_pair
from tools.priors import __main__ as program
from tools.priors import hand_poses, hands
from tools.priors.hand_chain import HandChain
from tools.priors.hand_drawing import FINGERS, SHARES, TIPS, draw_hands, finger_joints, points_of
from tools.priors.hand_poses import sample_hands, wrong_way
from tools.priors.training import Run, Settings, train

SMALL = {"encoder_features": 16, "head_features": 16, "hidden_features": 8, "num_steps": 2}


@pytest.fixture(scope="module")
def body():
    return BodyModel(hands=True)


@pytest.fixture(scope="module")
def chain(body):
    return HandChain(body)


@pytest.fixture(scope="module")
def rotvecs(chain):
    return sample_hands(800, generator(), chain)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def flexion(rotvecs, finger, joint, chain):
    """Degrees (N,) about the axis of flexion."""
    axis = hand_poses._flexion_axes(finger, chain)[joint - 1]
    vector = rotvecs[:, MANO_16.index(f"{finger}{joint}") - 1]
    return torch.rad2deg(vector @ axis)


# --- the hand ---


def test_the_chain_is_the_embedded_hand(body, chain, rotvecs):
    theta, betas = rotations.rotvec_to_matrix(rotvecs[:50]), torch.randn(50, 10)
    for shape in (None, betas):
        expected = hand_points(body, theta, shape)
        torch.testing.assert_close(chain(theta, shape), expected, rtol=0, atol=2e-6)


def test_fingers_have_three_joints_and_a_tip():
    named = [MANO_21.joint_names[point] for point in points_of("ring")]
    assert named == ["ring1", "ring2", "ring3", "ring"]
    assert sorted(joint for finger in FINGERS for joint in finger_joints(finger)) == list(range(15))


# --- procedural poses ---


def test_poses_depend_on_the_seed_alone(chain, rotvecs):
    assert rotvecs.shape == (800, 15, 3)
    assert torch.equal(sample_hands(800, generator(), chain), rotvecs)
    assert not torch.equal(sample_hands(800, generator(1), chain), rotvecs)


@pytest.mark.parametrize("finger", hand_poses.FINGERS)
def test_middle_and_end_joints_are_hinges_within_their_range(chain, rotvecs, finger):
    for joint, name in ((2, "pip"), (3, "dip")):
        low, high = hand_poses.FLEXION_DEGREES[name]
        degrees = flexion(rotvecs, finger, joint, chain)
        assert low - 0.01 <= degrees.min() < low + 5
        assert 0.8 * high < degrees.max() <= high + 0.01
        vector = rotvecs[:, MANO_16.index(f"{finger}{joint}") - 1]
        torch.testing.assert_close(
            torch.rad2deg(vector.norm(dim=-1)), degrees.abs(), rtol=0, atol=0.01
        )


def test_fingertips_bend_towards_the_palm(chain):
    for finger in FINGERS:
        bent = wrong_way(torch.zeros(1, 15, 3), f"{finger}2", -40.0, chain)
        back = wrong_way(torch.zeros(1, 15, 3), f"{finger}2", 40.0, chain)
        tip = MANO_21.index(finger)
        flat = chain.rest[tip]
        forward, backward = (
            chain(rotations.rotvec_to_matrix(each))[0, tip] - flat for each in (bent, back)
        )
        if finger == "thumb":  # across the palm, to the side of the little finger
            assert forward[2] < -0.01 < 0.01 < backward[2]
        else:
            assert forward[1] < -0.01 < 0.01 < backward[1]


def test_end_joints_follow_the_middle_ones(chain, rotvecs):
    for finger in hand_poses.FINGERS:
        pip, dip = (flexion(rotvecs, finger, joint, chain) for joint in (2, 3))
        bent = (pip > 20) & (pip < 90)
        assert float((dip / pip)[bent].median()) == pytest.approx(2 / 3, abs=0.05)


def test_neighbouring_fingers_move_together(chain, rotvecs):
    bent = torch.stack([flexion(rotvecs, finger, 2, chain) for finger in hand_poses.FINGERS])
    correlation = torch.corrcoef(bent)
    assert (correlation > 0.3).all()
    assert correlation[2, 3] > correlation[0, 3]
    assert correlation[1, 2] > correlation[0, 3]


def test_fingers_keep_their_distance(chain, rotvecs):
    points = chain(rotations.rotvec_to_matrix(rotvecs))
    tips = points[:, list(TIPS)]
    apart = torch.cdist(tips, tips) + torch.eye(5)
    assert apart.min() > hand_poses.NARROWEST_M - 1e-6


# --- what is known ---


def test_hands_get_every_combination_of_evidence(chain, rotvecs):
    drawn = draw_hands(rotvecs, chain, generator(2))
    placed = drawn.joints_3d.isfinite().all(dim=-1)
    assert placed[:, 0].float().mean() == pytest.approx(
        SHARES["joints_3d"] + SHARES["both"], abs=0.06
    )
    assert (placed.any(dim=1) == placed[:, 0]).all()
    away = (drawn.joints_3d - drawn.joints)[placed].norm(dim=-1)
    assert 0 < away.max() < 0.03
    told = drawn.known.any(dim=1).float().mean()
    assert 0.25 < told < SHARES["rotations"] + SHARES["both"]
    tips_only = torch.zeros(21, dtype=torch.bool)
    tips_only[[0, *TIPS]] = True
    assert (placed == tips_only).all(dim=1).float().mean() > 0.08


# --- poses of a file ---


def test_own_poses_are_split_in_their_order(tmp_path, chain, rotvecs):
    np.savez(tmp_path / "hands.npz", poses=rotvecs[:100].numpy(), subject=np.arange(100))
    found = hands.load_hands(tmp_path / "hands.npz", chain, 0)
    assert [len(part) for part in (found.train, found.val, found.test)] == [80, 10, 10]
    assert torch.equal(torch.cat([found.train, found.val, found.test]), rotvecs[:100])
    assert found.source == "hands.npz"


def test_constant_hands_are_left_out(tmp_path, chain, rotvecs, capsys):
    """Issue 28 of nghorbani/amass: many hands of motion capture never move."""
    poses = rotvecs[:80].clone()
    poses[:30] = poses[0].clone()
    np.save(tmp_path / "hands.npy", poses)
    found = hands.load_hands(tmp_path / "hands.npy", chain, 0)
    assert torch.equal(torch.cat([found.train, found.val, found.test]), rotvecs[30:80])
    assert "left out 30 of 80 hands" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        (np.zeros((3, 15, 3)), "3 hands, expected at least 10"),
        (np.ones((20, 15, 3)), "the hands do not move, as in data without fingers"),
    ],
)
def test_too_few_hands(tmp_path, chain, poses, message):
    np.savez(tmp_path / "hands.npz", poses=poses)
    with pytest.raises(ValueError, match=message):
        hands.load_hands(tmp_path / "hands.npz", chain, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "FILE"], "own are not the procedural ones: --out"),
        (["--data", "FILE", "--out", "OUT"], "does not say what zero is: --flat-hand-mean if"),
        (["--data", "FILE", "--out", "OUT", "--no-flat-hand-mean"], "--mano MANO_RIGHT.pkl, and"),
        (
            ["--data", "FILE", "--out", "OUT", "--flat-hand-mean", "--mano", "FILE"],
            "adds no mean pose",
        ),
        (["--out", "OUT", "--flat-hand-mean"], "belong to --data"),
        (["--out", "OUT", "--device", "abacus"], "--device abacus: "),
    ],
)
def test_the_convention_of_the_poses_is_required(tmp_path, capsys, rotvecs, options, message):
    np.savez(tmp_path / "hands.npz", poses=rotvecs[:100].numpy())
    places = {"FILE": str(tmp_path / "hands.npz"), "OUT": str(tmp_path / "out")}
    threads = torch.get_num_threads()
    try:
        assert program.main(["hands", *(places.get(each, each) for each in options)]) == 2
    finally:
        torch.set_num_threads(threads)
    assert message in capsys.readouterr().err


# --- training ---


@pytest.mark.slow
def test_training_lowers_both_losses(tmp_path, body, chain, rotvecs):
    torch.manual_seed(0)
    prior = hands.make_hand_prior(**SMALL)
    evaluate = hands.HandValidation(rotvecs[400:], chain, 3)
    run = Run("hands", prior, rotvecs[:400], body, tmp_path, evaluate, say=lambda _: None)
    train(run, Settings(steps=160, batch=32, average=0.9, evaluate_every=80, rate=1e-2))
    lines = [
        json.loads(line)
        for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert lines[1]["val_nll"] < lines[0]["val_nll"] - 2
    flat = chain(torch.eye(3).expand(400, 15, 3, 3))
    away = (flat - chain(rotations.rotvec_to_matrix(rotvecs[400:]))).norm(dim=-1).mean()
    assert lines[1]["val_mm"] < 500 * away


@pytest.mark.slow
def test_the_program_trains_on_own_poses(tmp_path, monkeypatch, rotvecs):
    monkeypatch.setattr(hands, "SIZE", {**hands.SIZE, **SMALL})
    rows = np.pad(rotvecs[:200].numpy().reshape(200, 1, 45), ((0, 0), (0, 0), (3, 13)))
    (tmp_path / "training_mano.json").write_text(json.dumps(rows.tolist()), encoding="utf-8")
    out = tmp_path / "prior"
    _, right = mano_pair()
    right["hands_mean"][:] = 0.01
    np.savez(tmp_path / "MANO_RIGHT.npz", **right)
    arguments = [
        "--data",
        str(tmp_path / "training_mano.json"),
        "--out",
        str(out),
        "--threads",
        "2",
    ]
    arguments += ["--no-flat-hand-mean", "--mano", str(tmp_path / "MANO_RIGHT.npz")]
    seen = []
    monkeypatch.setattr(
        hands, "train", lambda run, settings: seen.append(run.rotvecs) or train(run, settings)
    )
    threads = torch.get_num_threads()
    try:
        steps = ["--steps", "20", "--flow-steps", "5", "--batch", "8"]
        assert program.main(["hands", *arguments, *steps]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    made = ConditionalPosePrior.from_pretrained(str(out))
    assert made.given().sample(3).shape == (3, 15, 6)
    torch.testing.assert_close(seen[0], rotvecs[:160] + 0.01)
    assert made.provenance["data"] == "training_mano.json"
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "`training_mano.json`" in text
    assert "2 threads" in text
    assert "procedural, not captured" not in text
