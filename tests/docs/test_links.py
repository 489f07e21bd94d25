"""Links of the pages that Sphinx does not build, and links to files of the repository on GitHub.

Sphinx checks the links between the pages of docs/: its build fails on a warning.
"""

import itertools
import re
from urllib.parse import unquote

import pytest

from tests.docs.pages import PAGES, ROOT, name_of

markdown_it = pytest.importorskip("markdown_it", reason="parses Markdown: flowprior[docs]")
slugify = pytest.importorskip("mdit_py_plugins.anchors.index").slugify

GITHUB = "https://github.com/flowprior/flowprior/blob/main/"
PARSER = markdown_it.MarkdownIt("commonmark")


def targets(page):
    """The targets of links and images of a page, in order."""
    tokens = PARSER.parse(page.read_text(encoding="utf-8"))
    for token in (child for block in tokens for child in block.children or ()):
        if token.type in ("link_open", "image"):
            yield unquote(token.attrs.get("href") or token.attrs.get("src"))


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    tokens = PARSER.parse(page.read_text(encoding="utf-8"))
    for heading, title in itertools.pairwise(tokens):
        if heading.type == "heading_open":
            text = (
                child.content for child in title.children if child.type in ("text", "code_inline")
            )
            yield slugify("".join(text))


def broken(page, root=ROOT):
    """The links of a page to files and anchors that do not exist."""
    is_built = page.is_relative_to(root / "docs")
    for target in targets(page):
        name, _, anchor = target.removeprefix(GITHUB).partition("#")
        if target.startswith(GITHUB):
            path = root / name
        elif is_built or re.match(r"[a-z]+:", target):
            continue
        else:
            path = page.parent / name if name else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            yield target


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_resolve(path):
    assert list(broken(path)) == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text(
        "# A `heading`, with 'quotes'\n\n```bash\n# none\n```\n", encoding="utf-8"
    )
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#a-heading-with-quotes) [b](other.md#none) ![c](gone.png) [d](#here)\n"
        f"`[code](nowhere)` [e](https://example.org/x) [f]({GITHUB}lost.md)\n\n"
        "```text\n[code](nowhere)\n```\n\n[g]\n\n[g]: gone.md\n",
        encoding="utf-8",
    )
    missing = ["other.md#none", "gone.png", "#here", f"{GITHUB}lost.md", "gone.md"]
    assert list(broken(page, tmp_path)) == missing
