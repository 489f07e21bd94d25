"""The page of benchmarks contains committed results and says how each was obtained."""

import re

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "reference" / "benchmarks.md"
INCLUDE = re.compile(
    r"^```\{include\} (\S+)\n:start-after: (.+)\n:end-before: (.+)\n```$", re.MULTILINE
)
FIELDS = ("Command", "Data", "Seeds", "Machine", "Date")


def includes():
    """Name and content of every block that the page includes, in order."""
    for file, begin, end in INCLUDE.findall(PAGE.read_text(encoding="utf-8")):
        text = (PAGE.parent / file).resolve().read_text(encoding="utf-8")
        assert (text.count(begin), text.count(end)) == (1, 1), begin
        yield (
            begin.removeprefix("<!-- ").partition(":")[0],
            text.partition(begin)[2].partition(end)[0],
        )


def test_the_page_has_no_figures_of_its_own():
    own = INCLUDE.sub("", PAGE.read_text(encoding="utf-8"))
    assert not re.search(r"^\|", own, re.MULTILINE)
    assert not re.search(r"\d+\.\d", own)


def test_every_section_begins_with_its_conditions():
    names = [name for name, _ in includes()]
    assert len(names) == len(set(names)) >= 10
    sections = re.split(r"^##+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for section in sections:
        first = INCLUDE.search(section)
        assert first is None or first[2].startswith("<!-- page "), section.partition("\n")[0]


PAGES = [pytest.param(block, id=name) for name, block in includes() if name.startswith("page")]


@pytest.mark.parametrize("block", PAGES)
def test_conditions_are_complete(block):
    conditions = dict(re.findall(r"^\* (\w+): ((?:.|\n  )+)", block, re.MULTILINE))
    assert tuple(conditions) == FIELDS
    assert "python -m" in conditions["Command"]
    assert re.fullmatch(r"\d{1,2} \w+ 20\d\d", conditions["Date"])
