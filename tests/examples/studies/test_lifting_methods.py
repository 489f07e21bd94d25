import functools
import json

import numpy as np
import pytest
import torch

from examples.lifting import evaluate, judging
from examples.lifting.methods import FlowLifter, ModeRegressor, Regressor
from examples.lifting.model import LiftingModel
from examples.lifting.tables import best_of_n_table, cell, comparison_table, sigma_table
from examples.studies import lifting_methods


@pytest.fixture
def small(monkeypatch, poses):
    """The comparison of small networks with few samples."""
    counts = (1, 5, 10, 25, 200, 210)
    monkeypatch.setattr(lifting_methods, "COUNTS", counts)
    monkeypatch.setattr(
        lifting_methods,
        "Plan",
        lambda **given: judging.Plan(
            counts, **{**given, "quantised_from": 60, "quantised_views": 3}
        ),
    )
    model = functools.partial(LiftingModel, width=8, num_blocks=1, hidden_features=8)
    monkeypatch.setattr(lifting_methods, "small_model", model)
    monkeypatch.setattr(lifting_methods, "WIDTH", 8)
    monkeypatch.setattr(lifting_methods, "VAL_VIEWS", 100)
    monkeypatch.setattr(evaluate, "TRAINING_DRAWS", 10_000)
    monkeypatch.setattr(lifting_methods, "load_poses", lambda path: poses)
    few = ["--steps", "3", "--views", "6", "--sigma-views", "4", "--seeds", "0"]
    return lambda out, *argv: lifting_methods.main(["--out", str(out), *few, *argv])


class TestCompare:
    def test_every_method_is_trained_evaluated_and_drawn(self, small, tmp_path, capsys):
        assert small(tmp_path) == 0
        results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        assert set(results) == {"clear", "ambiguous"}
        for judged in results.values():
            assert set(judged) >= {
                *lifting_methods.METHODS,
                *(name for names in lifting_methods.AROUND.values() for name in names),
                "training poses",
                "sigma 5 cm",
            }
            for runs in judged.values():
                (figures,) = runs
                plain = [value for key, value in figures.items() if key != "coverage"]
                assert np.isfinite(plain).all()
                assert len(figures["coverage"]) == 21
            assert judged["long regressor"][0]["steps"] == 12
        names = {path.name for path in tmp_path.glob("*.png")}
        assert names == {
            "figure_4_clear.png",
            "figure_4_ambiguous.png",
            "reliability_clear.png",
            "reliability_ambiguous.png",
            "why_a_flow.png",
        }
        table = (tmp_path / "table.md").read_text(encoding="utf-8")
        assert all(f"| {name} |" in table for name in lifting_methods.METHODS)
        assert table.strip() in capsys.readouterr().out

    def test_finished_runs_are_not_repeated(self, small, tmp_path, monkeypatch):
        argv = ("--methods", "regressor", "--settings", "clear")
        assert small(tmp_path, *argv) == 0
        file = tmp_path / "clear-regressor-0.json"
        before = file.read_text(encoding="utf-8")
        monkeypatch.setattr(lifting_methods, "fit", None)
        assert small(tmp_path, *argv) == 0
        assert file.read_text(encoding="utf-8") == before

    def test_comparison_resumes_between_runs(self, small, tmp_path, monkeypatch, capsys):
        fit, calls = lifting_methods.fit, []

        def interrupted(*args):
            calls.append(args)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return fit(*args)

        argv = ("--methods", "regressor", "mixture", "--settings", "clear")
        monkeypatch.setattr(lifting_methods, "fit", interrupted)
        assert small(tmp_path, *argv) == 130
        assert "continues" in capsys.readouterr().err
        assert small(tmp_path, *argv) == 0
        assert len(calls) == 3

    def test_all_methods_see_the_same_views(self, small, tmp_path, monkeypatch):
        judge, seen = lifting_methods.judge, []

        def watched(lifter, views, plan):
            seen.append(views.keypoints)
            return judge(lifter, views, plan)

        monkeypatch.setattr(lifting_methods, "judge", watched)
        argv = ("--methods", "regressor", "mixture", "--settings", "ambiguous")
        assert small(tmp_path, *argv) == 0
        assert all(torch.equal(each, seen[0]) for each in seen)

    def test_bad_data(self, tmp_path, capsys):
        argv = ["--data", str(tmp_path / "none.npz"), "--out", str(tmp_path / "out")]
        assert lifting_methods.main(argv) == 2
        assert "none.npz" in capsys.readouterr().err

    def test_the_methods_have_one_encoder(self):
        made = {name: method.make() for name, method in lifting_methods.METHODS.items()}
        encoders = {
            name: (lifter.model.encoder if isinstance(lifter, (FlowLifter, ModeRegressor))
                   else lifter.encoder)
            for name, lifter in made.items()
        }  # fmt: skip
        shapes = {tuple(p.shape for p in encoder.parameters()) for encoder in encoders.values()}
        assert len(shapes) == 1
        assert isinstance(made["long regressor"], Regressor)
        # All of them read the keypoints beside the features.
        for lifter in made.values():
            seen = lifter.model if isinstance(lifter, (FlowLifter, ModeRegressor)) else lifter
            assert seen.skip

    def test_a_density_around_the_flow_s_mode_has_the_flow_s_mode(self, small, tmp_path):
        assert small(tmp_path, "--methods", "flow", "--settings", "clear") == 0
        judged = json.loads((tmp_path / "clear-flow-0.json").read_text(encoding="utf-8"))
        for name in lifting_methods.AROUND["flow"]:
            assert judged[name]["mpjpe_mm"] == judged["flow"]["mpjpe_mm"]
        assert judged["flow"]["degrees_of_freedom"] > 2


class TestTables:
    RUNS = {  # noqa: RUF012
        "flow": [{"mpjpe_mm": 50.0, "best_of_1_pa_mpjpe_mm": 7.0}, {"mpjpe_mm": 52.0}],
        "sigma 5 cm": [{"best_of_10_mpjpe_mm": 3.25}],
        "mode": [{"best_of_10_mpjpe_mm": 2.0}],
    }

    def test_mean_and_deviation_over_the_seeds(self):
        assert cell(self.RUNS["flow"], "mpjpe_mm", ".1f") == "51.0 ± 1.4"
        assert cell(self.RUNS["mode"], "best_of_10_mpjpe_mm", ".1f") == "2.0"
        assert cell(self.RUNS["mode"], "mpjpe_mm", ".1f") == "-"

    def test_comparison_leaves_out_what_is_drawn_around_a_mode(self):
        lines = comparison_table(self.RUNS).splitlines()
        assert len(lines) == 3
        assert lines[2].startswith("| flow | 51.0 ± 1.4 |")

    def test_sigma(self):
        lines = sigma_table(self.RUNS).splitlines()
        assert [line.split(" | ")[0] for line in lines[2:]] == ["| N(mode, 5 cm)", "| the flow"]

    def test_best_of_n(self):
        lines = best_of_n_table({"flow": self.RUNS["flow"]}, [1], "pa_mpjpe_mm").splitlines()
        assert lines[0] == "| n | flow |"
        assert lines[2] == "| 1 | 7.0 |"
