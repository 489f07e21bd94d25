"""``flowprior fit --sequence``: tracks, motions and their files."""

import json

import numpy as np
import pytest
import torch

from flowprior.body import BodyModel
from flowprior.command import main, sequence
from flowprior.results import Fits, read_amass
from flowprior.results.estimator import Estimator, Sighting
from flowprior.skeleton import BODY_25
from tests.command import crossing, painted
from tests.command.conftest import read_prior
from tests.files.videos import write_video

CAMERA = ["--image-size", f"{crossing.WIDTH}x{crossing.HEIGHT}", "--focal", f"{crossing.FOCAL}"]
LITTLE = [part for name in ("json", "overlays", "meshes") for part in ("--skip", name)]


def command(path, out, *options):
    fixed = ["--sequence", *CAMERA, "--samples", "2", "--quiet"]
    return main(["fit", str(path), "--out", str(out), *fixed, *map(str, options)])


@pytest.fixture(scope="module")
def truth():
    """(2, 48, 24, 3) joints of the people who walk."""
    rotation, transl = crossing.walkers()
    return BodyModel()(rotation, None, transl).joints.numpy()


def of_track(fits, number):
    return fits[fits.person == number]


def matched(fits, truth):
    """The track of each true person, by where they begin."""
    starts = [of_track(fits, number).joints[0, 0, 0] for number in (0, 1)]
    assert abs(starts[0] - starts[1]) > 1
    order = (0, 1) if starts[0] < starts[1] else (1, 0)
    return [of_track(fits, number) for number in order]


def acceleration(joints):
    """Mean second difference of joints (T, J, 3), millimetres per frame squared."""
    change = joints[2:] - 2 * joints[1:-1] + joints[:-2]
    return 1000 * np.linalg.norm(change, axis=-1).mean()


@pytest.mark.slow
def test_people_who_cross_with_a_gap_are_two_smooth_tracks(tmp_path, truth, capsys):
    """From files in random order to motions, against fits of single frames.

    sam-body4d#6: estimates of single frames flicker; here poses are smooth, and there is one shape.
    """
    found = crossing.keypoints()
    folder, out = crossing.write(tmp_path / "walk", found), tmp_path / "out"
    exports = ["--export", "bvh", "amass", "glb"]
    assert command(folder, out, "--fps", crossing.FPS, *LITTLE, *exports) == 0
    assert "2 people in 48 frames at 30 per second, 10 frames filled in" in capsys.readouterr().out
    fits = Fits.load(out)
    assert fits.fps == crossing.FPS
    assert len(fits) == 96
    assert fits.images[:2] == ["walk_000000000000", "walk_000000000001"]
    assert sorted(set(fits.person.tolist())) == [0, 1]
    for person, one in enumerate(matched(fits, truth)):
        # Each row is where that person is, in every frame, also while crossing and missed.
        away = np.linalg.norm(one.joints[:, 0, :2] - truth[person, :, 0, :2], axis=-1)
        assert away.max() < 0.25, person
        assert (one.betas == one.betas[:1]).all()
        own = one.joints - one.joints[:, :1]
        true = truth[person] - truth[person][:, :1]
        assert 1000 * np.linalg.norm(own - true, axis=-1).mean() < 120
        jump = np.linalg.norm(np.diff(one.joints - truth[person], axis=0), axis=-1)
        assert 1000 * jump.max() < 100
        filled = one.status == "filled_in"
        assert filled.sum() == (10 if person else 0)
        if person:  # what nobody saw is less certain
            assert one.joint_std_mm[filled].mean() > 1.3 * one.joint_std_mm[~filled].mean()

    # Fits of single frames are less steady.
    frames = 16
    sighting = Sighting(
        [str(frame) for frame in range(frames)],
        [""] * frames,
        np.zeros(frames, np.int64),
        found[0, :frames].astype(np.float32),
        BODY_25,
        np.tile(np.float32([crossing.WIDTH, crossing.HEIGHT]), (frames, 1)),
        np.full(frames, crossing.FOCAL, np.float32),
    )
    single = Estimator(read_prior("flowprior/people"), max_iterations=60, num_samples=1)(sighting)
    smooth = matched(fits, truth)[0].joints[:frames]
    assert acceleration(smooth) < 0.5 * acceleration(single.joints)

    listed = json.loads((out / "motion" / "tracks.json").read_text())
    assert [each["frames"] for each in listed["tracks"]] == [48, 48]
    names = [f"track_{n}.{end}" for n in (0, 1) for end in ("bvh", "glb", "npz")]
    assert sorted(file.name for file in (out / "motion").iterdir()) == sorted(
        [*names, "tracks.json"]
    )
    motion = read_amass(out / "motion" / "track_0.npz")
    assert motion.fps == 30
    # Upright with z up: the head is above the feet.
    joints = BodyModel()(motion.theta[:, :24], None, motion.transl).joints
    assert (joints[:, 15, 2] > joints[:, 7, 2] + 1).all()


