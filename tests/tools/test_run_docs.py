"""The script for the code of the pages: what it finds, runs and leaves out."""

import os

import pytest

from tools.run_docs import ROOT, Skipped, blocks_of, commands_of, main, pages, run_page

PAGE = """# A page

```bash
echo one
echo two \\
    three
```

<!-- not run: needs a licence -->
```python
missing
```

<!-- not run `echo five`: serves until Ctrl-C -->
<!-- not run `echo six`: needs data -->
```bash
echo four
echo five  # a comment
echo six
```

```text
output
```

```python
x = 1
```
"""
needs_shell = pytest.mark.skipif(os.name != "posix", reason="commands need a POSIX shell")


def write(folder, text):
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_blocks_of_a_page():
    first, second, third, fourth = blocks_of(PAGE, "page.md")
    assert commands_of(first.code) == ["echo one", "echo two \\\n    three"]
    assert (first.line, first.place, first.skipped) == (4, "page.md:4", ())
    assert second.code == ""
    assert second.skipped == (Skipped("page.md:11", "Python", "needs a licence"),)
    assert third.code == "echo four\n"
    assert [each.what for each in third.skipped] == ["echo five", "echo six"]
    assert fourth.code == "x = 1\n"


@pytest.mark.parametrize(
    ("comment", "message"),
    [("<!-- not run -->", "page:3: unreadable"), ("<!-- not run `rm`: no -->", "starts with 'rm'")],
)
def test_comments_with_mistakes(comment, message):
    with pytest.raises(ValueError, match=message):
        blocks_of(f"{comment}\n```bash\nls\n```\n", "page")


def test_pages_are_the_front_door_and_the_guides():
    names = [path.relative_to(ROOT).as_posix() for path in pages()]
    assert names[:3] == ["README.md", "docs/index.md", "docs/quick-start.md"]
    guides = {
        path.relative_to(ROOT).as_posix()
        for folder in ("how-to", "coming-from")
        for path in (ROOT / "docs" / folder).glob("*.md")
    }
    assert sorted(names[3:]) == sorted(guides)


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_comments_of_the_pages_are_readable(path):
    text = path.read_text(encoding="utf-8")
    blocks = blocks_of(text, path.name)
    assert len([each for block in blocks for each in block.skipped]) == text.count("<!-- not run")


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_commands_of_the_pages_need_only_the_wheel_and_the_examples(path):
    blocks = blocks_of(path.read_text(encoding="utf-8"), path.name)
    found = [each for b in blocks if b.language == "bash" for each in commands_of(b.code)]
    known = ("pip install '", "flowprior ", "python -m flowprior ", "python -m examples.")
    assert [each for each in found if not each.startswith(known)] == []


@pytest.fixture(autouse=True)
def _same_folder(monkeypatch):
    monkeypatch.chdir(ROOT)  # restored afterwards


@needs_shell
def test_commands_and_python_share_a_folder(tmp_path):
    text = (
        "```python\nfrom pathlib import Path\nPath('a').touch()\nx = 1\n```\n"
        "```bash\nmv a b\ntest -f keypoints.json\ntest -d examples\n```\n"
        "```python\nassert Path('b').exists() and x == 1\n```\n"
    )
    outcome = run_page(write(tmp_path, text), tmp_path / "work", None)
    assert outcome.error is None
    assert (outcome.python, outcome.commands) == (2, 3)


@needs_shell
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("```bash\necho first; false\n```", "page.md:2: exit code 1"),
        ("```python\n\nmissing\n```", 'page.md", line 3'),
        ("```python\nimport warnings\nwarnings.warn('old')\n```", "UserWarning: old"),
    ],
)
def test_the_first_error_ends_the_page(tmp_path, code, message):
    page = write(tmp_path, f"{code}\n\n```python\nnever = 1\n```\n")
    outcome = run_page(page, tmp_path / "work", None)
    assert message in outcome.error
    assert outcome.python == 0


@needs_shell
@pytest.mark.parametrize("source", [".", "flowprior"])
def test_pip_installs_the_wheel(tmp_path, source):
    page = write(tmp_path, f"```bash\npip install '{source}[fit,view]'\n```\n")
    outcome = run_page(page, tmp_path / "work", tmp_path / "missing.whl")
    assert "missing.whl[fit,view]" in outcome.error


@needs_shell
def test_without_a_wheel_nothing_is_installed(tmp_path):
    page = write(tmp_path, "```bash\npip install '.[fit]'    # a comment\n```\n")
    assert run_page(page, tmp_path / "work", None).error is None


def test_the_exit_code_and_the_report(tmp_path, capfd):
    page = write(tmp_path, "<!-- not run: needs a GPU -->\n```bash\nls\n```\n")
    assert main([str(page)]) == 0
    report = capfd.readouterr().out
    assert "page.md: 0 Python blocks, 0 commands" in report
    assert "page.md:3: ls\n    needs a GPU" in report
    page.write_text("```python\n1 / 0\n```\n", encoding="utf-8")
    assert main([str(page)]) == 1
