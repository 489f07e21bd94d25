import matplotlib.image
import numpy as np
import pytest

from examples.pictures import (
    best_of_n_picture,
    comparison_picture,
    lifting_picture,
    reliability_picture,
)


@pytest.fixture
def pose():
    return np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)


def test_pictures_are_written_and_not_blank(pose, tmp_path):
    visible = np.arange(17) % 3 > 0
    lifting_picture(
        tmp_path / "one.png",
        keypoints=500 + 100 * pose[:, :2],
        visible=visible,
        mode=pose,
        samples=np.stack([pose, pose + 0.1]),
        truth=pose,
        title="One",
        note="of them",
    )
    best = [100 / n for n in range(1, 101)]
    best_of_n_picture(tmp_path / "two.png", {"all": (best, 60.0, 55.0)}, title="Two")
    for name in ("one", "two"):
        image = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert image.shape[1] > 400
        assert image[..., :3].std() > 0.03


def test_a_reliability_picture_is_written(tmp_path):
    levels = np.linspace(0, 1, 21)
    curves = {"too sure": (levels, levels**2), "calibrated": (levels, levels)}
    reliability_picture(tmp_path / "reliability.png", curves, "Title", note="note")
    assert matplotlib.image.imread(tmp_path / "reliability.png").shape[2] in (3, 4)


def test_a_comparison_picture_is_written(tmp_path):
    path = tmp_path / "comparison.png"
    errors = {f"model {number}": [90.0 - number, 70.0, 50.0 + number] for number in range(7)}
    comparison_picture(path, [1, 10, 100], errors, title="Title", note="note")
    image = matplotlib.image.imread(path)
    # Every model has a line: the seven end at different heights.
    assert image[..., :3].std() > 0.02
    comparison_picture(tmp_path / "one.png", [1, 10], {"model": [2.0, 1.0]}, title="One")
    assert (matplotlib.image.imread(tmp_path / "one.png") != image).any()
