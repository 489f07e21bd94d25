"""The README is short, and its figures are those of the pages that it names."""

import re

import pytest

from tests.docs.pages import ROOT
from tests.docs.test_links import targets

README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
LINK = re.compile(r"\]\(([^)#]+)")
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)")


def rows():
    """Cells of the rows of the README's table of claims."""
    text = README.read_text(encoding="utf-8").partition("## What sets it apart")[2]
    lines = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| **")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_five_claims_and_two_screens():
    assert len(rows()) == 5
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert sum(line.startswith("![") for line in lines) == 1


@pytest.mark.parametrize("cells", rows(), ids=lambda cells: re.sub(r"\W+", "-", cells[0][:30]))
def test_figures_of_claims_are_measured(cells):
    _, measured, sources = cells
    pages = [ROOT / target for target in LINK.findall(sources)]
    assert any(page.is_relative_to(ROOT / "docs") for page in pages)
    assert any(page.is_relative_to(ROOT / "tests") for page in pages)
    assert re.search(r"`python -m benchmarks", sources)
    known = "\n".join(
        path.read_text(encoding="utf-8") for path in [RESULTS, *pages] if path.suffix == ".md"
    )
    figures = set(NUMBER.findall(measured))
    assert figures
    assert figures - set(NUMBER.findall(known)) == set()


def test_home_and_readme_show_the_same_picture():
    (picture,) = (target for target in targets(README) if target.endswith(".png"))
    home = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert picture.removeprefix("docs/") in home
