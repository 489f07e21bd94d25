"""Packages that only some calls need: imported by these calls, named where they are missing."""

import importlib
from types import ModuleType

__all__ = ["import_optional"]


def import_optional(module: str, *, purpose: str, package: str, extra: str) -> ModuleType:
    """A module of an optional package.

    Args:
        module: Its full name.
        purpose: What needs it, as the subject of a sentence.
        package: What the module is a part of, as pip calls it.
        extra: The extra of flowprior that brings the package.

    Returns:
        The module.

    Raises:
        ImportError: The package is not installed, or fails to import; the message says what
            installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {package}: pip install 'flowprior[{extra}]' ({error})",
            name=error.name,
        ) from error
