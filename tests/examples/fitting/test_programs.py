"""The commands of the example, from the arguments to the files they leave."""

import json
import shutil

import numpy as np
import pytest
import torch

from examples.fitting import annotate, fit, fit_views, train_prior
from examples.pictures import save_image
from examples.studies import fitting_failures, fitting_priors
from examples.training.settings import with_overrides
from flowprior.fitting.objective import KeypointWeights
from flowprior.fitting.people import Stage
from flowprior.skeleton import BODY_25, COCO_17

COCO = [BODY_25.index(name) for name in COCO_17.joint_names]


@pytest.fixture
def small_poses(tmp_path, poses):
    """A file of poses with a split by people, 12 of each part."""
    rows = poses[:36].numpy()
    path = tmp_path / "poses.npz"
    np.savez(
        path,
        poses=rows.reshape(36, 72),
        joints17=np.zeros((36, 17, 3), np.float32),
        split=np.repeat([0, 1, 2], 12),
        subject=np.repeat([0, 1, 2], 12),
        subject_names=np.array(["a", "b", "c"]),
    )
    return path


@pytest.fixture
def openpose_file(people, tmp_path):
    content = {
        "people": [
            {"pose_keypoints_2d": people.keypoints[row].ravel().tolist()} for row in range(2)
        ]
        + [{"pose_keypoints_2d": [0.0] * 75}]
    }
    path = tmp_path / "shot_keypoints.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_fit_leaves_parameters_bodies_pictures_and_a_report(
    openpose_file, prior_dir, body, tmp_path, capsys
):
    out = tmp_path / "out"
    arguments = ["--data", str(openpose_file), "--prior", str(prior_dir), "--out", str(out)]
    assert fit.main([*arguments, "--steps", "5", "pose=16", "--stages", "smplify"]) == 0
    assert "2 people in" in capsys.readouterr().out
    with np.load(out / "fits.npz") as fits:
        assert fits["body_pose"].shape == (2, 23, 3, 3)
        theta = np.concatenate([fits["global_orient"], fits["body_pose"]], axis=1)
        posed = body(*map(torch.from_numpy, (theta, fits["betas"], fits["transl"])))
        np.testing.assert_allclose(posed.joints, fits["joints"], atol=1e-4)
        assert fits["image_names"].tolist() == ["shot", "shot"]
        assert fits["person"].tolist() == [0, 1]
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["frame"] == "crop"
    assert report["weights"]["pose"] == 16
    assert len(report["people"]) == 2
    assert sum(report["left_out"].values()) == 1
    assert {file.name for file in out.iterdir()} == {
        *("fits.npz", "report.json", "bodies.glb", "shot_0.png", "shot_1.png")
    }
    assert (out / "bodies.glb").read_bytes()[:4] == b"glTF"


def test_fit_takes_images_and_a_context_of_the_user(
    openpose_file, prior_dir, priors, people, tmp_path
):
    import cv2

    cv2.imwrite(str(tmp_path / "shot.jpg"), np.full((1000, 1000, 3), 90, np.uint8))
    # As the program computes them: L-BFGS amplifies the least difference, and how a matrix product
    # rounds depends on the number of rows.
    context = priors.context(people.keypoints[:2]).numpy()
    np.savez(tmp_path / "context.npz", context=context, betas=np.zeros((2, 10)))
    arguments = ["--data", str(openpose_file), "--prior", str(prior_dir), "--steps", "4"]
    arguments += ["--device", "cpu", "--pictures", "1"]
    values = []
    for name, more in (("own", ["--context", str(tmp_path / "context.npz")]), ("theirs", [])):
        out = tmp_path / name
        assert fit.main([*arguments, "--out", str(out), *more]) == 0
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        assert report["frame"] == "full"
        values.append([person["objective"] for person in report["people"]])
    assert values[0] == values[1]
    np.savez(tmp_path / "short.npz", context=context[:1])
    short = ["--context", str(tmp_path / "short.npz"), "--out", str(tmp_path / "x")]
    assert fit.main([*arguments, *short]) == 2


