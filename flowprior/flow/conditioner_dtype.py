"""The choice of the dtype in which frozen conditioners decode latents."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["faster_dtype"]

# A dtype that moves samples has to be worth it, beyond what a measurement may err.
LEAST_GAIN = 1.25
ROWS = 64
ROUNDS = 3
HOPELESS = 3.0


def faster_dtype(
    network: nn.Module, rough: nn.Module, in_features: int, hidden_features: int
) -> torch.dtype | None:
    """Choose between a float32 network and its bfloat16 copy.

    A CUDA device is judged by its compute capability (8.0 and above have bfloat16 tensor cores). A
    CPU is judged by some milliseconds of measurement, since no flag tells how fast its bfloat16
    arithmetic is. Others keep float32.

    Args:
        network: Takes (N, in_features) and (N, hidden_features), in float32.
        rough: The same network in bfloat16.
        in_features: Width of the first input.
        hidden_features: Width of the second.

    Returns:
        ``torch.bfloat16`` if it is at least 1.25 times as fast, otherwise None.
    """
    weight = next(network.buffers())
    if weight.dtype != torch.float32:
        return None
    if weight.device.type == "cuda":
        capable = torch.cuda.get_device_capability(weight.device) >= (8, 0)
        return torch.bfloat16 if capable else None
    if weight.device.type != "cpu":
        return None
    x, projected = torch.ones(ROWS, in_features), torch.ones(ROWS, hidden_features)
    gain = _gain(lambda: network(x, projected), lambda: rough(x, projected))
    return torch.bfloat16 if gain >= LEAST_GAIN else None


def _gain(slow: Callable[[], Tensor], fast: Callable[[], Tensor]) -> float:
    """How many times as fast the second function is, by the best of a few alternating runs."""
    best = [float("inf"), float("inf")]
    with torch.inference_mode():
        slow(), fast()  # prepares the kernels
        for _ in range(ROUNDS):
            for number, function in enumerate((slow, fast)):
                start = time.perf_counter()
                function()
                best[number] = min(best[number], time.perf_counter() - start)
            if best[1] > HOPELESS * best[0]:
                break
    return best[0] / best[1]
