"""The page as a file: complete, safe, small."""

import base64
import dataclasses
import json
import re
import zlib

import numpy as np
import pytest

from flowprior.body import BodyModel
from flowprior.results.bodies import pose_bodies
from flowprior.view.meshes import poses_of, unpack
from flowprior.view.page import write_page
from tests.view.people import people, picture, with_hands

pytest.importorskip("PIL.Image")

BODY = BodyModel()
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def written(fits, path, **options):
    size = write_page(fits, path, body=BODY, **options)
    text = path.read_text(encoding="utf-8")
    assert size == path.stat().st_size
    return text, json.loads(DATA.search(text)[1])


def test_the_page_has_the_people_of_every_image(tmp_path):
    fits = people(3, photo=picture(tmp_path / "photo.png"))
    text, data = written(fits, tmp_path / "index.html", title="Three people")
    assert "<title>Three people</title>" in text
    assert [image["people"] for image in data["images"]] == [[0, 1], [2]]
    assert [image["name"] for image in data["images"]] == fits.images
    assert all(image["photo"].startswith("data:image/jpeg;base64,") for image in data["images"])
    faces = np.frombuffer(zlib.decompress(base64.b64decode(data["faces"])), "<u4")
    assert (faces.reshape(-1, 3) == BODY.faces.numpy()).all()
    for row, person in enumerate(data["people"]):
        poses = poses_of(fits, row, BODY)
        found = unpack(person["mesh"], BODY.num_vertices, np.array(person["origin"]))
        assert np.abs(found - poses.vertices).max() < 0.0003
        joints = np.reshape(person["joints"], (-1, 24, 3)) / 1000
        assert np.abs(joints - poses.joints).max() < 0.0006
        np.testing.assert_allclose(person["confidence"], fits.joint_confidence[row], atol=6e-4)
        np.testing.assert_allclose(person["radius_90_mm"], fits.joint_radius_90_mm[row], atol=0.06)
        points = fits.focal_px[row] * fits.joints[row, :, :2] / fits.joints[row, :, 2:]
        np.testing.assert_allclose(person["points"], points + fits.centre_px[row], atol=0.06)


def test_the_page_has_the_hands_of_the_fits(tmp_path):
    fits = with_hands(people(2))
    write_page(fits, tmp_path / "index.html")
    data = json.loads(DATA.search((tmp_path / "index.html").read_text(encoding="utf-8"))[1])
    body = BodyModel(hands=True)
    person = data["people"][0]
    found = unpack(person["mesh"], body.num_vertices, np.array(person["origin"]))
    assert np.abs(found[0] - pose_bodies(fits, body).vertices[0]).max() < 0.0003
    names = data["joint_names"]
    assert tuple(names) == body.joint_names
    assert {names[joint] for joint in data["hands"].values()} == {"left_middle1", "right_middle1"}
    assert {names[joint] for joint in data["fine_joints"]} == set(body.joint_names[22:])
    assert person["hands"] == ["fitted", "at rest"]
    assert len(person["confidence"]) == len(person["points"]) == 52


def test_the_page_loads_nothing(tmp_path):
    text, _ = written(people(1), tmp_path / "index.html")
    assert "default-src 'none'" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert set(re.findall(r"https?://[^\s\"'`)]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "{{" not in text.replace("`${{", "")


def test_names_and_titles_cannot_break_the_page(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>{{data}}"
    fits = dataclasses.replace(people(1), image=np.array([evil]))
    text, data = written(fits, tmp_path / "index.html", title=evil)
    assert data["images"][0]["name"] == evil
    assert "<img" not in text.replace('draw("image"', "")


def test_people_without_a_fit_are_listed_without_a_body(tmp_path):
    fits = people(2)
    for name in ("body_pose", "joints", "joint_confidence", "joint_std_mm", "log_prob"):
        getattr(fits, name)[1] = np.nan
    _, data = written(fits, tmp_path / "index.html")
    assert data["people"][0]["mesh"]
    assert data["people"][1]["mesh"] is None
    assert data["people"][1]["confidence"] == [None] * 24
    assert data["people"][1]["log_prob"] is None


def test_images_of_unknown_size_show_what_is_in_them(tmp_path):
    fits = people(1)
    fits.image_size[:] = np.nan
    _, data = written(fits, tmp_path / "index.html")
    far = np.array(data["people"][0]["keypoints"])[:, :2].max(axis=0)
    assert data["images"][0]["width"] > far[0]
    assert data["images"][0]["height"] > far[1]
    assert data["images"][0]["photo"] is None


def test_a_large_page_is_reduced_to_its_limit(tmp_path):
    fits = people(4, samples=16, photo=picture(tmp_path / "photo.png"))
    whole, data = written(fits, tmp_path / "whole.html")
    assert [person["poses"] for person in data["people"]] == [17] * 4
    limit = 0.5 * len(whole) / 1e6
    text, data = written(fits, tmp_path / "half.html", max_megabytes=limit)
    assert len(text) <= 1e6 * limit
    assert [person["poses"] for person in data["people"]] == [5] * 4
    assert "4 of 16 samples" in text
    tiny, data = written(fits, tmp_path / "tiny.html", max_megabytes=0)
    assert [person["poses"] for person in data["people"]] == [1] * 4
    assert len(tiny) < 0.5 * len(text)


def test_a_page_of_nobody_is_a_page(tmp_path):
    text, data = written(people(0), tmp_path / "index.html")
    assert data["people"] == []
    assert "0 people" in text


def test_a_missing_folder_and_a_missing_body_are_errors(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        write_page(people(1), tmp_path / "nowhere" / "index.html")
    fits = dataclasses.replace(people(1), body="SMPL_NEUTRAL.pkl")
    with pytest.raises(ValueError, match="pass body="):
        write_page(fits, tmp_path / "index.html")
    assert not (tmp_path / "index.html").exists()
