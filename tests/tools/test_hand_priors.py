"""The prior over hands: procedural poses and its training."""

import json

import numpy as np
import pytest
import torch

from flowprior import ConditionalPosePrior, rotations
from flowprior.body import BodyModel, hand_points
from flowprior.skeleton import MANO_16, MANO_21
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


# --- files of poses ---


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_own_poses(tmp_path, chain, rotvecs, flat, suffix):
    poses = rotvecs[:100].numpy()
    poses = poses.reshape(100, 45) if flat else poses
    path = tmp_path / f"hands{suffix}"
    if suffix == ".npz":
        np.savez(path, poses=poses, subject=np.arange(100))
    else:
        np.save(path, poses)
    found = hands.load_hands(path, chain, 0)
    assert [len(part) for part in (found.train, found.val, found.test)] == [80, 10, 10]
    assert torch.equal(torch.cat([found.train, found.val, found.test]), rotvecs[:100])
    assert found.source == path.name


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"poses": np.zeros((20, 16, 3))}, "drop the wrist"),
        ({"poses": np.zeros((3, 15, 3))}, "at least ten"),
        ({"poses": np.full((20, 15, 3), np.nan)}, "NaN"),
        ({"poses": np.ones((20, 15, 3))}, "all hands are the same"),
        ({"left": np.zeros((20, 15, 3)), "right": np.zeros((20, 15, 3))}, "named poses"),
    ],
)
def test_unsuitable_files(tmp_path, chain, arrays, message):
    np.savez(tmp_path / "hands.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        hands.load_hands(tmp_path / "hands.npz", chain, 0)


def test_own_hands_do_not_replace_the_shipped_ones(tmp_path, capsys):
    np.savez(tmp_path / "hands.npz", poses=np.zeros((20, 15, 3)))
    assert program.main(["hands", "--data", str(tmp_path / "hands.npz")]) == 2
    assert "--out" in capsys.readouterr().err


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
    np.savez(tmp_path / "mine.npz", poses=rotvecs[:200].numpy())
    out = tmp_path / "prior"
    arguments = ["--data", str(tmp_path / "mine.npz"), "--out", str(out)]
    threads = torch.get_num_threads()
    try:
        steps = ["--steps", "20", "--flow-steps", "5", "--batch", "8"]
        assert program.main(["hands", *arguments, *steps]) == 0
    finally:
        torch.set_num_threads(threads)
    made = ConditionalPosePrior.from_pretrained(str(out))
    assert made.given().sample(3).shape == (3, 15, 6)
    assert made.provenance["data"] == "mine.npz"
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "`mine.npz`" in text
    assert "procedural, not captured" not in text
