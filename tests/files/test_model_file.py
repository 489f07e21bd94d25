import json
import os
import re

import pytest
import safetensors.torch
import torch

from flowprior import CheckpointError, ConditionalPosePrior
from flowprior.files import model_file
from flowprior.flow import PRESETS
from tests.processes import in_child
from tests.systems import needs_links


@pytest.fixture
def prior():
    prior = ConditionalPosePrior(4, joints=3, layout="rows", hidden_features=16, num_steps=2)
    prior.nll(torch.randn(10, 3, 6), torch.randn(10, 4))
    return prior


@pytest.fixture
def saved(prior, tmp_path):
    path = tmp_path / "prior.safetensors"
    prior.save(path)
    return path


def rewrite(path, *, tensors=None, **metadata):
    """The same file with other tensors or header entries."""
    with safetensors.safe_open(path, "pt") as file:
        old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = file.metadata()
    header = {name: value for name, value in {**header, **metadata}.items() if value is not None}
    safetensors.torch.save_file(old if tensors is None else tensors(old), path, header)


def test_round_trip_of_a_model_file(prior, saved):
    rng = torch.get_rng_state()
    loaded = ConditionalPosePrior.load(saved)
    assert torch.equal(torch.get_rng_state(), rng)
    assert not loaded.training
    assert loaded.config == prior.config
    assert loaded.space.layout == "rows"
    assert loaded.flow.is_initialized()
    assert loaded.state_dict().keys() == prior.state_dict().keys()
    for name, value in prior.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    theta, context = torch.randn(5, 3, 6), torch.randn(5, 4)
    assert torch.equal(loaded.log_prob(theta, context), prior.eval().log_prob(theta, context))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(prior, tmp_path, dtype):
    prior.to(dtype).save(tmp_path / "prior")
    assert next(ConditionalPosePrior.load(tmp_path / "prior").parameters()).dtype == dtype


def test_the_original_preset_keeps_its_statistics(tmp_path):
    prior = ConditionalPosePrior(4, joints=3, preset="prohmr", hidden_features=16)
    prior.nll(torch.randn(10, 3, 6), torch.randn(10, 4))
    prior.save(tmp_path / "prior")
    loaded = ConditionalPosePrior.load(tmp_path / "prior").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in prior.state_dict().items())


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_crash_leaves_the_old_file_whole(prior, saved, monkeypatch, broken):
    before = saved.read_bytes()

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, broken, crash)
    with pytest.raises(KeyboardInterrupt):
        prior.save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_saved_model_does_not_depend_on_its_preset(saved, monkeypatch):
    monkeypatch.setitem(
        PRESETS, "default", {"batch_norm": True, "dropout": 0.3, "context_norm": False}
    )
    loaded = ConditionalPosePrior.load(saved)
    assert loaded.flow.steps[0].actnorm.context_weight is not None
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in loaded.modules())


def test_saving_replaces(prior, saved):
    with torch.no_grad():
        prior.flow.steps[0].actnorm.log_scale += 1
    prior.save(saved)
    loaded = ConditionalPosePrior.load(saved)
    found, wanted = (each.flow.steps[0].actnorm.log_scale for each in (loaded, prior))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("keep", [4, 100, 0.5, -1])
