import argparse
import codecs
import collections
import io
import os
import pathlib
import pickle
import struct
import sys
import tempfile
import types
import zipfile

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from flowprior.files import limits
from flowprior.files.numpy_file import read_npy, read_npy_object, read_npz, read_pickle
from flowprior.files.sealed_pickle import Inert


def read(program):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "file.pkl")
        path.write_bytes(program)
        return read_pickle(path)


def refuse(program, message):
    with pytest.raises(ValueError, match=message):
        read(program)


class Call:
    """Pickles as a call of a function, whose result then takes a state."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.call


def python2_array(array):
    """How the pickle module of Python 2 writes an array (protocol 2): raw bytes as a string."""
    array = np.ascontiguousarray(array)
    data = array.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n("
        + b"".join(b"I%d\n" % size for size in array.shape)
        + b"tcnumpy\ndtype\n(U"
        + bytes([len(array.dtype.str) - 1])
        + array.dtype.str[1:].encode()
        + b"I0\nI1\ntR(I3\nU\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffI0\ntb\x89T"
        + struct.pack("<i", len(data))
        + data
        + b"tb"
    )


@pytest.fixture
def chumpy(monkeypatch):
    """Classes that pickle as those of the package chumpy do, in modules of its names."""
    names = ("chumpy", "chumpy.ch", "chumpy.reordering")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    def make(module, name):
        made = type(name, (), {"__module__": module})
        setattr(sys.modules[module], name, made)
        return made

    return types.SimpleNamespace(
        Ch=make("chumpy.ch", "Ch"),
        Select=make("chumpy.reordering", "Select"),
        Other=make("chumpy.ch", "Other"),
    )


def made_of(kind, **state):
    made = kind()
    made.__dict__.update(state)
    return made


DTYPES = st.one_of(
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?"),
    npst.boolean_dtypes(),
    npst.unicode_string_dtypes(max_len=5),
    npst.byte_string_dtypes(max_len=5),
)


@given(
    array=npst.arrays(DTYPES, npst.array_shapes(min_dims=0, max_dims=3, min_side=0)),
    protocol=st.integers(0, 5),
    fortran=st.booleans(),
)
def test_arrays_come_back(array, protocol, fortran):
    if fortran:
        array = np.asfortranarray(array)
    found = read(pickle.dumps({"a": [array]}, protocol=protocol))["a"][0]
    assert isinstance(found, np.ndarray)
    assert found.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable
    assert found.dtype.isnative


@pytest.mark.parametrize("protocol", range(6))
def test_scalars_strings_and_nesting(protocol):
    shared = np.arange(3.0)
    content = {
        "scalar": np.float32(2.5),
        "flag": np.bool_(True),
        "text": "gr\u00f6\u00dfe",
        "tuple": (1, [shared], {"x": None}),
        "objects": np.array([{"a": shared}, None, "x"], dtype=object),
        "grid": np.array([[1, "b"], [None, 2.0]], dtype=object),
    }
    found = read(pickle.dumps(content, protocol=protocol))
    assert found["scalar"] == 2.5
    assert isinstance(found["scalar"], np.float32)
    assert found["flag"]
    assert found["text"] == content["text"]
    np.testing.assert_array_equal(found["tuple"][1][0], shared)
    assert found["objects"][0]["a"] is found["tuple"][1][0]
    assert found["grid"].tolist() == content["grid"].tolist()


def test_fortran_order_of_objects():
    grid = np.asfortranarray(np.array([[1, "b", 3], [None, 2.0, ()]], dtype=object))
    assert read(pickle.dumps(grid)).tolist() == grid.tolist()


class Entries(dict):
    """A dictionary of a class that is not loaded, as easydict's."""


class Elements(list):
    """Likewise a list."""


ARRAY_VALUE = np.arange(6.0).reshape(2, 3)
CONTAINERS = {
    "OrderedDict": collections.OrderedDict(b=1, a=ARRAY_VALUE),
    "defaultdict": collections.defaultdict(list, a=ARRAY_VALUE),
    "defaultdict of none": collections.defaultdict(None, a=ARRAY_VALUE),
    "Counter": collections.Counter(a=ARRAY_VALUE),
    "subclass of dict": Entries(a=ARRAY_VALUE),
    "nested": {"a": ARRAY_VALUE, "b": collections.OrderedDict(c=collections.OrderedDict())},
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", CONTAINERS)
def test_dictionaries_of_other_kinds_are_dictionaries(name, protocol):
    found = read(pickle.dumps(CONTAINERS[name], protocol))
    assert type(found) is dict
    assert list(found) == list(CONTAINERS[name])
    np.testing.assert_array_equal(found["a"], ARRAY_VALUE)
    assert type(found.get("b", {})) in (int, dict)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [collections.deque, Elements])
