import math

import pytest
import torch

from examples.lifting.baselines import MultiHeadLifter
from examples.lifting.judging import (
    Plan,
    _reduce,
    asymmetry_mm,
    bone_error_mm,
    bone_lengths,
    error_mm,
    judge,
    pa_error_mm,
)
from examples.lifting.methods import Lifter, Regressor, isotropic_around
from flowprior.metrics import best_of_n, expected_calibration_error
from flowprior.skeleton import H36M_17

QUICK = Plan(counts=(1, 3, 250), quantised=(4,), quantised_from=60, quantised_views=5)


class Remembering(Lifter):
    """Gaussian samples around the truth, all of which it keeps."""

    def __init__(self, sigma=0.1):
        super().__init__()
        self.sigma = sigma
        self.drawn = []

    def point(self, views):
        return views.relative

    def sample(self, views, num_samples, generator=None):
        noise = torch.randn(len(views), num_samples, 16, 3, generator=generator)
        self.drawn.append(views.relative[:, None] + self.sigma * noise)
        return self.drawn[-1]

    def log_prob(self, views, theta):
        return torch.full((len(views),), -3.0)


class TestErrors:
    def test_the_pelvis_counts_with_no_error(self):
        theta = torch.zeros(2, 16, 3)
        moved = theta + torch.tensor([0.0, 0.017, 0.0])
        torch.testing.assert_close(error_mm(moved, theta), torch.full((2,), 16.0))

    def test_procrustes_takes_similarities_away(self, views):
        theta = views.relative
        rotation = torch.linalg.matrix_exp(torch.tensor([[0, 1.0, 0], [-1, 0, 2], [0, -2, 0]]))
        torch.testing.assert_close(
            pa_error_mm(1.2 * theta @ rotation.mT, theta), torch.zeros(12), atol=1e-2, rtol=0
        )

    def test_bones(self, views):
        theta = views.relative
        assert bone_lengths(theta).shape == (12, 16)
        grown = bone_error_mm(1.1 * theta, theta)
        torch.testing.assert_close(grown, 100 * bone_lengths(theta).mean(dim=-1))

    def test_the_same_limbs_on_both_sides_are_symmetric(self):
        theta = torch.zeros(17, 3)
        for joint, name in enumerate(H36M_17.joint_names):
            twin = name.replace("left", "right")
            theta[joint] = torch.tensor([1.0, 0.2, 0.3]) * H36M_17.index(twin)
            if name.startswith("left"):
                theta[joint] *= torch.tensor([-1.0, 1.0, 1.0])
        theta[[0, 7, 8, 9, 10], 0] = 0
        assert asymmetry_mm(theta[1:]) < 1e-3
        elbow = H36M_17.index("left_elbow")
        longer = theta.clone()
        longer[elbow] += 1.0
        assert asymmetry_mm(longer[1:]) > 1


class TestJudge:
    def test_blocks_change_nothing(self, views, monkeypatch):
        """Figures of all samples at once, from those the lifter handed out."""
        lifter = Remembering()
        monkeypatch.setattr("examples.lifting.judging.POSES_PER_BLOCK", 70)
        judged = judge(lifter, views, Plan((1, 3, 250), quantised=()))
        assert [each.shape[1] for each in lifter.drawn] == [70, 70, 60, 50] * 12
        blocks = range(0, 48, 4)
        samples = torch.cat([torch.cat(lifter.drawn[i : i + 4], dim=1) for i in blocks])
        errors = error_mm(samples, views.relative[:, None])
        expected = torch.stack([best_of_n(errors, n) for n in (1, 3, 250)], dim=1)
        assert torch.equal(judged.best_mm, expected)
        aligned = pa_error_mm(samples, views.relative[:, None])
        expected = torch.stack([best_of_n(aligned, n) for n in (1, 3, 250)], dim=1)
        assert torch.equal(judged.best_pa_mm, expected)
        ece = expected_calibration_error(samples[:, :200], views.relative).ece
        assert judged.ece == pytest.approx(ece)

    def test_memory_is_bounded(self, many_views):
        lifter = Remembering()
        judge(lifter, many_views[:30], Plan((4096,), quantised=()))
        assert max(len(each) * each.shape[1] for each in lifter.drawn) <= 20_000

    def test_figures_of_a_known_distribution(self, many_views):
        judged = judge(Remembering(0.1), many_views, QUICK)
        figures = judged.figures()
        assert figures["mpjpe_mm"] == 0
        # The mean length of a normal vector in three dimensions is sigma sqrt(8 / pi).
        assert figures["sharpness_mm"] == pytest.approx(100 * math.sqrt(8 / math.pi), rel=0.02)
        assert figures["best_of_1_mpjpe_mm"] == pytest.approx(
            100 * math.sqrt(8 / math.pi) * 16 / 17, rel=0.05
        )
        assert figures["nll_nats"] == 3
        assert figures["ece"] > 0.3  # the truth is always in the middle
        assert figures["bone_error_mm"] > 50

    def test_best_of_n_falls_with_n(self, many_views):
        best = judge(Remembering(), many_views[:20], QUICK).best_mm
        assert (best.diff(dim=1) <= 0).all()

    def test_quantised_views_are_evenly_spaced(self, many_views):
        judged = judge(Remembering(), many_views, QUICK)
        assert judged.quantised_mm[4][0].shape == (5,)
        assert judged.figures()["quantised_4_mpjpe_mm"] < judged.figures()["best_of_1_mpjpe_mm"]

    def test_reduced_samples_are_samples_and_means_are_nearer_to_all_of_them(self):
        drawn = torch.randn(2, 300, 16, 3)
        kept, means = _reduce(drawn, 5)
        off = torch.cdist(kept.flatten(2), drawn.flatten(2))
        assert off.amin(dim=2).max() < 0.01
        for each in (torch.randn(2, 5, 16, 3), kept):
            spread = torch.cdist(each.flatten(2), drawn.flatten(2)).amin(dim=1).mean()
            assert torch.cdist(means.flatten(2), drawn.flatten(2)).amin(dim=1).mean() < spread
        assert _reduce(drawn, 300)[0] is drawn

    def test_finitely_many_poses(self, views):
        lifter = MultiHeadLifter(6, width=16).eval()
        judged = judge(lifter, views, QUICK)
        heads = lifter.hypotheses(views)
        errors = error_mm(heads, views.relative[:, None])
        torch.testing.assert_close(judged.best_mm[:, -1], errors.amin(dim=1).detach())
        torch.testing.assert_close(judged.hypotheses_mm[0], errors.amin(dim=1).detach())
        assert judged.figures()["hypotheses"] == 6
        assert judged.nll is None
        assert "nll_nats" not in judged.figures()

    def test_one_pose_has_no_spread(self, views):
        judged = judge(Regressor(width=16).eval(), views, QUICK)
        figures = judged.figures()
        assert figures["sharpness_mm"] == pytest.approx(0, abs=1e-3)
        assert figures["best_of_250_mpjpe_mm"] == pytest.approx(figures["mpjpe_mm"])

    def test_the_same_seed_gives_the_same_figures(self, views):
        lifter = isotropic_around(Regressor(width=16).eval(), 0.05, views.joints)
        first, second = (judge(lifter, views, QUICK).figures() for _ in range(2))
        assert first == second


@pytest.mark.parametrize("counts", [(), (0, 1), (2, 1), (1, 1)])
def test_counts_that_do_not_rise(counts):
    with pytest.raises(ValueError, match="counts"):
        Plan(counts=counts)


def test_too_few_samples_to_reduce():
    with pytest.raises(ValueError, match="reduced"):
        Plan(quantised=(25,), quantised_from=20)
