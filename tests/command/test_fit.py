"""``flowprior fit``: what it writes, how it is interrupted and resumed, what it refuses."""

import json
import weakref
from pathlib import Path

import numpy as np
import pytest

from flowprior.body import BodyModel
from flowprior.command import fit, main
from flowprior.detect import NoDetectorError
from flowprior.results import Fits
from flowprior.results.bodies import pose_bodies
from flowprior.skeleton import COCO_17, SMPL_24
from tests.command import painted
from tests.files.videos import write_video
from tests.keypoint_files.written import flat, openpose

Image = pytest.importorskip("PIL.Image", reason="Pillow draws pictures: flowprior[fit]")

SIZE = ["--image-size", f"{painted.WIDTH}x{painted.HEIGHT}", "--focal", f"{painted.FOCAL}"]


def command(path, out, *options):
    return main(["fit", str(path), "--out", str(out), *SIZE, *map(str, options)])


LITTLE = [part for name in ("overlays", "meshes", "page") for part in ("--skip", name)]


def same(first, second):
    return np.array_equal(first.body_pose, second.body_pose) and np.array_equal(
        first.samples, second.samples
    )


def test_keypoints_become_parameters_pictures_meshes_and_a_page(coco_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(coco_file(2, people=2), out, "--samples", 5) == 0
    printed = capsys.readouterr()
    assert "4 people in 2 images" in printed.out
    assert f"open in a browser: {out / 'index.html'}" in printed.out
    assert "2/2 images, 4 people" in printed.err
    fits = Fits.load(out)
    assert fits.image.tolist() == ["photo0.png"] * 2 + ["photo1.png"] * 2
    assert fits.person.tolist() == [0, 1, 0, 1]
    assert fits.skeleton is COCO_17
    assert fits.samples.shape == (4, 5, 24, 3)
    assert fits.image_size.tolist() == [[painted.WIDTH, painted.HEIGHT]] * 4
    np.testing.assert_allclose(fits.centre_px, np.array([[160, 180]] * 4), rtol=1e-6)
    assert (fits.reprojection_px < 20).all()  # few iterations
    for name in ("body_pose", "joint_std_mm", "joint_confidence", "log_prob", "rotation_std_deg"):
        assert np.isfinite(getattr(fits, name)).all(), name

    entries = json.loads((out / "people" / "photo1.png_1.json").read_text())
    assert entries["image"] == "photo1.png"
    wrist = SMPL_24.index("left_wrist")
    np.testing.assert_allclose(
        entries["joints"]["left_wrist"]["position_m"], fits.joints[3, wrist], atol=1e-4
    )
    assert entries["joints"]["left_wrist"]["confidence"] == pytest.approx(
        fits.joint_confidence[3, wrist], abs=1e-3
    )

    with Image.open(out / "overlays" / "photo0.png.png") as picture:
        assert picture.width > picture.height > 300

    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load(out / "meshes" / "photo0.png.glb")
    assert set(scene.geometry) == {"person 0", "person 1"}
    mesh = scene.geometry["person 0"]
    body = BodyModel()
    vertices = pose_bodies(fits[:1], body).vertices[0]
    assert len(mesh.faces) == len(body.faces)
    expected = [-vertices[:, 1].max(), -vertices[:, 1].min()]
    np.testing.assert_allclose(mesh.bounds[:, 1], expected, atol=1e-5)
    assert mesh.volume > 0  # outward normals

    assert (out / "index.html").read_text().count("<html") == 1
    assert json.loads((out / "run.json").read_text())["complete"] is True
    assert not (out / "parts").exists()


def test_outputs_can_be_skipped(coco_file, tmp_path):
    out = tmp_path / "out"
    skipped = [part for name in ("json", "overlays", "meshes", "page") for part in ("--skip", name)]
    assert command(coco_file(1), out, "--quiet", *skipped) == 0
    assert sorted(path.name for path in out.iterdir()) == ["fits.npz", "run.json"]


def test_quiet_prints_no_progress(coco_file, tmp_path, capsys):
    assert command(coco_file(1), tmp_path / "out", "--quiet") == 0
    assert not capsys.readouterr().err


def interrupt_after(monkeypatch, chunks):
    """Raise KeyboardInterrupt when that many chunks were written."""
    write = fit.write_images
    written = []

    def interrupted(*arguments):
        if len(written) == chunks:
            raise KeyboardInterrupt
        written.append(None)
        write(*arguments)

    monkeypatch.setattr(fit, "write_images", interrupted)


def test_an_interrupted_run_keeps_what_is_done(coco_file, tmp_path, capsys, monkeypatch):
    path = coco_file(5)
    assert command(path, tmp_path / "whole", "--batch", 2, *LITTLE) == 0
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        interrupt_after(patched, 1)
        assert command(path, out, "--batch", 2) == 130
    assert "2 images are finished" in capsys.readouterr().err
    assert Fits.load(out).images == ["photo0.png", "photo1.png"]
    assert (out / "index.html").exists()
    assert (out / "people" / "photo1.png_0.json").exists()

    kept = (out / "parts" / "000000.npz").stat().st_mtime_ns
    with monkeypatch.context() as patched:
        interrupt_after(patched, 1)
        assert command(path, out, "--batch", 2) == 130
    assert (out / "parts" / "000000.npz").stat().st_mtime_ns == kept
    assert "resuming after 2 images" in capsys.readouterr().err

    assert command(path, out, "--batch", 2) == 0
    assert same(Fits.load(out), Fits.load(tmp_path / "whole"))
    assert not (out / "parts").exists()


def test_an_interrupt_before_the_first_chunk(coco_file, tmp_path, capsys, monkeypatch):
    interrupt_after(monkeypatch, 0)
    assert command(coco_file(1), tmp_path / "out") == 130
    assert "before the first images" in capsys.readouterr().err


def test_a_complete_run_is_not_repeated(coco_file, tmp_path, capsys):
    path, out = coco_file(1), tmp_path / "out"
    assert command(path, out) == 0
    (out / "index.html").unlink()
    before = (out / "fits.npz").stat().st_mtime_ns
    assert command(path, out) == 0
    assert "complete already; --fresh repeats it" in capsys.readouterr().err
    assert (out / "index.html").exists()
    assert command(path, out, "--fresh") == 0
    assert (out / "fits.npz").stat().st_mtime_ns != before


def test_results_of_other_settings_are_not_mixed(coco_file, tmp_path, capsys):
    path, out = coco_file(1), tmp_path / "out"
    (tmp_path / "out").mkdir()
    (out / "notes.txt").write_text("mine")
    assert command(path, out, *LITTLE) == 0
    assert command(path, out, *LITTLE, "--seed", 1) == 1
    assert "results of another run (seed differ)" in capsys.readouterr().err
    other = coco_file(2, name="other.json")
    assert command(other, out, *LITTLE) == 1
    assert "content, input differ" in capsys.readouterr().err
    assert command(other, out, *LITTLE, "--fresh") == 0
    assert len(Fits.load(out)) == 2
    assert (out / "notes.txt").read_text() == "mine"


def test_results_do_not_depend_on_a_repetition(coco_file, tmp_path):
    path = coco_file(2)
    assert command(path, tmp_path / "one", *LITTLE) == command(path, tmp_path / "two", *LITTLE) == 0
    assert same(Fits.load(tmp_path / "one"), Fits.load(tmp_path / "two"))


def test_unreadable_files_in_a_folder_exit_with_3(tmp_path, capsys):
    folder = tmp_path / "json"
    folder.mkdir()
    content = json.dumps(openpose(flat()))
    (folder / "a_keypoints.json").write_text(content)
    (folder / "b_keypoints.json").write_text(content[:-9])
    assert command(folder, tmp_path / "out") == 3
    printed = capsys.readouterr()
    assert "1 person in 1 image;" in printed.out
    assert "b_keypoints.json" in printed.err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["faults"]


def test_a_file_without_people(tmp_path, capsys):
    (tmp_path / "a_keypoints.json").write_text(json.dumps(openpose()))
    assert command(tmp_path / "a_keypoints.json", tmp_path / "out") == 0
    assert "no people found" in capsys.readouterr().out
    assert len(Fits.load(tmp_path / "out")) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "expected OpenPose's object"),
        ("no json", "JSON"),
        (json.dumps([{"image_id": 1, "keypoints": [0.1, 0.2, 1, 0.3, 0.4, 1] * 9}]), "keypoints"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "keypoints.json"
    path.write_text(content)
    assert command(path, tmp_path / "out", "--quiet") in (0, 1)
    error = capsys.readouterr()
    assert message in error.err + error.out


def test_normalised_keypoints_are_refused(tmp_path, capsys):
    points = painted.keypoints(1)[0] / [painted.WIDTH, painted.HEIGHT, 1]
    path = tmp_path / "keypoints.json"
    path.write_text(json.dumps([{"image_id": 1, "keypoints": points.reshape(-1).tolist()}]))
    assert command(path, tmp_path / "out") == 1
    assert "as normalised ones do, but pixels are expected" in capsys.readouterr().err


def test_a_missing_input(tmp_path, capsys):
    assert command(tmp_path / "nothing", tmp_path / "out") == 1
    assert "no such file or folder" in capsys.readouterr().err


def test_without_a_detector_the_options_are_listed(tmp_path, capsys, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.jpg")

    def nothing(*_, **__):
        raise NoDetectorError("no detector is installed; pictures and videos need a detector")

    monkeypatch.setattr(fit, "open_detector", nothing)
    assert command(tmp_path / "photo.jpg", tmp_path / "out") == 1
    assert "no detector is installed" in capsys.readouterr().err


class TestPictures:
    @pytest.fixture(autouse=True)
    def _dots(self, monkeypatch):
        self.detector = painted.DotDetector()
        monkeypatch.setattr(fit, "open_detector", lambda *_, **__: self.detector)

    def folder(self, tmp_path, count):
        folder = tmp_path / "photos"
        (folder / "inner").mkdir(parents=True)
        for row, points in enumerate(painted.keypoints(count)):
            name = f"inner/{row}.png" if row % 2 else f"{row}.png"
            Image.fromarray(painted.picture(points)).save(folder / name)
        return folder

    def test_a_folder_of_pictures(self, tmp_path):
        folder, out = self.folder(tmp_path, 3), tmp_path / "out"
        Image.new("RGB", (50, 60)).save(folder / "nobody.png")
        (folder / "notes.txt").write_text("no picture")
        assert command(folder, out) == 0
        fits = Fits.load(out)
        assert fits.image.tolist() == ["0.png", "2.png", "inner/1.png"]
        assert fits.image_path.tolist() == [str(folder / name) for name in fits.image.tolist()]
        truth = painted.keypoints(3)[[0, 2, 1]]
        np.testing.assert_allclose(fits.keypoints_2d[..., :2], truth[..., :2], atol=2)
        with Image.open(out / "overlays" / "inner%2F1.png.png") as picture:
            pixels = np.asarray(picture)
        assert (pixels == 90).all(axis=-1).mean() > 0.2  # the grey of the photo

    def test_damaged_pictures_exit_with_3(self, tmp_path, capsys):
        folder = self.folder(tmp_path, 1)
        (folder / "damaged.png").write_bytes((folder / "0.png").read_bytes()[:100])
        assert command(folder, tmp_path / "out") == 3
        assert "damaged.png is not a picture" in capsys.readouterr().err
        assert len(Fits.load(tmp_path / "out")) == 1

    def test_pictures_that_are_done_are_not_detected_again(self, tmp_path, monkeypatch):
        folder, out = self.folder(tmp_path, 3), tmp_path / "out"
        with monkeypatch.context() as patched:
            interrupt_after(patched, 2)
            assert command(folder, out, "--batch", 1) == 130
        self.detector.pictures = 0
        assert command(folder, out, "--batch", 1) == 0
        assert self.detector.pictures == 1


def test_pictures_beside_keypoints_give_size_and_background(coco_file, tmp_path):
    path = coco_file(2)
    Image.fromarray(painted.picture(painted.keypoints(1)[0])).save(tmp_path / "photo0.png")
    out = tmp_path / "out"
    assert main(["fit", str(path), "--out", str(out)]) == 0
    fits = Fits.load(out)
    assert fits.image_path.tolist() == [str(tmp_path / "photo0.png"), ""]
    assert fits.image_size[0].tolist() == [painted.WIDTH, painted.HEIGHT]
    assert fits.focal_px[0] == pytest.approx(np.hypot(painted.WIDTH, painted.HEIGHT))


class TestVideo:
    @pytest.fixture(autouse=True)
    def _dots(self, monkeypatch):
        self.detector = painted.DotDetector()
        monkeypatch.setattr(fit, "open_detector", lambda *_, **__: self.detector)

    def video(self, tmp_path, frames):
        pictures = [painted.picture(points) for points in painted.keypoints(frames)]
        return write_video(tmp_path / "video.mkv", pictures)

    def test_frames_are_fitted_in_order(self, tmp_path):
        path, out = self.video(tmp_path, 5), tmp_path / "out"
        assert command(path, out, "--every", 2) == 0
        fits = Fits.load(out)
        assert fits.image.tolist() == [f"video_{frame:06d}" for frame in (0, 2, 4)]
        truth = painted.keypoints(5)[::2]
        np.testing.assert_allclose(fits.keypoints_2d[..., :2], truth[..., :2], atol=2)
        assert all(Path(path).is_file() for path in fits.image_path.tolist())
        assert (out / "overlays" / "video_000004.png").exists()

    def test_an_interrupted_video_resumes(self, tmp_path, monkeypatch):
        path, out = self.video(tmp_path, 5), tmp_path / "out"
        with monkeypatch.context() as patched:
            interrupt_after(patched, 1)
            assert command(path, out, "--batch", 2, *LITTLE) == 130
        assert len(Fits.load(out)) == 2
        self.detector.pictures = 0
        assert command(path, out, "--batch", 2, *LITTLE) == 0
        assert self.detector.pictures == 3
        assert len(Fits.load(out)) == 5

    def test_one_frame_is_in_memory_at_a_time(self, tmp_path, monkeypatch):
        alive: list[weakref.ref] = []
        most = []
        detect = self.detector.__call__

        def counted(image):
            alive.append(weakref.ref(image))
            most.append(sum(each() is not None for each in alive))
            return detect(image)

        monkeypatch.setattr(painted.DotDetector, "__call__", lambda _, image: counted(image))
        assert command(self.video(tmp_path, 12), tmp_path / "out", "--batch", 6, *LITTLE) == 0
        assert len(most) == 12
        assert max(most) <= 2


@pytest.mark.slow
def test_twenty_people_in_one_file(coco_file, tmp_path):
    assert command(coco_file(1, people=20), tmp_path / "out") == 0
    fits = Fits.load(tmp_path / "out")
    assert fits.person.tolist() == list(range(20))
    assert len(list((tmp_path / "out" / "people").iterdir())) == 20
    np.testing.assert_allclose(fits.body_pose, fits.body_pose[:1].repeat(20, 0), atol=1e-3)


@pytest.mark.slow
def test_forty_files_in_a_folder(tmp_path, capsys):
    folder = tmp_path / "json"
    folder.mkdir()
    for row in range(40):
        content = json.dumps(openpose(*[flat(seed=row + k) for k in range(row % 3)]))
        (folder / f"frame{row:03d}_keypoints.json").write_text(content)
    assert command(folder, tmp_path / "out", "--skip", "overlays") == 0
    assert "26/26 images, 39 people" in capsys.readouterr().err
    fits = Fits.load(tmp_path / "out")
    assert fits.images == [f"frame{row:03d}" for row in range(40) if row % 3]