def test_lists_of_other_kinds_are_lists(kind, protocol):
    found = read(pickle.dumps({"a": kind([ARRAY_VALUE, 2])}, protocol))["a"]
    assert type(found) is list
    np.testing.assert_array_equal(found[0], ARRAY_VALUE)


def test_an_ordered_dictionary_of_python_2():
    # There it is made from a list of pairs.
    array = python2_array(ARRAY_VALUE)
    program = b"\x80\x02ccollections\nOrderedDict\n]]U\x01aa" + array + b"aa\x85R."
    found = read(program)
    assert list(found) == ["a"]
    np.testing.assert_array_equal(found["a"], ARRAY_VALUE)
    refuse(b"\x80\x02ccollections\nOrderedDict\n]K\x01a\x85R.", "not pairs")


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    "holder",
    [
        types.SimpleNamespace(a=ARRAY_VALUE),
        argparse.Namespace(a=[ARRAY_VALUE]),
        collections.UserDict(a=ARRAY_VALUE),
        collections.ChainMap({"a": ARRAY_VALUE}),
        types.SimpleNamespace(a=types.SimpleNamespace(b=(ARRAY_VALUE,))),
    ],
    ids=["SimpleNamespace", "Namespace", "UserDict", "ChainMap", "nested"],
)
def test_arrays_in_objects_of_other_classes_are_arrays(holder, protocol):
    def arrays(value):
        if isinstance(value, np.ndarray):
            return 1
        if isinstance(value, Inert):
            return arrays(value.args) + arrays(value.state)
        if isinstance(value, dict):
            return sum(map(arrays, value.values()))
        return sum(map(arrays, value)) if isinstance(value, list | tuple) else 0

    found = read(pickle.dumps({"x": holder}, protocol))["x"]
    assert isinstance(found, Inert)
    assert arrays(found) == 1


def test_an_object_with_dates_does_not_spoil_the_arrays_beside_it():
    shared = [ARRAY_VALUE]
    dates = types.SimpleNamespace(a=shared, b=np.zeros(2, "M8[s]"))
    found = read(pickle.dumps({"x": dates, "y": shared}))
    np.testing.assert_array_equal(found["y"][0], ARRAY_VALUE)


def test_members_of_sets_are_plain():
    found = read(pickle.dumps({"a": {np.int64(3)}, "b": frozenset([np.float32(0.5), "x"])}, 4))
    assert found == {"a": {3}, "b": frozenset([0.5, "x"])}


def test_keys_that_collide_once_they_are_plain():
    colliding = [np.complex128(complex(-1000003 * n, n)) for n in range(1, 1200)]
    assert len(set(map(hash, colliding))) == 1
    keys = [pickle.dumps(key, 2)[2:-1] for key in colliding]
    refuse(b"\x80\x02}(" + b"".join(key + b"N" for key in keys) + b"u.", "collide")