def test_a_truncated_file_is_refused(saved, keep):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"prior.safetensors is truncated, damaged"):
        ConditionalPosePrior.load(saved)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other"
    path.write_text("not a model", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        ConditionalPosePrior.load(path)
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a flowprior model"):
        ConditionalPosePrior.load(path)


def test_a_newer_format_is_refused(saved):
    rewrite(saved, format_version=str(model_file.FORMAT_VERSION + 1))
    with pytest.raises(CheckpointError, match="format version 2, this flowprior reads up to 1"):
        ConditionalPosePrior.load(saved)


@pytest.mark.parametrize(
    "metadata", [{"format_version": "x"}, {"config": "{"}, {"config": None}, {"config": "3"}]
)
def test_a_damaged_header_is_refused(saved, metadata):
    rewrite(saved, **metadata)
    with pytest.raises(CheckpointError, match="damaged flowprior header"):
        ConditionalPosePrior.load(saved)


@pytest.mark.parametrize(
    "config", [{"colour": 1}, {}, {"context_features": 4, "space": "quaternion"}]
)
def test_the_configuration_of_another_model_is_refused(saved, config):
    rewrite(saved, config=json.dumps(config))
    with pytest.raises(CheckpointError, match="is not a pose prior"):
        ConditionalPosePrior.load(saved)


def test_error_lists_every_mismatched_tensor(saved):
    def spoil(tensors):
        tensors.pop("flow.steps.0.actnorm.log_scale")
        tensors["flow.steps.1.actnorm.log_scale"] = torch.zeros(5)
        return {**tensors, "surplus": torch.zeros(1)}

    rewrite(saved, tensors=spoil)
    with pytest.raises(CheckpointError) as error:
        ConditionalPosePrior.load(saved)
    assert "missing flow.steps.0.actnorm.log_scale" in str(error.value)
    assert "unexpected surplus" in str(error.value)
    assert "flow.steps.1.actnorm.log_scale is (5,) instead of (9,)" in str(error.value)


def test_folder_instead_of_a_file(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder"):
        ConditionalPosePrior.load(tmp_path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ConditionalPosePrior.load(tmp_path / "nowhere")


def test_a_missing_folder_is_an_error(prior, tmp_path):
    with pytest.raises(FileNotFoundError):
        prior.save(tmp_path / "nowhere" / "prior")


def tensors_of(path):
    return model_file.load_tensors(path)[0]


def model_of(path):
    return dict(model_file.load(path).tensors)


def prior_of(path):
    return ConditionalPosePrior.load(path).state_dict()


def folder_of(path):
    return ConditionalPosePrior.from_pretrained(path.parent).state_dict()


@pytest.mark.parametrize("read", [tensors_of, model_of, prior_of, folder_of])
def test_weights_do_not_follow_the_file(prior, tmp_path, read):
    path = tmp_path / "model.safetensors"
    prior.save(path)
    loaded = read(path)
    expected = {name: value.clone() for name, value in loaded.items()}
    with open(path, "r+b") as file:  # in place, as cp and synchronising programs write
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(1000))
    for name, value in loaded.items():
        assert torch.equal(value, expected[name]), name

    def cut_short():
        again = read(path)
        os.truncate(path, 1)
        for value in again.values():
            value.sum().item()

    assert in_child(cut_short) == 0


def test_tied_weights_are_stored_under_each_name(tmp_path):
    # With an even number of features, the conditioners of all steps have the same shapes.
    prior = ConditionalPosePrior(4, joints=4, hidden_features=16, num_steps=2)
    first, second = prior.flow.steps
    second.coupling.conditioner = first.coupling.conditioner
    second.actnorm.log_scale = first.actnorm.log_scale
    prior.save(tmp_path / "tied")
    loaded = ConditionalPosePrior.load(tmp_path / "tied")
    expected = prior.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_views_of_one_memory_are_stored(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "whole": whole,
        "row": whole[1],
        "column": whole[:, 1],
        "repeated": whole[0, 0].expand(5),
    }
    model_file.save(tmp_path / "file", model_file.ModelFile(tensors, {}))
    loaded = model_file.load(tmp_path / "file").tensors
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [(torch.eye(3).to_sparse(), "sparse_coo"), (torch.zeros(3, device="meta"), "meta")],
    ids=["sparse", "meta"],
)
def test_a_tensor_that_cannot_be_stored_is_named(tmp_path, tensor, kind):
    with pytest.raises(ValueError, match=f"odd.one is a {kind} tensor"):
        model_file.save(tmp_path / "file", model_file.ModelFile({"odd.one": tensor}, {}))
    assert not list(tmp_path.iterdir())


@needs_links
def test_saved_through_a_link(prior, saved, tmp_path):
    (tmp_path / "latest").symlink_to(saved.name)
    with torch.no_grad():
        prior.flow.steps[0].actnorm.log_scale += 1
    prior.save(tmp_path / "latest")
    assert (tmp_path / "latest").is_symlink()
    found = prior_of(saved)["flow.steps.0.actnorm.log_scale"]
    assert torch.equal(found, prior.flow.steps[0].actnorm.log_scale)


def test_a_protected_file_is_not_overwritten(prior, saved):
    before = saved.read_bytes()
    saved.chmod(0o444)
    with pytest.raises(PermissionError, match="write-protected"):
        prior.save(saved)
    assert saved.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"num_steps": 10**6},
        {"num_blocks": 10**6},
        {"num_steps": 90, "num_blocks": 90},
        {"hidden_features": 10**18},
        {"context_features": 10**18},
        {"joints": 10**18},
        {"encoder_features": 10**9, "encoder_blocks": 10**9},
        {"joints": 10**400},
        {"hidden_features": 1e300},
        {"num_steps": float("inf")},
        {"num_steps": "many"},
        {"preset": ["default"]},
        {"layout": {}},
        {"dropout": [0.5]},
        {"unknown": 1},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_configuration_that_the_tensors_cannot_fill(saved, changes):
    content = model_file.load(saved)
    config = {**content.config, **changes}
    model_file.save(saved, model_file.ModelFile(content.tensors, config))
    with pytest.raises(CheckpointError, match=saved.name):
        ConditionalPosePrior.load(saved)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 500 + "1" + "}" * 500, " " * 2**21])
