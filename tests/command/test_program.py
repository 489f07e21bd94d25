import shlex
import sys

import pytest
import torch

from flowprior import ConditionalPosePrior
from flowprior.command import main
from tests import oracle
from tests.processes import run
from tests.prohmr.test_weights import save, tensors


@pytest.fixture
def original(tmp_path):
    state = tensors(oracle.random_state_dict(144, 20, hidden_features=16, prefix="flow.flow."))
    return save(tmp_path / "original.pt", {"state_dict": state})


def test_convert_then_info(original, tmp_path, capsys):
    target = tmp_path / "prior.safetensors"
    assert main(["convert", str(original), str(target)]) == 0
    out = capsys.readouterr().out
    assert f"reading {original}" in out
    assert f"writing {target}" in out
    prior = ConditionalPosePrior.load(target)
    assert prior.provenance == {"converted_from": "original.pt"}

    assert main(["info", str(target)]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["pose"] == "24 joints in 6D, 144 features"
    assert rows["layout"] == "columns"
    assert rows["context"] == "20 features"
    assert rows["preset"] == "prohmr"
    assert rows["flow"] == "4 steps, 2 blocks, 16 hidden features"
    count = sum(p.numel() for p in prior.parameters())
    assert rows["parameters"] == f"{count:,} (float32)"
    assert rows["provenance"] == "converted_from: original.pt"


@pytest.mark.parametrize(
    ("space", "pose", "layout"),
    [
        ("rot6d", "5 joints in 6D, 30 features", "rows"),
        ("so3", "5 joints on SO(3), 15 features", "rows"),
        ("points", "5 keypoints, 15 features", "-"),
    ],
)
def test_info_names_the_space(tmp_path, capsys, space, pose, layout):
    prior = ConditionalPosePrior(4, joints=5, space=space, layout="rows", hidden_features=8)
    prior.save(tmp_path / "prior")
    assert main(["info", str(tmp_path / "prior")]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (rows["pose"], rows["layout"]) == (pose, layout)


def test_convert_respects_write_protection(original, tmp_path, capsys):
    target = tmp_path / "prior"
    target.write_text("precious")
    target.chmod(0o444)
    assert main(["convert", str(original), str(target), "--force"]) == 1
    assert "write-protected" in capsys.readouterr().err
    assert target.read_text() == "precious"


def test_info_of_an_original(original, capsys):
    assert main(["info", str(original)]) == 0
    assert "24 joints in 6D" in capsys.readouterr().out


def test_options_reach_the_prior(original, tmp_path, capsys):
    target = tmp_path / "prior"
    arguments = ["convert", str(original), str(target), "--space", "points"]
    assert main([*arguments, "--lu-forward", "legacy"]) == 0
    prior = ConditionalPosePrior.load(target)
    assert prior.config["joints"] == 48
    assert prior.config["lu_forward"] == "legacy"
    assert "legacy" in capsys.readouterr().out


def test_nothing_is_overwritten_unasked(original, tmp_path, capsys):
    target = tmp_path / "prior"
    target.write_text("precious")
    assert main(["convert", str(original), str(target)]) == 1
    assert "exists; --force replaces it" in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert main(["convert", str(original), str(target), "--force"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nowhere"], "nowhere: no such file"),
        (["convert", "nowhere", "prior"], "nowhere"),
        (["convert", "{original}", "nowhere/prior"], "nowhere: no such folder"),
        (["info", "{text}"], "nor a ProHMR checkpoint"),
        (["info", "{folder}"], "is a folder"),
    ],
)
def test_errors_are_one_line_and_exit_1(
    original, tmp_path, capsys, arguments, message, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("hello")
    filled = [a.format(original=original, text="text", folder=tmp_path) for a in arguments]
    assert main(filled) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("flowprior: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_ctrl_c_is_no_traceback(original, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ConditionalPosePrior, "load", interrupted)
    assert main(["info", str(original)]) == 130
    assert capsys.readouterr().err == "flowprior: interrupted\n"


@pytest.mark.parametrize("arguments", [[], ["convert"], ["convert", "a", "b", "--space", "x"]])
def test_wrong_usage_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage: flowprior" in capsys.readouterr().err


def test_it_runs_as_a_module():
    result = run([sys.executable, "-m", "flowprior", "--help"])
    assert result.returncode == 0, result.stderr
    assert "convert" in result.stdout
    assert "info" in result.stdout


def test_hostile_files_run_nothing(tmp_path, capsys):
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (exec, (f"open({str(marker)!r}, 'w')",))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pt")
    assert main(["convert", str(tmp_path / "bomb.pt"), str(tmp_path / "prior")]) == 1
    assert "refers to code" in capsys.readouterr().err
    assert not marker.exists()


def test_a_reader_that_leaves_early_is_no_error(original):
    command = shlex.join([sys.executable, "-m", "flowprior", "info", str(original)])
    result = run(["sh", "-c", f"{command} | true"])
    assert result.stderr == ""
