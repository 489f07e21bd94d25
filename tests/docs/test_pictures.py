"""The scripts that draw the pictures of the documentation run."""

import importlib.util
from pathlib import Path

import matplotlib.image
import pytest

from tests.view.people import people

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.filterwarnings("ignore:no OpenGL")


def script(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / "drawings" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_drawn(path, kept):
    drawn, before = matplotlib.image.imread(path), matplotlib.image.imread(kept)
    assert drawn.shape[:2] == before.shape[:2]
    assert drawn[..., :3].std() > 0.05


def test_crops(tmp_path):
    crops = script("crops_picture")
    image, labels, center, box_size = crops.scene()
    points = labels.keypoints_2d[0, :, :2]
    assert ((points - center).abs() < box_size / 2).all()
    # The body stands where its keypoints are: the trunk has not the wall's colour.
    for joint in (1, 8):
        x, y = points[joint].round().int().tolist()
        assert abs(image[y, x].astype(int) - crops.room()[y, x]).max() > 15
    crops.main(tmp_path / "crops.png")
    assert_drawn(tmp_path / "crops.png", crops.PICTURE)


def test_bodies(tmp_path):
    bodies = script("body_pictures")
    bodies.main(tmp_path)
    kept = sorted(path.name for path in bodies.FOLDER.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    for name in kept:
        assert_drawn(tmp_path / name, bodies.FOLDER / name)


def test_hands(tmp_path):
    hands = script("hand_pictures")
    hands.main(tmp_path)
    for name in ("hands.png", "hand_joints.png"):
        assert_drawn(tmp_path / name, hands.PICTURES / name)


@pytest.mark.slow
def test_front_picture(tmp_path):
    front = script("front_picture")
    front.main(tmp_path / "front.png")
    assert_drawn(tmp_path / "front.png", front.FILE)


@pytest.mark.slow
def test_page_pictures(chromium, tmp_path):
    pictures = script("view_pictures")
    pictures.draw_page(chromium, people(2), tmp_path, tmp_path)
    assert_drawn(tmp_path / "page.png", pictures.FOLDER / "page.png")
    width = matplotlib.image.imread(tmp_path / "page_narrow.png").shape[1]
    assert width == matplotlib.image.imread(pictures.FOLDER / "page_narrow.png").shape[1]


@pytest.mark.slow
def test_whole_body_picture(chromium, tmp_path):
    pictures = script("whole_body_picture")
    pictures.draw(chromium, pictures.fit(tmp_path), tmp_path)
    for name in ("fit/whole_body.png", "view/page_hand.png"):
        assert_drawn(tmp_path / name, pictures.STATIC / name)
