"""The Python blocks of the README and the documentation run as they stand."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "docs" / "_build"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Fences that the pattern above would miss, and Python that nobody would run.
OTHER_FENCE = re.compile(
    r"^[ \t>]+`{3,}\s*python|^(`{4,}|~{3,})\s*python|code-block\}\s*py|>>> ", re.M
)

PAGES = sorted(
    path
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if BUILT not in path.parents
)
PAGES_WITH_CODE = [path for path in PAGES if BLOCK.search(path.read_text(encoding="utf-8"))]


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
    assert {"README.md", "docs/index.md", "docs/guide/start.md"} <= set(names)
