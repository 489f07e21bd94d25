"""Old names and arguments that still work: they warn with the replacement and the last version.

The stability page states how long an old name remains.
"""

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

__all__ = ["renamed_arguments", "renamed_attributes", "warn_deprecated"]

Function = TypeVar("Function", bound=Callable[..., Any])


def warn_deprecated(old: str, *, instead: str, removal: str, depth: int = 1) -> None:
    """Issue a DeprecationWarning that points at the caller's line.

    Args:
        old: What is deprecated, as the subject of the message.
        instead: What to use, as the user writes it.
        removal: The version that no longer has it, such as ``"0.3"``.
        depth: Number of calls between the user's line and this function.
    """
    warnings.warn(
        f"{old} is deprecated and will be removed in flowprior {removal}; use {instead}",
        DeprecationWarning,
        stacklevel=depth + 2,
    )


def renamed_arguments(removal: str, /, **names: str) -> Callable[[Function], Function]:
    """Decorate a function or class whose keyword arguments have new names.

    Old names are accepted with a DeprecationWarning::

        @renamed_arguments("0.3", num_samples="n")
        def sample(context, *, n): ...

    Args:
        removal: The version that no longer accepts the old names.
        **names: New name by old name.

    Returns:
        The decorator. The decorated function raises TypeError if a call has the old and the new
        name of an argument.

    Raises:
        ValueError: If the function lacks a new name, or still has an old one.
    """

    def decorate(function: Function) -> Function:
        target: Any = function
        if isinstance(function, type):
            target = function.__init__  # type: ignore[misc]
        parameters = inspect.signature(target).parameters
        for old, new in names.items():
            if new not in parameters or old in parameters:
                raise ValueError(
                    f"{target.__qualname__} must have the argument {new} and not {old}"
                )

        @functools.wraps(target)
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs:
                    raise TypeError(
                        f"{function.__qualname__} got {new} and its deprecated name {old}"
                    )
                warn_deprecated(
                    f"the argument {old} of {function.__qualname__}", instead=new, removal=removal
                )
                kwargs[new] = kwargs.pop(old)
            return target(*args, **kwargs)

        if isinstance(function, type):
            function.__init__ = call  # type: ignore[misc]
            return function
        return call  # type: ignore[return-value]

    return decorate


def renamed_attributes(
    module: str, removal: str, /, names: Mapping[str, str]
) -> Callable[[str], object]:
    """Create the ``__getattr__`` of a module or package whose public names have moved.

    For example::

        __getattr__ = renamed_attributes(__name__, "0.3", {"Fit": "flowprior.results.Fits"})

    Args:
        module: Full name of the module.
        removal: The version that no longer has the old names.
        names: Full new name by old name in the module.

    Returns:
        A function that imports what an old name stands for, with a DeprecationWarning, and raises
        AttributeError for any other name.
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, attribute = names[name].rpartition(".")
        warn_deprecated(f"{module}.{name}", instead=names[name], removal=removal)
        return getattr(importlib.import_module(home), attribute)

    return find
