"""The device a command asks for, and how it says that something is wrong."""

import pytest
import torch

from examples.command_line import device_of, fail


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_of(choice).type for choice in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [device_of(choice).type for choice in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(ValueError, match="--device cuda: this PyTorch finds no GPU"):
        device_of("cuda")
    with pytest.raises(ValueError, match="one of auto, cpu, cuda, got 'tpu'"):
        device_of("tpu")


def test_what_is_wrong_is_one_line_and_code_2(capsys):
    assert fail(ValueError("no such file")) == 2
    assert capsys.readouterr().err == "error: no such file\n"
