"""``flowprior info`` on fits, keypoints and shipped priors; ``flowprior view``."""

import numpy as np
import pytest

from flowprior.command import main, view
from tests.keypoint_files.written import flat, openpose, write
from tests.results.helpers import small_fits
from tests.view.people import sequence


def test_info_describes_fits(tmp_path, capsys):
    small_fits().save(tmp_path / "fits.npz")
    assert main(["info", str(tmp_path)]) == 0
    first = capsys.readouterr().out
    rows = dict(line.split(maxsplit=1) for line in first.splitlines())
    assert rows["people"] == "3 in 2 images"
    assert rows["keypoints"] == "coco_17"
    assert rows["samples"] == "4 per person"
    assert main(["info", str(tmp_path / "fits.npz")]) == 0
    assert capsys.readouterr().out == first


def test_info_describes_a_sequence(tmp_path, capsys):
    """Also with frames in which nobody was seen."""
    fits = sequence()
    fits.keypoints_2d[2] = 0
    fits.reprojection_px[2] = np.nan
    fits.save(tmp_path / "fits.npz")
    assert main(["info", str(tmp_path)]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["people"] == "2 in 6 frames at 20 per second"
    assert rows["reprojection"].startswith(f"{np.nanmedian(fits.reprojection_px):.1f} px")


def test_info_describes_keypoints(tmp_path, capsys):
    path = write(tmp_path / "a_keypoints.json", openpose(flat()))
    assert main(["info", str(path)]) == 0
    assert "OpenPose detections: 1 person, 1 usable" in capsys.readouterr().out


def test_info_describes_shipped_priors(capsys):
    assert main(["info", "flowprior/people"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["pose"].startswith("24 joints on SO(3)")
    assert main(["info", "flowprior/motion"]) == 0
    printed = capsys.readouterr().out
    assert "the next of 24 joints on SO(3), given the last two" in printed
    assert "7.5 to 30 per second" in printed


def test_info_on_a_folder_of_another_model_names_the_first_error(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert main(["info", str(tmp_path)]) == 1
    assert "model.safetensors" in capsys.readouterr().err


def test_view_serves_the_fits(tmp_path, monkeypatch):
    small_fits().save(tmp_path / "fits.npz")
    served = {}
    monkeypatch.setattr(view, "serve", lambda fits, **options: served.update(options, fits=fits))
    assert main(["view", str(tmp_path), "--port", "9000"]) == 0
    assert len(served["fits"]) == 3
    assert (served["host"], served["port"]) == ("127.0.0.1", 9000)


def test_view_without_fits(tmp_path, capsys):
    assert main(["view", str(tmp_path)]) == 1
    assert "fits.npz" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["fit", "sample", "view", "info", "convert"])
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"usage: flowprior {verb}" in capsys.readouterr().out


def test_help_lists_verbs_and_exit_codes(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for verb in ("fit", "sample", "view", "info", "convert"):
        assert f" {verb} " in printed
    assert "130 interrupted" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "x.json"],
        ["fit", "x.json", "--out", "o", "--batch", "0"],
        ["fit", "x.json", "--out", "o", "--image-size", "640"],
        ["fit", "x.json", "--out", "o", "--focal", "-3"],
        ["fit", "x.json", "--out", "o", "--detector", "elephant"],
        ["sample", "--out", "o.npz", "--samples", "many"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert f"flowprior {arguments[0]}: error:" in capsys.readouterr().err
