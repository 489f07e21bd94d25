"""The demo: sources of boxes, pictures, files, reports of unusable images."""

import json

import cv2
import numpy as np
import pytest
import torch
import trimesh

from examples.prohmr import demo
from examples.prohmr.model import ProHMR
from flowprior.body import BodyModel

SMALL = {"hidden_features": 16, "num_steps": 2, "context_norm": True}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    ProHMR("resnet-small", size=32, head_features=8, prior=SMALL).eval().save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((60, 40, 3), 128, np.uint8))
    return folder


def run(photos, checkpoint, *argv):
    out = photos.parent / "out"
    given = [photos, "--checkpoint", checkpoint, "--out", out, "--samples", "5", "--device", "cpu"]
    return demo.main([*map(str, given), *map(str, argv)]), out


def test_whole_images_and_a_broken_one(photos, checkpoint, capsys):
    (photos / "c.jpg").write_bytes(b"no image")
    code, out = run(photos, checkpoint)
    assert code == 1
    assert "c.jpg" in capsys.readouterr().err
    people = json.loads((out / "people.json").read_text(encoding="utf-8"))
    assert [person["box"] for person in people] == [[20.0, 30.0, 60.0]] * 2
    assert len(people[0]["body_pose"]) == 69
    assert set(people[0]["spread_mm"]) == {
        "left arm", "right arm", "left leg", "right leg", "head"
    }  # fmt: skip
    assert len(trimesh.load(out / "a.jpg_0.glb").geometry) == 5
    assert cv2.imread(str(out / "b.jpg_0.png")).shape[0] == 224


def test_boxes_of_a_file(photos, checkpoint, capsys):
    file = photos.parent / "boxes.csv"
    file.write_text(
        "image,x,y,width,height\na.jpg,10,20,20,30\na.jpg,0,0,0,9\nnone.jpg,0,0,9,9\n",
        encoding="utf-8",
    )
    code, out = run(photos, checkpoint, "--boxes", file)
    assert code == 1
    (person,) = json.loads((out / "people.json").read_text(encoding="utf-8"))
    assert person["box"] == [20.0, 35.0, pytest.approx(36.0)]
    error = capsys.readouterr().err
    assert "box of no size (line 3)" in error
    assert "none.jpg" in error


@pytest.mark.parametrize(
    "content",
    [
        b"a.jpg;10;20;20;30\nb.jpg;10;20;20;30\n",
        "a.jpg,10,20,20,30\nb.jpg,10,20,20,30\n".encode("utf-16"),
        b"\xef\xbb\xbfimage,x,y,width,height\r\na.jpg,10,20,20,30\r\nb.jpg,10,20,20,30\r\n",
    ],
)
def test_boxes_as_spreadsheets_write_them(photos, content):
    file = photos.parent / "boxes.csv"
    file.write_bytes(content)
    people, person, report = demo.find_people(photos, None, file)
    assert people.imgname.tolist() == ["a.jpg", "b.jpg"]
    assert people.center.tolist() == [[20.0, 35.0]] * 2
    assert person.tolist() == [0, 0]
    assert report.clean


def test_people_of_images_that_share_a_stem(photos):
    (photos / "left").mkdir()
    for name in ("left/a.jpg", "a.b.jpg", "a.png"):
        cv2.imwrite(str(photos / name), np.full((60, 40, 3), 128, np.uint8))
    names = ["a.jpg", "left/a.jpg", "left\\a.jpg", "a.b.jpg", "a.png", "a.jpg"]
    file = photos.parent / "boxes.csv"
    file.write_text("".join(f"{name},10,20,20,30\n" for name in names), encoding="utf-8")
    people, person, _ = demo.find_people(photos, None, file)
    found = list(zip(people.imgname.tolist(), person.tolist(), strict=True))
    assert found == [
        *(("a.jpg", 0), ("left/a.jpg", 0), ("left/a.jpg", 1), ("a.b.jpg", 0)),
        *(("a.png", 0), ("a.jpg", 1)),
    ]
    assert len({demo.file_label(*pair) for pair in found}) == len(found)


def test_features_that_are_not_finite_cost_one_person(photos, checkpoint, capsys, monkeypatch):
    cv2.imwrite(str(photos / "a.jpg"), np.zeros((60, 40, 3), np.uint8))
    load = demo.load_model

    def load_fragile(*args, **options):
        model = load(*args, **options)
        backbone = model.backbone.forward

        def forward(images):
            features = backbone(images)
            return features * torch.nan if images.mean() < -1.5 else features

        model.backbone.forward = forward
        return model

    monkeypatch.setattr(demo, "load_model", load_fragile)
    code, out = run(photos, checkpoint)
    assert code == 1
    assert "a.jpg_0: context holds NaN" in capsys.readouterr().err
    (person,) = json.loads((out / "people.json").read_text(encoding="utf-8"))
    assert person["image"].endswith("b.jpg")


