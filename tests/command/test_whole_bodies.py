"""Whole bodies with hands through ``flowprior fit``: formats, bodies, choices, pictures."""

import functools
import json

import numpy as np
import pytest
import torch

from flowprior.body import BodyModel
from flowprior.command import fit, main
from flowprior.command.sources import Camera, open_source
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.results import Fits
from flowprior.results.bodies import body_of
from flowprior.results.estimator import Estimator
from flowprior.rotations import rotvec_to_matrix
from flowprior.skeleton import BODY_67, COCO_17
from tests.body.made_up import arrays_of
from tests.command import whole_people
from tests.command.whole_people import FILES, FOCAL, HEIGHT, WIDTH, points, somebody
from tests.results.body_files import human_file

Image = pytest.importorskip("PIL.Image", reason="Pillow draws pictures: flowprior[fit]")

SIZE = ["--image-size", f"{WIDTH}x{HEIGHT}", "--focal", f"{FOCAL}", "--samples", "2"]
NUMBERS_ONLY = [part for name in ("overlays", "meshes", "page") for part in ("--skip", name)]
SLOW = pytest.param("smplx", marks=pytest.mark.slow)
_read = functools.cache(ConditionalPosePrior.from_pretrained)


def fitted(path, out, *options):
    """The fits of the command."""
    command = ["fit", str(path), "--out", str(out), *SIZE, *map(str, options)]
    assert main(command) == 0
    return Fits.load(out)


@pytest.mark.parametrize("name", FILES)
def test_files_with_hands_are_recognised(tmp_path, name):
    path, skeleton = whole_people.write(tmp_path, name), FILES[name][1]
    source = open_source(path, Camera(), lambda: None, frames=tmp_path)
    (chunk,) = source.chunks(10, ())
    assert chunk.people.skeleton is skeleton
    expected = points(skeleton)
    if name.startswith("openpose "):  # bodies without a few joints of BODY-25
        body = chunk.people.keypoints_2d[0, :, 2] > 0
        assert body[25:].all()
        assert body[:25].sum() >= 17
        expected = np.where(body[:, None], expected, 0)
    np.testing.assert_allclose(chunk.people.keypoints_2d[0], expected, atol=2e-3)
    (chunk,) = open_source(path, Camera(), lambda: None, frames=tmp_path, hands=False).chunks(
        10, ()
    )
    if name != "MHR-70":
        assert not any("finger" in each for each in chunk.people.skeleton.joint_names)


def test_hands_are_in_every_output(tmp_path):
    out = tmp_path / "out"
    fits = fitted(whole_people.write(tmp_path, "openpose"), out)
    assert fits.skeleton is BODY_67
    assert fits.kind.model_type == "smplh"
    assert fits.hands.tolist() == [["fitted", "fitted"]]
    assert fits.samples.shape == (1, 2, 52, 3)
    assert fits.joint_std_mm.shape == (1, 52)
    (file,) = (out / "people").iterdir()
    person = json.loads(file.read_text())
    np.testing.assert_allclose(
        person["smpl"]["left_hand_pose"], fits.left_hand_pose[0].ravel(), atol=1e-6
    )
    assert person["smpl"]["hands"] == {"left": "fitted", "right": "fitted"}
    assert len(person["keypoints_2d"]) == 67
    trimesh = pytest.importorskip("trimesh")
    (mesh,) = trimesh.load(next((out / "meshes").iterdir())).geometry.values()
    body = BodyModel(hands=True)
    theta = rotvec_to_matrix(torch.from_numpy(fits.rotations))
    vertices = body(theta, *map(torch.from_numpy, (fits.betas, fits.transl))).vertices[0].numpy()
    assert len(mesh.faces) == len(body.faces)
    bounds = np.stack([vertices.min(axis=0), vertices.max(axis=0)]) * [1, -1, -1]
    np.testing.assert_allclose(mesh.bounds, np.sort(bounds, axis=0), atol=1e-5)
    assert "left_middle1" in (out / "index.html").read_text(encoding="utf-8")


