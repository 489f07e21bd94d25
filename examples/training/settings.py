"""Settings of the programs: YAML files with every setting, and ``key=value`` on a command line."""

import dataclasses
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, get_origin, get_type_hints

import yaml

from flowprior.files import limits
from flowprior.files.limits import Refusal, read_limited

__all__ = [
    "AnySettings",
    "as_yaml",
    "differences",
    "read_settings",
    "settings_from_text",
    "with_overrides",
]


class AnySettings(Protocol):
    """A dataclass whose fields are settings."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


MAX_BYTES = 2**16
"""Greatest size of a file of settings; aliases may expand it to at most 16 times as many values."""

TYPES = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}

Settings = TypeVar("Settings", bound=AnySettings)


def read_settings(
    kind: type[Settings], path: Path, overrides: Sequence[str] = (), **given: object
) -> Settings:
    """Read a file of settings.

    Args:
        kind: A dataclass, whose fields are the settings: numbers, texts, booleans or mappings.
        path: A YAML file with every setting.
        overrides: Texts ``key=value``, the value in YAML, as in the file. A mapping is replaced
            as a whole: ``loss={nll: 0.1}``.
        given: Settings that replace those of the file; None leaves a setting as it is.

    Returns:
        The settings.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not YAML, is larger than `MAX_BYTES` or nested too deeply; a
            setting is missing, unknown, of another type or out of range; or an override is not
            ``key=value``. The message names it.
    """
    try:
        text = read_limited(path, MAX_BYTES).decode()
    except (Refusal, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error
    return settings_from_text(kind, text, str(path), overrides, **given)


def settings_from_text(
    kind: type[Settings], text: str, source: str, overrides: Sequence[str] = (), **given: object
) -> Settings:
    """Read settings from a text, as `read_settings` does from a file.

    Args:
        kind: As in `read_settings`.
        text: YAML.
        source: Name of the text in error messages.
        overrides: As in `read_settings`.
        given: As in `read_settings`.

    Raises:
        ValueError: As in `read_settings`.
    """
    try:
        values = _parsed(text)
    except Refusal as error:
        raise ValueError(f"{source} is not a YAML file: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{source}: expected lines 'key: value', got {type(values).__name__}")
    missing = [name for name in kind.__dataclass_fields__ if name not in values]
    if missing:
        raise ValueError(f"{source}: missing {', '.join(missing)}")
    values |= _key_values(overrides)
    values |= {name: value for name, value in given.items() if value is not None}
    return _made(kind, values, f" (settings of {source})")


def with_overrides(settings: Settings, overrides: Sequence[str]) -> Settings:
    """Replace some settings.

    Args:
        settings: A dataclass whose fields are the settings.
        overrides: Texts ``key=value``, the value in YAML.

    Returns:
        New settings.

    Raises:
        ValueError: A key is unknown, or a value has another type or is out of range.
    """
    changed = _key_values(overrides)
    kinds = _kinds(type(settings), changed, "")
    changed = {name: _typed(name, value, kinds[name]) for name, value in changed.items()}
    return dataclasses.replace(settings, **changed)


def _key_values(overrides: Sequence[str]) -> dict[str, Any]:
    values = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ValueError(f"expected key=value, got {override!r}")
        try:
            values[key] = _parsed(value)
        except Refusal as error:
            raise ValueError(f"{override!r}: {value!r} is not a YAML value") from error
    return values


def _made(kind: type[Settings], values: Mapping[str, object], source: str) -> Settings:
    """Settings of these values; ``source`` ends the error messages."""
    kinds = _kinds(kind, values, source)
    try:
        return kind(**{name: _typed(name, value, kinds[name]) for name, value in values.items()})
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{error}{source}") from error


def _kinds(kind: type[Settings], names: Iterable[object], source: str) -> dict[str, Any]:
    """The types of all settings, by name; raises ValueError if one of ``names`` is unknown."""
    hints = get_type_hints(kind)
    kinds = {field: hints[field] for field in kind.__dataclass_fields__}
    unknown = [str(name) for name in names if name not in kinds]
    if unknown:
        close = [match for name in unknown for match in get_close_matches(name, kinds, 1, 0.5)]
        meant = f" (did you mean {', '.join(close)}?)" if close else ""
        raise ValueError(
            f"unknown setting {', '.join(unknown)}{meant}; settings are {', '.join(kinds)}{source}"
        )
    return kinds


def _parsed(text: str) -> Any:  # noqa: ANN401
    """Parse YAML of limited depth and size, aliases expanded.

    Raises:
        Refusal: It is nested too deeply, grows too large, or is not YAML.
    """
    depth = 0
    # PyYAML takes quadratic time over open brackets.
    for bracket in re.findall(r"[][{}]", text):
        depth += 1 if bracket in "[{" else -1
        if depth > limits.MAX_DEPTH:
            raise Refusal(f"it is nested more than {limits.MAX_DEPTH} levels deep")
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        if root is not None and _count(root, limits.MAX_DEPTH, {}) > 16 * MAX_BYTES:
            raise Refusal("its aliases make it grow beyond measure")
        return yaml.safe_load(text)
    except Refusal:
        raise
    # On wrong dates and tags, PyYAML raises almost anything.
    except Exception as error:
        raise Refusal(f"{error!s:.500}") from error


def _count(node: yaml.Node, depth: int, known: dict[int, int]) -> int:
    """Count the values below a node; an alias counts each time."""
    if depth < 0:
        raise Refusal(f"it is nested more than {limits.MAX_DEPTH} levels deep")
    if id(node) not in known:
        entries = node.value if isinstance(node.value, list) else []
        if isinstance(node, yaml.MappingNode):
            entries = [part for pair in entries for part in pair]
        known[id(node)] = 1 + sum(_count(each, depth - 1, known) for each in entries)
    return known[id(node)]


def as_yaml(settings: AnySettings) -> str:
    """The settings as YAML, which `read_settings` reads."""
    return str(yaml.safe_dump(_as_dict(settings), sort_keys=False))


def differences(
    first: AnySettings, second: AnySettings, ignore: Sequence[str] = ()
) -> Mapping[str, str]:
    """Names of the settings that differ, each with the text "first -> second"."""
    before, after = _as_dict(first), _as_dict(second)
    return {
        name: f"{before[name]} -> {after[name]}"
        for name in before
        if before[name] != after[name] and name not in ignore
    }


def _as_dict(settings: AnySettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def _typed(name: str, value: object, kind: Any) -> Any:  # noqa: ANN401
    """The value in the type of its setting; whole numbers are converted to float or str."""
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):
        # YAML 1.1 takes 1e-4, without a point, for text.
        try:
            return float(value)
        except ValueError:
            pass
    if kind is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if get_origin(kind) is dict and isinstance(value, dict):
        return {str(key): _typed(f"{name}.{key}", v, kind.__args__[1]) for key, v in value.items()}
    if type(value) is kind:
        return value
    wanted = "a mapping" if get_origin(kind) is dict else TYPES.get(kind, str(kind))
    raise ValueError(f"{name} must be {wanted}, got {reprlib.repr(value)}")