def coco_file(path, people, names):
    """COCO results, a person in each of the images."""
    path.write_text(
        json.dumps(
            [
                {
                    "image_id": name,
                    "category_id": 1,
                    "keypoints": people.keypoints[row, COCO].double().flatten().tolist(),
                }
                for row, name in enumerate(names)
            ]
        ),
        encoding="utf-8",
    )
    return path


def fit_quickly(data, prior_dir, out, *more):
    arguments = ["--data", data, "--prior", prior_dir, "--out", out, "--steps", "3", *more]
    return fit.main([*map(str, arguments), "--kind", "isotropic", "--device", "cpu"])


def test_an_image_that_cannot_be_decoded_costs_its_own_people_only(
    people, prior_dir, tmp_path, capsys
):
    names = ["a.png", "b.png", "c.png"]
    data = coco_file(tmp_path / "people.json", people, names)
    images = tmp_path / "images"
    images.mkdir()
    found = []
    for broken in (False, True):
        for name in names:
            save_image(images / name, np.full((1000, 900, 3), 90, np.uint8))
        if broken:
            (images / "b.png").write_bytes(b"no image")
        out = tmp_path / f"out{broken}"
        assert fit_quickly(data, prior_dir, out, "--images", images, "--pictures", "0") == 0
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        assert (report["frame"], report["images_not_decoded"]) == ("full", int(broken))
        with np.load(out / "fits.npz") as fits:
            found.append(dict(fits))
        assert ("1 of 3 people" in capsys.readouterr().err) == broken
    whole, broken = found
    for name, values in whole.items():
        np.testing.assert_array_equal(broken[name][[0, 2]], values[[0, 2]], err_msg=name)
    assert whole["principal_point_px"].tolist() == [[450, 500]] * 3
    assert broken["principal_point_px"][1].tolist() != [450, 500]


def test_pictures_of_images_that_share_a_stem(people, prior_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "fit_picture", lambda *_: np.zeros((4, 4, 3), np.uint8))
    names = ["left/0.png", "right/0.png", "0.png", "0.jpg", "0.b.png"]
    data = coco_file(tmp_path / "people.json", people, names)
    out = tmp_path / "out"
    assert fit_quickly(data, prior_dir, out) == 0
    assert {file.name for file in out.glob("*.png")} == {
        "left%2F0.png_0.png",
        "right%2F0.png_0.png",
        "0.png_0.png",
        "0.jpg_0.png",
        "0.b.png_0.png",
    }


def test_contexts_of_images_that_share_a_stem(people, prior_dir, priors, tmp_path):
    """Each takes its own, in whatever order the file has them."""
    names = ["left/0.png", "right/0.png", "0.b.png", "0.png"]
    data = coco_file(tmp_path / "people.json", people, names)
    context = priors.context(people.keypoints[:4]).numpy()
    values = []
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        path = tmp_path / "context.npz"
        np.savez(path, context=context[order], image_names=np.array(names)[order], person=[0] * 4)
        out = tmp_path / "out"
        more = ["--context", path, "--pictures", "0", "--kind", "conditional"]
        arguments = ["--data", data, "--prior", prior_dir, "--out", out, "--steps", "2", *more]
        assert fit.main([*map(str, arguments), "--device", "cpu"]) == 0
        with np.load(out / "fits.npz") as fits:
            values.append(fits["body_pose"])
    np.testing.assert_array_equal(*values)
    assert len(np.unique(values[0][:, 0, 0, 0])) == 4


@pytest.mark.parametrize("program", [fit, annotate], ids=["fit", "annotate"])
@pytest.mark.parametrize(
    ("focal", "words"),
    [
        ("25", "probably in millimetres"),
        ("0", "positive number"),
        ("-1500", "positive number"),
        ("nan", "positive number"),
        ("inf", "positive number"),
    ],
)
def test_focal_lengths_are_in_pixels(program, focal, words, people, prior_dir, tmp_path, capsys):
    data = coco_file(tmp_path / "people.json", people, ["a.png"])
    places = ["--data", data, "--out", tmp_path / "out"] if program is fit else [data, "out"]
    arguments = [*places, "--prior", prior_dir, "--kind", "isotropic", f"--focal={focal}"]
    assert program.main([*map(str, arguments), "--device", "cpu"]) == 2
    assert words in capsys.readouterr().err


