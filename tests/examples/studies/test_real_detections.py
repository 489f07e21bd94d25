"""Fits to real detections and the coverage of their regions: both programs, on little data."""

import json

import numpy as np
import pytest

from examples.studies import fit_uncertainty, real_detections
from flowprior.keypoints import example_keypoints
from flowprior.skeleton import BODY_25, COCO_17


def coco(folder):
    """A COCO file of one person, the example of the library."""
    points = example_keypoints().numpy().copy()
    points[:, 2] = 2
    (folder / "files/coco").mkdir(parents=True)
    people = [{"image_id": 7, "keypoints": points.reshape(-1).tolist()}]
    images = [{"id": 7, "width": 340, "height": 480}]
    file = folder / "files/coco/test_coco.json"
    file.write_text(json.dumps({"annotations": people, "images": images}), encoding="utf-8")
    return points


def test_detections_of_a_folder(tmp_path):
    points = coco(tmp_path)
    (found,) = real_detections.detections(tmp_path)
    assert found.size == (340.0, 480.0)
    for name in ("left_wrist", "right_ankle"):
        place = found.keypoints[BODY_25.index(name)]
        np.testing.assert_allclose(place[:2], points[COCO_17.index(name), :2], rtol=1e-6)
        assert place[2] == 1
    assert found.keypoints[BODY_25.index("neck"), 2] == 0


@pytest.mark.slow
def test_pictures_and_table(tmp_path):
    coco(tmp_path)
    out = tmp_path / "out"
    assert real_detections.main(["--data", str(tmp_path), "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results["people"][0]["error_percent"] < 1
    hidden = results["hidden_arm"]
    assert hidden["right_wrist_std_mm_hidden"] > 1.3 * hidden["right_wrist_std_mm_seen"]
    pictures = {file.name for file in out.glob("*.png")}
    assert pictures == {"COCO_0.png", "hidden_arm.png", "together.png"}


@pytest.mark.slow
def test_coverage(tmp_path, capsys):
    arguments = ["--people", "4", "--spread", "0.5", "3", "--out", str(tmp_path)]
    assert fit_uncertainty.main(arguments) == 0
    results = json.loads((tmp_path / "test.json").read_text(encoding="utf-8"))["results"]
    assert len(results) == 6
    for narrow, wide in zip(results[::2], results[1::2], strict=True):
        assert narrow["positions_in_90"] <= wide["positions_in_90"] <= 1
        assert wide["std_mm"] > 3 * narrow["std_mm"]
    assert "rank correlation" in capsys.readouterr().out


def test_missing_data_ends_with_a_message(tmp_path, capsys):
    assert real_detections.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "none of the example files is there" in capsys.readouterr().err
