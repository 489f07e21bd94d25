"""Anchored flows that hold some features at 0: the density is over the others."""

import itertools
import math
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.flow import ConditionalFlow, StudentT
from flowprior.flow.lu_linear import held_product, held_solution
from tests.flow.helpers import draw
from tests.flow.test_anchored import BASES, COUPLINGS, make

kinds = {
    "features": st.integers(2, 7),
    "coupling": st.sampled_from(COUPLINGS),
    "base": st.sampled_from(BASES),
    "seed": st.integers(0, 99),
}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-8)


def held(flow, *, batch=4, extra=(3,), seed=0):
    """Random masks, of which the first holds everything and the second nothing, and rows."""
    generator = torch.Generator().manual_seed(seed)
    free = torch.rand(batch, flow.features, generator=generator) < 0.6
    free[0], free[1] = False, True
    context = draw(batch, flow.context_features, seed=seed)
    return free, context, draw(batch, *extra, flow.features, seed=seed + 1)


@given(**kinds, extra=st.sampled_from([(), (3,), (2, 3)]))
def test_held_features_stay_at_zero_and_the_others_invert(features, coupling, base, seed, extra):
    flow = make(features, coupling=coupling, base=base, seed=seed)
    free, context, x = held(flow, extra=extra, seed=seed)
    projected = flow.project_context(context, free=free)
    mask = free.reshape(len(free), *(1,) * len(extra), features)
    z, log_abs_det = flow(x, projected)
    back, inverse = flow.inverse(z, projected)
    assert not z[~mask.expand_as(z)].any()
    assert_close(back, x * mask)
    assert_close(inverse, -log_abs_det)


@given(**kinds)
def test_log_det_is_that_of_the_free_features(features, coupling, base, seed):
    flow = make(features, coupling=coupling, base=base, seed=seed)
    free, context, x = held(flow, extra=(), seed=seed)
    _, log_abs_det = flow(x, flow.project_context(context, free=free))
    for row in range(len(x)):
        index = free[row].nonzero().flatten()
        if not len(index):
            assert_close(log_abs_det[row], torch.zeros(()).double())
            continue
        projected = flow.project_context(context[row : row + 1], free=free[row : row + 1])

        def latent(part, index=index, projected=projected):
            row = torch.zeros(features).double().index_put((index,), part)
            return flow(row[None], projected)[0][0][index]

        jacobian = torch.autograd.functional.jacobian(latent, x[row][index])
        assert_close(torch.linalg.slogdet(jacobian)[1], log_abs_det[row])


@given(**kinds)
def test_without_held_features_nothing_changes(features, coupling, base, seed):
    flow = make(features, coupling=coupling, base=base, seed=seed)
    _, context, x = held(flow, seed=seed)
    everything = flow.project_context(context, free=torch.ones(features, dtype=torch.bool))
    assert_close(flow.log_prob(x, everything), flow.log_prob(x, context))
    if flow.has_closed_entropy:
        assert_close(flow.entropy(everything), flow.entropy(context))


@given(**kinds)
def test_values_of_held_features_do_not_matter(features, coupling, base, seed):
    flow = make(features, coupling=coupling, base=base, seed=seed)
    free, context, x = held(flow, seed=seed)
    projected = flow.project_context(context, free=free)
    other = torch.where(free[:, None], x, draw(*x.shape, seed=seed + 9))
    assert torch.equal(flow.log_prob(x, projected), flow.log_prob(other, projected))
    assert torch.equal(flow.energy(x, projected), flow.energy(other, projected))


@given(**kinds)
def test_frozen_copies_hold_the_same_features(features, coupling, base, seed):
    flow = make(features, coupling=coupling, base=base, seed=seed)
    free, context, x = held(flow, seed=seed)
    frozen = flow.freeze()
    ours, theirs = (each.project_context(context, free=free) for each in (flow, frozen))
    assert_close(frozen(x, theirs)[0], flow(x, ours)[0])
    assert_close(frozen.inverse(x, theirs)[0], flow.inverse(x, ours)[0])
    assert_close(frozen.log_prob(x, theirs), flow.log_prob(x, ours))
    if flow.has_closed_entropy:
        assert_close(frozen.entropy(theirs), flow.entropy(ours))


@pytest.mark.parametrize("base", BASES)
def test_entropy_is_the_mean_of_samples(base):
    flow = make(6, base=base, coupling="additive")
    free, context, _ = held(flow)
    projected = flow.project_context(context, free=free)
    generator = torch.Generator().manual_seed(0)
    _, log_prob = flow.sample_and_log_prob(projected, 20_000, generator=generator)
    error = log_prob.std(dim=-1) / math.sqrt(20_000)
    assert ((flow.entropy(projected) + log_prob.mean(dim=-1)).abs() < 5 * error + 1e-9).all()


def test_a_context_that_holds_everything_has_density_one():
    flow = make(4, base="student_t")
    projected = flow.project_context(draw(1, 3), free=torch.zeros(4, dtype=torch.bool))
    assert_close(flow.log_prob(draw(1, 2, 4), projected), torch.zeros(1, 2).double())
    assert_close(flow.sample(projected, 3), torch.zeros(1, 3, 4).double())


