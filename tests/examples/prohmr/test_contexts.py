"""Export of contexts for the fitting programs."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from examples.fitting import fit
from examples.fitting.annotate import Annotator
from examples.fitting.choices import given_context
from examples.fitting.shards import chunks_of, read_chunk
from examples.prohmr import contexts
from examples.prohmr.model import load_model
from flowprior.fitting.objective import KeypointWeights
from tests.examples.prohmr.untrained import untrained

SMALL = {"hidden_features": 16, "num_steps": 2, "context_norm": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, painted):
    """A painted data set, a model, and OpenPose's JSON of three of the images."""
    out = shutil.copytree(painted, tmp_path_factory.mktemp("data"), dirs_exist_ok=True)
    untrained(SMALL).save(out / "model.safetensors")
    points = np.load(out / "test.npz")["body_keypoints_2d"]
    (out / "keypoints").mkdir()
    for row in range(3):
        people = [{"pose_keypoints_2d": points[row].flatten().tolist()}] * (1 + (row == 0))
        content = json.dumps({"people": people})
        (out / "keypoints" / f"{row:06d}_keypoints.json").write_text(content, encoding="utf-8")
    (out / "images/test/000001.jpg").write_bytes(b"no image")
    return out


def run(folder, out, *argv):
    given = ["--checkpoint", folder / "model.safetensors", "--out", out, "--device", "cpu"]
    return contexts.main([*map(str, given), *map(str, argv)])


@pytest.fixture
def found(folder, tmp_path, capsys):
    assert run(folder, tmp_path, folder / "images/test", "--keypoints", folder / "keypoints") == 1
    assert "000001.jpg" in capsys.readouterr().err
    return tmp_path


def test_a_row_for_everybody_who_could_be_looked_at(folder, found):
    with np.load(found / "contexts.npz") as file:
        columns = dict(file)
    assert columns["image_names"].tolist() == ["000000.jpg", "000000.jpg", "000002.jpg"]
    assert columns["person"].tolist() == [0, 1, 0]
    assert columns["context"].shape == (3, 256)
    assert columns["betas"].shape == (3, 10)
    assert columns["image_size"].tolist() == [[48, 48]] * 3
    np.testing.assert_array_equal(columns["context"][0], columns["context"][1])
    model = load_model(folder / "model.safetensors")
    betas, _ = model.head(torch.from_numpy(columns["context"]))
    np.testing.assert_allclose(columns["betas"], betas.detach(), atol=1e-5)


def test_fit_takes_them_and_leaves_out_who_has_none(folder, found, capsys):
    argv = ["--data", folder / "keypoints", "--images", folder / "images/test", "--prior", found]
    argv += ["--context", found / "contexts.npz", "--out", found / "fits", "--steps", "4"]
    assert fit.main([*map(str, argv), "--device", "cpu", "--pictures", "0"]) == 0
    assert "1 people are left out: no context" in capsys.readouterr().out
    people = json.loads((found / "fits/report.json").read_text(encoding="utf-8"))["people"]
    assert [(p["image"], p["person"]) for p in people] == [
        *(("000000.jpg", 0), ("000000.jpg", 1), ("000002.jpg", 0))
    ]


def test_annotate_takes_them_as_a_shard(folder, found):
    (chunk,) = chunks_of(found / "contexts.npz", 100)
    people = read_chunk(chunk)
    assert people.context.shape == (3, 256)
    assert people.betas.shape == (3, 10)
    worker = Annotator(
        *(str(found), str(found), "conditional", None, KeypointWeights(), 3, None, "cpu")
    )
    assert worker.annotate(chunk)["kept"] == 3
    table = pq.read_table(found / f"{chunk.name}.parquet").to_pylist()
    assert [row["image_name"] for row in table] == ["000000.jpg", "000000.jpg", "000002.jpg"]


def test_betas_of_annotations_are_no_evidence(folder):
    (chunk,) = chunks_of(folder / "test.npz", 100)
    people = read_chunk(chunk)
    assert people.context is None
    assert people.betas is None


def test_a_data_set(folder, tmp_path):
    assert run(folder, tmp_path, folder, "--dataset", "val") == 0
    with np.load(tmp_path / "contexts.npz") as file:
        assert file["image_names"].tolist() == ["val/000000.jpg", "val/000001.jpg"]
        assert file["person"].tolist() == [0, 0]
        np.testing.assert_array_equal(
            file["keypoints_2d"], np.load(folder / "val.npz")["body_keypoints_2d"]
        )


def test_rows_are_found_by_image_and_person(tmp_path):
    path = tmp_path / "c.npz"
    context = np.arange(6.0).reshape(3, 2)
    names = np.array(["a.jpg", "a.jpg", "b.jpg"])
    np.savez(path, context=context, image_names=names, person=[0, 2, 0])
    people = [("b", 0), ("a.jpg", 1), ("a.jpg", 2)]
    evidence, rows = given_context(path, people, torch.device("cpu"))
    assert rows.tolist() == [0, 2]
    assert evidence.context.tolist() == [[4, 5], [2, 3]]
    assert evidence.betas is None
    with pytest.raises(ValueError, match="of other people"):
        given_context(path, [("c", 0)], torch.device("cpu"))
    np.savez(path, context=context)
    assert given_context(path, people, torch.device("cpu"))[1].tolist() == [0, 1, 2]
    np.savez(path, context=context + np.nan)
    with pytest.raises(ValueError, match="NaN or infinity"):
        given_context(path, people, torch.device("cpu"))
    context[1, 1] = np.inf  # of the second alone
    np.savez(path, context=context)
    evidence, rows = given_context(path, people, torch.device("cpu"))
    assert rows.tolist() == [0, 2]
    assert evidence.context.tolist() == [[0, 1], [4, 5]]
    np.savez(path, betas=context)
    with pytest.raises(ValueError, match=r"expected context \(3, C\)"):
        given_context(path, people, torch.device("cpu"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--keypoints or --dataset, and not both"),
        (["--keypoints", "x", "--dataset", "y"], "not both"),
        (["--keypoints", "nowhere"], "nowhere"),
        (["--dataset", "nowhere"], "nowhere.npz"),
        (["--dataset", "val", "--checkpoint", "nowhere.pt"], "nowhere.pt"),
    ],
)
def test_bad_input_is_code_2(folder, tmp_path, capsys, argv, words):
    assert run(folder, tmp_path, folder, *argv) == 2
    assert words in capsys.readouterr().err


def test_missing_gpu_is_reported(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(folder, tmp_path, folder, "--dataset", "val", "--device", "cuda") == 2
    assert "--device cuda" in capsys.readouterr().err
