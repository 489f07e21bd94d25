"""The layers of ``flowprior/``: imports point one way, and nothing imports in a circle."""

import ast
from pathlib import Path

import pytest

import flowprior

PACKAGE = Path(flowprior.__file__).parent

# Per layer, the other layers that it may import. The private modules at the top level are the
# bottom; a module inside a package belongs to the layer of the package unless it is named here.
BOTTOM = {"_checks", "_console", "_deprecation", "_modes", "_optional", "_precision"}
MAY_IMPORT = {
    **{name: set() for name in BOTTOM},
    "files": BOTTOM,
    "rotations": BOTTOM,
    "keypoints": BOTTOM,
    "flow": BOTTOM,
    "skeleton": {*BOTTOM, "rotations"},
    "spaces": {*BOTTOM, "rotations"},
    "body": {*BOTTOM, "files", "rotations", "skeleton", "spaces"},
    "prior": {*BOTTOM, "files", "flow", "keypoints", "rotations", "skeleton", "spaces"},
    "metrics": {*BOTTOM, "rotations", "skeleton"},
    "prohmr": {*BOTTOM, "files", "flow", "prior", "spaces"},
    "fitting": {
        *BOTTOM,
        *("body", "files", "flow", "keypoints", "prior", "rotations", "skeleton", "spaces"),
    },
    "keypoint_files": {*BOTTOM, "files", "keypoints", "skeleton"},
    "detect": {*BOTTOM, "files", "keypoint_files", "skeleton"},
    "results": {
        *BOTTOM,
        *("body", "files", "fitting", "keypoints", "prior", "rotations", "skeleton", "spaces"),
    },
    "view": {
        *BOTTOM,
        *("body", "files", "fitting", "prior", "results", "rotations", "skeleton", "spaces"),
    },
    "command": {
        *BOTTOM,
        *("__init__", "body", "detect", "files", "fitting", "flow", "keypoint_files", "keypoints"),
        *("prior", "prohmr", "results", "rotations", "skeleton", "spaces", "view"),
    },
    "__init__": {*BOTTOM, "files", "flow", "prior", "rotations"},
    "__main__": {"command"},
}
# Modules of flowprior.prior that know neither flow nor prior.
LAYER = {"prior.spaces": "spaces", "prior.second_look": "spaces"}


def modules() -> dict[str, Path]:
    """Every module by its name inside the package; a package's ``__init__`` by that of the package.

    The package itself is ``__init__``.
    """
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


MODULES = modules()


def imports_of(source: str, module: str) -> set[str]:
    """The modules of flowprior that a source imports, also inside functions and for types only."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            base = node.module or ""
            # A name may be a module of its own.
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "flowprior":
                found.add(_module_in(name))
    return found


def _module_in(name: str) -> str:
    """The longest part of a dotted name that is a module."""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "__init__"


def layer_of(module: str) -> str:
    return LAYER.get(module, module.split(".")[0])


GRAPH = {name: imports_of(path.read_text(encoding="utf-8"), name) for name, path in MODULES.items()}


@pytest.mark.parametrize("layer", sorted(MAY_IMPORT))
def test_arrows_point_downwards(layer):
    upward = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        if layer_of(module) == layer
        for other in others
        if layer_of(other) not in {layer, *MAY_IMPORT[layer]}
        # A package hands on the names of its modules, also those of another layer.
        and not (LAYER.get(other) and module == other.split(".")[0])
    ]
    assert not upward


def test_every_module_has_a_layer():
    assert {layer_of(module) for module in MODULES} == set(MAY_IMPORT)


def test_layers_have_no_circle():
    assert circle_in(MAY_IMPORT) is None


def test_modules_have_no_circle():
    assert circle_in(GRAPH) is None


def test_the_top_level_has_at_most_ten_files():
    assert len(list(PACKAGE.glob("*.py"))) <= 10


def circle_in(graph):
    """A list of nodes that import each other in a circle, or None."""
    done = set()

    def visit(node, path):
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for other in sorted(graph.get(node, ())):
            found = visit(other, [*path, node])
            if found:
                return found
        done.add(node)
        return None

    return next(filter(None, (visit(node, []) for node in sorted(graph))), None)


def test_circles_are_found():
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_lazy_and_type_imports_count():
    source = """
from typing import TYPE_CHECKING
from flowprior import rotations, __version__
if TYPE_CHECKING:
    from flowprior.body import BodyModel
def call():
    import flowprior.prior.spaces
    from flowprior.flow.stack import FlowStack
"""
    expected = {"rotations", "__init__", "body", "prior.spaces", "flow.stack"}
    assert imports_of(source, "x") == expected
