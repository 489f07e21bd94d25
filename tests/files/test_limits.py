import json
import os

import numpy as np
import pytest

from flowprior import ConditionalPosePrior
from flowprior.body.arrays import read_body, read_regressor
from flowprior.files import limits
from flowprior.files.limits import (
    Refusal,
    parse_json,
    read_json,
    read_limited,
    require_expanded,
    require_path,
    require_pixels,
    require_regular,
    require_spread,
)
from flowprior.files.model_file import CheckpointError
from flowprior.files.numpy_file import read_npy, read_npz, read_pickle
from flowprior.files.torch_file import read_torch_file
from flowprior.prohmr import load_prior
from tests.systems import needs_links, needs_permissions, needs_pipes

READERS = {
    "pickle": (read_pickle, "a.pkl", ValueError),
    "npz": (read_npz, "a.npz", ValueError),
    "npy": (read_npy, "a.npy", ValueError),
    "body": (read_body, "a.pkl", ValueError),
    "body.npz": (read_body, "a.npz", ValueError),
    "regressor": (lambda path: read_regressor("H36M-17", path, 9), "a.npy", ValueError),
    "json": (read_json, "a.json", ValueError),
    "model": (ConditionalPosePrior.load, "a.safetensors", CheckpointError),
    "prohmr": (load_prior, "a.pt", CheckpointError),
    "torch": (read_torch_file, "a.pt", CheckpointError),
}


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("pipe", marks=needs_pipes),
        pytest.param("device", marks=[needs_links, needs_permissions]),
        "folder",
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_read(reader, place, tmp_path):
    read, name, error = READERS[reader]
    path = tmp_path / name
    if place == "pipe":
        os.mkfifo(path)
    elif place == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(error, match=name):
        read(path)


@pytest.mark.parametrize("reader", READERS)
def test_no_file(reader, tmp_path):
    read, name, _ = READERS[reader]
    with pytest.raises(FileNotFoundError, match=name):
        read(tmp_path / name)


@pytest.mark.parametrize("reader", ["pickle", "npy", "json"])
def test_a_file_that_is_too_large_to_be_read_whole(reader, tmp_path, monkeypatch):
    read, name, error = READERS[reader]
    path = tmp_path / name
    # It takes no room on disk.
    path.touch()
    os.truncate(path, 2**43)
    with pytest.raises(error, match=rf"{name} has 8796093022208 bytes; the limit is"):
        read(path)
    path.write_bytes(b"12345")
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 4)
    with pytest.raises(error, match=f"{name} has 5 bytes; the limit is 4"):
        read(path)


def test_regular_files():
    assert require_regular(__file__) == os.path.getsize(__file__)
    assert read_limited(__file__).startswith(b"import")
    with pytest.raises(CheckpointError, match="the limit is 3"):
        read_limited(__file__, 3, CheckpointError)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [101, 500, 10**5])
def test_nested_json(opening, depth, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        opening * depth + "1" + {"[": "]", "{": "}"}[opening[0]] * depth, encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"a\.json is (nested|not JSON)"):
        read_json(path)


def test_json_of_any_honest_depth():
    content = json.loads("[" * 100 + "1" + "]" * 100)
    assert parse_json(json.dumps(content)) == content
    with pytest.raises(Refusal, match="not JSON"):
        parse_json(b"\xff")


def test_the_limits_can_be_raised(monkeypatch):
    text = "[" * 150 + "]" * 150
    with pytest.raises(Refusal, match="100 levels"):
        parse_json(text)
    monkeypatch.setattr(limits, "MAX_DEPTH", 200)
    parse_json(text)
    with pytest.raises(Refusal, match="MAX_PIXELS"):
        require_pixels(30000, 30000, 2**30)
    monkeypatch.setattr(limits, "MAX_PIXELS", 2**30)
    require_pixels(30000, 30000, 2**30)
    with pytest.raises(Refusal, match="MAX_EXPANDED_BYTES"):
        require_expanded(2**31, 2**21)
    monkeypatch.setattr(limits, "MAX_EXPANDED_BYTES", 2**31)
    require_expanded(2**31, 2**21)


def test_large_files_of_the_field_are_admitted():
    require_expanded(3 * 2**30, 100 * 2**20)  # an archive of motion capture, well compressed
    require_pixels(12000, 9000, 20 * 2**20)  # a camera of a phone
    assert limits.MAX_FILE_BYTES > 600 * 2**20  # SMPL-X, annotations of COCO


def test_few_bytes_hold_few_pixels():
    with pytest.raises(Refusal, match="damaged"):
        require_pixels(9000, 9000, 1000)


def test_keys_that_collide():
    modulus = 2**61 - 1
    require_spread(range(5000))
    require_spread([np.float64(x) for x in np.random.default_rng(0).normal(size=5000)])
    with pytest.raises(Refusal, match="collide"):
        require_spread(number * modulus for number in range(1, 1500))


def test_paths(tmp_path):
    assert require_path(str(tmp_path)) == tmp_path
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*nowhere"):
        require_path(tmp_path / "nowhere")
