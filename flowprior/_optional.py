"""Optional packages, imported on demand; errors name the extra that installs them."""

import importlib
from types import ModuleType

__all__ = ["import_optional"]


def import_optional(module: str, *, purpose: str, package: str, extra: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: Full name of the module.
        purpose: The feature that needs it, as the subject of the error message.
        package: Name of the package for pip.
        extra: The extra of flowprior that installs the package.

    Returns:
        The module.

    Raises:
        ImportError: If the package is not installed or cannot be imported; the message contains the
            command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {package}: pip install 'flowprior[{extra}]' ({error})",
            name=error.name,
        ) from error
