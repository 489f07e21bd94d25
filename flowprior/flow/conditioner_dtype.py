"""Choice of the fastest dtype for frozen conditioners."""

import os

import torch

__all__ = ["faster_conditioner_dtype"]


def faster_conditioner_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype | None:
    """Choose the dtype of conditioners by the capabilities of the device.

    The choice does not depend on the machine's load, so that a seed gives the same samples in every
    run.

    Args:
        dtype: Dtype of the flow's arithmetic.
        device: Device of the flow.

    Returns:
        ``torch.bfloat16`` for a float32 flow on a CPU with AMX or on a CUDA device of compute
        capability 8.0 or above; otherwise None, for the flow's own dtype. Without AMX, processors
        with AVX2 or AVX-512 are slower in bfloat16 or gain little.
    """
    if dtype != torch.float32:
        return None
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and _has_amx()
    return torch.bfloat16 if fast else None


def _has_amx() -> bool:
    """Whether oneDNN, which multiplies bfloat16 matrices on a CPU, may use AMX."""
    # oneDNN obeys these variables; the second is the older name.
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        limit = os.environ.get(name, "").upper()
        if limit and "AMX" not in limit and limit not in ("ALL", "DEFAULT"):
            return False
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)  # private in every release up to 2.14
    return ask is not None and bool(ask())