@pytest.mark.parametrize("key", ["config", "provenance"])
def test_a_header_that_is_nested_or_long(saved, key, text):
    rewrite(saved, **{key: text})
    with pytest.raises(CheckpointError, match=rf"{saved.name} has a damaged flowprior header"):
        model_file.load(saved)


def with_dtype(path, name, code):
    """Rewrite the dtype of a tensor in the header of a safetensors file, its size kept."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    found = header[name]
    (*_, last) = found["shape"]
    width = {"F8_E5M2": 4, "F8_E8M0": 4, "F4": 8, "F6_E2M3": 0, "C64": 0.5, "I64": 0.5, "U8": 4}
    found["dtype"], found["shape"][-1] = code, int(last * width[code]) or last
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + content[8 + size :])


@pytest.mark.parametrize("code", ["F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "C64", "I64", "U8"])
def test_tensors_of_odd_dtypes(saved, code):
    with_dtype(saved, "flow.steps.0.actnorm.context_weight", code)
    with pytest.raises(CheckpointError, match=saved.name):
        ConditionalPosePrior.load(saved)


@pytest.mark.parametrize(
    "dtype",
    [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int64, torch.bool],
)
def test_weights_of_dtypes_without_arithmetic(saved, dtype):
    content = model_file.load(saved)
    name = next(name for name in content.tensors if name.endswith("weight"))
    tensors = {**content.tensors, name: content.tensors[name].to(dtype)}
    model_file.save(saved, model_file.ModelFile(tensors, content.config))
    with pytest.raises(CheckpointError, match=f"{name} is of {dtype}"):
        ConditionalPosePrior.load(saved)


@pytest.mark.parametrize("pattern", [r"^", r"(?<=^flow\.)", r"(?<=steps\.0\.)"])
def test_partly_compiled_models_load(prior, saved, pattern):
    content = model_file.load(saved)
    tensors = {re.sub(pattern, "_orig_mod.", name): t for name, t in content.tensors.items()}
    assert any("_orig_mod" in name for name in tensors)
    model_file.save(saved, model_file.ModelFile(tensors, content.config))
    loaded = ConditionalPosePrior.load(saved).state_dict()
    assert loaded.keys() == prior.state_dict().keys()
    assert model_file.load_tensors(saved)[0].keys() == loaded.keys()


def test_compiled_weights_beside_others_of_the_same_name(saved):
    content = model_file.load(saved)
    name = next(iter(content.tensors))
    tensors = {**content.tensors, f"_orig_mod.{name}": content.tensors[name].clone()}
    model_file.save(saved, model_file.ModelFile(tensors, content.config))
    with pytest.raises(CheckpointError, match="under the same name"):
        model_file.load(saved)
