"""The direction of imports between the examples."""

import ast
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
BOTTOM = {"command_line", "pinhole", "whole_files"}
SHARED = {*BOTTOM, "data", "pictures", "training"}
MAY_IMPORT = {
    "data": {*BOTTOM, "data"},
    "pictures": {*BOTTOM, "pictures"},
    "training": {*BOTTOM, "data", "training"},
    "lifting": {*SHARED, "lifting"},
    "fitting": {*SHARED, "lifting", "fitting"},
    "prohmr": {*SHARED, "fitting", "prohmr"},
    "heads": {*SHARED, "prohmr", "heads"},
    "tasks": {*BOTTOM, "pictures", "tasks"},
    "studies": {*SHARED, "lifting", "fitting", "studies"},
}


def imported(folder):
    """Folders and files of ``examples/`` that a folder's files import."""
    found = set()
    for path in (EXAMPLES / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("examples."):
                found.add(node.module.split(".")[1])
            elif isinstance(node, ast.Import):
                names = (alias.name for alias in node.names)
                found |= {name.split(".")[1] for name in names if name.startswith("examples.")}
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_arrows_point_one_way(folder):
    assert imported(folder) <= MAY_IMPORT[folder]


def test_every_example_has_its_arrows():
    folders = {path.parent.name for path in EXAMPLES.glob("*/__init__.py")}
    assert folders == set(MAY_IMPORT)
