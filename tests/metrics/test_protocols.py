import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprior import ConditionalPosePrior
from flowprior.metrics import Tally, mpjpe, pa_mpjpe, quantise
from flowprior.metrics.protocols import PROTOCOLS, Protocol, evaluate_samples
from flowprior.skeleton import H36M_17, PROHMR_44
from tests.processes import run_python

LIFTING = PROTOCOLS["Human3.6M lifting"]


class Drawn:
    """A posterior of joints themselves, with samples drawn one after the other."""

    def __init__(self, joints=17, batch=(3,)):
        self.shape, self.asked = (*batch, joints, 3), []

    def sample(self, num_samples, *, generator=None):
        self.asked.append(num_samples)
        *batch, joints, k = self.shape
        return torch.stack(
            [torch.randn(*batch, joints, k, generator=generator) for _ in range(num_samples)],
            dim=-3,
        )

    def mode(self):
        return torch.zeros(self.shape)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- protocols -----------------------------------------------------------------------------------


def test_protocols_are_the_published_ones():
    lsp = tuple(range(25, 38))
    expected = {
        "Human3.6M P2": (*lsp, 43),
        "Human3.6M all cameras": (*lsp, 39, 41, 42, 43),
        "Human3.6M multi-view": (*lsp, 43),
        "3DPW": (*lsp, 43),
        "MPI-INF-3DHP": (*lsp, 38, 39, 41, 42),
        "Human3.6M lifting": tuple(range(17)),
    }
    assert {name: protocol.joints for name, protocol in PROTOCOLS.items()} == expected
    for name, protocol in PROTOCOLS.items():
        lifting = name == "Human3.6M lifting"
        assert (protocol.root, protocol.skeleton) == ((0, H36M_17) if lifting else (39, PROHMR_44))


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_errors_are_those_of_the_listed_joints_from_the_root(protocol):
    pred, target = torch.randn(2, 5, protocol.skeleton.num_joints, 3)
    before = pred.clone()
    errors = protocol.errors(pred, target)
    pelvis = protocol.root
    relative = [
        (each - each[:, pelvis : pelvis + 1])[:, list(protocol.joints)] for each in (pred, target)
    ]
    torch.testing.assert_close(errors["mpjpe"], (relative[0] - relative[1]).norm(dim=-1).mean(-1))
    torch.testing.assert_close(errors["pa_mpjpe"], pa_mpjpe(*relative))
    assert torch.equal(pred, before)
    moved = protocol.errors(pred + 7, target)
    torch.testing.assert_close(moved, errors, rtol=1e-4, atol=1e-5)


def test_joints_that_do_not_count():
    pred, target = torch.randn(2, 5, 44, 3)
    valid = torch.rand(5, 44) < 0.7
    valid[:, 39] = False
    errors = PROTOCOLS["3DPW"].errors(pred, target, valid)
    joints = list(PROTOCOLS["3DPW"].joints)
    expected = mpjpe(
        (pred - pred[:, [39]])[:, joints], (target - target[:, [39]])[:, joints], valid[:, joints]
    )
    torch.testing.assert_close(errors["mpjpe"], expected)


def test_bad_protocols_and_joints_are_refused():
    with pytest.raises(ValueError, match=r"mine: expected joints and a root of H36M-17, 0 to 16"):
        Protocol("mine", H36M_17, (3, 17), 0)
    with pytest.raises(ValueError, match="mine"):
        Protocol("mine", H36M_17, (), 0)
    with pytest.raises(
        ValueError, match=r"3DPW: expected joints \(\.\.\., 44, 3\) .* \(2, 17, 3\)"
    ):
        PROTOCOLS["3DPW"].errors(torch.zeros(2, 17, 3), torch.zeros(2, 44, 3))
    with pytest.raises(ValueError, match=r"expected valid \(\.\.\., 44\)"):
        PROTOCOLS["3DPW"].errors(*torch.zeros(2, 2, 44, 3), torch.ones(2, 14))


