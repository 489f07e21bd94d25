"""The rows of the study."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from benchmarks.density_study.models import Heads, Matching, Posterior
from benchmarks.density_study.training import Schedule

__all__ = ["VARIANTS", "Variant"]


# The trunk reads the keypoints: a small head suffices.
HEAD = 128

# Chosen on the validation subjects for each kind.
FREE = Schedule(rate=3e-3, decay=1e-4)
ANSWER_THEN_FLOW = Schedule(alone=0.4)
FROM_THE_START = Schedule()


@dataclass(frozen=True)
class Variant:
    """One row.

    Args:
        kind: ``"posterior"``, ``"heads"`` or ``"matching"``.
        options: Options of the prior.
        skip: Whether the context contains the raw keypoints.
        schedule: How the row is trained.
        diagonal: Whether the features of the residual are independent.
        targets: The targets for which the row exists.
    """

    kind: str = "posterior"
    options: dict[str, Any] = field(default_factory=dict)
    skip: bool = True
    schedule: Schedule = FROM_THE_START
    diagonal: bool = False
    targets: tuple[str, ...] = ("joints", "pose")

    def make(self, target: str) -> nn.Module:
        """A new model, with about as many parameters as the first anchored row."""
        wanted = _parameters(self._model(ANCHORED, target, None))
        if self.options.get("coupling") == "none":
            return self._model(self, target, None)
        widths = range(32, 513, 4)
        with torch.device("meta"):
            sizes = {width: _parameters(self._model(self, target, width)) for width in widths}
        width = min(widths, key=lambda each: abs(sizes[each] - wanted))
        return self._model(self, target, width)

    @staticmethod
    def _model(variant: "Variant", target: str, hidden: int | None) -> nn.Module:
        if variant.kind == "heads":
            return Heads(target, hidden or 128)
        if variant.kind == "matching":
            return Matching(target, hidden or 128)
        options: dict[str, Any] = {"head_features": HEAD} if variant.options["anchored"] else {}
        options |= variant.options
        if target == "joints":
            options.pop("space", None)
        elif not variant.options["anchored"]:
            options.setdefault("space", "rot6d")
        if hidden is not None:
            options["hidden_features"] = hidden
        return Posterior(target, options, skip=variant.skip, diagonal=variant.diagonal)


def _parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def _free(**options: Any) -> Variant:  # noqa: ANN401
    return Variant(options={"anchored": False, "num_blocks": 2, **options}, schedule=FREE)


def _anchored(**options: Any) -> Variant:  # noqa: ANN401
    return Variant(options={"anchored": True, **options}, schedule=ANSWER_THEN_FLOW)


def _around(base: str) -> Variant:
    """Independent features around the regressor, with scales from the context."""
    options = {"anchored": True, "coupling": "none", "num_steps": 1, "base": base}
    return Variant(options=options, diagonal=True, schedule=ANSWER_THEN_FLOW)


ANCHORED = _anchored()

VARIANTS: dict[str, Variant] = {
    "original": Variant(options={"preset": "prohmr", "anchored": False}, schedule=FREE),
    "plain": _free(context_norm=False),
    "context_norm": _free(),
    "affine": _free(context_norm=False, coupling="affine"),
    "spline": _free(context_norm=False, coupling="spline"),
    "free_so3": replace(_free(space="so3"), targets=("pose",)),
    "anchored": ANCHORED,
    "anchored_normal": _anchored(base="normal"),
    "anchored_contracting": _anchored(coupling="contracting"),
    "anchored_no_skip": replace(ANCHORED, skip=False),
    "anchored_first": replace(ANCHORED, schedule=Schedule(alone=0.8)),
    "anchored_both": replace(ANCHORED, schedule=FROM_THE_START),
    "linear": _anchored(coupling="none"),
    "gaussian": _around("normal"),
    "student_t": _around("student_t"),
    "heads": Variant(kind="heads"),
    "matching": Variant(kind="matching", schedule=ANSWER_THEN_FLOW),
}
"""Rows by name. Those that are not anchored train NLL and the error of the decoded z = 0."""