def test_rows_and_selections_keep_their_masks():
    flow = make(5)
    free, context, x = held(flow)
    projected = flow.project_context(context, free=free)
    whole = flow.log_prob(x, projected)
    assert_close(flow.log_prob(x[2:], projected.select(slice(2, None))), whole[2:])
    wide = projected.select(2).expand(torch.Size([6]))
    assert_close(flow.log_prob(x[2].repeat(2, 1), wide), whole[2].repeat(2))
    with torch.no_grad():  # more rows than one block
        many = x.repeat(1, 300, 1)
        assert_close(flow.log_prob(many, projected), whole.repeat(1, 300))


@pytest.mark.parametrize("base", BASES)
def test_calibration_counts_free_features_only(base):
    flow = make(6, base=base)
    flow.temperature.fill_(1.0)
    free = torch.rand(4000, 6, generator=torch.Generator().manual_seed(1)) < 0.5
    projected = flow.project_context(draw(4000, 3), free=free)
    z = 2.0 * draw(4000, 6, seed=5) * free
    x, _ = flow.inverse(z, projected)
    assert abs(float(flow.calibrate(x, projected)) - 2.0) < 0.05
    if isinstance(flow.base, StudentT):
        assert flow.base.degrees_of_freedom > 50


def test_actnorm_starts_from_the_free_features():
    flow = ConditionalFlow(4, 2, anchored=True, hidden_features=4)
    free = torch.rand(5000, 4) < torch.tensor([0.9, 0.5, 0.1, 0.0])
    x = torch.randn(5000, 4) * torch.tensor([0.1, 1.0, 10.0, 1.0])
    flow.train()(x, flow.project_context(torch.zeros(5000, 2), free=free))
    scale = flow.steps[0].actnorm.log_scale.detach().exp()
    assert torch.allclose(scale, torch.tensor([10.0, 1.0, 0.1, 1.0]), rtol=0.2)


def test_only_anchored_flows_hold_features():
    with pytest.raises(ValueError, match="only an anchored flow"):
        ConditionalFlow(4, 0).project_context(None, free=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="free must have shape"):
        make(4).project_context(draw(2, 3), free=torch.ones(3, dtype=torch.bool))


@given(
    leading=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    size=st.integers(1, 8),
    seed=st.integers(0, 99),
    shared=st.booleans(),
    exporting=st.booleans(),
)
def test_the_held_product_is_solved(leading, size, seed, shared, exporting):
    generator = torch.Generator().manual_seed(seed)
    shape = (*leading[:-1], 1) if shared and leading else leading
    free = (torch.rand(*shape, size, generator=generator) < 0.5).double()
    lower = torch.eye(size).double() + draw(size, size, seed=seed).tril(-1)
    upper = draw(size, size, seed=seed + 1).triu(1) + torch.eye(size).double()
    x = draw(*leading, size, seed=seed + 2)
    y = held_product(x, lower, upper, free)
    with mock.patch("flowprior.flow.lu_linear.is_exporting", return_value=exporting):
        assert_close(held_solution(y, lower, upper, free), x * free)


@pytest.mark.slow
def test_conditionals_of_a_gaussian_are_learned_for_every_mask():
    """One flow against the exact conditional densities of a Gaussian, given any known part."""
    features = 5
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    factor = torch.randn(features, features, generator=generator)
    precision = torch.linalg.inv(factor @ factor.T / features + 0.1 * torch.eye(features))
    masks = torch.tensor(list(itertools.product([0, 1], repeat=features))[1:], dtype=torch.bool)
    factors, entropies = [], []
    for mask in masks:
        index = mask.nonzero().flatten()
        covariance = torch.linalg.inv(precision[index][:, index])
        square = torch.zeros(features, features)
        square[index[:, None], index] = torch.linalg.cholesky(covariance)
        factors.append(square)
        entropies.append(0.5 * torch.logdet(2 * math.pi * math.e * covariance))
    factors, entropies = torch.stack(factors), torch.stack(entropies)

    flow = ConditionalFlow(features, features, anchored=True, hidden_features=32, num_blocks=1)
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
    for _ in range(800):
        rows = torch.randint(len(masks), (256,), generator=generator)
        noise = torch.randn(256, features, 1, generator=generator)
        x = (factors[rows] @ noise)[..., 0]
        projected = flow.project_context((~masks[rows]).float(), free=masks[rows])
        loss = -flow.log_prob(x, projected).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    flow.eval()
    with torch.no_grad():
        z = torch.randn(len(masks), 2000, features, generator=generator)
        x = torch.einsum("mij,mnj->mni", factors, z)
        squares = (z * masks[:, None]).square().sum(dim=-1)
        exact = (masks.sum(dim=-1) / 2 - entropies)[:, None] - squares / 2
        projected = flow.project_context((~masks).float(), free=masks)
        divergence = (exact - flow.log_prob(x, projected)).mean(dim=-1)
    # Between the masks, entropies differ by nats.
    assert entropies.max() - entropies.min() > 3
    assert divergence.mean() < 0.02
    assert divergence.max() < 0.06
