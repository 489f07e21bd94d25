"""Half precision with loss scaling, for steps that inspect gradients before the update."""

from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.types import Optimizable
from lightning.pytorch.plugins import MixedPrecision

__all__ = ["ScaledHalf"]


class ScaledHalf(MixedPrecision):
    """Autocast to float16, with the loss scaled so that small gradients do not vanish.

    Lightning's plugin unscales gradients inside the optimiser's step. `ProHMRModule` averages,
    clips and inspects gradients before that, so it calls ``scaler.unscale_`` itself. Checkpoints
    contain the scale.

    Args:
        device: Type of the device, "cuda" or "cpu".
        scaler: PyTorch's ``GradScaler`` if None.

    References:
        Micikevicius et al., *Mixed Precision Training*, 2018.
    """

    def __init__(self, device: str, scaler: torch.amp.GradScaler | None = None) -> None:
        super().__init__("16-mixed", device, scaler)

    def optimizer_step(  # type: ignore[override]  # Lightning's own differs from its base too
        self,
        optimizer: Optimizable,
        model: "lightning.LightningModule",
        closure: Callable[[], Any],
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Step if all gradients are finite, and update the scale."""
        closure()
        self._after_closure(model, optimizer)
        assert self.scaler is not None
        stepped = self.scaler.step(optimizer, **kwargs)  # type: ignore[arg-type]
        self.scaler.update()
        return stepped
