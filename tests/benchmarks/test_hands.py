"""The comparison of the prior over hands with a Gaussian."""

import pytest
import torch

from benchmarks import hands
from flowprior import rotations
from flowprior.body import BodyModel
from tools.priors import hands as training
from tools.priors.hand_chain import HandChain
from tools.priors.hand_drawing import finger_joints
from tools.priors.hand_poses import sample_hands, wrong_way


@pytest.fixture(scope="module")
def chain():
    return HandChain(BodyModel(hands=True))


@pytest.fixture(scope="module")
def rotvecs(chain):
    return sample_hands(500, torch.Generator().manual_seed(0), chain)


@pytest.fixture(scope="module")
def gaussian(rotvecs):
    return hands.GaussianHand(rotvecs)


def test_completions_are_conditional_densities(gaussian, rotvecs):
    """By the precision matrix, which gives them without the covariance of the known part."""
    known = torch.ones(15, dtype=torch.bool)
    known[finger_joints("ring")] = False
    told = known.repeat_interleave(3)
    mean, covariance = gaussian.complete(rotvecs[:4], known)
    precision = torch.linalg.inv(gaussian.covariance)
    torch.testing.assert_close(covariance, torch.linalg.inv(precision[~told][:, ~told]))
    away = rotvecs[:4].flatten(1).double()[:, told] - gaussian.mean[told]
    expected = gaussian.mean[~told] - away @ precision[told][:, ~told] @ covariance
    torch.testing.assert_close(mean, expected)


def test_latents_have_the_covariance_of_the_poses(gaussian, rotvecs):
    noise = torch.randn(20_000, 45, generator=torch.Generator().manual_seed(1))
    found = gaussian.pose(noise).flatten(1).double().T.cov()
    torch.testing.assert_close(found, gaussian.covariance, rtol=0, atol=0.01)
    wider = gaussian.blurred(0.03, rotvecs)
    assert wider.factor.det() != gaussian.factor.det()


def test_fingers_bent_backwards_are_counted(chain, rotvecs):
    bent = rotvecs.clone()
    bent[:100] = wrong_way(rotvecs[:100], "middle3", 20.0, chain)
    bent[100:200] = wrong_way(rotvecs[100:200], "middle3", 5.0, chain)
    found = hands.backwards(chain, rotations.rotvec_to_matrix(bent))
    assert found == pytest.approx(0.2)
    assert hands.backwards(chain, rotations.rotvec_to_matrix(rotvecs)) == 0


@pytest.mark.parametrize("density", [True, False])
def test_searched_hands_reach_the_fingertips(gaussian, chain, rotvecs, density):
    points = chain(rotations.rotvec_to_matrix(rotvecs[:3]))
    tips = points[:, list(hands.TIPS)]
    found = hands.searched(gaussian, chain, tips, 0.002, density=density)
    error = hands.distances_mm(chain, found[:, None], points, list(hands.TIPS))
    assert error.max() < 4


@pytest.mark.slow
def test_the_program(monkeypatch, capsys):
    monkeypatch.setattr(training, "DRAWN", {"train": 500, "val": 50, "test": 20})
    assert hands.main(["--hands", "3"]) == 0
    found = capsys.readouterr().out
    assert "| exact | refined | " in found
    assert "| thumb | " in found
    assert "| Gaussian with our noise of training | " in found
