"""The interactive viewer: what its callbacks do, and what a browser shows."""

import dataclasses
import socket
import time

import numpy as np
import pytest

from flowprior.skeleton import SMPL_24
from flowprior.view.viewer import Viewer, serve
from tests.view.browser import FRAMES
from tests.view.conftest import share_of
from tests.view.people import picture, sequence

pytest.importorskip("viser", reason="flowprior[view] has viser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default::DeprecationWarning"),  # of viser's own dependencies
]

WRIST = SMPL_24.index("right_wrist")
PINK = (232, 72, 138)


# The panel covers the right side of the window.
SIZE, WIDTH = (860, 420), 500
# Its client calls preventDefault in a passive listener when a node is dragged.
OF_VISER = "Unable to preventDefault inside passive event listener invocation."


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, seconds=30):
    """Wait for a condition; the last value it had."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return value


@pytest.fixture
def viewer(fits, body, prior, tmp_path):
    photo = str(picture(tmp_path / "photo.png", (640, 640)))
    shown = dataclasses.replace(fits, image_path=np.array([photo, photo]))
    with serve(shown, body=body, prior=prior, port=free_port(), block=False) as running:
        yield running
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(running.url.rpartition(":")[2]))) != 0


def on_screen(camera, point, size):
    """Pixel of a point (3,) in metres, as the browser's camera sees it."""
    w, x, y, z = camera.wxyz
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    right, down, forward = turn.T @ (point - camera.position)
    focal = size[1] / 2 / np.tan(camera.fov / 2)
    return size[0] / 2 + focal * right / forward, size[1] / 2 + focal * down / forward


def test_a_browser_shows_the_body_and_drags_a_joint(viewer, visit):
    seen = visit(width=SIZE[0], height=SIZE[1])
    page, stage = seen.page, viewer.stage
    page.goto(viewer.url)
    client = until(lambda: next(iter(viewer.clients()), None))
    assert client is not None
    assert until(lambda: share_of(seen.shot(), PINK) > 0.005)
    assert until(lambda: page.evaluate(FRAMES) > 5)  # the shaders are compiled
    before = stage.body_on_screen()[1].copy()

    # A slider of the panel shows a sample.
    slider = page.get_by_role("slider").nth(1)
    slider.focus()
    page.keyboard.press("End")  # arrows would move the camera too
    assert until(lambda: stage.sample == 6)
    page.keyboard.press("Home")
    assert until(lambda: stage.sample == 0)

    camera, picture_before = client.camera, seen.shot()
    assert until(lambda: camera.position is not None and abs(camera.position[2] + 0.05) < 0.02)
    x, y = on_screen(camera, before[WRIST], SIZE)
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 6):
        page.mouse.move(x - 2 * step, y - 9 * step)
        time.sleep(0.1)
    page.mouse.up()
    assert until(lambda: WRIST in stage.placed and viewer.is_idle())
    place = stage.placed[WRIST]
    assert place[1] < before[WRIST][1] - 0.03  # up
    assert until(lambda: stage.answer.error_mm.get(WRIST, np.inf) < 30)
    after = stage.body_on_screen()[1]
    assert np.linalg.norm(after[WRIST] - place) < 0.03
    assert np.linalg.norm(after[WRIST] - before[WRIST]) > 0.03
    assert until(lambda: "right wrist" in page.inner_text("body"))
    moved = np.abs(seen.shot() - picture_before)[:, :WIDTH].max(axis=-1) > 40
    assert moved.mean() > 0.002
    assert set(seen.errors) <= {OF_VISER}


def test_choices_of_the_panel_reach_the_stage(viewer, fits):
    viewer.choose_person(2)
    assert viewer.stage.row == 1
    viewer.choose_image(fits.images[0])
    assert viewer.stage.row in (0, 1)


def test_a_fault_is_logged_and_the_viewer_goes_on(viewer, caplog):
    def fault():
        raise RuntimeError("broken on purpose")

    viewer.submit(fault)
    done = []
    viewer.submit(lambda: done.append(True))
    assert until(lambda: done)
    assert "broken on purpose" in caplog.text


def test_nobody_is_an_error_before_anything_is_served(fits, body, prior):
    with pytest.raises(ValueError, match="nobody"):
        Viewer(fits[:0], body=body, prior=prior, port=free_port())


def test_a_sequence_plays_at_its_rate_and_keeps_the_track(body, prior):
    fits = sequence(frames=8, fps=25.0)
    with serve(fits, body=body, prior=prior, port=free_port(), block=False) as viewer:
        second = fits.images[5]
        viewer.submit(lambda: viewer.choose_image(second))
        viewer.submit(lambda: viewer.choose_person(2))
        viewer.submit(lambda: viewer.choose_image(fits.images[0]))
        assert until(lambda: viewer.is_idle() and viewer.stage.image == fits.images[0])
        seen = set()
        viewer.play()
        assert until(lambda: seen.add(viewer.stage.image) or len(seen) > 3)
        viewer.pause()
        assert until(viewer.is_idle)
        here = viewer.stage.image
        viewer.submit(lambda: viewer.choose_image(second))
        assert until(lambda: viewer.is_idle() and viewer.stage.image == second)
        assert fits.person[viewer.stage.row] == 1
        assert here in fits.images