@given(array=npst.arrays(st.sampled_from([np.float64, np.float32, np.int64, np.uint32]), (3, 2)))
def test_python_2(array):
    program = b"\x80\x02}U\x01a" + python2_array(array) + b"s."
    found = read(program)["a"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("kind", ["csc", "csr", "coo"])
@pytest.mark.parametrize("family", ["matrix", "array"])
@pytest.mark.parametrize("protocol", [0, 1, 2, 5])
def test_sparse_matrices_are_written_out(kind, family, protocol):
    dense = np.where(np.random.default_rng(0).random((5, 7)) < 0.4, 1.5, 0.0)
    sparse = getattr(scipy.sparse, f"{kind}_{family}")(dense)
    np.testing.assert_array_equal(read(pickle.dumps(sparse, protocol=protocol)), dense)


def test_entries_of_a_sparse_matrix_add_up():
    sparse = scipy.sparse.coo_matrix(([1.0, 2.0, 4.0], ([0, 0, 1], [2, 2, 0])), shape=(2, 3))
    np.testing.assert_array_equal(read(pickle.dumps(sparse)), sparse.toarray())


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_chumpy_arrays_without_chumpy(chumpy, protocol, monkeypatch):
    base = np.random.default_rng(0).normal(size=(4, 3, 12))
    indices = np.arange(base.size).reshape(base.shape)[..., :10]
    content = {
        "plain": made_of(chumpy.Ch, x=base, _dirty_vars=set(), _itr=None),
        "part": made_of(
            chumpy.Select,
            a=made_of(chumpy.Ch, x=base),
            idxs=indices.ravel(),
            preferred_shape=indices.shape,
        ),
        "expression": made_of(chumpy.Other, a=1),
    }
    program = pickle.dumps(content, protocol=protocol)
    for name in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        monkeypatch.delitem(sys.modules, name)
    found = read(program)
    np.testing.assert_array_equal(found["plain"], base)
    np.testing.assert_array_equal(found["part"], base[..., :10])
    assert isinstance(found["expression"], Inert)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "call",
    [
        (os.system, "touch '{marker}'"),
        (eval, "open({marker!r}, 'w')"),
        (exec, "open({marker!r}, 'w')"),
        (open, "{marker}", "w"),
        (np.save, "{marker}", [1.0]),
        (np.load, "{marker}"),
        (pickle.loads, b"."),
        (getattr, "x", "upper"),
        (__import__, "os"),
    ],
)
def test_code_is_refused_and_never_runs(tmp_path, call, protocol):
    marker = tmp_path / "marker"
    function, *args = call
    args = [a.format(marker=str(marker)) if isinstance(a, str) else a for a in args]
    gadget = Call(function, *args)
    holder = np.empty((), dtype=object)
    holder[()] = {"deep": [gadget]}
    for content in (gadget, {"v_template": gadget}, [np.ones(2), (gadget,)], holder):
        refuse(pickle.dumps(content, protocol=protocol), "Nothing was executed")
        archive = tmp_path / "file.npz"
        archive.write_bytes(npz(a=np.array([1, gadget], dtype=object)))
        with pytest.raises(ValueError, match="Nothing was executed"):
            read_npz(archive)
    assert not marker.exists()


# What numpy makes an array from, a part of the data of another object, and a number.
ARRAY = np.empty(0).__reduce__()[0]
BUFFER = np.empty(0).__reduce_ex__(5)[0]
SCALAR = np.float64(0).__reduce__()[0]


def array_with_state(state):
    return pickle.dumps(Call(ARRAY, np.ndarray, (0,), b"b", state=state), protocol=4)


def array_program(shape, dtype="f8", data=b"", order=False):
    """A pickle of an array that declares any shape."""
    return array_with_state((1, shape, np.dtype(dtype), order, data))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"", "is empty"),
        (b"<html>", "web page"),
        (b"hello", "not a pickle"),
        (b"\x80\x04", "not a pickle"),
        (pickle.dumps(np.arange(1000.0))[:-300], "not a pickle"),
        (array_program((10**12,)), "does not contain it|exhaust memory"),
        (array_program((2,), data=b"\0" * 15), "does not contain it"),
        (array_program((-1,), data=b"\0" * 8), "shape"),
        (array_program((3,), "O", [1]), "3 objects"),
        (array_program((1,), "O", b"12345678"), "1 objects"),
        (array_program((1,), [("a", "f8")], b"\0" * 8), "unusual dtype"),
        (array_program((1,), "M8[s]", b"\0" * 8), "unusual dtype"),
        (array_with_state(None), "an array without content"),
        (array_with_state((1, (1,), np.dtype("f8"), False)), "an array without content"),
        (array_with_state((1, (1,), "f8", False, b"\0" * 8)), "an array without a dtype"),
        (pickle.dumps(Call(BUFFER, b"", np.dtype("f8"), (0,))), "an array without content"),
        (pickle.dumps(Call(SCALAR, np.dtype("f8"))), "a number without content"),
        (pickle.dumps({"a": Call(codecs.encode, "a", "utf-16")}), "invalid bytes"),
    ],
)
def test_damaged_and_made_up_files(program, message):
    refuse(program, message)


def test_one_piece_of_data_in_many_arrays():
    data = b"\0" * 80_000
    part = Call(BUFFER, data, np.dtype("f8"), (10_000,), "C")
    copies = [Call(part.call[0], *part.call[1]) for _ in range(1000)]
    assert len(read(pickle.dumps(copies[:3]))) == 3
    refuse(pickle.dumps(copies), "exhaust memory")


