import functools
import json
import sys

import numpy as np
import pytest
import torch

from examples.data.poses import load_poses
from examples.lifting import demo
from examples.lifting.model import LiftingModel
from tests.processes import run_python

FIGURES = {
    "views",
    "nll_nats",
    "mode_mpjpe_mm",
    "regressor_mpjpe_mm",
    "best_of_1_mpjpe_mm",
    "best_of_10_mpjpe_mm",
    "best_of_100_mpjpe_mm",
}
SMALL = {"width": 16, "num_blocks": 1, "hidden_features": 8, "num_steps": 2}
# Packages of the other examples, which `make tasks` does not install.
OTHERS = ("cv2", "kornia", "lightning", "pyrender", "ray", "sklearn", "smplx", "transformers")
OTHERS += ("pandas", "scipy", "trimesh", "yaml")


@functools.cache
def embedded(seed):
    return load_poses(None, seed)


@pytest.fixture
def small_demo(monkeypatch):
    """The demo with a small model, few views and embedded poses that are made only once."""

    def load(path, seed):
        return embedded(seed) if path is None else load_poses(path, seed)

    def settings(**given):
        return Settings(batch_size=32, test_views=40, **given)

    Settings = demo.Settings
    settings.steps, settings.seed = Settings.steps, Settings.seed
    monkeypatch.setattr(demo, "Settings", settings)
    for name in OTHERS:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(demo, "load_poses", load)
    monkeypatch.setattr(demo, "LiftingModel", functools.partial(LiftingModel, **SMALL))
    return lambda *argv: demo.main([*argv, "--device", "cpu"])


def test_it_is_imported_without_the_packages_of_other_examples():
    run_python(
        f"import sys\nsys.modules.update(dict.fromkeys({OTHERS!r}))\nimport examples.lifting.demo"
    )


class TestProgram:
    @pytest.fixture
    def out(self, tmp_path):
        return tmp_path / "made" / "here"

    def test_it_writes_figures_model_and_pictures(self, small_demo, out, capsys):
        assert small_demo("--steps", "8", "--out", str(out), "--seed", "5") == 0
        assert sorted(path.name for path in out.iterdir()) == [
            "best_of_n.png",
            "clear.png",
            "model.safetensors",
            "occluded.png",
            "results.json",
        ]
        results = json.loads((out / "results.json").read_text(encoding="utf-8"))
        assert set(results["metrics"]) == {"all", "clear", "occluded"}
        for group in results["metrics"].values():
            assert set(group) == FIGURES
            assert np.isfinite(list(group.values())).all()
            best = [group[f"best_of_{n}_mpjpe_mm"] for n in (1, 10, 100)]
            assert best == sorted(best, reverse=True)
        whole, *halves = (results["metrics"][name] for name in ("all", "clear", "occluded"))
        assert whole["views"] == sum(half["views"] for half in halves) == 40
        assert results["settings"]["steps"] == 8
        assert results["settings"]["seed"] == 5
        assert "--steps 8" in results["command"]
        assert results["data"]["split"] == "test"
        assert len(results["best_of_n_mpjpe_mm"]) == 100
        assert all(path.stat().st_size > 10_000 for path in out.glob("*.png"))
        printed = capsys.readouterr().out
        assert f"{whole['mode_mpjpe_mm']:.1f}" in printed
        assert "held out" in printed
        model = LiftingModel.load(out)
        assert model.config == results["model"]

    def test_the_same_seed_gives_the_same_figures(self, small_demo, monkeypatch, tmp_path):
        monkeypatch.setattr(demo, "draw", lambda *_: None)
        metrics = []
        for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
            out = tmp_path / name
            small_demo("--steps", "2", "--out", str(out), "--seed", seed)
            metrics.append(
                json.loads((out / "results.json").read_text(encoding="utf-8"))["metrics"]
            )
        assert metrics[0] == metrics[1]
        assert metrics[0] != metrics[2]

    @pytest.mark.parametrize("content", ["missing", "text", "other keys", "empty folder"])
    def test_bad_data_is_one_line_and_code_2(self, small_demo, tmp_path, capsys, content):
        data = tmp_path / "data.npz"
        if content == "text":
            data.write_text("hello", encoding="utf-8")
        elif content == "other keys":
            np.savez(data, poses=np.zeros(3))
        elif content == "empty folder":
            data.mkdir()
        assert small_demo("--data", str(data), "--out", str(tmp_path / "out")) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert "data.npz" in error
        assert not (tmp_path / "out").exists()

    def test_out_that_is_a_file(self, small_demo, tmp_path, capsys):
        path = tmp_path / "file"
        path.touch()
        assert small_demo("--out", str(path)) == 2
        assert "file" in capsys.readouterr().err

    def test_no_gpu(self, monkeypatch, capsys):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert demo.main(["--device", "cuda"]) == 2
        assert "no GPU" in capsys.readouterr().err

    def test_interrupting_is_clean(self, small_demo, monkeypatch, out, capsys):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(demo.ModeRegressor, "loss", interrupt)
        assert small_demo("--steps", "2", "--out", str(out)) == 130
        assert "interrupted" in capsys.readouterr().err
        assert list(out.iterdir()) == []

    @pytest.mark.parametrize("argv", [["--steps", "0"], ["--seed", "-1"], ["--steps", "x"]])
    def test_bad_arguments(self, argv, capsys):
        with pytest.raises(SystemExit, match="2"):
            demo.main(argv)
        assert argv[0] in capsys.readouterr().err

    def test_help(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            demo.main(["--help"])
        printed = capsys.readouterr().out
        for word in ("--data", "--out", "--steps", "--seed", "--device", "results.json", "130"):
            assert word in printed

    def test_real_motion_capture(self, small_demo, mocap_file, out):
        argv = ["--data", str(mocap_file), "--steps", "2", "--split", "val", "--out", str(out)]
        assert small_demo(*argv) == 0
        results = json.loads((out / "results.json").read_text(encoding="utf-8"))
        assert results["data"]["subjects"]["val"] == ["cmu127", "cmu17", "cmu60"]
        assert results["data"]["train_poses"] == 45675
        assert results["data"]["held_out_poses"] == 10695
