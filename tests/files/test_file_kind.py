import bz2
import gzip
import io
import lzma
import pickle
import zipfile

import numpy as np
import pytest
import torch

from flowprior import ConditionalPosePrior
from flowprior.files.file_kind import not_the_file


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("SMPL/models/basicmodel_f.pkl", b"")


def dump(*args, **options):
    pytest.importorskip("joblib").dump(*args, **options)


def npy():
    buffer = io.BytesIO()
    np.save(buffer, np.ones(2))
    return buffer.getvalue()


def arrays(path):
    with path.open("wb") as file:
        np.savez(file, a=1)


# As WHAM writes its results.
RESULTS = {0: {"pose": np.zeros((50, 72)), "trans": np.zeros((50, 3))}}

MAKERS = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "lfs": (
        lambda path: path.write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", encoding="utf-8"
        ),
        "is a Git LFS pointer",
    ),
    "doctype": (
        lambda path: path.write_text("\n<!doctype HTML><html>", encoding="utf-8"),
        "is a web page",
    ),
    "html": (lambda path: path.write_bytes(b"\xef\xbb\xbf<HTML lang='en'>"), "is a web page"),
    "torch": (lambda path: torch.save({"a": 1}, path), "is a PyTorch checkpoint"),
    "npz": (arrays, "is an .npz archive"),
    "zip": (zipped, "unpack it first; it contains SMPL/models/basicmodel_f.pkl"),
    "half a zip": (
        lambda path: path.write_bytes(b"PK\x03\x04" + b"\0" * 90),
        "truncated or damaged",
    ),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 90), "is an HDF5 file"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"SMPL")), "compressed by gzip"),
    "bzip2": (lambda path: path.write_bytes(bz2.compress(b"SMPL")), "compressed by bzip2"),
    "xz": (lambda path: path.write_bytes(lzma.compress(b"SMPL")), "compressed by xz"),
    "npy": (lambda path: path.write_bytes(npy()), "is an .npy file"),
    "MATLAB v7.3": (
        lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + b" " * 474),
        "is a MATLAB v7.3 file: read it with h5py",
    ),
    "MATLAB": (
        lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + b" " * 90),
        "scipy.io.loadmat",
    ),
    "joblib": (lambda path: dump(RESULTS, path), "was written by joblib.dump: read it with"),
    "compressed joblib": (
        lambda path: dump(RESULTS, path, compress=3),
        "was written by joblib.dump: read it with joblib.load",
    ),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "is a pickle"),
    "safetensors": (
        lambda path: ConditionalPosePrior(0, hidden_features=4).save(path),
        "is a safetensors file",
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_kind_follows_from_the_content(name, tmp_path):
    make, words = MAKERS[name]
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    make(path)
    assert words in not_the_file(path)


@pytest.mark.parametrize("content", [b"hello", b"\x80\x09abc", b"PQ", b"\0" * 100, b"12345678{"])
def test_unknown_files_have_no_kind(content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not_the_file(path) == ""