def test_a_sparse_matrix_that_is_too_large():
    sparse = scipy.sparse.coo_matrix(([1.0], ([0], [0])), shape=(10**6, 10**6))
    refuse(pickle.dumps(sparse), "too large")


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"_shape": (2, 2)},
        {"_shape": (2, 2), "data": 1, "indices": 2, "indptr": 3},
        {"_shape": (2, -2)} | dict.fromkeys(("data", "indices", "indptr"), np.zeros(0)),
        {"_shape": 4} | dict.fromkeys(("data", "indices", "indptr"), np.zeros(0)),
    ],
)
def test_broken_sparse_matrices(state):
    made = b"\x80\x02cscipy.sparse._csc\ncsc_matrix\n)\x81"
    program = made + pickle.dumps(state, 2)[2:-1] + b"b."
    refuse(program, "sparse matrix")


def test_an_index_outside_a_sparse_matrix():
    sparse = scipy.sparse.csr_matrix(np.eye(3))
    sparse.indices[0] = 99
    refuse(pickle.dumps(sparse), "index out of range")


@pytest.mark.parametrize("kind", ["csr", "csc"])
@pytest.mark.parametrize(
    "ends",
    [
        [0, 2**40, 2**41, 3],
        [0, 10**9, 10**9, 3],
        [0, 3, 1, 3],
        [1, 2, 3, 3],
        [0, 1, 2],
        [0, 1, 2, 4],
        [0.0, 1.0, 2.0, 3.0],
        [],
    ],
)
def test_a_sparse_matrix_with_an_indptr_that_lies(kind, ends):
    sparse = getattr(scipy.sparse, f"{kind}_matrix")(np.eye(3))
    sparse.indptr = np.array(ends)
    refuse(pickle.dumps(sparse), "indptr")


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
@pytest.mark.parametrize("name", ["indices", "data"])
def test_a_sparse_matrix_of_parts_that_do_not_fit(kind, name):
    sparse = getattr(scipy.sparse, f"{kind}_matrix")(np.eye(3))
    if kind == "coo" and name == "indices":
        sparse.coords = (np.array([0, -1, 2]), np.array([0, 1, 2]))
    else:
        setattr(sparse, name, np.array([1, -2, 0]) if name == "indices" else np.ones(2))
    refuse(pickle.dumps(sparse), "sparse matrix")


def test_room_for_more_entries_in_a_sparse_matrix():
    sparse = scipy.sparse.csr_matrix(np.eye(3))
    sparse.data = np.append(sparse.data, [7.0, 8.0])
    sparse.indices = np.append(sparse.indices, [0, 0])
    np.testing.assert_array_equal(read(pickle.dumps(sparse)), np.eye(3))


def test_a_chumpy_array_with_more_indices_than_the_file_has(chumpy):
    wide = np.array(["x" * 200_000])
    program = pickle.dumps(made_of(chumpy.Select, a=wide, idxs=np.zeros(100_000, np.uint8)))
    refuse(program, "exhaust memory")
    program = pickle.dumps(made_of(chumpy.Select, a=np.ones(3), idxs=["x"]))
    refuse(program, "not by indices")


