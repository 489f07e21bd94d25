import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from examples.fitting import annotate
from examples.fitting.annotate import Annotator, pending, summarise
from examples.fitting.objective import KeypointWeights
from examples.fitting.people import detect
from examples.fitting.shards import chunks_of, read_chunk

ROOT = Path(__file__).parents[3]


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
        (folder / "json" / f"{number}_keypoints.json").write_text(json.dumps(content))
    (folder / "json" / "9_keypoints.json").write_text("{broken")
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
    (tmp_path / f"{chunks[0].name}.parquet.partial123").write_bytes(b"half")
    assert pending(chunks, tmp_path) == chunks
    assert not list(tmp_path.iterdir())
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


def test_a_damaged_shard_costs_its_own_people_only(shards, prior_dir, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    np.savez(tmp_path / "in" / "odd.npz", keypoints_2d=np.zeros((4, 7, 3)))
    (chunk,) = chunks_of(tmp_path / "in", 100)
    report = worker(tmp_path / "out", prior_dir).annotate(chunk)
    assert report["left_out"] == {"shard that cannot be read": 4}
    assert pending([chunk], tmp_path / "out") == []


def command(shards, output, prior_dir):
    return [
        *(sys.executable, "-m", "examples.fitting.annotate", str(shards), str(output)),
        *("--prior", str(prior_dir), "--chunk", "2", "--steps", "60", "--workers", "1"),
    ]


@pytest.mark.slow
def test_goes_on_after_a_kill_with_nothing_lost_and_nothing_twice(shards, prior_dir, tmp_path):
    output = tmp_path / "out"
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(
        command(shards, output, prior_dir),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and killed.poll() is None:
        if len(list(output.glob("*-*.json"))) >= 2:
            break
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    time.sleep(1.5)  # its workers notice that it is gone
    chunks = chunks_of(shards, 2)
    done = {file.name: file.stat().st_mtime_ns for file in output.glob("*-*.*")}
    assert 2 <= sum(name.endswith(".json") for name in done) < len(chunks)

    again = subprocess.run(
        command(shards, output, prior_dir),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert " done before" in again.stdout
    assert "18 of 24 people fitted, 6 left out" in again.stdout
    for name, stamp in done.items():
        if (output / name.replace(".parquet", ".json")).name in done and ".partial" not in name:
            assert (output / name).stat().st_mtime_ns == stamp
    rows, count = fitted(output)
    assert count == len(rows) == 18
    assert not list(output.glob("*.partial*"))
    report = json.loads((output / "report.json").read_text())
    assert report["fitted"] == 18


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
        (["a.npz", "out", "height=3"], "key of pose, shape"),
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
