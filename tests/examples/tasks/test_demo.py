import json
import sys

import pytest

from examples.pictures import rendering
from examples.tasks import demo
from flowprior.files.model_folder import BUNDLED
from tests.fitting.people import Priors
from tests.processes import run_python

# Packages of the other examples, which `make tasks` does not install.
OTHERS = ("cv2", "kornia", "lightning", "pyrender", "ray", "sklearn", "smplx", "transformers")
OTHERS += ("pandas", "scipy", "trimesh", "yaml")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library that ships hardly trained priors."""
    priors = Priors()
    for name, prior in (("people", priors.people), ("body-pose", priors.body_pose)):
        prior.save_pretrained(tmp_path / name)
        monkeypatch.setitem(BUNDLED, f"flowprior/{name}", tmp_path / name)


def test_it_is_imported_without_the_packages_of_other_examples():
    run_python(
        f"import sys\nsys.modules.update(dict.fromkeys({OTHERS!r}))\nimport examples.tasks.demo"
    )


@pytest.mark.slow
def test_demo_covers_every_task(library, tmp_path, monkeypatch, capsys):
    for name in OTHERS:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(rendering, "_has_gl", lambda: False)  # a cached answer of another test
    out = tmp_path / "made" / "here"
    assert demo.main(["--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert tuple(results) == demo.TASKS
    assert {path.name for path in out.iterdir()} == {
        "results.json",
        *(f"{name}.png" for name in demo.TASKS),
    }
    assert results["inverse_kinematics"]["all_joints_error_mm"] < 5
    assert results["denoising"]["denoised_error_mm"] > 0
    assert "seconds" in results["lifting"]
    assert "the pictures are in" in capsys.readouterr().out


def test_errors_are_reported(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert demo.main(["--out", str(tmp_path / "file")]) == 2
    assert "error: " in capsys.readouterr().err
