import pytest
import torch

from examples.fitting.train_prior import descend


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
