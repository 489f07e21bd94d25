import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from examples.pictures import (
    best_of_n_picture,
    comparison_picture,
    draw_body,
    draw_keypoints,
    lifting_picture,
    reliability_picture,
    turn,
)
from flowprior.skeleton import H36M_17


@pytest.fixture
def pose():
    return np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)


def test_turn_keeps_heights_and_brings_the_right_edge_to_the_front(pose):
    turned = turn(np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]), 90)
    np.testing.assert_allclose(turned, [[0, 2, 1], [-3, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(turn(turn(pose, 30), -30), pose, atol=1e-6)


def test_keypoints_are_drawn_y_down_with_rings_for_the_hidden(pose):
    ax = Figure().subplots()
    visible = np.ones(17, bool)
    visible[[3, 6]] = False
    draw_keypoints(ax, 100 * pose[:, :2], visible)
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert ax.get_aspect() == 1
    seen, hidden = (np.asarray(c.get_offsets()) for c in ax.collections)
    np.testing.assert_allclose(seen, 100 * pose[visible, :2], rtol=1e-6)
    np.testing.assert_allclose(hidden, 100 * pose[~visible, :2], rtol=1e-6)
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 2


def test_a_body_has_every_bone_and_a_head(pose):
    ax = Figure().subplots()
    draw_body(ax, pose, "#ff0000")
    (lines,) = ax.collections
    assert len(lines.get_segments()) == len(H36M_17.bones)
    assert len(ax.patches) == 1


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
