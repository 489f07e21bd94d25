import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from examples.fitting import annotate
from examples.fitting.annotate import Annotator, pending, summarise
from examples.fitting.shards import chunks_of, read_chunk
from examples.fitting.synthetic import detect
from flowprior.fitting.objective import KeypointWeights


@pytest.fixture(scope="session")
def shards(people, tmp_path_factory):
    """24 people in three formats, some of whom nobody could fit."""
    folder = tmp_path_factory.mktemp("shards")
    lost = torch.zeros(64, 25, dtype=torch.bool)
    seen = detect(people.keypoints, lost, torch.Generator().manual_seed(0)).numpy()
    bad = seen[:10].copy()
    bad[3] = np.nan
    bad[5, :, 2] = 0
    bad[7, :, :2] = 5
    names = np.array([f"{row}.jpg" for row in range(10)])
    size = np.full((10, 2), 1000.0)
    size[1] = np.nan
    np.savez(folder / "a.npz", body_keypoints_2d=bad, imgname=names, image_size=size)
    rows = [row.ravel().tolist() for row in seen[10:18]]
    rows[2] = rows[2][:10]
    rows[4] = None
    (folder / "deep").mkdir()
    pq.write_table(pa.table({"keypoints_2d": rows}), folder / "deep" / "b.parquet")
    (folder / "json").mkdir()
    for number, row in enumerate(seen[18:23]):
        content = {"people": [{"pose_keypoints_2d": row.ravel().tolist()}]}
        (folder / "json" / f"{number}_keypoints.json").write_text(
            json.dumps(content), encoding="utf-8"
        )
    (folder / "json" / "9_keypoints.json").write_text("{broken", encoding="utf-8")
    return folder


def worker(output, prior_dir, steps=3):
    weights = KeypointWeights()
    return Annotator(str(output), str(prior_dir), "conditional", None, weights, steps, None, "cpu")


def fitted(output):
    files = sorted(output.glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return {(row["shard"], row["row"], row["person"]): row for row in rows}, len(rows)


def test_chunks_cover_every_row_once(shards):
    chunks = chunks_of(shards, 4)
    assert len({chunk.name for chunk in chunks}) == len(chunks)
    rows = {}
    for chunk in chunks:
        rows.setdefault(chunk.shard, []).extend(range(chunk.start, chunk.stop))
    assert {Path(name).name: numbers for name, numbers in rows.items()} == {
        "a.npz": list(range(10)),
        "b.parquet": list(range(8)),
        "json": list(range(6)),
    }


def test_bad_people_are_left_out_and_named(shards):
    reports = [read_chunk(chunk).report for chunk in chunks_of(shards, 100)]
    by_name = {Path(report.source).name: report for report in reports}
    left_out = {
        name: {reason: finding.count for reason, finding in report.left_out.items()}
        for name, report in by_name.items()
    }
    assert left_out["a.npz"] == {"fewer than 3 keypoints": 2, "all keypoints in one place": 1}
    assert left_out["b.parquet"] == {"fewer than 3 keypoints": 2}
    assert left_out["json"] == {"file that cannot be read": 1}
    assert by_name["a.npz"].left_out["all keypoints in one place"].examples == ["7.jpg, person 0"]
    for report in reports:
        assert report.kept == report.rows - sum(f.count for f in report.left_out.values())


@pytest.mark.parametrize("unit", ["normalised", "scores"])
@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_shards_in_other_units_are_refused(people, tmp_path, unit, suffix):
    seen = people.keypoints[:6].numpy().copy()
    if unit == "normalised":
        seen[..., :2] = seen[..., :2] / 500 - 1
    else:
        seen[..., 2] = np.linspace(0.5, 7, 25)
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, keypoints_2d=seen)
    else:
        pq.write_table(pa.table({"keypoints_2d": [row.ravel().tolist() for row in seen]}), path)
    (chunk,) = chunks_of(path, 10)
    message = {"normalised": "pixels are expected", "scores": "probabilities from 0 to 1"}[unit]
    with pytest.raises(ValueError, match=message) as caught:
        read_chunk(chunk)
    assert str(path) in str(caught.value)


