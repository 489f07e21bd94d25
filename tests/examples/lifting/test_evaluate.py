import json

import pytest
import torch

from examples.lifting import evaluate, train
from examples.lifting.methods import FlowLifter, Regressor

TINY = ("width=8", "num_blocks=1", "hidden_features=8", "flow_steps=2", "flow_blocks=1")
TINY += ("batch_size=8", "val_views=10", "logger=none", "--steps", "2", "--device", "cpu")
FEW = ("--device", "cpu", "--views", "5", "--samples", "40", "--quantised-views", "2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of a flow and of a regressor."""
    folder = tmp_path_factory.mktemp("trained")
    for method in ("flow", "regressor"):
        argv = ["--out", str(folder / method), f"method={method}", *TINY]
        assert train.main(argv) == 0
    return folder


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(evaluate, "TRAINING_DRAWS", 10_000)
    monkeypatch.setattr(evaluate, "VAL_VIEWS", 60)


class TestEvaluate:
    def test_figures_tables_and_pictures(self, trained, tmp_path, capsys):
        models = [str(trained / name) for name in ("flow", "regressor")]
        assert evaluate.main(["--model", *models, "--out", str(tmp_path), *FEW]) == 0
        results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        assert results["data"]["views"] == 5
        metrics = results["metrics"]
        assert list(metrics) == [
            "flow",
            "regressor",
            "Gaussian around regressor",
            "Student's t around regressor",
            "training poses",
            *(f"sigma {sigma} cm" for sigma in evaluate.SIGMAS_CM),
        ]
        flow = metrics["flow"]
        for name in ("mpjpe_mm", "pa_mpjpe_mm", "nll_nats", "ece", "sharpness_mm"):
            assert name in flow
        best = [flow[f"best_of_{n}_mpjpe_mm"] for n in (1, 2, 5, 10, 25, 40)]
        assert best == sorted(best, reverse=True)
        assert {"quantised_5_mpjpe_mm", "quantised_25_pa_mpjpe_mm"} <= set(flow)
        # Of one view the metric of the regressor is its point, however many are drawn.
        assert metrics["regressor"]["best_of_40_mpjpe_mm"] == pytest.approx(
            metrics["regressor"]["mpjpe_mm"]
        )
        assert {path.name for path in tmp_path.iterdir()} == {
            "results.json",
            "table.md",
            "figure_4.png",
            "reliability.png",
        }
        assert (tmp_path / "table.md").read_text(
            encoding="utf-8"
        ).strip() in capsys.readouterr().out

    def test_results_lie_beside_the_model_by_default(self, trained):
        assert evaluate.main(["--model", str(trained / "flow"), *FEW]) == 0
        assert (trained / "flow" / "evaluation" / "results.json").exists()

    def test_loading(self, trained):
        flow, config = evaluate.load_lifter(trained / "flow")
        assert isinstance(flow, FlowLifter)
        assert not flow.training
        assert config.width == 8
        regressor, _ = evaluate.load_lifter(trained / "regressor")
        assert isinstance(regressor, Regressor)

    @pytest.mark.parametrize("what", ["nothing", "unfinished", "samples", "damaged"])
    def test_bad_input_is_one_line_and_code_2(self, trained, tmp_path, capsys, what):
        model, argv = tmp_path / "model", []
        model.mkdir()
        if what != "nothing":
            config = (trained / "flow" / "config.yaml").read_text(encoding="utf-8")
            (model / "config.yaml").write_text(config, encoding="utf-8")
        if what == "damaged":
            (model / "lifter.safetensors").write_bytes(b"hello")
        if what == "samples":
            model, argv = trained / "flow", ["--samples", "0"]
        assert evaluate.main(["--model", str(model), *FEW, *argv]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1

    def test_two_folders_of_one_name(self, trained, tmp_path, capsys):
        (tmp_path / "flow").symlink_to(trained / "flow")
        argv = ["--model", str(trained / "flow"), str(tmp_path / "flow")]
        assert evaluate.main([*argv, *FEW]) == 2
        assert "same name" in capsys.readouterr().err

    def test_help(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            evaluate.main(["--help"])
        printed = capsys.readouterr().out
        for word in ("--model", "--data", "--out", "--samples", "results.json"):
            assert word in printed


def test_training_poses_are_those_of_training_views(views):
    class Source:
        def draw(self, number, generator):
            return views[torch.randint(len(views), (number,), generator=generator)]

    lifter = evaluate.training_poses(Source(), 0, "cpu")
    assert lifter.poses.shape == (10_000, 16, 3)
    drawn = lifter.sample(views, 30, torch.Generator().manual_seed(0))
    off = (drawn.flatten(0, 1)[:, None] - views.relative).abs().amax(dim=(2, 3)).amin(dim=1)
    assert off.max() == 0


def test_protocol_1_weighs_actions_alike():
    error = torch.tensor([1.0, 1.0, 1.0, 5.0])

    class Judged:
        counts = (1, 9)
        point_mm = point_pa_mm = error
        best_mm = best_pa_mm = torch.stack([error, error / 2], dim=1)

    means = evaluate.mean_of_actions(Judged, ["Walking", "Walking", "Walking", "Eating"])
    assert means["mpjpe_mm"] == 3
    assert means["best_of_9_mpjpe_mm"] == 1.5
    assert evaluate.protocol_table({}) == []
