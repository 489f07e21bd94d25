"""Evaluation: results of known predictions, tables, baselines, bad input."""

import json
import shutil

import numpy as np
import pytest
import torch

from examples.data import annotations
from examples.prohmr import evaluate as program
from examples.prohmr.model import ProHMR
from examples.prohmr.published import FIGURES, published
from flowprior.metrics.protocols import PROTOCOLS

SMALL = {"hidden_features": 16, "num_steps": 2, "context_norm": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, painted):
    out = shutil.copytree(painted, tmp_path_factory.mktemp("data"), dirs_exist_ok=True)
    torch.manual_seed(0)
    ProHMR("resnet-small", size=32, head_features=8, prior=SMALL).eval().save(
        out / "model.safetensors"
    )
    return out


def run(folder, out, *argv):
    given = ["--checkpoint", folder / "model.safetensors", "--data", folder, "--out", out]
    return program.main([*map(str, given), "--device", "cpu", *argv])


def test_figures_and_table(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "--samples", "20", "--quantised", "5", "30") == 0
    results = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))["test"]
    figures = results["all"]
    assert results["images"] == 4
    assert results["judged"]["mode_mpjpe_mm"] == 4
    assert figures["best_of_20_mpjpe_mm"] <= figures["best_of_5_mpjpe_mm"]
    assert figures["best_of_5_mpjpe_mm"] <= figures["mode_mpjpe_mm"]
    assert figures["best_of_1_pa_mpjpe_mm"] == figures["mode_pa_mpjpe_mm"]
    assert results["mean_pose"]["mpjpe_mm"] > 0
    printed = capsys.readouterr().out
    assert (tmp_path / "evaluation.md").read_text(encoding="utf-8").strip() in printed
    assert f"| test | mode | {figures['mode_mpjpe_mm']:.1f} |" in printed
    assert "best of 5, k-means" in printed
    assert "best of 30" not in printed