def test_files_in_other_units_are_left_out_of_a_shard(people, tmp_path):
    pixels, scaled = people.keypoints[:2].numpy().copy()
    scaled[:, :2] /= 1000
    for name, values in (("a", pixels), ("b", scaled)):
        content = {"people": [{"pose_keypoints_2d": values.ravel().tolist()}]}
        (tmp_path / f"{name}_keypoints.json").write_text(json.dumps(content), encoding="utf-8")
    (chunk,) = chunks_of(tmp_path, 10)
    found = read_chunk(chunk)
    assert found.image_names.tolist() == ["a"]
    (finding,) = found.report.left_out.values()
    assert "as normalised ones do" in finding.examples[0]


def test_doubtful_keypoints_do_not_make_a_person(people, tmp_path):
    seen = people.keypoints[:2].numpy().copy()
    seen[1, :, 2] = 0.1
    np.savez(tmp_path / "a.npz", keypoints_2d=seen)
    (chunk,) = chunks_of(tmp_path / "a.npz", 10)
    found = read_chunk(chunk)
    assert found.row.tolist() == [0]
    assert found.report.left_out["fewer than 3 keypoints"].count == 1


def test_people_keep_their_rows_and_sizes(shards):
    by_name = {Path(chunk.shard).name: read_chunk(chunk) for chunk in chunks_of(shards, 100)}
    assert by_name["a.npz"].row.tolist() == [0, 1, 2, 4, 6, 8, 9]
    known = np.arange(7) != 1
    assert (by_name["a.npz"].image_size[known] == 1000).all()
    assert np.isnan(by_name["a.npz"].image_size[1]).all()
    assert by_name["a.npz"].image_names[3] == "4.jpg"
    assert np.isnan(by_name["b.parquet"].image_size).all()
    assert by_name["json"].image_names.tolist() == ["0", "1", "2", "3", "4"]


def test_people_keep_their_evidence_and_bad_evidence_costs_one_person(people, tmp_path):
    lost = torch.zeros(64, 25, dtype=torch.bool)
    seen = detect(people.keypoints, lost, torch.Generator().manual_seed(0)).numpy()[:6]
    seen[1] = np.nan
    context = np.arange(6, dtype=np.float32)[:, None].repeat(3, axis=1)
    betas = np.zeros((6, 10), np.float32)
    context[2, 1], betas[4, 0] = np.nan, np.inf
    np.savez(tmp_path / "a.npz", keypoints_2d=seen, context=context, betas=betas)
    (chunk,) = chunks_of(tmp_path / "a.npz", 100)
    found = read_chunk(chunk)
    assert found.row.tolist() == [0, 3, 5]
    assert found.context[:, 0].tolist() == [0, 3, 5]
    assert found.betas.shape == (3, 10)
    left_out = found.report.left_out["context or betas not finite"]
    assert left_out.count == 2
    assert found.report.kept == 3


def test_a_chunk_is_done_whole_or_not_at_all(shards, prior_dir, tmp_path):
    chunks = chunks_of(shards, 5)
    assert pending(chunks, tmp_path) == chunks
    one = worker(tmp_path, prior_dir)
    for chunk in chunks[:2]:
        one.annotate(chunk)
    left = pending(chunks, tmp_path)
    assert left == chunks[2:]
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    for chunk in left:
        one.annotate(chunk)
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in before.items())
    rows, count = fitted(tmp_path)
    assert count == len(rows) == 18
    report = summarise(chunks, tmp_path)
    assert (report["people"], report["fitted"]) == (24, 18)
    assert sum(report["left_out"].values()) == 6
    assert report["status"] == {"max_iterations": 18}


def test_people_are_fitted_the_same_in_any_chunk(shards, prior_dir, tmp_path):
    for size in (3, 100):
        (tmp_path / str(size)).mkdir()
        one = worker(tmp_path / str(size), prior_dir, steps=20)
        for chunk in chunks_of(shards / "a.npz", size):
            one.annotate(chunk)
    small, large = (fitted(tmp_path / size)[0] for size in ("3", "100"))
    assert small.keys() == large.keys()
    for key, row in small.items():
        np.testing.assert_allclose(row["joints"], large[key]["joints"], atol=1e-4)


def test_rows_hold_smpl_parameters(shards, prior_dir, tmp_path):
    (chunk,) = chunks_of(shards / "a.npz", 100)
    worker(tmp_path, prior_dir).annotate(chunk)
    row = pq.read_table(next(tmp_path.glob("*.parquet"))).to_pylist()[0]
    shapes = {"global_orient": 9, "body_pose": 207, "betas": 10, "transl": 3, "joints": 72}
    assert {name: len(row[name]) for name in shapes} == shapes
    rotation = np.array(row["global_orient"]).reshape(3, 3)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
    assert row["image_name"] == "0.jpg"
    assert row["status"] == "max_iterations"


