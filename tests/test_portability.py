"""Assumptions about other systems: names of files, encodings, paths of Windows, new processes."""

import ast
import os
import re
import sys
from collections import Counter
from pathlib import Path, PureWindowsPath

import pytest

import flowprior
from flowprior import CheckpointError, ConditionalPosePrior
from tests.processes import run

PACKAGE = Path(flowprior.__file__).parent
ROOT = Path(__file__).parents[1]
# Beside the tests of an installed package there are no examples.
SOURCES = [PACKAGE, *(path for path in [ROOT / "examples"] if path.is_dir())]
# Folders whose text files are UTF-8 on every system.
TESTS = [ROOT / "tests" / name for name in ("examples", "files", "tools", "benchmarks", "docs")]
PROGRAMS = [ROOT / name for name in ("benchmarks", "tools", "docs")]
READERS = [*SOURCES, *(path for path in (*PROGRAMS, *TESTS) if path.is_dir())]
BUILT = {"__pycache__", "_build", "auto_gallery"}
MODE = re.compile("[rwaxbt+]+")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def files():
    for folder in {*SOURCES, ROOT / "tests", ROOT / "docs"}:
        for path in folder.rglob("*"):
            if path.is_file() and not BUILT & set(path.parts):
                yield path.relative_to(folder.parent).as_posix()


def without_encoding(source):
    """Line numbers of calls that open a text file in the encoding of the system."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function, given = node.func, {keyword.arg: keyword.value for keyword in node.keywords}
        if isinstance(function, ast.Name) and function.id == "open":
            mode = node.args[1] if len(node.args) > 1 else given.get("mode")
        elif isinstance(function, ast.Attribute) and function.attr in ("open", "write_text"):
            # `Path.open` begins with the mode; others, of archives or pictures, with a file.
            mode = node.args[0] if node.args else given.get("mode")
            if function.attr == "write_text":
                mode = None
            elif mode is not None and not (
                isinstance(mode, ast.Constant) and MODE.fullmatch(str(mode.value))
            ):
                continue
        elif isinstance(function, ast.Attribute) and function.attr == "read_text":
            if node.args:
                continue
            mode = None
        else:
            continue
        is_binary = isinstance(mode, ast.Constant) and "b" in mode.value
        if not is_binary and "encoding" not in given:
            yield node.lineno


@pytest.mark.parametrize("folder", READERS, ids=lambda folder: folder.name)
def test_every_text_file_is_opened_in_utf_8(folder):
    found = [
        f"{path.relative_to(folder.parent)}:{line}"
        for path in sorted(folder.rglob("*.py"))
        if not BUILT & set(path.parts)
        for line in without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_a_missing_encoding_is_found():
    wrong = 'open(p)\nopen(p, "w")\np.read_text()\np.write_text(t)\np.open("a")\n'
    assert list(without_encoding(wrong)) == [1, 2, 3, 4, 5]
    right = (
        'open(p, "rb")\np.open("wb")\nopen(p, mode="rb")\nopen(p, encoding="utf-8")\n'
        'p.read_text("utf-8")\np.write_text(t, encoding="utf-8")\nos.open(p, flags)\n'
        "archive.open(info)\narchive.open('a.npy', 'w')\nwrite_text(p, t)\n"
    )
    assert list(without_encoding(right)) == []


def test_names_of_files_differ_by_more_than_case():
    counts = Counter(name.casefold() for name in files())
    assert [name for name, count in counts.items() if count > 1] == []


def test_names_of_files_are_valid_on_windows():
    for name in files():
        for part in name.split("/"):
            assert not RESERVED.fullmatch(part), name
            assert not re.search(r'[<>:"|?*\\]|[ .]$', part), name
        assert len(name) < 150, name


def test_names_of_modules_differ_by_more_than_case_from_public_names():
    # `from flowprior.prior import Evidence` must not find evidence.py as Evidence.
    for package in {path.parent for path in PACKAGE.rglob("*.py")}:
        modules = Counter(path.stem.casefold() for path in package.glob("*.py"))
        assert max(modules.values()) == 1


@pytest.mark.parametrize("path", [r"C:\models\prior", r"\\server\models\prior", r"models\prior"])
def test_a_path_of_windows_is_no_name_on_the_hub(path, monkeypatch):
    assert PureWindowsPath(path).name == "prior"
    # On Windows this is a folder that does not exist; nothing may be requested from the hub.
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises((FileNotFoundError, CheckpointError, ValueError), match="prior"):
        ConditionalPosePrior.from_pretrained(path)


def test_paths_can_be_strings_with_spaces_and_letters_of_any_script(tmp_path):
    path = os.fspath(tmp_path / "Prior für 人 1.safetensors")
    prior = ConditionalPosePrior(0, joints=2, hidden_features=4)
    prior.save(path)
    assert ConditionalPosePrior.load(path).config == prior.config


SPAWNED = """
import multiprocessing
import torch
from flowprior import ConditionalPosePrior

def work(prior, theta):
    return prior.log_prob(theta).tolist(), prior(None).mode().tolist()

if __name__ == "__main__":
    torch.manual_seed(0)
    prior = ConditionalPosePrior(0, joints=2, hidden_features=4).eval().requires_grad_(False)
    theta = torch.randn(3, 2, 3)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(work, (prior, theta)) == work(prior, theta)
"""


@pytest.mark.slow
def test_a_prior_can_be_sent_to_a_spawned_process(tmp_path):
    # How Windows and macOS start the workers of a DataLoader.
    program = tmp_path / "program.py"
    program.write_text(SPAWNED, encoding="utf-8")
    done = run([sys.executable, str(program)])
    assert done.returncode == 0, done.stderr


def test_no_module_needs_posix():
    # Modules that Windows lacks are imported only where their absence is handled.
    lacking = {"fcntl", "grp", "pwd", "resource", "termios", "readline"}
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:  # an import inside `try` is not at the top
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [f"{path.name}: {name}" for name in names if name in lacking]
    assert found == []