def test_published_figures_stand_beside(folder, tmp_path, capsys):
    # The same rows under the name and in the place of 3DPW's.
    (tmp_path / "3dpw_test.npz").write_bytes((folder / "test.npz").read_bytes())
    (tmp_path / "3DPW").symlink_to(folder / "images")
    argv = ["--checkpoint", str(folder / "model.safetensors"), "--data", str(tmp_path)]
    argv += ["--out", str(tmp_path / "out"), "--samples", "8", "--quantised", "5"]
    assert program.main([*argv, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "ProHMR 59.8 (secondary)" in printed
    assert "ProHMR 93.1 (secondary)" in printed
    assert (
        json.loads((tmp_path / "out/evaluation.json").read_text(encoding="utf-8"))["3DPW-TEST"][
            "images"
        ]
        == 4
    )


@pytest.mark.slow
def test_fits_stand_beside_the_regression(folder, tmp_path, capsys):
    (tmp_path / "3dpw_test.npz").write_bytes((folder / "test.npz").read_bytes())
    (tmp_path / "3DPW").symlink_to(folder / "images")
    (tmp_path / "h36m_multiview.pkl").write_bytes((folder / "views.pkl").read_bytes())
    (tmp_path / "h36m").mkdir()
    (tmp_path / "h36m/images").symlink_to(folder / "images")
    argv = ["--checkpoint", str(folder / "model.safetensors"), "--data", str(tmp_path)]
    argv += ["--out", str(tmp_path / "out"), "--samples", "2", "--device", "cpu", "--fit"]
    assert program.main([*argv, "--steps", "5", "pose=20", "views.keypoints=1"]) == 0
    printed = capsys.readouterr().out
    assert "| PA-MPJPE, mm | 3DPW-TEST | H36M-VAL-MULTIVIEW |" in printed
    assert "| published: + SMPLify | ProHMR + SMPLify 60.9 (secondary) | - |" in printed
    assert "| published: + fitting | ProHMR + fitting 55.1 (secondary) | - |" in printed
    assert "several views" in printed
    assert "ProHMR 34.5 (secondary)" in printed
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {
        *("fits_3DPW-TEST.png", "fits_H36M-VAL-MULTIVIEW.png", "views_H36M-VAL-MULTIVIEW.png")
    }
    results = json.loads((tmp_path / "out/evaluation.json").read_text(encoding="utf-8"))
    assert results["fit"]["keypoints"]["pose"] == 20
    assert results["fit"]["views"]["keypoints"] == 1
    assert results["3DPW-TEST"]["use_hips"] is False
    assert results["3DPW-TEST"]["all"]["fitted_share"] == 1
    figures = results["H36M-VAL-MULTIVIEW"]["all"]
    assert {"averaged_mpjpe_mm", "together_pa_mpjpe_mm", "fit_mpjpe_mm"} <= figures.keys()
    assert f"| + fitting | {results['3DPW-TEST']['all']['fit_pa_mpjpe_mm']:.1f} |" in printed


def test_truncated_limbs_are_a_separate_data_set(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "--samples", "2", "--datasets", "test", "--cut") == 0
    results = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert results["test, cut"]["images"] == 4
    assert "| test, cut | mode |" in capsys.readouterr().out


def test_the_ambiguous_set_is_that_of_the_paper(folder, tmp_path, capsys):
    (tmp_path / "ah36m.npz").write_bytes((folder / "test.npz").read_bytes())
    (tmp_path / "h36m").mkdir()
    (tmp_path / "h36m/images").symlink_to(folder / "images")
    argv = ["--checkpoint", str(folder / "model.safetensors"), "--data", str(tmp_path)]
    argv += ["--out", str(tmp_path / "out"), "--samples", "26", "--quantised", "25"]
    assert program.main([*argv, "--device", "cpu", "--fit", "--steps", "2"]) == 0
    printed = capsys.readouterr().out
    for figure in ("ProHMR 67.3 (paper)", "ProHMR 60.1 (paper)", "SMPLify 67.8", "fitting 61.4"):
        assert figure in printed


def test_the_papers_figures():
    assert [f.value_mm for f in published("3DPW-TEST", "pa_mpjpe", 4096)] == [40.8]
    assert {f.method for f in published("MPI-INF-TEST", "pa_mpjpe", 0)} == {"HMR", "SPIN", "ProHMR"}
    assert all(f.source in ("paper", "secondary", "memory") for f in FIGURES)


def test_the_mean_pose_by_hand(folder):
    rows = annotations.read(folder / "train.npz")[0]
    test = annotations.read(folder / "test.npz")[0]
    protocol = PROTOCOLS["3DPW"]
    joints = list(protocol.joints)
    points = [r.keypoints_3d[:, joints, :3] - r.keypoints_3d[:, [39], :3] for r in (rows, test)]
    expected = 1000 * np.linalg.norm(points[0].mean(axis=0) - points[1], axis=-1).mean()
    found = program.mean_pose_errors(rows, test, protocol)
    assert found["mpjpe_mm"] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(program.mean_pose_errors(rows, rows[[]], protocol)["mpjpe_mm"])


def test_a_broken_image_is_in_no_mean(folder, tmp_path):
    content = dict(np.load(folder / "test.npz"))
    names = content["imgname"].copy()
    names[1] = "test/nowhere.jpg"
    np.savez(tmp_path / "test.npz", **content | {"imgname": names})
    (tmp_path / "images").symlink_to(folder / "images")
    argv = ["--checkpoint", str(folder / "model.safetensors"), "--data", str(tmp_path)]
    argv += ["--out", str(tmp_path), "--samples", "2", "--device", "cpu"]
    assert program.main(argv) == 0
    results = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))["test"]
    assert results["judged"]["mode_mpjpe_mm"] == results["judged"]["entropy_nats"] == 3
    assert results["mean_pose"] is None


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--datasets", "nowhere"], "nowhere"),
        (["--samples", "0"], "from 1 up"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt"),
        (["--data", "nowhere"], "no data set to evaluate on"),
        (["--body", "nowhere.pkl"], "nowhere.pkl"),
        (["pose=3"], "no --fit"),
        (["--fit", "much=3"], "settings are pose"),
        (["--fit", "views.sigma=3"], "settings are consistency"),
        (["--fit", "--steps", "0"], "at least one step"),
    ],
)
def test_bad_input_is_code_2(folder, tmp_path, capsys, argv, words):
    assert run(folder, tmp_path, *argv) == 2
    assert words in capsys.readouterr().err
