"""Export of priors to ``torch.export`` programs and ONNX files."""

import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from flowprior.files.whole_file import whole_file
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.prior.posterior import PosePrior

__all__ = ["VERBS", "export_onnx", "export_program"]

VERBS = ("encode", "decode", "log_prob", "mode")
"""Methods that can be exported. To sample, call ``decode`` with z drawn from the flow's base."""

# The smallest sizes that torch treats as dynamic: it specialises on 0 and 1.
_BATCH, _SAMPLES = 2, 3


def export_program(prior: PosePrior, verb: str) -> ExportedProgram:
    r"""Export one method of a prior as a ``torch.export`` program.

    The program contains the frozen weights. Batch size and number of samples are dynamic:

    ========  ==================================  ==================
    verb      inputs                              output
    ========  ==================================  ==================
    encode    context (B, C), theta (B, n, J, k)  z (B, n, D)
    decode    context (B, C), z (B, n, D)         theta (B, n, J, k)
    log_prob  context (B, C), theta (B, n, J, k)  (B, n), nats
    mode      context (B, C)                      theta (B, J, k)
    ========  ==================================  ==================

    Theta has the form that the prior returns. Programs of an unconditional prior have no context
    and no batch axis. With torch 2.5, pass the inputs in this order; ``torch.export.save`` needs a
    newer version.

    Args:
        prior: The prior, frozen or not.
        verb: One of :data:`VERBS`.

    Returns:
        The program, on the prior's device and in its dtype.

    Raises:
        ValueError: If the verb is unknown, or for ``"mode"`` if the mode is computed by ascent or
            is a constant because the prior is unconditional.
    """
    module, inputs = _module(prior, verb)
    batch, samples = Dim("batch"), Dim("samples")
    shapes = {
        name: {0: batch} if name == "context" else _open(value, batch, samples)
        for name, value in inputs.items()
    }
    with torch.no_grad():
        return torch.export.export(module, (), kwargs=inputs, dynamic_shapes=shapes)


def export_onnx(prior: PosePrior, verb: str, path: str | os.PathLike[str]) -> None:
    """Export one method of a prior to an ONNX file, for ``onnxruntime`` and other runtimes.

    Inputs are named as in :func:`export_program`; the output is named ``z``, ``theta`` or
    ``log_prob``.

    Args:
        prior: The prior, frozen or not.
        verb: One of :data:`VERBS`.
        path: The file, in an existing folder.

    Raises:
        ImportError: If the packages ``onnx`` and ``onnxscript`` are missing.
        OSError: If the file cannot be written.
        ValueError: As :func:`export_program`.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "export_onnx needs the packages onnx and onnxscript: pip install 'flowprior[export]'"
        ) from error
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder")
    program = export_program(prior, verb)
    with warnings.catch_warnings():
        # The exporter's own warnings: deprecated tree specs, duplicate names of axes.
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            output_names=[_OUTPUTS[verb]],
        )
    assert exported is not None
    with whole_file(path) as partial:
        exported.save(partial, external_data=False)


_OUTPUTS = {"encode": "z", "decode": "theta", "log_prob": "log_prob", "mode": "theta"}


class _Verb(nn.Module):
    """Base of the modules below. Their argument names become the input names of the program."""

    def __init__(self, prior: PosePrior) -> None:
        super().__init__()
        self.prior = prior


class _Encode(_Verb):
    def forward(self, context: Tensor | None = None, *, theta: Tensor) -> Tensor:
        return self.prior(context).encode(theta)


class _Decode(_Verb):
    def forward(self, context: Tensor | None = None, *, z: Tensor) -> Tensor:
        return self.prior(context).decode(z)


class _LogProb(_Verb):
    def forward(self, context: Tensor | None = None, *, theta: Tensor) -> Tensor:
        return self.prior(context).log_prob(theta)


class _Mode(_Verb):
    def forward(self, context: Tensor) -> Tensor:
        # Not of a posterior: an unused projection of the context would enter the program.
        return self.prior.mode(context)


_MODULES = {"encode": _Encode, "decode": _Decode, "log_prob": _LogProb, "mode": _Mode}


def _module(prior: PosePrior, verb: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The frozen prior's method as a module, and example inputs."""
    if verb not in VERBS:
        raise ValueError(f"verb must be one of {VERBS}, got {verb!r}")
    flow, space = prior.flow, prior.space
    if verb == "mode" and not prior.context_features:
        raise ValueError("without a context the mode is a constant: save prior.mode() instead")
    if verb == "mode" and not prior.has_exact_mode:
        raise ValueError(
            "this prior computes its mode by ascent, which cannot be exported: export decode and "
            "pass z = 0, or the most likely of some samples"
        )
    if isinstance(prior, ConditionalPosePrior):
        prior = prior.freeze()
    leading = (_BATCH, _SAMPLES) if prior.context_features else (_SAMPLES,)
    inputs = {}
    # The context comes first: torch 2.5 accepts the inputs in this order only.
    if prior.context_features:
        inputs["context"] = torch.zeros(_BATCH, prior.context_features)
    if verb == "decode":
        inputs["z"] = torch.zeros(*leading, flow.features)
    elif verb != "mode":
        inputs["theta"] = space.to_pose(torch.zeros(*leading, space.features))
    inputs = {name: value.to(flow.device, flow.dtype) for name, value in inputs.items()}
    return _MODULES[verb](prior).eval(), inputs


def _open(value: Tensor, batch: Dim, samples: Dim) -> dict[int, Dim]:
    return {0: samples} if value.shape[0] == _SAMPLES else {0: batch, 1: samples}
