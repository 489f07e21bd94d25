"""Flows with weights worth testing, and the reference they are held against."""

import numpy as np
import torch
from torch import Tensor

from flowprior.flow import ConditionalFlow
from flowprior.prohmr import flow_config, flow_state_from_prohmr
from tests import oracle


def random_flow(features: int, context_features: int, **kwargs) -> tuple[ConditionalFlow, dict]:
    """A float64 flow in evaluation mode with random weights far from new, and its oracle state."""
    kwargs = {"hidden_features": 16, **kwargs}
    state = oracle.random_state_dict(features, context_features, **kwargs)
    return load_oracle(state), state


def load_oracle(state: dict) -> ConditionalFlow:
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    flow = ConditionalFlow(**flow_config(tensors), dropout=0.0).double()
    flow.load_state_dict(flow_state_from_prohmr(tensors, flow))
    return flow.eval()


def draw(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def assert_close(actual: Tensor, expected, tolerance: float) -> None:
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=tolerance
    )
