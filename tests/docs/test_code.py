"""Documentation: code blocks run, links resolve, every public name has a page."""

import ast
import importlib
import pkgutil
import re
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import flowprior
from tools.links import broken_links, external_links, pages

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "docs" / "_build"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Fences that the pattern above misses, and Python that no test would run.
OTHER_FENCE = re.compile(
    r"^[ \t>]+`{3,}\s*python|^(`{4,}|~{3,})\s*python|code-block\}\s*py|>>> ", re.M
)
PROGRAM = re.compile(r"-m ((?:examples|benchmarks|tools|flowprior)[\w.]*)")
TARGET = re.compile(r"^make ([\w-]+)", re.MULTILINE)

PAGES = pages()
PAGES_WITH_CODE = [path for path in PAGES if BLOCK.search(path.read_text(encoding="utf-8"))]
GALLERY = sorted((ROOT / "docs" / "gallery").rglob("*.py"))
# Modules whose names do not start with an underscore, at any depth.
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(flowprior.__path__, "flowprior.")
    if not any(part.startswith("_") for part in info.name.split("."))
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PAGES_WITH_CODE, ids=name_of)
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
def test_links_inside_lead_somewhere(path):
    assert broken_links(path) == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# A heading, with 'quotes'\n\n```bash\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#a-heading-with-quotes) [b](other.md#no-heading) ![c](gone.png)\n"
        "`[code](nowhere)` [d](https://example.org/x) {doc}`text <gone/page>`\n\n"
        "```{image} lost.png\n```\n\n```text\n[code](nowhere)\n```\n\n[e]: lost.md\n"
    )
    found = [problem.split(": ")[0:2] for problem in broken_links(page, tmp_path)]
    assert found == [
        ["page.md:1", "other.md#no-heading"],
        ["page.md:1", "gone.png"],
        ["page.md:2", "gone/page.md"],
        ["page.md:4", "lost.png"],
        ["page.md:11", "lost.md"],
    ]


def test_external_links_are_collected():
    found = external_links()
    assert "README.md" in found["https://arxiv.org/abs/2108.11944"]
    assert all(re.match(r"https?://[\w.-]+\.\w+", address) for address in found)


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
