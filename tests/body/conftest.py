"""Shared by the tests of bodies."""

import sys
import types

import pytest


@pytest.fixture
def chumpy(monkeypatch):
    """A class that pickles as chumpy's arrays do; gone again before the file is read."""
    modules = [types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")]
    kind = type("Ch", (), {"__module__": "chumpy.ch"})
    modules[1].Ch = kind
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def wrap(array):
        made = kind()
        made.__dict__.update(x=array, _itr=None, _dirty_vars=set())
        return made

    def remove():
        for module in modules:
            monkeypatch.delitem(sys.modules, module.__name__)

    return types.SimpleNamespace(wrap=wrap, remove=remove)
