"""The Markdown pages of the repository."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILT = ("_build", "auto_gallery")  # folders in docs that the build writes


def _pages():
    yield from (
        ROOT / name
        for name in (
            "README.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
            "SECURITY.md",
            "CODE_OF_CONDUCT.md",
        )
    )
    for folder in ("docs", "examples", "benchmarks", "flowprior"):
        for path in sorted((ROOT / folder).rglob("*.md")):
            if not set(BUILT) & set(path.relative_to(ROOT).parts):
                yield path


def name_of(path):
    """The path of a page relative to the repository."""
    return path.relative_to(ROOT).as_posix()


PAGES = list(_pages())
