"""Links of the documentation: those that lead nowhere, and those that leave it.

    python -m tools.links

prints what is broken, then every external address with the pages it is on; no network is used.
``make linkcheck`` asks the external ones, where there is a network.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["anchors", "broken_links", "external_links", "links", "pages"]

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/flowprior/flowprior/blob/main/"
MADE = ("_build", "auto_gallery")  # by the build, in docs

FENCE = re.compile(r"^\s*(`{3,}|~{3,})(\{?)")
CODE = re.compile(r"`[^`\n]+`(?!\S*>`)")
PATTERNS = (
    re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)"),  # [text](target), images too
    re.compile(r"^\s*\[[^\]]+\]:\s+(\S+)", re.MULTILINE),  # [text]: target
    re.compile(r"^`{3,}\{(?:image|figure|include|literalinclude)\}\s+(\S+)", re.MULTILINE),
    re.compile(r"^:file:\s+(\S+)", re.MULTILINE),
    re.compile(r"<(https?://[^>\s]+)>"),
)
DOC_ROLE = re.compile(r"\{doc\}`[^`]*?<?([^`<>]+)>?`")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
LABEL = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)
BARE = re.compile(r"https?://[^\s<>\"'`)\]}|]+")


def pages(root: Path = ROOT) -> list[Path]:
    """Every Markdown page that people read: README, CONTRIBUTING, docs, examples, benchmarks."""
    found = [root / "README.md", root / "CONTRIBUTING.md", root / "CHANGELOG.md"]
    for folder in ("docs", "examples", "benchmarks", "flowprior"):
        found += [
            path
            for path in sorted((root / folder).rglob("*.md"))
            if not set(MADE) & set(path.relative_to(root).parts)
        ]
    return [path for path in found if path.is_file()]


def _without_code(text: str) -> str:
    """A page with its blocks of code blanked out, line by line; directives stay."""
    lines, fence, is_code = [], "", False
    for line in text.split("\n"):
        match = FENCE.match(line)
        if not fence and match:
            fence, is_code = match[1], not match[2]
            lines.append("" if is_code else line)
        elif fence and line.strip() == fence:
            lines.append("")
            fence, is_code = "", False
        else:
            lines.append("" if is_code else line)
    return "\n".join(lines)


def links(page: Path) -> Iterator[tuple[int, str]]:
    """The targets of all links and pictures of a page, with their lines.

    Args:
        page: A Markdown file.

    Yields:
        Number of the line, from 1, and the target as it is written; ``{doc}`` roles with the
        ending of the file they name.
    """
    text = page.read_text(encoding="utf-8")
    plain = _without_code(text)
    found = []
    for match in DOC_ROLE.finditer(plain):
        target = match[1]
        made = MADE[1] + "/"
        if made in target:  # a page of the gallery is made of a program
            before, _, name = target.partition(made)
            name = re.sub(r"index$", "GALLERY_HEADER", name)
            ending = ".rst" if name.endswith("GALLERY_HEADER") else ".py"
            target = f"{before}gallery/{name}{ending}"
        else:
            target += ".md"
        found.append((match.start(), target))
    plain = DOC_ROLE.sub("", plain)
    plain = CODE.sub(lambda match: " " * len(match[0]), plain)
    for pattern in PATTERNS:
        found += [(match.start(1), match[1]) for match in pattern.finditer(plain)]
    for start, target in sorted(found):
        yield plain.count("\n", 0, start) + 1, target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them, and its labels."""
    text = _without_code(page.read_text(encoding="utf-8"))
    names = set(LABEL.findall(text))
    for heading in HEADING.findall(text):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number, unique = 0, slug
        while unique in names:
            number += 1
            unique = f"{slug}-{number}"
        names.add(unique)
    return names


def broken_links(page: Path, root: Path = ROOT) -> list[str]:
    """What is wrong with the links of a page that stay inside the repository.

    Args:
        page: A Markdown file.
        root: Of the repository.

    Returns:
        One line for each, "page:line: target: why"; none if all is well.
    """
    problems = []
    for line, target in links(page):
        if target.startswith(REPOSITORY):
            path, fragment = root / target[len(REPOSITORY) :].partition("#")[0], ""
        elif re.match(r"[a-z]+:", target):
            continue
        else:
            name, _, fragment = target.partition("#")
            path = (page.parent / name) if name else page
        where = f"{page.relative_to(root)}:{line}: {target}"
        if not path.exists():
            problems.append(f"{where}: there is no {path}")
        elif fragment and path.suffix == ".md" and fragment not in anchors(path):
            problems.append(f"{where}: no heading of {path.name} has this anchor")
    return problems


def external_links(root: Path = ROOT) -> dict[str, list[str]]:
    """Every address outside of the repository, with the pages and programs it is on.

    Args:
        root: Of the repository.

    Returns:
        Names of files relative to the root, by address, both in order.
    """
    files = [*pages(root), root / "pyproject.toml", root / "CITATION.cff"]
    for folder in ("flowprior", "docs", "examples"):
        files += [path for path in (root / folder).rglob("*.py") if not set(MADE) & set(path.parts)]
    found: dict[str, set[str]] = {}
    for path in files:
        if not path.is_file():
            continue
        for match in BARE.finditer(path.read_text(encoding="utf-8")):
            found.setdefault(match[0].rstrip(".,;:"), set()).add(str(path.relative_to(root)))
    return {address: sorted(found[address]) for address in sorted(found)}


def main() -> int:
    """Print both; returns 1 if a link is broken."""
    problems = [problem for page in pages() for problem in broken_links(page)]
    for problem in problems:
        print(problem)
    for address, where in external_links().items():
        print(f"{address}    {', '.join(where)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
