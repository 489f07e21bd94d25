import pytest
import torch

from examples.fitting import train_prior
from examples.fitting.priors import KeypointPrior
from examples.fitting.train_prior import (
    JOINT_WEIGHT,
    ROTATION_WEIGHT,
    descend,
    mode_error,
    train_conditional,
)
from flowprior import rotations


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 40])
def test_any_number_of_steps_is_taken(steps):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    taken = []

    def loss():
        taken.append(model.weight.detach().clone())
        return model(torch.ones(1, 3)).square().sum()

    descend(model, loss, steps, "a few", 1e-2)
    assert len(taken) == steps
    assert not torch.equal(model.weight, taken[-1])
    assert not model.training


def turned(count, scale, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return rotations.rotvec_to_matrix(scale * torch.randn(count, 24, 3, generator=generator))


class TestModeError:
    def test_it_is_zero_for_the_truth_alone_and_finite_there(self, body):
        theta = turned(3, 0.4)
        mode = rotations.matrix_to_rot6d(theta).requires_grad_()
        error = mode_error(mode, theta, body)
        assert error.item() == pytest.approx(0, abs=1e-3)
        error.backward()
        assert mode.grad.isfinite().all()
        assert mode_error(rotations.matrix_to_rot6d(turned(3, 0.4, 1)), theta, body) > 10

    def test_its_terms_by_hand(self, body):
        theta, other = turned(2, 0.3), turned(2, 0.3, 1)
        found = mode_error(rotations.matrix_to_rot6d(other), theta, body)
        joints = [body(each).joints for each in (theta, other)]
        truth, guess = (each - each[:, :1] for each in joints)
        distance = (truth - guess).norm(dim=-1).sum() / 2
        entries = (theta - other)[..., :2].abs().sum() / (2 * 24 * 6)
        expected = JOINT_WEIGHT * distance + ROTATION_WEIGHT * entries
        torch.testing.assert_close(found, expected)

    def test_the_length_of_6d_vectors_has_no_say(self, body):
        theta, mode = turned(2, 0.3), rotations.matrix_to_rot6d(turned(2, 0.3, 1))
        torch.testing.assert_close(
            mode_error(2.5 * mode, theta, body), mode_error(mode, theta, body)
        )


def test_the_head_is_trained_before_the_flow_and_with_it(poses, body, monkeypatch):
    monkeypatch.setattr(train_prior, "BATCH", 16)
    model = KeypointPrior(width=8, hidden_features=8)
    seen = []

    def steps(model, loss_of, count, *_):
        model.train()
        for _ in range(count):
            model.zero_grad()
            loss_of().backward()
            moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
            seen.append({part: any(f".{part}." in n for n in moved) for part in ("head", "flow")})

    monkeypatch.setattr(train_prior, "descend", steps)
    train_conditional(model, poses, body, 10, seed=0)
    alone = [part["flow"] for part in seen].index(True)
    assert alone == int(train_prior.HEAD_SHARE * 10)
    assert all(part["head"] for part in seen)
    assert all(part["flow"] for part in seen[alone:])
    assert model.prior.flow.is_initialized()


def test_the_likelihood_does_not_train_encoder_and_head(poses, body, monkeypatch):
    monkeypatch.setattr(train_prior, "BATCH", 16)
    monkeypatch.setattr(train_prior, "mode_error", lambda mode, *_: 0 * mode.sum())
    torch.manual_seed(0)
    model = KeypointPrior(width=8, hidden_features=8)
    seen = {}

    def first_step(model, loss_of, *_):
        loss_of().backward()
        seen.update({name: p.grad for name, p in model.named_parameters()})

    monkeypatch.setattr(train_prior, "descend", first_step)
    train_conditional(model, poses, body, 1, seed=0)
    moved = {name for name, gradient in seen.items() if gradient is not None and gradient.any()}
    assert moved
    assert all(name.startswith("prior.flow.") for name in moved)