def spoil(folder, damage, points):
    """A shard of 4 people that is damaged; returns its path."""
    path = folder / ("bad.parquet" if "parquet" in damage else "bad.npz")
    rows = points[:4] + np.random.default_rng(0).normal(0, 3, points[:4].shape)
    if "parquet" in damage:
        columns = {"keypoints_2d": [row.ravel().tolist() for row in rows]}
        pq.write_table(pa.table(columns), path, compression="zstd")
    elif damage == "other joints":
        np.savez(path, keypoints_2d=np.zeros((4, 7, 3)))
    elif damage == "names of others":
        np.savez(path, keypoints_2d=rows, imgname=np.array(["a", "b"]))
    elif damage == "sizes of others":
        np.savez(path, keypoints_2d=rows, image_size=np.ones((3, 2)))
    elif damage == "objects":
        np.savez(path, keypoints_2d=np.array([{}, {}], object), allow_pickle=True)
    else:
        np.savez_compressed(path, keypoints_2d=rows)
    data = bytearray(path.read_bytes())
    if "cut short" in damage:
        del data[len(data) // 2 :]
    elif "a byte" in damage:
        data[len(data) // 2] ^= 255
    elif "page" in damage:
        for place in range(30, 200):
            data[place] ^= 90
    elif "web page" in damage:
        data = bytearray(b"<!doctype html><html>please log in</html>")
    elif "empty" in damage:
        data.clear()
    path.write_bytes(data)
    return path


DAMAGE = (
    *("npz cut short", "npz a byte", "npz empty", "npz web page", "objects"),
    *("parquet cut short", "parquet page", "parquet empty", "parquet web page"),
    *("other joints", "names of others", "sizes of others"),
)


@pytest.fixture(scope="session")
def points(people):
    lost = torch.zeros(64, 25, dtype=torch.bool)
    return detect(people.keypoints, lost, torch.Generator().manual_seed(0)).numpy()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_costs_its_own_people_only(points, tmp_path, damage):
    path = spoil(tmp_path, damage, points)
    np.savez(tmp_path / "good.npz", keypoints_2d=points[:5])
    kept, faults = 0, []
    for chunk in chunks_of(tmp_path, 3):
        try:
            kept += read_chunk(chunk).report.kept
        except ValueError as error:
            faults.append(str(error))
    assert kept == 5
    assert faults
    assert all(str(path) in fault for fault in faults)


def test_the_job_goes_on_without_damaged_shards_and_tries_them_again(
    points, prior_dir, tmp_path, capsys
):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    np.savez(folder / "good.npz", keypoints_2d=points[:3])
    (folder / "gone.npz").write_bytes(b"")
    np.savez(folder / "odd.npz", keypoints_2d=np.zeros((4, 7, 3)))
    argv = [str(folder), str(out), "--prior", str(prior_dir), "--steps", "2", "--workers", "0"]
    assert annotate.main(argv) == 1
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert (report["people"], report["fitted"]) == (7, 3)
    assert report["left_out"] == {"shard that cannot be read": 4}
    assert {Path(name).name for name in report["unreadable"]} == {"gone.npz", "odd.npz"}
    printed = capsys.readouterr()
    assert "gone.npz" in printed.err
    assert "odd.npz" in printed.err
    done = {path: path.stat().st_mtime_ns for path in out.glob("good*")}
    np.savez(folder / "gone.npz", keypoints_2d=points[3:5])
    assert annotate.main(argv) == 1
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["fitted"] == 5
    assert {Path(name).name for name in report["unreadable"]} == {"odd.npz"}
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())
    (folder / "odd.npz").unlink()
    assert annotate.main(argv) == 0
    assert len(fitted(out)[0]) == 5


def test_one_size_for_all_images_and_people_without_a_number(points, tmp_path):
    np.savez(tmp_path / "a.npz", keypoints_2d=points[:3], image_size=np.array([640, 480]))
    columns = {"keypoints_2d": [row.ravel().tolist() for row in points[:3]]}
    pq.write_table(pa.table({**columns, "person": [0, None, 2]}), tmp_path / "b.parquet")
    first, second = (read_chunk(chunk) for chunk in chunks_of(tmp_path, 2)[1:3])
    assert first.image_size.tolist() == [[640, 480]]
    assert second.person.tolist() == [0, 0]


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"")
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.npz"):
        chunks_of(tmp_path, 5)


