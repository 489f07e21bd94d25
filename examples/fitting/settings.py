"""Settings of the command line: ``key=value`` for any field of a dataclass of numbers."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["overridden"]

Settings = TypeVar("Settings", bound="DataclassInstance")


def overridden(settings: Settings, changes: Sequence[str]) -> Settings:
    """Settings with some of them replaced.

    Args:
        settings: A dataclass of numbers and truth values.
        changes: ``key=value`` each.

    Raises:
        ValueError: A key is no field, or a value no number, or not true or false.
    """
    now = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    changed: dict[str, Any] = {}
    for change in changes:
        name, sign, value = change.partition("=")
        if not sign or name not in now:
            raise ValueError(f"expected key=value with a key of {', '.join(now)}, got {change!r}")
        if isinstance(now[name], bool):
            if value not in ("true", "false"):
                raise ValueError(f"{name} must be true or false, got {value!r}")
            changed[name] = value == "true"
            continue
        try:
            changed[name] = float(value)
        except ValueError as error:
            raise ValueError(f"{name} must be a number, got {value!r}") from error
    return dataclasses.replace(settings, **changed)