def test_fit_has_people_of_its_own(prior_dir, tmp_path):
    out = tmp_path / "out"
    arguments = ["--prior", str(prior_dir), "--out", str(out), "--steps", "2", "--pictures", "1"]
    assert fit.main([*arguments, "--kind", "mixture", "--free-focal"]) == 0
    assert (
        len(json.loads((out / "report.json").read_text(encoding="utf-8"))["people"])
        == fit.EMBEDDED_PEOPLE
    )


def test_no_program_needs_a_trained_prior(people, library, tmp_path, monkeypatch):
    for drawing in ("draw", "write_glb"):
        monkeypatch.setattr(fit_views, drawing, lambda *_, **__: None)
    few = ["--steps", "2", "--device", "cpu"]
    assert fit.main(["--out", str(tmp_path / "fit"), "--pictures", "0", *few]) == 0
    assert fit_views.main(["--out", str(tmp_path / "views"), "--steps", "2"]) == 0
    np.savez(tmp_path / "shard.npz", keypoints_2d=people.keypoints[:4].numpy())
    arguments = [str(tmp_path / "shard.npz"), str(tmp_path / "out"), "--workers", "0", *few]
    assert annotate.main(arguments) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["fitted"] == 4
    assert json.loads((tmp_path / "out" / "settings.json").read_text(encoding="utf-8"))["prior"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "missing.json"], "missing.json"),
        (["--prior", "nowhere"], "python -m examples.fitting.train_prior"),
        (["weight=3"], "unknown setting weight; settings are pose"),
        (["pose=much"], "pose must be a number, got 'much'"),
        (["use_hips=1"], "use_hips must be true or false"),
    ],
)
def test_fit_says_what_is_wrong(arguments, message, prior_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "--prior" not in arguments:
        arguments = [*arguments, "--prior", str(prior_dir)]
    assert fit.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_several_views_leave_one_pose(people, prior_dir, tmp_path):
    files = []
    for row in range(3):
        content = {"people": [{"pose_keypoints_2d": people.keypoints[row].ravel().tolist()}]}
        files.append(tmp_path / f"view{row}_keypoints.json")
        files[-1].write_text(json.dumps(content), encoding="utf-8")
    out = tmp_path / "out"
    arguments = ["--data", *map(str, files), "--prior", str(prior_dir), "--out", str(out)]
    assert fit_views.main([*arguments, "--steps", "5"]) == 0
    with np.load(out / "people.npz") as found:
        assert found["body_pose"].shape == (1, 23, 3, 3)
        assert found["global_orient"].shape == (1, 3, 1, 3, 3)
    assert {"bodies.glb", "people.npz", "person0.png", "report.json"} == {
        file.name for file in out.iterdir()
    }


def test_views_of_two_cameras_with_the_same_file_names(
    people, prior_dir, priors, tmp_path, capsys, monkeypatch
):
    """Each view takes the context of its own camera, and none that may be either's."""
    for drawing in ("draw", "write_glb"):
        monkeypatch.setattr(fit_views, drawing, lambda *_, **__: None)
    files = []
    for row, camera in enumerate(("left", "right")):
        content = {"people": [{"pose_keypoints_2d": people.keypoints[row].ravel().tolist()}]}
        (tmp_path / camera).mkdir()
        files.append(tmp_path / camera / "0_keypoints.json")
        files[-1].write_text(json.dumps(content), encoding="utf-8")
    context = priors.context(people.keypoints[:2]).numpy()
    found = []
    for order in ([0, 1], [1, 0]):
        names = np.array(["left/0.jpg", "right/0.jpg"])[order]
        np.savez(tmp_path / "c.npz", context=context[order], image_names=names, person=[0, 0])
        out = tmp_path / "out"
        arguments = ["--data", *files, "--prior", prior_dir, "--out", out, "--steps", "2"]
        assert fit_views.main([*map(str, arguments), "--context", str(tmp_path / "c.npz")]) == 0
        with np.load(out / "people.npz") as content:
            found.append(content["global_orient"])
    np.testing.assert_array_equal(*found)
    np.savez(tmp_path / "c.npz", context=context, image_names=["0.jpg", "0.jpg"], person=[0, 0])
    assert fit_views.main([*map(str, arguments), "--context", str(tmp_path / "c.npz")]) == 2
    assert "is of other people" in capsys.readouterr().err


def test_several_views_are_judged_on_poses(small_poses, prior_dir, tmp_path):
    arguments = ["--data", str(small_poses), "--evaluate", "3", "--views", "2", "--steps", "5"]
    out = ["--prior", str(prior_dir), "--out", str(tmp_path / "out")]
    assert fit_views.main([*arguments, *out, "keypoints=1"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["people"] == 3
    assert {"alone", "averaged", "together"} <= report.keys()


def test_compare_tries_as_many_weights_for_every_prior():
    tried = {
        kind: len(weights) for kind, weights in fitting_priors.WEIGHTS.items() if kind != "none"
    }
    assert len(set(tried.values())) == 1
    for weights in fitting_priors.WEIGHTS.values():
        assert list(weights) == sorted(weights)


@pytest.mark.slow
def test_compare_leaves_a_table_and_pictures(small_poses, prior_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fitting_priors, "WEIGHTS", dict.fromkeys(fitting_priors.WEIGHTS, (10.0,)))
    arguments = ["--data", str(small_poses), "--prior", str(prior_dir), "--steps", "3"]
    sizes = ["--people", "5", "--choose", "3", "--out", str(tmp_path / "out")]
    assert fitting_priors.main([*arguments, *sizes]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["people"] == 5
    for kind in (*fitting_priors.TITLES, "mode, not fitted"):
        assert set(results["results"][kind]) == set(fitting_priors.CONDITIONS)
    assert "| conditional flow |" in capsys.readouterr().out
    assert (tmp_path / "out" / "priors_missing.png").exists()


def test_corrupted_keypoints_are_what_they_are_called(people):
    generator = torch.Generator().manual_seed(0)
    share = {
        name: (fitting_priors.corrupt(people, name, generator)[..., 2] == 0).double().mean(dim=0)
        for name in fitting_priors.CONDITIONS
    }
    assert (share["noisy"] == 0).all()
    assert 0.25 < share["missing"].mean() < 0.35
    cut = [name for name, gone in zip(BODY_25.joint_names, share["truncated"], strict=True) if gone]
    assert len(cut) == 10
    assert all(name.endswith(("knee", "ankle", "toe", "heel")) for name in cut)


@pytest.mark.slow
def test_failures_spoil_what_they_say(people, small_poses, prior_dir, tmp_path):
    seen = people.keypoints[:2]
    knee, other = BODY_25.index("left_knee"), BODY_25.index("right_knee")
    swapped = fitting_failures.spoil(seen, "swapped")
    assert torch.equal(swapped[:, knee, :2], seen[:, other, :2])
    assert (fitting_failures.spoil(seen, "few")[..., 2] > 0).sum(dim=1).tolist() == [4, 4]
    wrist = BODY_25.index("left_wrist")
    assert (fitting_failures.spoil(seen, "elsewhere")[:, wrist] != seen[:, wrist]).any()
    assert torch.equal(fitting_failures.spoil(seen, "right"), seen)
    arguments = ["--data", str(small_poses), "--prior", str(prior_dir), "--people", "2"]
    assert fitting_failures.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "failures.png").exists()


def test_training_leaves_all_priors(small_poses, tmp_path, monkeypatch):
    monkeypatch.setattr(train_prior, "BATCH", 16)
    monkeypatch.setattr(train_prior.fit_mixture, "__defaults__", (2, 0, 100))
    out = tmp_path / "priors"
    assert train_prior.main(["--data", str(small_poses), "--steps", "3", "--out", str(out)]) == 0
    names = {file.relative_to(out).as_posix() for file in out.rglob("*.*")}
    assert names == {
        "conditional/model.safetensors",
        "unconditional.safetensors",
        "mixture.npz",
        "results.json",
    }
    shutil.rmtree(out)
    assert train_prior.main(["--data", str(tmp_path / "no.npz"), "--out", str(out)]) == 2


def test_settings_keep_what_is_not_named():
    weights = with_overrides(KeypointWeights(), ["sigma=50", "use_hips=true"])
    assert weights == KeypointWeights(sigma=50.0, use_hips=True)
    assert with_overrides(Stage(), []) == Stage()
