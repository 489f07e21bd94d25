"""Taps: the input of a layer of a frozen network, captured while the network runs."""

import contextlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from flowprior._modes import lasting

__all__ = ["Tap", "tap"]

CALLS = ("last", "all")
# What torch.compile and the parallel wrappers put in front of the names of a model's layers.
PREFIXES = ("module.", "_orig_mod.")


def tap(model: nn.Module, layer: str, *, calls: str = "last") -> "Tap":
    """Capture the input of a layer whenever the model runs.

    The model's output does not change: the hook reads the input and returns nothing. The captured
    tensor is a copy without gradients, so it keeps no graph and no larger tensor alive, and later
    in-place operations of the model do not alter it.

    ::

        with tap(model, "smpl_head.decpose") as features:
            for batch in loader:
                output = model(batch)
                context = features.take()  # (B, 1024)

    Args:
        model: The model. Wrappers (``DataParallel``, ``DistributedDataParallel``,
            ``torch.compile``) are looked through.
        layer: Dotted name of the layer, as in ``model.named_modules()``; ``""`` for the model.
        calls: For a layer that runs several times in one forward pass: ``"last"`` keeps the last
            input, as iterative regressors need; ``"all"`` joins all inputs along their first axis,
            for models that loop over the images of a batch.

    Returns:
        The open tap: a context manager, or close it with :meth:`Tap.close`.

    Raises:
        TypeError: If the model is not a module.
        ValueError: If it has no such layer (the message lists similar names), is a TorchScript
            module, which runs no hooks inside, or ``calls`` is unknown.
    """
    return Tap(model, layer, calls=calls)


class Tap:
    """The input of a layer in the model's latest forward pass. :func:`tap` opens it.

    Attributes:
        layer: Name of the layer in the unwrapped model.
        num_calls: Number of calls since the tap was opened or last cleared.
    """

    def __init__(self, model: nn.Module, layer: str, *, calls: str = "last") -> None:
        if calls not in CALLS:
            raise ValueError(f"calls must be one of {CALLS}, got {calls!r}")
        self.layer, module = _find(model, layer)
        self.num_calls = 0
        self._keeps_all = calls == "all"
        self._kept: list[Tensor] = []
        self._fault: str | None = None
        self._hook = module.register_forward_pre_hook(self._record, with_kwargs=True)

    def __repr__(self) -> str:
        return f"Tap({self.layer!r}, num_calls={self.num_calls})"

    def __enter__(self) -> "Tap":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def value(self) -> Tensor:
        """The captured input, on its device and in its dtype, without gradients.

        In a loop, prefer :meth:`take`: if a forward pass skips the layer, for instance because
        nobody was detected, this is still the input of an earlier pass.

        Raises:
            RuntimeError: If the layer has not run, or has run on several devices.
            TypeError: If its input is not a tensor.
        """
        if self._fault is not None:
            raise TypeError(self._fault)
        if not self._kept:
            raise RuntimeError(
                f"layer {self.layer!r} has not run since the tap was opened or last cleared: call "
                "the model first. If you have, this forward pass skipped the layer, or the model "
                "was compiled and called before the tap was opened: open the tap first, or tap and "
                "call the model without torch.compile"
            )
        if len({each.device for each in self._kept}) > 1:
            raise RuntimeError(
                f"layer {self.layer!r} has run on several devices, whose order is not known: call "
                "the module inside DataParallel, model.module, on one of them"
            )
        return torch.cat(self._kept) if len(self._kept) > 1 else self._kept[0]

    def take(self) -> Tensor:
        """Return :attr:`value` and forget it, so the next pass cannot return it by mistake.

        Raises:
            RuntimeError: As :attr:`value`.
            TypeError: As :attr:`value`.
        """
        value = self.value
        self.clear()
        return value

    def clear(self) -> None:
        """Forget what was captured."""
        self._kept = []
        self._fault = None
        self.num_calls = 0

    def close(self) -> None:
        """Remove the hook from the model; what was captured stays. May be called again."""
        self._hook.remove()

    def _record(
        self, module: nn.Module, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> None:
        # An error in here would end the model's own forward pass.
        given = next(iter((*args, *kwargs.values())), None)
        self.num_calls += 1
        if not isinstance(given, Tensor):
            self._fault = (
                f"the input of layer {self.layer!r} is {type(given).__name__}, not a tensor: tap "
                "a layer inside it"
            )
            return
        # In a compiled graph there is no inference mode to leave.
        with contextlib.nullcontext() if torch.compiler.is_compiling() else lasting():
            # Detaching alone would keep the whole tensor of which this is a part.
            copy = given.detach().clone()
        # On several devices there is no last call: the others have run at the same time.
        parallel = any(each.device != copy.device for each in self._kept)
        self._kept = [*self._kept, copy] if self._keeps_all or parallel else [copy]


def _find(model: nn.Module, layer: str) -> tuple[str, nn.Module]:
    """The layer and its name in the model inside all wrappers."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    inner = _unwrapped(model)
    if isinstance(inner, torch.jit.ScriptModule):
        raise ValueError("a TorchScript module runs no hooks inside: nothing can be tapped")
    modules = dict(inner.named_modules())
    name = layer
    while name not in modules and name.startswith(PREFIXES):
        name = name.partition(".")[2]
    if name not in modules:
        raise ValueError(f"{type(inner).__name__} has no layer {layer!r}{_similar(name, modules)}")
    return name, modules[name]


def _unwrapped(model: nn.Module) -> nn.Module:
    while True:
        inner = getattr(model, "_orig_mod", None)  # of torch.compile
        if isinstance(model, DataParallel | DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _similar(layer: str, modules: Mapping[str, nn.Module]) -> str:
    """Similar names, for the message."""
    names = [name for name in modules if name]
    last = layer.rpartition(".")[2]
    found = [name for name in names if name.rpartition(".")[2] == last]
    found += get_close_matches(layer, names, n=5, cutoff=0.5)
    shown = list(dict.fromkeys(found))[:5]
    if shown:
        return f"; similar: {', '.join(shown)}"
    inside = ", ".join(name for name in names if "." not in name)
    return f"; its parts are {inside}" if inside else ""