def test_fit_to_openpose_keypoints(photos, checkpoint, capsys):
    points = np.zeros((25, 3))
    points[:5] = [[20, 10, 1], [20, 20, 1], [10, 22, 1], [8, 35, 0.8], [8, 45, 0.7]]
    hips = np.zeros((25, 3))
    hips[[8, 9, 12]] = [[20, 40, 1], [15, 40, 1], [25, 40, 1]]  # which do not count
    content = {"people": [{"pose_keypoints_2d": p.flatten().tolist()} for p in (points, hips)]}
    folder = photos.parent / "keypoints"
    folder.mkdir()
    (folder / "b_keypoints.json").write_text(json.dumps(content), encoding="utf-8")
    argv = ["--keypoints", folder, "--fit", "--steps", "5", "pose=4", "--frame", "full"]
    code, out = run(photos, checkpoint, *argv)
    assert code == 1
    assert "b.jpg_1: fewer than 3 keypoints to fit to" in capsys.readouterr().err
    fitted, kept = json.loads((out / "people.json").read_text(encoding="utf-8"))
    assert len(fitted["fit"]["body_pose"]) == 69
    assert len(fitted["fit"]["global_orient"]) == 3
    assert fitted["fit"]["focal_px"] == pytest.approx(5000)
    assert fitted["fit"]["principal_point_px"] == pytest.approx([20, 30])
    assert "fit" not in kept
    assert cv2.imread(str(out / "b.jpg_0_fit.png")).shape[0] == 224
    assert not (out / "b.jpg_1_fit.png").exists()
    assert "fit" in trimesh.load(out / "b.jpg_0.glb").geometry
    assert len(trimesh.load(out / "b.jpg_1.glb").geometry) == 5


def test_openpose_keypoints(photos, checkpoint):
    points = np.zeros((25, 3))
    points[:4] = [[10, 10, 1], [30, 10, 1], [20, 50, 1], [20, 30, 0.9]]
    content = {"people": [{"pose_keypoints_2d": points.flatten().tolist()}]}
    folder = photos.parent / "keypoints"
    folder.mkdir()
    (folder / "b_keypoints.json").write_text(json.dumps(content), encoding="utf-8")
    code, out = run(photos, checkpoint, "--keypoints", folder)
    assert code == 0
    (person,) = json.loads((out / "people.json").read_text(encoding="utf-8"))
    assert person["image"].endswith("b.jpg")
    assert person["box"] == [20.0, 30.0, pytest.approx(48.0)]


def test_one_image(photos, checkpoint):
    code, _ = run(photos / "b.jpg", checkpoint, "--out", photos.parent / "one")
    assert code == 0
    assert (photos.parent / "one/b.jpg_0.png").exists()
    assert not (photos.parent / "one/a.jpg_0.png").exists()


def test_uncertainty_is_that_of_the_samples(checkpoint):
    from examples.prohmr.model import load_model

    model = load_model(checkpoint)
    body = BodyModel()
    posterior = model.prior(torch.randn(1, 256))
    betas = torch.zeros(1, 10)
    found = demo.measure_uncertainty(
        posterior, betas, body, samples=50, generator=torch.Generator().manual_seed(1)
    )
    theta = posterior.sample(50, generator=torch.Generator().manual_seed(1))
    joints = body(theta, betas).joints[0].detach()
    joints = joints - joints[:, :1]
    expected = joints.var(dim=0).sum(-1).sqrt()
    assert found.limbs_mm["left leg"] == pytest.approx(
        1000 * expected[[4, 7]].mean().item(), rel=1e-4
    )
    assert found.entropy_nats == pytest.approx(posterior.entropy().item())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--keypoints", "nowhere"], "nowhere"),
        (["--boxes", "nowhere.csv"], "nowhere.csv"),
        (["--boxes", "x.csv", "--keypoints", "x"], "got both"),
        (["--samples", "1"], "from 2 up"),
        (["--fit"], "--fit needs --keypoints"),
        (["pose=3"], "no --fit"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt"),
    ],
)
def test_bad_input_is_code_2(photos, checkpoint, capsys, argv, words):
    assert run(photos, checkpoint, *argv)[0] == 2
    assert words in capsys.readouterr().err


def test_missing_images_are_reported(tmp_path, checkpoint, capsys):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", checkpoint)[0] == 2
    assert "no image in" in capsys.readouterr().err
