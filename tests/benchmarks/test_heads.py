"""The cost of a head, as promised: at most a tenth of a ViT-H forward pass."""

import json

import pytest
import torch
from torch import nn

from benchmarks import heads


def test_operations_are_counted_exactly():
    layer = nn.Linear(7, 5)
    assert heads.count(lambda: layer(torch.zeros(3, 7))) == 2 * 3 * 7 * 5


@pytest.mark.slow
def test_a_head_costs_at_most_a_tenth_of_vit_h():
    reference = heads.count_vit_h()
    # 192 patches and a class token: 12 width^2 weights a layer, and attention over the tokens.
    tokens, width, layers = 193, 1280, 32
    products = 2 * layers * tokens * (12 * width**2 + 2 * tokens * width)
    assert reference == pytest.approx(products, rel=0.01)
    calls = heads.cases(torch.device("cpu"), 2)
    for name, call in calls.items():
        if name.startswith("head"):
            assert 0 < heads.count(call) / 2 < 0.1 * reference
    assert len(calls) == 4


@pytest.mark.slow
def test_the_program(tmp_path, capsys):
    path = tmp_path / "heads.json"
    assert heads.main(["--rounds", "1", "--batches", "1", "--json", str(path)]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))["cases"]
    assert [each["name"] for each in found][:2] == ["ViT-H", "ResNet-50"]
    assert found[0]["ms"] is None
    assert all(each["ms"] > 0 for each in found[1:])
    assert "of ViT-H" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_an_error(capsys):
    assert heads.main(["--device", "cuda"]) == 2
    assert "finds no GPU" in capsys.readouterr().err
