import csv
import importlib.util
import json
import signal

import pytest
import torch

from examples.lifting import train
from examples.lifting.config import Config
from examples.lifting.methods import FlowLifter
from examples.lifting.model import LiftingModel
from examples.lifting.module import LiftingModule
from examples.training.settings import read_settings
from flowprior.files import model_file
from tests.examples.torchrun import together

TINY = (
    "width=8",
    "num_blocks=1",
    "hidden_features=8",
    "flow_steps=2",
    "flow_blocks=1",
    "batch_size=8",
    "val_views=20",
    "val_every=50",
)


def weights(out):
    return dict(model_file.load(out / "lifter.safetensors").tensors)


def regressor_of(tensors, prefix):
    """Copies of the weights and statistics of encoder and head."""
    parts = (f"{prefix}encoder.", f"{prefix}prior.head.")
    return {name: value.clone() for name, value in tensors.items() if name.startswith(parts)}


def run(*argv):
    return train.main([*map(str, argv), "--device", "cpu", "logger=none"])


class TestTrain:
    def test_files_of_a_run(self, tmp_path, capsys):
        out = tmp_path / "made" / "here"
        assert run("--out", out, "--steps", 6, "--seed", 4, *TINY, "val_every=3") == 0
        assert sorted(path.name for path in out.rglob("*") if path.is_file()) == [
            "best.ckpt",
            "config.yaml",
            "last.ckpt",
            "lifter.safetensors",
            "model.safetensors",
            "results.json",
        ]
        config = read_settings(Config, out / "config.yaml")
        assert (config.steps, config.seed, config.width) == (6, 4, 8)
        results = json.loads((out / "results.json").read_text(encoding="utf-8"))
        assert results["steps"] == 6
        assert set(results["metrics"]) == {"val_mpjpe_mm", "val_nll_nats"}
        assert not LiftingModel.load(out).training
        printed = capsys.readouterr().out
        assert f"{results['metrics']['val_mpjpe_mm']:.2f}" in printed

    def test_the_regressor_first_then_the_flow(self, tmp_path):
        argv = ("--out", tmp_path, "--steps", 10, *TINY, "val_every=2", "checkpoint_every=1")
        assert run(*argv, "regressor_share=0.5") == 0
        best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
        # A checkpoint without a density is never the best.
        assert best["global_step"] >= 6
        results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        assert set(results["calibration"]) == {"temperature", "degrees_of_freedom"}

    def test_the_flow_leaves_the_regressor_as_it_is(self, tmp_path, monkeypatch):
        found = {}
        loss_of = FlowLifter.loss_of

        def observed(lifter, part, views):
            found.setdefault(part, regressor_of(lifter.state_dict(), "model."))
            return loss_of(lifter, part, views)

        monkeypatch.setattr(FlowLifter, "loss_of", observed)
        argv = ("--out", tmp_path, "--steps", 8, *TINY, "dropout=0.3", "learning_rate=1e-2")
        assert run(*argv, "regressor_share=0.5", "weight_decay=0.1") == 0
        last = regressor_of(weights(tmp_path), "model.")
        assert set(found) == {"regressor", "flow"}
        assert all(torch.equal(value, found["flow"][name]) for name, value in last.items())
        changed = [name for name in last if not torch.equal(last[name], found["regressor"][name])]
        assert any("head" in name for name in changed)
        assert any("encoder" in name for name in changed)

    @pytest.mark.parametrize(("share", "stop"), [(0.0, 3), (0.5, 2), (0.5, 4), (0.5, 6)])
    def test_stopped_run_resumes_to_the_same_weights(self, tmp_path, monkeypatch, share, stop):
        """Stopped in the regressor's phase, between the phases, and in the flow's."""
        argv = ("--steps", 8, *TINY, "checkpoint_every=1", "dropout=0.3", "val_every=4")
        argv += (f"regressor_share={share}",)
        assert run("--out", tmp_path / "whole", *argv) == 0
        step = LiftingModule.training_step

        def stopped(module, *args):
            if module.global_step == stop:
                raise KeyboardInterrupt
            return step(module, *args)

        handler = signal.getsignal(signal.SIGINT)
        with monkeypatch.context() as patch:
            patch.setattr(LiftingModule, "training_step", stopped)
            try:
                assert run("--out", tmp_path / "broken", *argv) == 130
            finally:
                signal.signal(signal.SIGINT, handler)
        last = tmp_path / "broken" / "checkpoints" / "last.ckpt"
        assert torch.load(last, weights_only=True)["global_step"] == stop
        assert run("--out", tmp_path / "broken", *argv) == 0
        whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
        assert all(torch.equal(value, whole[name]) for name, value in broken.items())
        figures = [
            json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8"))["metrics"]
            for name in ("whole", "broken")
        ]
        assert figures[0] == figures[1]

    def test_other_settings_need_another_folder(self, tmp_path, capsys):
        assert run("--out", tmp_path, "--steps", 2, *TINY, "checkpoint_every=1") == 0
        assert run("--out", tmp_path, "--steps", 2, *TINY, "dropout=0.9") == 2
        assert "dropout 0.1 -> 0.9" in capsys.readouterr().err
        # Nothing that has a say in the weights: this training is simply over.
        assert run("--out", tmp_path, "--steps", 2, *TINY, "checkpoint_every=2") == 0

    @pytest.mark.parametrize("method", ["regressor", "multi-head", "mixture", "factorised"])
    def test_other_methods(self, tmp_path, method):
        assert run("--out", tmp_path, "--steps", 2, *TINY, f"method={method}") == 0
        assert (tmp_path / "lifter.safetensors").exists()

    @pytest.mark.parametrize("config", ["paper", "default"])
    def test_the_settings_in_mixed_precision(self, tmp_path, config):
        argv = ("--config", config, "--steps", 4, *TINY, "precision=bf16-mixed")
        assert run("--out", tmp_path, *argv) == 0
        tensors = weights(tmp_path)
        assert all(value.dtype == torch.float32 for value in tensors.values() if value.ndim)
        assert all(value.isfinite().all() for value in tensors.values())

    def test_csv_logs(self, tmp_path):
        argv = ["--out", str(tmp_path), "--steps", "4", *TINY, "log_every=2", "--device", "cpu"]
        assert train.main(argv) == 0
        (file,) = tmp_path.rglob("metrics.csv")
        with file.open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["step"] for row in rows if row["loss"]] == ["1", "3"]
        assert any(row["val_mpjpe_mm"] for row in rows)

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["step=5"], "unknown setting step"),
            (["--config", "nowhere.yaml"], "nowhere.yaml"),
            (["--data", "nowhere.npz"], "nowhere.npz"),
            (["inputs=pixels"], "inputs must be one of"),
        ],
    )
    def test_bad_input_is_one_line_and_code_2(self, tmp_path, capsys, argv, words):
        assert run("--out", tmp_path, "--steps", 2, *TINY, *argv) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert words in error

    def test_a_batch_that_processes_cannot_share(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "3")
        assert run("--out", tmp_path, *TINY) == 2
        assert "3 processes" in capsys.readouterr().err

    @pytest.mark.skipif(
        importlib.util.find_spec("tensorboard") is not None, reason="tensorboard is installed"
    )
    def test_a_logger_that_is_not_installed_is_named(self, tmp_path, capsys):
        argv = ["--out", str(tmp_path), *TINY, "logger=tensorboard", "--device", "cpu"]
        assert train.main(argv) == 2
        assert "tensorboard" in capsys.readouterr().err

    def test_interrupting_is_clean(self, tmp_path, monkeypatch, capsys):
        loss_of, steps = FlowLifter.loss_of, []

        def interrupt(lifter, part, views):
            steps.append(views)
            if len(steps) == 4:
                raise KeyboardInterrupt
            return loss_of(lifter, part, views)

        argv = ("--out", tmp_path, "--steps", 6, *TINY, "checkpoint_every=1", "regressor_share=0")
        monkeypatch.setattr(FlowLifter, "loss_of", interrupt)
        handler = signal.getsignal(signal.SIGINT)
        try:
            assert run(*argv) == 130
        finally:
            signal.signal(signal.SIGINT, handler)
        assert "continues" in capsys.readouterr().err
        assert not (tmp_path / "results.json").exists()
        assert run(*argv) == 0
        # The first call of each run sets the flow's scale; the third step was not finished.
        assert len(steps) == 4 + 1 + 4

    def test_no_gpu(self, monkeypatch, capsys):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert train.main(["--device", "cuda"]) == 2
        assert "no GPU" in capsys.readouterr().err

    def test_help(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            train.main(["--help"])
        printed = capsys.readouterr().out
        for word in ("--data", "--out", "--steps", "--seed", "--config", "key=value", "130"):
            assert word in printed


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_two_processes(tmp_path, share):
    """The same command under torchrun: each process has half of every batch."""
    out = tmp_path / "out"
    argv = ["--out", str(out), "--device", "cpu", "--steps", "4", *TINY, "logger=none"]
    argv += ["checkpoint_every=2", f"regressor_share={share}"]
    printed = together("examples.lifting.train", argv, tmp_path)
    assert json.loads((out / "results.json").read_text(encoding="utf-8"))["steps"] == 4
    assert "processes 2" in printed
    last = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4
