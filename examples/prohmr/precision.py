"""Half precision with a scaled loss, for steps that look at their gradients before they step."""

from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.types import Optimizable
from lightning.pytorch.plugins import MixedPrecision

__all__ = ["ScaledHalf"]


class ScaledHalf(MixedPrecision):
    """Autocast to float16, with the loss scaled so that small gradients do not vanish.

    Lightning's own divides by the scale inside of the optimiser's step. `ProHMRModule` averages,
    clips and looks at gradients before that, so it divides itself, by ``scaler.unscale_``. Every
    checkpoint has the scale.

    Args:
        device: Type of the device, "cuda" or "cpu".
        scaler: PyTorch's own if None.

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
        """Step, unless a gradient was not finite, and set the scale of the next step."""
        closure()
        self._after_closure(model, optimizer)
        assert self.scaler is not None
        stepped = self.scaler.step(optimizer, **kwargs)  # type: ignore[arg-type]
        self.scaler.update()
        return stepped
