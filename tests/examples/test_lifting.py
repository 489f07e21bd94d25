import functools
import json

import numpy as np
import pytest
import torch
from torch import nn

from examples.data.cameras import occlude, photograph
from examples.data.poses import load_poses
from examples.lifting import demo
from examples.lifting.model import LiftingModel, MartinezEncoder, keypoint_features
from flowprior import CheckpointError, ConditionalPosePrior

FIGURES = {
    "views",
    "nll_nats",
    "mode_mpjpe_mm",
    "regressor_mpjpe_mm",
    "best_of_1_mpjpe_mm",
    "best_of_10_mpjpe_mm",
    "best_of_100_mpjpe_mm",
}


@pytest.fixture(scope="module")
def views():
    generator = torch.Generator().manual_seed(0)
    joints = torch.from_numpy(embedded(0).train[:64])
    return occlude(photograph(joints, generator), generator)


SMALL = {"width": 16, "num_blocks": 1, "hidden_features": 8, "num_steps": 2}


@pytest.fixture
def small():
    return LiftingModel(**SMALL)


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
    monkeypatch.setattr(demo, "load_poses", load)
    monkeypatch.setattr(demo, "LiftingModel", functools.partial(LiftingModel, **SMALL))
    return lambda *argv: demo.main([*argv, "--device", "cpu"])


