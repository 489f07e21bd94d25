"""Device selection and error messages of command-line programs."""

import io
import os
import sys
from pathlib import Path

import pytest
import torch

import examples
from examples.command_line import device_of, fail, interruptible


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_of(choice).type for choice in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [device_of(choice).type for choice in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(ValueError, match="--device cuda: PyTorch finds no GPU"):
        device_of("cuda")
    with pytest.raises(ValueError, match="one of auto, cpu, cuda, got 'tpu'"):
        device_of("tpu")


def test_usage_error_is_one_line_and_exit_code_2(capsys):
    assert fail(ValueError("no such file")) == 2
    assert capsys.readouterr().err == "error: no such file\n"


def test_interrupted_program_reports_it_and_exits_with_130(capsys):
    @interruptible("nothing was written")
    def main(argv=None, *, stop=True):
        """A program."""
        if stop:
            raise KeyboardInterrupt
        return 1

    assert main() == 130
    assert capsys.readouterr().err == "\ninterrupted; nothing was written\n"
    assert main(stop=False) == 1
    assert main.__doc__ == "A program."


def test_output_that_cannot_be_encoded_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))

    @interruptible("nothing was written")
    def main():
        print("\u65e5\u672c", flush=True)
        return 0

    assert main() == 0
    assert raw.getvalue() == rb"\u65e5\u672c" + os.linesep.encode()


def test_programs_escape_unprintable_characters():
    for path in sorted(Path(examples.__path__[0]).glob("*/*.py")):
        text = path.read_text(encoding="utf-8")
        if "\ndef main(" in text:
            # The shared trainer does it for the programs that train.
            escapes = ("\n@interruptible(", "\n    escape_unencodable()\n", "Trainer(")
            assert any(part in text for part in escapes), path


def test_every_program_can_be_interrupted():
    # Lightning handles Ctrl-C in trainings, which have other tests.
    trained = {"train"}
    for path in sorted(Path(examples.__path__[0]).glob("*/*.py")):
        text = path.read_text(encoding="utf-8")
        if "\ndef main(" in text and path.stem not in trained | {"__main__"}:
            assert "\n@interruptible(" in text, path
