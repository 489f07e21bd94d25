import numpy as np
import pytest

from examples.data.files import npz_keys, number_array, numbered


def test_keys_of_an_archive(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.zeros(3), b=np.array({"pickled": 1}, object))
    assert npz_keys(path) == {"a", "b"}
    (tmp_path / "text.npz").write_text("hello", encoding="utf-8")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:-10])
    np.save(tmp_path / "x.npy", np.zeros(3))
    for name in ("text.npz", "folder.npz", "cut.npz", "x.npy", "nowhere.npz"):
        assert npz_keys(tmp_path / name) == frozenset()


def test_arrays_of_numbers():
    content = {"a": np.zeros((4, 3)), "b": np.array(["x"]), "c": {}, "d": np.zeros(2, bool)}
    assert number_array(content, "a", (None, 3), "here") is content["a"]
    assert number_array({"i": np.zeros(4, int)}, "i", (4,), "here").dtype == int
    for key, shape, message in (
        ("a", (None, 4), r"here: expected a to be numbers of shape \(N, 4\), got float64 of shape"),
        ("a", (None,), r"shape \(N,\), got float64 of shape \(4, 3\)"),
        ("b", (1,), "got <U1 of shape"),
        ("c", (None,), "expected c to be numbers"),
        ("d", (2,), "got bool of shape"),
        ("e", (None,), "here: expected the key e, found a, b, c, d"),
    ):
        with pytest.raises(ValueError, match=message):
            number_array(content, key, shape, "here")


def test_places():
    assert numbered("frame", np.array([False, True, True])) == ["frame 1", "frame 2"]
    assert numbered("frame", np.array([7, 9])) == ["frame 7", "frame 9"]
