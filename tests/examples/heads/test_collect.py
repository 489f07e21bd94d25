"""Collecting features: from our ProHMR, and from a regressor of somebody else's code."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from examples.data.images import ImageDataset
from examples.heads import collect
from examples.heads.features import About, read_features
from examples.heads.regressors import FrozenRegressor, open_regressor
from examples.prohmr.judging import batches_of, crop_batch
from examples.prohmr.model import load_model
from examples.prohmr.sources import read_dataset
from flowprior import rotations
from tests.examples.prohmr.untrained import untrained
from tests.prior.stand_ins import Hmr2

SMALL = {"hidden_features": 16, "num_steps": 2, "context_norm": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, painted):
    out = shutil.copytree(painted, tmp_path_factory.mktemp("data"), dirs_exist_ok=True)
    untrained(SMALL).save(out / "model.safetensors")
    return out


def run(folder, out, *argv):
    given = [folder, "--out", out / "f.safetensors", "--device", "cpu", *argv]
    if "--regressor" not in argv:
        given += ["--checkpoint", folder / "model.safetensors"]
    return collect.main([*map(str, given)])


@pytest.fixture(scope="module")
def found(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("found")
    assert run(folder, out) == 0
    return read_features(out / "f.safetensors")


def test_every_person_has_features_answer_and_truth(folder, found):
    assert found.about.datasets == ("train", "val", "test")
    assert found.about.layer == "head"
    assert found.dataset.bincount().tolist() == [54, 2, 4]
    model = load_model(folder / "model.safetensors")
    dataset, _ = read_dataset(folder, "test")
    (batch,) = batches_of(dataset, 4)
    with torch.no_grad():
        context = model.backbone(crop_batch(batch, model.size).images)
        mode = rotations.rot6d_to_matrix(model.predict(context).posterior.mode())
    test = found.take(found.dataset == 2)
    torch.testing.assert_close(test.features, context)
    torch.testing.assert_close(test.answer, mode)
    pose = torch.from_numpy(np.load(folder / "test.npz")["body_pose"]).unflatten(-1, (24, 3))
    torch.testing.assert_close(test.truth, rotations.rotvec_to_matrix(pose), atol=1e-5, rtol=0)
    assert test.row.tolist() == [0, 1, 2, 3]
    assert (test.hidden >= 0).all()


def test_subjects_are_those_of_the_file(folder, found):
    names = np.concatenate(
        [np.load(folder / f"{part}.npz")["subject"] for part in ("train", "val")]
    )
    assert [found.subject_name(n) for n in found.subject[:56].tolist()] == names.tolist()
    held = set(found.subject[found.dataset > 0].tolist())
    assert not held & set(found.subject[found.dataset == 0].tolist())


def test_an_interrupted_run_continues(folder, found, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "PART_ROWS", 20)
    calls, original = [], collect.collect

    def once_more(regressor, dataset, rows, *args, **kwargs):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(regressor, dataset, rows, *args, **kwargs)

    monkeypatch.setattr(collect, "collect", once_more)
    assert run(folder, tmp_path) == 130
    assert len(list((tmp_path / "f.parts").glob("*.safetensors"))) == 2
    assert not (tmp_path / "f.safetensors").exists()
    assert run(folder, tmp_path) == 0
    assert calls == [20, 20, 14, 14, 2, 4]
    assert not (tmp_path / "f.parts").exists()
    again = read_features(tmp_path / "f.safetensors")
    for name, value in found.columns.items():
        torch.testing.assert_close(again.columns[name], value)


def test_parts_of_another_run_are_refused(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "--datasets", "val") == 0
    (tmp_path / "f.parts").mkdir()
    (tmp_path / "f.safetensors").rename(tmp_path / "f.parts/00-00000000-2.safetensors")
    assert run(folder, tmp_path, "--datasets", "test") == 2
    assert "holds parts of another run" in capsys.readouterr().err


def test_a_large_set_is_split(folder, found, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "PART_ROWS", 20)
    assert run(folder, tmp_path, "--shard-gb", "1e-5") == 0
    files = sorted(path.name for path in tmp_path.glob("f-*"))
    assert files == [f"f-{n:05d}-of-00005.safetensors" for n in range(1, 6)]
    torch.testing.assert_close(read_features(tmp_path / "f.safetensors").features, found.features)


def test_few_images_are_evenly_spaced(folder, tmp_path):
    assert run(folder, tmp_path, "--datasets", "train", "--images", "6") == 0
    assert read_features(tmp_path / "f.safetensors").row.tolist() == [0, 9, 18, 27, 36, 45]


def test_an_unreadable_image_is_left_out(folder, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / "data")
    (copy / "images/test/000001.jpg").write_bytes(b"no image")
    assert run(copy, tmp_path, "--datasets", "test") == 1
    captured = capsys.readouterr()
    assert "000001.jpg" in captured.err
    assert "1 could not be used" in captured.out
    assert read_features(tmp_path / "f.safetensors").row.tolist() == [0, 2, 3]


class OfCrops(nn.Module):
    """A regressor with HMR2's layer names that reads crops."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hmr2 = Hmr2()

    def forward(self, images):
        return self.hmr2({"img": images.flatten(1)[:, :16]})


def make(checkpoint, device):
    from flowprior.prior.heads import REGRESSORS

    model = OfCrops().to(device)
    entry = REGRESSORS["hmr2"]
    return FrozenRegressor(
        model,
        "hmr2." + entry.layer,
        lambda batch: entry.centre(model(crop_batch(batch, 32).images)),
    )


def make_nothing(checkpoint, device):
    return None


def test_a_regressor_of_your_own(folder, tmp_path):
    assert run(folder, tmp_path, "--datasets", "test", "--regressor", f"{__name__}:make") == 0
    features = read_features(tmp_path / "f.safetensors")
    assert features.features.shape == (4, 1024)
    dataset, _ = read_dataset(folder, "test")
    (batch,) = batches_of(dataset, 4)
    with torch.no_grad():
        answer = make(None, "cpu").answer(batch)
    assert torch.equal(features.answer, answer)  # the tap changes nothing


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hmr3", "there are prohmr and module:function"),
        ("prohmr", "needs --checkpoint"),
        ("no_such_module:make", "No module named"),
        (f"{__name__}:unmake", "unmake"),
        (f"{__name__}:make_nothing", "expected a FrozenRegressor, got NoneType"),
    ],
)
def test_a_wrong_regressor_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        open_regressor(name, None, torch.device("cpu"))


def test_people_without_a_row_are_an_error(folder):
    dataset: ImageDataset = read_dataset(folder, "test")[0]
    model = OfCrops()
    regressor = FrozenRegressor(
        model,
        "hmr2.smpl_head.decpose",
        lambda batch: model(crop_batch(batch, 32).images[:2])["pred_smpl_params"]["body_pose"],
    )
    with pytest.raises(ValueError, match="returned 2 answers for 4 people"):
        collect.collect(regressor, dataset, range(4), About("x", "y", ("test",)))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--datasets", "missing"], "missing"),
        (["--shard-gb", "0"], "--shard-gb must be positive"),
        (["--regressor", "x"], "no regressor 'x'"),
    ],
)
def test_bad_arguments(folder, tmp_path, capsys, argv, message):
    assert run(folder, tmp_path, *argv) == 2
    assert message in capsys.readouterr().err


def test_the_name_of_the_file_is_checked(folder, tmp_path, capsys):
    assert collect.main([str(folder), "--out", str(tmp_path / "f.npz"), "--device", "cpu"]) == 2
    assert "ends in .safetensors" in capsys.readouterr().err