# --- samples -------------------------------------------------------------------------------------


def naive(samples, target, protocol, valid=None):
    """All samples at once: the running minima (*batch, N)."""
    valid = valid if valid is None or valid.ndim == 1 else valid[..., None, :]
    errors = protocol.errors(samples, target.unsqueeze(-3), valid)
    return {metric: error.cummin(dim=-1).values for metric, error in errors.items()}


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 50),
    st.booleans(),
    st.sampled_from([(3,), (), (2, 2)]),
)
def test_one_pass_is_the_naive_evaluation(seed, total, block, include_mode, batch):
    posterior = Drawn(batch=batch)
    target = torch.randn(*batch, 17, 3, generator=generator(seed + 1))
    counts = sorted({1, total // 2 + 1, total})
    result = evaluate_samples(
        posterior, lambda theta: theta, target, LIFTING, counts=counts, block=block,
        include_mode=include_mode, generator=generator(seed),
    )  # fmt: skip
    mode = posterior.mode()
    samples = Drawn(batch=batch).sample(total, generator=generator(seed))
    if include_mode:
        samples = torch.cat([mode.unsqueeze(-3), samples], dim=-3)
    expected = naive(samples, target, LIFTING)
    assert list(result.best) == counts
    for n in counts:
        for metric in ("mpjpe", "pa_mpjpe"):
            assert torch.equal(result.best[n][metric], expected[metric][..., n - 1])
    alone = LIFTING.errors(mode, target)
    assert torch.equal(result.mode["mpjpe"], alone["mpjpe"])
    assert torch.equal(result.mode["pa_mpjpe"], alone["pa_mpjpe"])
    if include_mode:
        assert torch.equal(result.best[1]["mpjpe"], result.mode["mpjpe"])
    assert sum(posterior.asked) == total - include_mode
    assert max(posterior.asked, default=0) <= block
    assert result.samples is None


def test_the_best_for_one_metric_need_not_be_the_best_for_the_other():
    target = torch.randn(1, 17, 3)
    turned = (target - target[:, :1]) @ torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    near = target + 0.1 * torch.randn(1, 17, 3)
    posterior = Drawn(batch=(1,))
    posterior.mode = lambda: 5 * torch.randn(1, 17, 3)
    posterior.sample = lambda n, generator=None: torch.stack([turned, near], dim=1)
    best = evaluate_samples(posterior, lambda theta: theta, target, LIFTING, counts=[3]).best[3]
    assert best["pa_mpjpe"] < 1e-5
    torch.testing.assert_close(best["mpjpe"], LIFTING.errors(near, target)["mpjpe"])


def test_a_real_posterior_and_masks():
    pytest.importorskip("sklearn", reason="quantised samples need scikit-learn")
    prior = ConditionalPosePrior(4, joints=17, space="points", hidden_features=16).eval()
    posterior = prior(torch.randn(2, 4))
    target, valid = torch.randn(2, 17, 3), torch.rand(2, 17) < 0.7
    result = evaluate_samples(
        posterior, lambda theta: theta, target, LIFTING, counts=[1, 20], block=7,
        valid=valid, keep_samples=True, quantised=[4], generator=generator(),
    )  # fmt: skip
    g = generator()
    drawn = [posterior.sample(n, generator=g) for n in (7, 7, 5)]
    samples = torch.cat([posterior.mode()[:, None], *drawn], dim=1).detach()
    expected = naive(samples, target, LIFTING, valid)
    for metric, errors in expected.items():
        assert torch.equal(result.best[20][metric], errors[:, -1])
        assert not result.best[20][metric].requires_grad
    relative = samples - samples[:, :, :1]
    assert torch.equal(result.samples, relative)
    centroids = quantise(relative, 4)
    for metric, function in (("mpjpe", mpjpe), ("pa_mpjpe", pa_mpjpe)):
        error = function(centroids, (target - target[:, :1])[:, None], valid[:, None])
        torch.testing.assert_close(result.quantised[4][metric], error.amin(dim=1))


def test_invalid_rows_are_excluded_and_counted():
    pytest.importorskip("sklearn", reason="quantised samples need scikit-learn")
    posterior = Drawn()
    target = torch.randn(3, 17, 3)
    target[1, 4] = torch.nan

    def joints(theta):
        theta = theta.clone()
        theta[2, -1] = torch.nan if theta.shape[1] > 1 else theta[2, -1]
        return theta

    result = evaluate_samples(
        posterior, joints, target, LIFTING, counts=[1, 9], quantised=[2], generator=generator()
    )
    tally = Tally()
    tally.add(result.values_mm())
    assert set(tally.left_out) == {
        f"{group}_{metric}_mm"
        for group in ("mode", "best_of_1", "best_of_9", "best_of_2_quantised")
        for metric in ("mpjpe", "pa_mpjpe")
    }
    for metric in ("mpjpe", "pa_mpjpe"):
        assert tally.left_out[f"mode_{metric}_mm"] == 1
        assert tally.left_out[f"best_of_9_{metric}_mm"] == 2
        assert tally.left_out[f"best_of_2_quantised_{metric}_mm"] == 2
    assert tally.mean("best_of_9_mpjpe_mm") == pytest.approx(1000 * result.best[9]["mpjpe"][0])


def test_values_carry_millimetres_and_fit_a_tally():
    result = evaluate_samples(
        Drawn(batch=(2, 2)), lambda theta: theta, torch.ones(2, 2, 17, 3), LIFTING, counts=[2]
    )
    values = result.values_mm()
    assert values["mode_mpjpe_mm"].shape == (4,)
    torch.testing.assert_close(values["best_of_2_mpjpe_mm"], 1000 * result.best[2]["mpjpe"].ravel())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": [0]}, "counts must be a whole number of at least 1, got 0"),
        ({"block": 0}, "block must be a whole number of at least 1"),
        ({"counts": [5], "quantised": [6]}, "cannot quantise 5 samples to 6: raise counts"),
        ({"target": torch.zeros(3, 16, 3)}, r"expected joints \(\.\.\., 17, 3\)"),
        ({"joints": lambda theta: theta[..., :2]}, r"expected joints \(\.\.\., 17, 3\)"),
        ({"valid": torch.ones(3, 5)}, "expected valid"),
    ],
)
def test_bad_calls_are_refused(changes, message):
    arguments = {
        "joints": lambda theta: theta,
        "target": torch.zeros(3, 17, 3),
        "protocol": LIFTING,
    }
    with pytest.raises(ValueError, match=message):
        evaluate_samples(Drawn(), **{**arguments, **changes})


MEMORY = """
    import resource, sys, torch
    torch.set_num_threads(1)
    from flowprior.metrics.protocols import PROTOCOLS, evaluate_samples

    class Posterior:
        def sample(self, n, *, generator=None):
            return torch.randn(2, n, 24, 6)
        def mode(self):
            return torch.zeros(2, 24, 6)

    weights = torch.randn(144, 3 * 6890) / 144
    regressor = torch.randn(44, 6890) / 6890

    def joints(theta):
        vertices = (theta.flatten(-2) @ weights).unflatten(-1, (6890, 3))
        return torch.einsum("jv,bnvk->bnjk", regressor, vertices)

    def peak():
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    run = lambda n: evaluate_samples(
        Posterior(), joints, torch.zeros(2, 44, 3), PROTOCOLS["3DPW"], counts=[n], block=16
    )
    run(32)
    before = peak()
    run(int(sys.argv[1]))
    print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples():
    pytest.importorskip("resource", reason="measures memory, not on Windows")
    # All vertices of two people's 1536 samples would be 242 MiB.
    assert float(run_python(textwrap.dedent(MEMORY), "1536")) < 40