def test_the_user_chooses_hands(tmp_path, capsys):
    path = whole_people.write(tmp_path, "133 results")
    without = fitted(path, tmp_path / "without", "--no-hands", *NUMBERS_ONLY)
    assert without.skeleton is COCO_17
    assert (without.kind.model_type, without.hands) == ("smpl", None)
    body = tmp_path / "body.json"
    body.write_text(json.dumps(whole_people.results(COCO_17)))
    assert fitted(body, tmp_path / "plain", *NUMBERS_ONLY).kind.model_type == "smpl"
    at_rest = fitted(body, tmp_path / "rest", "--hands", *NUMBERS_ONLY)
    assert at_rest.kind.model_type == "smplh"
    assert at_rest.hands.tolist() == [["at rest", "at rest"]]
    assert np.abs(at_rest.left_hand_pose).max() > 0.1  # relaxed, not flat
    # Other results in the same folder would be of another body.
    again = ["fit", str(body), "--out", str(tmp_path / "rest"), *SIZE, *NUMBERS_ONLY]
    assert main(again) == 1
    assert "hands differ" in capsys.readouterr().err


@pytest.mark.parametrize("model_type", ["smpl", "smplh", SLOW])
def test_bodies_of_the_user(tmp_path, capsys, model_type):
    file, path = human_file(tmp_path, model_type), whole_people.write(tmp_path, "openpose")
    fits = fitted(path, tmp_path / "out", "--body", file, *NUMBERS_ONLY)
    assert fits.body == file.name
    assert fits.kind.model_type == model_type
    assert np.isfinite(fits.joint_std_mm).all()
    assert np.isfinite(fits.samples).all()
    printed = capsys.readouterr()
    if model_type == "smpl":
        assert fits.hands is None
        assert "SMPL_NEUTRAL.npz has no fingers: their keypoints are ignored" in printed.err
        return
    assert "2 of 2 hands fitted" in printed.out
    assert fits.hands.tolist() == [["fitted", "fitted"]]
    with pytest.raises(ValueError, match=rf"fits are of the body {file.name}"):
        body_of(fits)
    np.testing.assert_array_equal(body_of(fits, BodyModel(file)).faces, BodyModel(file).faces)


@pytest.mark.parametrize("model_type", ["smplh", SLOW])
def test_bodies_with_fingers_fit_keypoints_without(tmp_path, model_type):
    body = tmp_path / "body.json"
    body.write_text(json.dumps(whole_people.results(COCO_17)))
    file = human_file(tmp_path, model_type)
    fits = fitted(body, tmp_path / "out", "--body", file, *NUMBERS_ONLY)
    assert fits.hands.tolist() == [["at rest", "at rest"]]
    assert np.isfinite(fits.joint_radius_90_mm).all()


def test_a_body_without_fingers_is_no_body_with_hands(tmp_path, capsys):
    file = human_file(tmp_path, "smpl")
    command = ["fit", str(whole_people.write(tmp_path, "openpose")), "--out", str(tmp_path / "out")]
    assert main([*command, "--hands", "--body", str(file)]) == 1
    assert "is SMPL, a body without fingers: --hands needs a file of SMPL-H" in (
        capsys.readouterr().err
    )


def other_file(folder, kind):
    """Files that are no body."""
    if kind == "poses":
        arrays = {
            "poses": np.zeros((4, 156)),
            "trans": np.zeros((4, 3)),
            "gender": np.array("male"),
        }
    else:
        arrays = arrays_of("mano", 60)
    if kind == "head":
        arrays["kintree_table"] = np.array([[-1, 0, 1, 1, 1], range(5)])
    path = folder / f"{kind}.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("hand", "is MANO, one hand without a body"),
        ("poses", "poses"),
        ("head", "is FLAME, a head"),
    ],
)
def test_a_wrong_body_is_named(tmp_path, capsys, kind, message):
    path = whole_people.write(tmp_path, "openpose")
    command = ["fit", str(path), "--out", str(tmp_path / "out")]
    assert main([*command, "--body", str(other_file(tmp_path, kind))]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert f"{kind}.npz" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmpose", "MHR-70"])
def test_the_fingers_are_found(tmp_path, monkeypatch, name):
    def thorough(prior, body, **options):
        return Estimator(_read(prior), body, max_iterations=80, **options)

    monkeypatch.setattr(fit, "Estimator", thorough)
    fits = fitted(whole_people.write(tmp_path, name), tmp_path / "out", *NUMBERS_ONLY)
    truth = somebody()[1].joints.numpy()
    for wrist, first in ((20, 22), (21, 37)):
        fingers = range(first, first + 15)
        expected = truth[fingers] - truth[wrist]
        error = np.linalg.norm(fits.joints[0, fingers] - fits.joints[0, wrist] - expected, axis=-1)
        assert 1000 * error.mean() < 20
    assert fits.reprojection_px[0] < 4