def test_people_enter_and_leave(tmp_path):
    """Nobody in the first frames and between, a second person for a while."""
    found = crossing.keypoints(32)
    found[0, 24:] = 0
    found[1, :4] = 0
    found[1, 14:] = 0
    empty = np.zeros((2, 3, 25, 3))
    folder = crossing.write(tmp_path / "walk", np.concatenate([empty, found], axis=1))
    out = tmp_path / "out"
    assert command(folder, out, "--fps", 30, *LITTLE, "--skip", "page", "--export", "glb") == 0
    fits = Fits.load(out)
    spans = {n: (of_track(fits, n).image[0], len(of_track(fits, n))) for n in (0, 1)}
    assert spans == {0: ("walk_000000000003", 24), 1: ("walk_000000000007", 10)}
    listed = json.loads((out / "motion" / "tracks.json").read_text())
    assert [each["start_s"] for each in listed["tracks"]] == [0, pytest.approx(4 / 30)]


def test_the_tracks_of_a_file_are_kept(tmp_path):
    """AlphaPose, PoseTrack and others name people; a new number is a new track."""
    found = crossing.keypoints(12)
    entries = [
        {
            "image_id": f"{frame:04d}.jpg",
            "category_id": 1,
            "keypoints": found[person, frame, :17].reshape(-1).tolist(),
            "idx": 7 if frame < 6 else 9,
        }
        for frame in range(12)
        for person in (0,)
    ]
    (tmp_path / "results.json").write_text(json.dumps(entries))
    out = tmp_path / "out"
    assert command(tmp_path / "results.json", out, "--fps", 25, *LITTLE, "--skip", "page") == 0
    assert Fits.load(out).person.tolist() == [0] * 6 + [1] * 6


def test_strength_and_lag(tmp_path):
    """humor#39, PromptHMR#10: over-smoothing removes fast contacts; the strength is an option."""
    folder = crossing.write(tmp_path / "walk", crossing.keypoints(16, noise_px=4)[:1])
    swing = {}
    for name, options in {
        "default": [],
        "weak": ["--smoothing", 0.05],
        "strong": ["--smoothing", 1000],
        "live": ["--lag", 0],
    }.items():
        out = tmp_path / name
        rest = ["--skip", "page", *LITTLE]
        assert command(folder, out, "--fps", 30, *options, *rest) == 0
        swing[name] = acceleration(Fits.load(out).joints)
    assert swing["strong"] < 0.7 * swing["default"] < swing["default"] < 0.9 * swing["weak"]
    assert swing["live"] > swing["default"]