def test_leftovers_of_a_killed_run_are_removed(points, prior_dir, tmp_path):
    np.savez(tmp_path / "a.npz", keypoints_2d=points[:1])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".a.npz-0-1.parquet.01234567.partial").write_bytes(b"half")
    argv = [str(tmp_path / "a.npz"), str(tmp_path / "out"), "--prior", str(prior_dir)]
    assert annotate.main([*argv, "--steps", "1", "--workers", "0"]) == 0
    assert not list((tmp_path / "out").glob(".*"))


class SlowRay:
    """Ray that starts at the third attempt."""

    def __init__(self, fault):
        self.fault, self.trials, self.stopped = fault, [], 0

    def init(self, **options):
        self.trials.append(options)
        if len(self.trials) < 3:
            raise self.fault

    def shutdown(self):
        self.stopped += 1


@pytest.mark.parametrize(
    "fault",
    [
        Exception("The current node timed out during startup."),
        RuntimeError("Timed out waiting for file /tmp/ray/gcs_server_port"),
    ],
)
def test_a_slow_start_of_ray_is_waited_for(monkeypatch, capsys, fault):
    slow = SlowRay(fault)
    monkeypatch.setitem(sys.modules, "ray", slow)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in annotate.RAY_WAITS:
        monkeypatch.setenv(name, "1234")
    annotate._start_ray()
    assert (len(slow.trials), slow.stopped) == (3, 2)
    assert "slow to start" in capsys.readouterr().err
    # What a killed program left in /tmp/ray is not connected to.
    assert {options["address"] for options in slow.trials} == {"local"}
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    annotate._start_ray()
    assert slow.trials[-1]["address"] == "10.0.0.1:6379"


def test_a_ray_that_never_starts_is_an_error_in_words(monkeypatch):
    never = SlowRay(Exception("The current node timed out during startup."))
    never.init = lambda **_: (_ for _ in ()).throw(never.fault)
    monkeypatch.setitem(sys.modules, "ray", never)
    monkeypatch.setattr(annotate, "RAY_STARTS", 2)
    for name in annotate.RAY_WAITS:
        monkeypatch.setenv(name, "1234")
    with pytest.raises(OSError, match="--workers 0"):
        annotate._start_ray()
    never.fault = ValueError("no such address")
    with pytest.raises(ValueError, match="no such address"):
        annotate._start_ray()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
def test_ray_fits_the_same_people(shards, prior_dir, tmp_path):
    found = []
    for workers in ("0", "1"):
        out = tmp_path / workers
        argv = [str(shards), str(out), "--prior", str(prior_dir), "--chunk", "5", "--steps", "3"]
        assert annotate.main([*argv, "--workers", workers, "--device", "cpu"]) == 0
        found.append((fitted(out), json.loads((out / "report.json").read_text(encoding="utf-8"))))
    assert found[0] == found[1]
    assert found[0][1]["fitted"] == 18


def test_settings_of_one_folder_do_not_mix(shards, prior_dir, tmp_path, capsys):
    annotate.check_settings(tmp_path, {"steps": 3})
    annotate.check_settings(tmp_path, {"steps": 3})
    with pytest.raises(ValueError, match="fits of other settings"):
        annotate.check_settings(tmp_path, {"steps": 4})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out"], "no such file or folder: nowhere"),
        ([".", "out"], "no .npz, .parquet or"),
        (["a.npz", "out", "--chunk", "0"], "at least 1 row"),
        (["a.npz", "out", "--prior", "missing"], "no folder of priors"),
        (["a.npz", "out", "height=3"], "settings are pose, shape"),
        (["other.npz", "out"], "neither body_keypoints_2d nor keypoints_2d"),
        (["bad.parquet", "out"], "not a parquet file"),
    ],
)
def test_says_what_is_wrong(arguments, message, prior_dir, shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if arguments[0] != ".":
        (tmp_path / "a.npz").write_bytes((shards / "a.npz").read_bytes())
        np.savez(tmp_path / "other.npz", x=np.zeros(3))
        (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    if "--prior" not in arguments:
        arguments = [*arguments, "--prior", str(prior_dir)]
    assert annotate.main(arguments) == 2
    assert message in capsys.readouterr().err
