import pytest
import torch

from flowprior import ConditionalPosePrior
from flowprior.flow.jacobian import latent_and_jacobian


def lively(**options):
    torch.manual_seed(0)
    prior = ConditionalPosePrior(6, joints=3, hidden_features=8, **options).double()
    prior.nll(torch.randn(64, 3, 3, dtype=torch.float64), torch.randn(64, 6, dtype=torch.float64))
    prior.eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    prior.flow.temperature.fill_(1.3)
    return prior


@pytest.mark.parametrize("rest", [(), (2,)])
@pytest.mark.parametrize("coupling", ["additive", "contracting"])
@pytest.mark.parametrize("frozen", [True, False])
def test_latents_and_derivatives_equal_those_of_torch(rest, coupling, frozen):
    prior = lively(rest_joints=rest, coupling=coupling)
    prior = prior.freeze() if frozen else prior
    posterior = prior(torch.randn(5, 6, dtype=torch.float64))
    x = torch.randn(5, 9, dtype=torch.float64)
    free = torch.arange(9 - 3 * len(rest))
    z, jacobian = latent_and_jacobian(prior.flow, x, posterior.context, free)
    expected = prior.flow(x, posterior.context)[0].detach()
    torch.testing.assert_close(z, expected)
    step = 1e-7
    for column in free.tolist():
        moved = x.clone()
        moved[:, column] += step
        ahead = prior.flow(moved, posterior.context)[0].detach()
        torch.testing.assert_close(
            jacobian[..., column], (ahead - expected) / step, atol=1e-5, rtol=1e-4
        )
