"""Damaged files of every kind: a small share of what ``tools/fuzz_files.py`` does."""

import sys

import pytest

from tools import fuzz_files
from tools.fuzz_files import attempt, main, make_sources, mutant, run

MUTANTS = range(184)


@pytest.fixture(scope="module")
def sources():
    return make_sources()


def test_a_mutant_follows_from_its_number(sources):
    for number in (3, 11, 40):
        source, content = mutant(number, sources)
        assert mutant(number, sources) == (source, content)
        assert content != source.content
    again = {source.name: source.content for source in make_sources()}
    names = ("model.safetensors", "smpl_2.pkl", "coco.json", "image.png")
    assert all(again[source.name] == source.content for source in sources if source.name in names)


def test_whole_files_are_read(sources, tmp_path):
    for source in sources:
        path = tmp_path / source.name
        path.write_bytes(source.content)
        # A format that is recognised and not read.
        expected = {"legacy.pt": "CheckpointError"}
        assert attempt(source.read, path) == expected.get(source.name, "")
        path.unlink()


def test_damaged_files_are_read_or_refused(sources, tmp_path):
    said = {}
    for number in MUTANTS:
        source, content = mutant(number, sources)
        path = tmp_path / source.name
        path.write_bytes(content)
        said[number] = attempt(source.read, path)
        path.unlink()
    assert not {number: what for number, what in said.items() if what.startswith("FAULT")}
    assert 20 < sum(not what for what in said.values()) < 150


def hang(path):
    while True:
        pass


def crash(path):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def run_a_program(path):
    import os

    os.system("true")


def explode(path):
    raise KeyError(path)


def exhaust(path):
    bytearray(2**34)


def say_nothing(path):
    raise ValueError("no")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and /proc")
@pytest.mark.parametrize(
    ("read", "said"),
    [
        (hang, "took too long"),
        (crash, "ended the process"),
        (run_a_program, "ended the process, status 25344"),
        (explode, "KeyError"),
        (exhaust, "MemoryError"),
        (say_nothing, "no file name"),
    ],
)
def test_faults_are_found(read, said, monkeypatch):
    # The child first reads every file whole; that must not be what fails.
    def later(path):
        if path.read_bytes() != b"whole":
            read(path)

    source = fuzz_files.Source("a", b"whole", later)
    found = list(run([1, 2], [source], seconds=0.5))
    assert [number for number, *_ in found] == [1, 2]
    for _, _, what, *_ in found:
        assert what.startswith("FAULT")
        assert said in what


def test_the_program_reports(monkeypatch, capsys):
    monkeypatch.setattr(fuzz_files, "make_sources", lambda: [fuzz_files.Source("a", b"x", len)])
    assert main(["--mutants", "2"]) == 1
    assert "2 mutants of 1 files: FAULT 2" in capsys.readouterr().out
