"""The page of a sequence: poses instead of vertices, played at the rate of the file."""

import base64
import json
import re

import numpy as np
import pytest

from flowprior.body import BodyModel
from flowprior.view.meshes import poses_of
from flowprior.view.page import write_page
from flowprior.view.skinned import TURN_STEP, packed_rotations
from tests.view.conftest import share_of
from tests.view.people import sequence

pytest.importorskip("PIL.Image")

PINK = (232, 72, 138)
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def test_a_sequence_has_one_shape_per_track_and_its_rate(tmp_path):
    """viser#326: one HTML file, without a server."""
    fits = sequence()
    write_page(fits, tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "2 people in 6 frames at 20 per second" in text
    data = json.loads(DATA.search(text)[1])
    assert data["images_per_second"] == 20
    assert sorted(data["skin"]["tracks"]) == ["0", "1"]
    assert [image["people"] for image in data["images"]] == [[0], [1], [2], [3, 4], [5, 6], [7, 8]]


def test_the_page_stays_small(tmp_path):
    """Per person and frame a few kilobytes, where vertices would take a hundred."""
    short, long = (
        write_page(sequence(frames, samples=16), tmp_path / "index.html") for frames in (8, 24)
    )
    people = len(sequence(24)) - len(sequence(8))
    assert (long - short) / people < 7000


def test_rotations_of_any_length_are_packed():
    vectors = np.array([[[4.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.3, -3.1, 0.2]]])
    values = np.frombuffer(base64.b64decode(packed_rotations(vectors)), "<i2").reshape(1, 3, 3)
    found = values * TURN_STEP
    np.testing.assert_allclose(found[0, 0], [4 - 2 * np.pi, 0, 0], atol=1e-4)
    np.testing.assert_allclose(found[0, 1:], vectors[0, 1:], atol=1e-4)


@pytest.mark.slow
def test_the_page_poses_and_plays(visit, tmp_path):
    fits = sequence()
    write_page(fits, tmp_path / "index.html")
    seen = visit(offline=True)
    page = seen.page
    page.goto((tmp_path / "index.html").as_uri())
    page.wait_for_selector('body[data-shown="0/0/0"]')
    assert share_of(seen.shot("#canvas"), PINK) > 0.01
    body = BodyModel()
    for row in (0, 4):
        found = page.evaluate(
            f"posesOf({row}).then((poses) => poses.vertices.map((each) => [...each]))"
        )
        expected = poses_of(fits, row, body)
        shape = expected.vertices.shape
        assert np.abs(np.reshape(found, shape) - expected.vertices).max() < 0.001
        joints = page.evaluate(f"jointsOf(data.people[{row}], 1)")
        assert np.abs(np.array(joints) - expected.joints[1]).max() < 0.001
    spread = page.evaluate("posesOf(0).then((poses) => [...poses.spread])")
    assert np.median(spread) > 5

    # The chosen track stays, also after frames without it.
    page.evaluate("choose({ image: 4 })")
    page.click("#people button >> nth=1")
    page.wait_for_selector('body[data-shown="4/6/0"]')
    page.evaluate("choose({ image: 1 })")
    page.wait_for_selector('body[data-shown="1/1/0"]')
    page.evaluate("choose({ image: 5 })")
    page.wait_for_selector('body[data-shown="5/8/0"]')
    page.click("#play")
    page.wait_for_selector('body[data-shown^="0/"]')
    page.wait_for_selector('body[data-shown^="3/"]')
    page.click("#play")
    assert page.inner_text("#play") == "Play"
    assert seen.errors == []
