"""Documentation: code blocks run, commands exist, every public name has a page."""

import ast
import importlib
import pkgutil
import re
import warnings
from importlib.util import find_spec

import pytest
import torch

import flowprior
from tests.docs.pages import PAGES, ROOT, name_of
from tools import run_docs

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Fences that the pattern above misses, and Python that no test would run.
OTHER_FENCE = re.compile(
    r"^[ \t>]+`{3,}\s*python|^(`{4,}|~{3,})\s*python|code-block\}\s*py|>>> ", re.M
)
PROGRAM = re.compile(r"-m ((?:examples|benchmarks|tools|flowprior)[\w.]*)")
TARGET = re.compile(r"^make ([\w-]+)", re.MULTILINE)

PAGES_WITH_CODE = [path for path in PAGES if BLOCK.search(path.read_text(encoding="utf-8"))]
# `make guides` and `make package` run those of the front pages and the guides.
OTHER_PAGES = [path for path in PAGES_WITH_CODE if path not in run_docs.pages()]
GALLERY = sorted((ROOT / "docs" / "gallery").rglob("*.py"))
# Modules whose names do not start with an underscore, at any depth.
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(flowprior.__path__, "flowprior.")
    if not any(part.startswith("_") for part in info.name.split("."))
)


@pytest.mark.parametrize("path", OTHER_PAGES, ids=name_of)
def test_blocks_run_in_order(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = path.read_text(encoding="utf-8")
    namespace = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        # Empty lines before the code: a traceback then has the page's own line numbers.
        lines_before = text.count("\n", 0, block.start(1))
        exec(compile("\n" * lines_before + block[1], str(path), "exec"), namespace)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_no_python_escapes_the_tests(path):
    assert not OTHER_FENCE.search(path.read_text(encoding="utf-8"))


def test_the_front_pages_have_code():
    names = [name_of(path) for path in PAGES_WITH_CODE]
    assert {"README.md", "docs/index.md", "docs/quick-start.md"} <= set(names)
    assert {"examples/lifting/README.md", "CONTRIBUTING.md"} <= {name_of(path) for path in PAGES}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_exist(path):
    text = path.read_text(encoding="utf-8")
    missing = [name for name in PROGRAM.findall(text) if "NAME" not in name and not find_spec(name)]
    targets = re.findall(
        r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    missing += [f"make {name}" for name in TARGET.findall(text) if name not in targets]
    assert missing == []


@pytest.mark.parametrize("path", GALLERY, ids=name_of)
def test_the_gallery_is_run_by_the_build(path):
    # sphinx-gallery runs what is called plot_*, and shows all else without running it.
    assert path.name.startswith("plot_")
    header = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert header.splitlines()[1] == "=" * len(header.splitlines()[0])
    order = ROOT / "docs" / "drawings" / "gallery_tools.py"
    assert f'"{path.stem.removeprefix("plot_")}"' in order.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """The Python names that Sphinx finds on the pages of docs/api."""
    sphinx = pytest.importorskip("sphinx.application")
    from sphinx.util.docutils import docutils_namespace

    docs, out = ROOT / "docs", tmp_path_factory.mktemp("api")
    # Sphinx and its extensions warn of what they will change themselves.
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")
        app = sphinx.Sphinx(
            docs,
            docs,
            out,
            out / "doctrees",
            "dummy",
            confoverrides={
                "extensions": ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"],
                "root_doc": "api/index",
                "exclude_patterns": ["[!a]*/**", "[!a]*", "auto_gallery/**"],
                "html_theme": "alabaster",
                "nitpicky": False,
            },
            status=None,
            warning=None,
        )
        app.build()
        return set(app.env.get_domain("py").objects)


def is_documented(module, name, documented):
    """Whether a name of a module is on a page, there or where it is defined or taken over."""
    homes = [where.rpartition(".")[0] for where in documented if where.endswith(f".{name}")]
    return any(
        getattr(importlib.import_module(home), name, None) is getattr(module, name)
        for home in homes
        if home in MODULES
    )


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_page(name, documented):
    module = importlib.import_module(name)
    public = getattr(module, "__all__", ())
    assert [each for each in public if not is_documented(module, each, documented)] == []


def test_the_face_of_the_library_has_pages(documented):
    names = [name for name in flowprior.__all__ if not name.startswith("__")]
    modules = {f"flowprior.{name}" for name in names} & documented
    assert [
        name
        for name in names
        if f"flowprior.{name}" not in modules and not is_documented(flowprior, name, documented)
    ] == []