def test_an_interrupted_sequence_resumes(tmp_path, capsys, monkeypatch):
    folder = crossing.write(tmp_path / "walk", crossing.keypoints(12))
    options = ["--fps", 30, "--batch", 4, *LITTLE, "--skip", "page"]
    assert command(folder, tmp_path / "whole", *options) == 0
    out = tmp_path / "out"
    saved = sequence.SightingPart.save

    def stop(part, path):
        if path.name == "000001.npz":
            raise KeyboardInterrupt
        saved(part, path)

    with monkeypatch.context() as patched:
        patched.setattr(sequence.SightingPart, "save", stop)
        assert command(folder, out, *options) == 130
    assert "4 frames are read, the same command goes on" in capsys.readouterr().err
    with monkeypatch.context() as patched:  # the first track is finished
        patched.setattr(sequence, "write_page", None)
        estimate = sequence.SequenceEstimator

        class Stopped:
            def __init__(self, *args, **kwargs):
                self.real, self.count, self.fps = estimate(*args, **kwargs), 0, kwargs["fps"]

            def __call__(self, frames):
                self.count += 1
                if self.count > 1:
                    raise KeyboardInterrupt
                return self.real(frames)

        patched.setattr(sequence, "SequenceEstimator", Stopped)
        assert command(folder, out, *options) == 130
    assert (out / "parts" / "track_000000.npz").exists()
    assert command(folder, out, *options) == 0
    one, two = Fits.load(out), Fits.load(tmp_path / "whole")
    np.testing.assert_array_equal(one.rotations, two.rotations)
    assert not (out / "parts").exists()
    assert command(folder, out, *options) == 0
    assert "complete already" in capsys.readouterr().err
    assert command(folder, out, *options, "--smoothing", 2) == 1
    assert "(sequence differ)" in capsys.readouterr().err


def test_a_rate_that_makes_people_implausibly_fast_is_reported(tmp_path, capsys):
    """Motion-X#43: the label of the rate is kept, with a warning."""
    folder = crossing.write(tmp_path / "walk", crossing.keypoints(12)[:1])
    assert command(folder, tmp_path / "out", "--fps", 240, *LITTLE, "--skip", "page") == 0
    assert "at 240 frames per second, the person would move" in capsys.readouterr().err
    assert Fits.load(tmp_path / "out").fps == 240


def test_nobody(tmp_path, capsys):
    folder = crossing.write(tmp_path / "walk", np.zeros((1, 3, 25, 3)))
    assert command(folder, tmp_path / "out", "--fps", 30) == 0
    assert "no people found" in capsys.readouterr().out
    assert len(Fits.load(tmp_path / "out")) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sequence"], "does not say how many frames it has per second: give --fps"),
        (["--fps", "30"], "--fps needs --sequence"),
        (["--export", "bvh"], "--export needs --sequence"),
        (["--lag", "0"], "--lag needs --sequence"),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, options, message):
    folder = crossing.write(tmp_path / "walk", crossing.keypoints(2))
    assert main(["fit", str(folder), "--out", str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err


def test_a_rate_must_be_positive(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(tmp_path, tmp_path / "out", "--fps", 0)
    assert "expected a number above 0" in capsys.readouterr().err


def test_a_video_has_its_own_rate(tmp_path, monkeypatch):
    from flowprior.command import fit

    pictures = [painted.picture(points) for points in painted.keypoints(8)]
    path = write_video(tmp_path / "video.mkv", pictures)  # 10 per second
    monkeypatch.setattr(fit, "open_detector", lambda *_, **__: painted.DotDetector())
    out = tmp_path / "out"
    size = ["--focal", f"{painted.FOCAL}"]
    options = ["--sequence", "--every", "2", "--samples", "1", *size]
    assert main(["fit", str(path), "--out", str(out), *options]) == 0
    fits = Fits.load(out)
    assert fits.fps == pytest.approx(5)
    assert fits.images == [f"video_{frame:06d}" for frame in (0, 2, 4, 6)]
    assert (out / "overlays" / "video_000004.png").exists()
    assert (out / "people" / "video_000004_0.json").exists()
    assert torch.isfinite(torch.from_numpy(fits.joint_confidence)).all()
