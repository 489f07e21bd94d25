"""Public names stay: those of ``tests/data/public_names.txt`` can be imported without a warning.

A name leaves the list in the release that removes it, after it was deprecated.
"""

import importlib
import pkgutil
import warnings
from pathlib import Path

import flowprior

LISTED = Path(__file__).parent / "data" / "public_names.txt"


def promised():
    lines = LISTED.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def public():
    """The names in ``__all__`` of the library, its packages and its public top-level modules."""
    homes = ["flowprior"] + [
        info.name
        for info in pkgutil.iter_modules(flowprior.__path__, "flowprior.")
        if not info.name.rpartition(".")[2].startswith("_")
    ]
    return {f"{home}.{name}" for home in homes for name in importlib.import_module(home).__all__}


def test_every_promised_name_exists():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        missing = [
            name
            for name in promised()
            if not hasattr(importlib.import_module(name.rpartition(".")[0]), name.split(".")[-1])
        ]
    assert missing == []


def test_promised_names_are_public():
    assert [name for name in promised() if name not in public()] == []


def test_the_list_is_sorted_and_has_no_repetition():
    assert promised() == sorted(set(promised()))