@given(st.data())
def test_any_damage_is_a_value_error(data):
    program = bytearray(pickle.dumps({"a": np.arange(6.0), "b": ["x", (1, np.int32(3))]}))
    for _ in range(data.draw(st.integers(1, 4))):
        program[data.draw(st.integers(0, len(program) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(program))
    except ValueError as error:
        assert "file.pkl" in str(error)  # noqa: PT017 - many damages go unnoticed


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def test_npz_entry_without_an_array(tmp_path):
    header = io.BytesIO()
    announced = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(header, announced)
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"file\.npz has an entry 'a\.npy' that is not an array"):
        read_npz(tmp_path / "file.npz")


def test_npz_with_pickled_entries(tmp_path):
    path = tmp_path / "data.npz"
    positions = {"S1": {"Walking": np.ones((5, 32, 3), np.float32)}}
    np.savez(
        path,
        positions_3d=positions,
        plain=np.arange(3),
        names=np.array(["a", "b"]),
        mixed=np.array([None, {"a": 1}], dtype=object),
    )
    found = read_npz(path)
    assert list(found) == ["positions_3d", "plain", "names", "mixed"]
    np.testing.assert_array_equal(
        found["positions_3d"]["S1"]["Walking"], positions["S1"]["Walking"]
    )
    assert found["plain"].tolist() == [0, 1, 2]
    assert found["names"].tolist() == ["a", "b"]
    assert found["mixed"].tolist() == [None, {"a": 1}]
    assert list(read_npz(path, {"plain", "absent"})) == ["plain"]


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip", b"PK\x03\x04" + b"\0" * 50])
def test_not_an_npz(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"data\.npz is not an \.npz file"):
        read_npz(path)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_an_archive_that_expands(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_EXPANDED_BYTES", 2**20)
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("a.npy", "w", force_zip64=True) as entry:
            announced = {"descr": "<f8", "fortran_order": False, "shape": (2**21,)}
            np.lib.format.write_array_header_1_0(entry, announced)
            for _ in range(2**4):
                entry.write(bytes(2**20))
        archive.writestr("b.npy", npy(np.arange(3)))
    with pytest.raises(ValueError, match=r"data\.npz expands from \d+ to \d+ bytes"):
        read_npz(path)
    # What is not read does not count.
    assert read_npz(path, {"b"})["b"].tolist() == [0, 1, 2]


def test_an_archive_in_a_compression_that_numpy_does_not_write(tmp_path):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy(np.arange(3)))
    with pytest.raises(ValueError, match=r"data\.npz has an entry 'a\.npy' that NumPy did not"):
        read_npz(path)


LYING = npy(np.zeros(9)).replace(b"(9,), }      ", b"(9999999,), }")


def test_an_npz_entry_that_announces_too_much(tmp_path):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", LYING)
    with pytest.raises(ValueError, match=r"data\.npz declares an array of 79999992 bytes"):
        read_npz(path)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy(tmp_path, version):
    path = tmp_path / "data.npy"
    for array in (np.arange(6.0).reshape(2, 3), np.array(["a", "b"]), np.zeros((0, 3))):
        with path.open("wb") as file:
            np.lib.format.write_array(file, array, version)
        np.testing.assert_array_equal(read_npy(path), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"hello", "does not start like one"),
        (npy(np.zeros(9))[:-8], "damaged"),
        (npy(np.zeros(9))[:20], "damaged"),
        (LYING, "declares"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "damaged"),
        (b"\x93NUMPY\x07\x00\xff\xff\xff\xff", "version"),
        (npy(np.array([None])), "pickled objects"),
        (npy(np.array(["a"])).replace(b"a\0\0\0", b"\xff\xff\xff\x7f"), "characters"),
    ],
)
def test_no_npy(tmp_path, content, message):
    path = tmp_path / "data.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"data\.npy .*{message}"):
        read_npy(path)


def test_npy_with_objects(tmp_path):
    path = tmp_path / "file.npy"
    np.save(path, {"pose": np.arange(3.0), "trans": [1]}, allow_pickle=True)
    found = read_npy_object(path)
    np.testing.assert_array_equal(found["pose"], np.arange(3.0))
    assert found["trans"] == [1]
    with pytest.raises(ValueError, match="pickled objects"):
        read_npy(path)
    np.save(path, np.array(["a", None], dtype=object), allow_pickle=True)
    assert read_npy_object(path).tolist() == ["a", None]
    np.save(path, np.arange(4))
    np.testing.assert_array_equal(read_npy_object(path), np.arange(4))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="damaged"):
        read_npy_object(path)
    np.save(path, np.array(1, dtype=object), allow_pickle=True)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\x80")] + pickle.dumps("text"))
    with pytest.raises(ValueError, match=r"file\.npy contains a pickle that is not an array"):
        read_npy_object(path)


def test_text_of_characters_that_do_not_exist(tmp_path):
    array = np.array([2**31 - 1], np.uint32).view("<U1")
    refuse(pickle.dumps(array), "characters")
    np.savez(tmp_path / "data.npz", a=array)
    with pytest.raises(ValueError, match="characters"):
        read_npz(tmp_path / "data.npz")


def test_a_truncated_npz(tmp_path):
    path = tmp_path / "data.npz"
    path.write_bytes(npz(a=np.arange(1000))[:-40])
    with pytest.raises(ValueError, match="damaged"):
        read_npz(path)


def test_no_file(tmp_path):
    for reader in (read_npz, read_pickle):
        with pytest.raises(FileNotFoundError):
            reader(tmp_path / "absent")
        with pytest.raises(ValueError, match="folder"):
            reader(tmp_path)