class TestModel:
    def test_hidden_joints_cannot_be_read(self, views):
        features = keypoint_features(views.keypoints, views.visible)
        assert features.shape == (64, 51)
        moved = views.keypoints + 300.0 * ~views.visible[..., None]
        assert torch.equal(keypoint_features(moved, views.visible), features)
        assert features.view(64, 17, 3)[~views.visible].abs().max() == 0

    def test_features_are_in_image_units(self):
        keypoints = torch.tensor([[500.0, 500.0], [750.0, 0.0]])
        features = keypoint_features(keypoints, torch.tensor([True, True]))
        assert features.tolist() == [0.0, 0.0, 1.0, 1.0, -2.0, 1.0]

    def test_the_encoder_is_martinez(self):
        encoder = MartinezEncoder(34, width=1024, num_blocks=2, dropout=0.5)
        kinds = [type(m) for m in encoder.modules() if not list(m.children())]
        assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout] * 5
        # The published network without its last layer.
        assert sum(p.numel() for p in encoder.parameters()) == 34 * 1024 + 4 * 1024**2 + 5 * 3072
        assert encoder(torch.randn(4, 34)).shape == (4, 1024)

    def test_blocks_are_residual(self):
        encoder = MartinezEncoder(5, width=6, num_blocks=2).eval()
        x = torch.randn(3, 5)
        with torch.no_grad():
            for block in encoder.blocks:
                for layer in block:
                    layer[1].weight.zero_()
            torch.testing.assert_close(encoder(x), encoder.first(x))

    def test_posterior_over_sixteen_joints(self, small, views):
        posterior = small.eval()(views.keypoints, views.visible)
        assert posterior.mode().shape == (64, 16, 3)
        assert posterior.sample(5).shape == (64, 5, 16, 3)
        assert posterior.log_prob(views.relative).shape == (64,)

    def test_every_parameter_learns(self, small, views):
        small.train()
        demo.flow_loss(1.0)(small, views).backward()
        without = [n for n, p in small.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []

    def test_save_and_load(self, small, views, tmp_path):
        small.train()
        demo.flow_loss(0.0)(small, views).backward()  # also fills batch norm and ActNorm
        small.eval().save(tmp_path)
        again = LiftingModel.load(tmp_path)
        assert not again.training
        mode = small(views.keypoints, views.visible).mode()
        assert torch.equal(again(views.keypoints, views.visible).mode(), mode)
        prior = ConditionalPosePrior.load(tmp_path / "prior.safetensors")
        context = small.context(views.keypoints, views.visible)
        assert torch.equal(prior.mode(context), mode)

    def test_files_of_two_models_are_told_apart(self, small, tmp_path):
        small.save(tmp_path)
        LiftingModel(width=24, num_blocks=1, hidden_features=8).prior.save(
            tmp_path / "prior.safetensors"
        )
        with pytest.raises(CheckpointError, match="not from one model"):
            LiftingModel.load(tmp_path)
        (tmp_path / "encoder.safetensors").write_bytes(
            (tmp_path / "prior.safetensors").read_bytes()
        )
        with pytest.raises(CheckpointError, match="not an encoder"):
            LiftingModel.load(tmp_path)


class TestLosses:
    def test_flow_loss_is_nll_plus_weighted_mode_error(self, small, views):
        small.eval()
        context = small.context(views.keypoints, views.visible)
        nll = small.prior.nll(views.relative, context)
        mode_error = (small.prior.mode(context) - views.relative).abs().sum() / 64
        torch.testing.assert_close(demo.flow_loss(7.0)(small, views), nll + 7 * mode_error)

    def test_regressor_loss_is_the_mode_error_in_millimetres(self, small, views):
        small.eval()
        mode = small(views.keypoints, views.visible).mode()
        expected = (mode - views.relative).norm(dim=-1).mean() * 1000
        torch.testing.assert_close(demo.regressor_loss(small, views), expected)

    def test_the_pelvis_counts_with_no_error(self):
        theta = torch.zeros(2, 16, 3)
        torch.testing.assert_close(
            demo.error_mm(theta + torch.tensor([0.0, 0.017, 0.0]), theta), torch.full((2,), 16.0)
        )

    def test_training_views_are_new_every_time_and_the_same_for_both_models(self):
        poses = torch.from_numpy(embedded(0).test)
        settings = demo.Settings(batch_size=8)
        first, second = demo.training_views(poses, settings), demo.training_views(poses, settings)
        a, b, c = next(first), next(second), next(first)
        assert torch.equal(a.keypoints, b.keypoints)
        assert not torch.equal(a.keypoints, c.keypoints)


def test_training_lowers_both_objectives():
    poses = torch.from_numpy(embedded(0).train)
    settings = demo.Settings(steps=40, batch_size=64)
    batch = next(demo.training_views(poses, demo.Settings(seed=9, batch_size=256)))
    for loss in (demo.flow_loss(0.0), demo.regressor_loss):
        start = demo.train("start", "", loss, poses, demo.Settings(steps=1, batch_size=64))
        end = demo.train("end", "", loss, poses, settings)
        with torch.no_grad():
            assert loss(end, batch) < 0.9 * loss(start, batch) - 5


class TestProgram:
    @pytest.fixture
    def out(self, tmp_path):
        return tmp_path / "made" / "here"

    def test_it_writes_figures_model_and_pictures(self, small_demo, out, capsys):
        assert small_demo("--steps", "8", "--out", str(out), "--seed", "5") == 0
        assert sorted(path.name for path in out.iterdir()) == [
            "best_of_n.png",
            "clear.png",
            "encoder.safetensors",
            "occluded.png",
            "prior.safetensors",
            "results.json",
        ]
        results = json.loads((out / "results.json").read_text())
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
            metrics.append(json.loads((out / "results.json").read_text())["metrics"])
        assert metrics[0] == metrics[1]
        assert metrics[0] != metrics[2]

    @pytest.mark.parametrize("content", ["missing", "text", "other keys", "empty folder"])
    def test_bad_data_is_one_line_and_code_2(self, small_demo, tmp_path, capsys, content):
        data = tmp_path / "data.npz"
        if content == "text":
            data.write_text("hello")
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

        monkeypatch.setattr(demo, "regressor_loss", interrupt)
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
        results = json.loads((out / "results.json").read_text())
        assert results["data"]["subjects"]["val"] == ["cmu127", "cmu17", "cmu60"]
        assert results["data"]["train_poses"] == 45675
        assert results["data"]["held_out_poses"] == 10695
