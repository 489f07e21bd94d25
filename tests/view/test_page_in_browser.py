"""The page in a browser: bodies are visible and move, controls change the picture, no error."""

import dataclasses

import numpy as np
import pytest

from flowprior.body import BodyModel
from flowprior.view.meshes import poses_of
from flowprior.view.page import write_page
from tests.view.conftest import share_of
from tests.view.people import people, picture, with_hands

pytestmark = pytest.mark.slow

PINK, PURPLE = (232, 72, 138), (122, 79, 181)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    fits = people(3, samples=3, photo=picture(folder / "photo.png"))
    write_page(fits, folder / "index.html")
    return folder / "index.html", fits


def opened(visit, path, **options):
    """The page at rest, without a network."""
    seen = visit(offline=True, **options)
    seen.page.goto(path.as_uri())
    at_rest(seen, "0/0/0")
    return seen


def at_rest(seen, what):
    """Wait until the image, person and pose are on the screen."""
    seen.page.wait_for_selector(f'body[data-shown="{what}"]')
    seen.page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 30)))")


def changed(first, second):
    return float((np.abs(first - second).max(axis=-1) > 12).mean())


def test_bodies_move_and_controls_change_the_picture(visit, page_file):
    path, fits = page_file
    seen = opened(visit, path)
    page, start = seen.page, seen.shot("#canvas")
    assert share_of(start, PINK) > 0.02
    # The numbers in the page are those of the fit.
    mesh = page.evaluate("posesOf(0).then((poses) => poses.vertices.map((each) => [...each]))")
    expected = poses_of(fits, 0, BodyModel()).vertices
    assert np.abs(np.reshape(mesh, expected.shape) - expected).max() < 0.0003

    # Dragging turns the body; the button turns it back.
    box = page.locator("canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y + 10, steps=4)
    page.mouse.up()
    turned = seen.shot("#canvas")
    assert changed(start, turned) > 0.02
    page.mouse.wheel(0, 300)
    assert share_of(seen.shot("#canvas"), PINK) < share_of(turned, PINK)
    page.click("#view-camera")
    assert changed(start, seen.shot("#canvas")) < 0.002

    # Samples, spread, joints.
    page.focus("#pose")
    page.keyboard.press("ArrowRight")
    at_rest(seen, "0/0/1")
    sample = seen.shot("#canvas")
    assert page.inner_text("#pose-name") == "Sample 1 of 3"
    assert share_of(sample, PURPLE) > 0.02 > share_of(sample, PINK)
    page.check("#spread")
    at_rest(seen, "0/0/1")
    assert page.is_visible("#spread-legend")
    spread = seen.shot("#canvas")
    assert share_of(spread, PURPLE) < 0.01
    page.check("#samples")
    at_rest(seen, "0/0/1")
    assert changed(spread, seen.shot("#canvas")) > 0.005
    assert page.locator(".chosen .joint").count() == 24
    page.uncheck("#joints")
    assert page.locator(".joint").count() == 0

    assert seen.errors == []
    assert {url.split(":")[0] for url in seen.requests} <= {"file", "data"}
    assert sum(url.startswith("file:") for url in seen.requests) == 1


def test_people_and_images_are_selected(visit, page_file):
    path, fits = page_file
    seen = opened(visit, path)
    page = seen.page
    photo = seen.shot("#overlay")
    assert share_of(photo, (255, 0, 0)) > 0.3
    assert share_of(photo, (0, 255, 0)) > 0.3
    page.check("#zoom")
    assert page.locator(".chosen .joint").count() == 24
    left, _, width, _ = map(float, page.get_attribute("#overlay", "viewBox").split())
    across = fits.keypoints_2d[0, :, 0]
    assert left < across.min() < across.max() < left + width < 2 * np.ptp(across) + across.max()
    page.uncheck("#zoom")
    first = seen.shot("#canvas")
    page.click("#people button >> nth=1")
    at_rest(seen, "0/1/0")
    assert changed(first, seen.shot("#canvas")) > 0.02
    cells = page.locator("#table tbody tr").nth(5).locator("td").all_inner_texts()
    assert cells[0] == f"{round(100 * float(fits.joint_confidence[1, 5]))} %"
    assert cells[3] == f"{fits.joint_radius_90_mm[1, 5]:.0f}"
    page.click("[data-column=std_mm] button")
    column = [float(text) for text in page.locator("tbody td:nth-child(3)").all_inner_texts()]
    assert column == sorted(column, reverse=True)
    assert len(column) == 24
    page.click("tbody tr >> nth=0")
    assert page.locator("tr.marked").count() == 1
    page.select_option("#image", "1")
    at_rest(seen, "1/2/0")
    assert page.inner_text("#image-name") == fits.images[1]
    page.click("#play")  # the next frame is the first image again
    page.wait_for_selector('body[data-shown^="0/"]')
    page.click("#play")
    assert seen.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_shows_everything_in_either_theme(visit, page_file, scheme):
    seen = opened(visit, page_file[0], width=390, height=844, scheme=scheme)
    page = seen.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    is_dark = sum(int(part) for part in before[4:-1].split(",")) < 3 * 128
    assert is_dark == (scheme == "dark")
    stage = seen.shot("#canvas")[5, 5]
    assert (stage.mean() < 128) == is_dark
    page.click("#theme")
    assert page.evaluate(paper) != before
    assert seen.errors == []


def test_without_a_fit_or_anybody_the_page_has_no_error(visit, tmp_path):
    fits = people(2)
    for name in ("body_pose", "joints", "joint_confidence", "joint_std_mm", "log_prob"):
        getattr(fits, name)[0] = np.nan
    fits = dataclasses.replace(fits, status=np.array(["no_keypoints", "converged"]))
    write_page(fits, tmp_path / "index.html")
    write_page(fits[:0], tmp_path / "nobody.html")
    for name in ("index.html", "nobody.html"):
        seen = visit(offline=True)
        seen.page.goto((tmp_path / name).as_uri())
        seen.page.wait_for_timeout(200)
        assert share_of(seen.shot("#canvas"), PINK) < 0.001
        assert seen.errors == []
        if name == "index.html":
            assert "no keypoints" in seen.page.inner_text("#facts")


def test_hands_are_posed_and_can_be_looked_at(visit, tmp_path):
    shots = []
    for flexion in (0.0, 1.2):
        write_page(with_hands(people(1), flexion), tmp_path / "index.html")
        seen = opened(visit, tmp_path / "index.html")
        page, whole = seen.page, seen.shot("#canvas")
        assert page.locator("#table tbody tr").count() == 22
        page.check("#fingers")
        assert page.locator("#table tbody tr").count() == 52
        assert "left hand fitted, right hand at rest" in page.inner_text("#facts")
        page.uncheck("#joints")
        page.click("#view-left")
        shots.append(seen.shot("#canvas"))
        assert changed(whole, shots[-1]) > 0.02
        assert share_of(shots[-1], PINK) > 0.02
        assert not seen.errors
    assert changed(*shots) > 0.01


def test_without_fingers_there_is_nothing_about_them(visit, page_file):
    page = opened(visit, page_file[0]).page
    assert page.locator("#table tbody tr").count() == 24
    for name in ("fingers", "view-left", "view-right"):
        assert not page.is_visible(f"#{name}")


def test_without_webgl_the_rest_works(visit, page_file):
    seen = visit(offline=True)
    seen.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    seen.page.goto(page_file[0].as_uri())
    assert "no WebGL 2" in seen.page.inner_text("#no-webgl")
    assert seen.page.locator(".chosen .joint").count() == 24
    assert seen.page.locator("tbody tr").count() == 24
    assert seen.errors == []
