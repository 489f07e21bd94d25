"""Pickles that overflow the stack, exhaust memory or waste time, by every reader of pickles."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from flowprior.files.model_file import CheckpointError
from flowprior.files.numpy_file import read_npz, read_pickle
from flowprior.files.torch_file import read_torch_file


def in_pickle(folder, program):
    (folder / "file.pkl").write_bytes(program)
    return read_pickle(folder / "file.pkl")


def in_npz(folder, program):
    """The pickle as the one object of an array, as numpy stores it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    with zipfile.ZipFile(folder / "file.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + program)
    return read_npz(folder / "file.npz")


def in_checkpoint(folder, program):
    with zipfile.ZipFile(folder / "file.pt", "w") as archive:
        archive.writestr("archive/data.pkl", program)
    return read_torch_file(folder / "file.pt")


PLACES = [(in_pickle, ValueError), (in_npz, ValueError), (in_checkpoint, CheckpointError)]


def deep(depth, opening=b")", closing=b"\x85"):
    return opening + closing * depth


def doubling(start, join, count):
    """A container, twice in another, which is twice in another ..."""
    program = start
    for _ in range(count):
        program += b"\x94" + join
    return program


TWICE_IN_A_TUPLE = b"2\x86"  # a copy of the top, and both in a tuple
SHARED_LISTS = b"".join(
    b"]" + b"q" + bytes([n]) + b"(" + b"h" + bytes([n - 1]) + b"h" + bytes([n - 1]) + b"e"
    for n in range(1, 60)
)
MODULUS = 2**61 - 1

PROGRAMS = {
    "a deep tuple as a key": b"}" + deep(131_000) + b"Ns.",
    "a deep tuple in a set": b"\x80\x04\x8f(" + deep(131_000) + b"\x90.",
    "deep lists": b"]" * 10_000 + b"a" * 9_999 + b".",
    "deep dictionaries": b"}" + b"K\x01}" * 10_000 + b"s" * 10_000 + b".",
    "shared tuples as a key": b"}" + doubling(b")", TWICE_IN_A_TUPLE, 60) + b"Ns.",
    "shared tuples": b"}K\x01" + doubling(b")", TWICE_IN_A_TUPLE, 60) + b"s.",
    "shared lists": b"}K\x01]q\x00" + SHARED_LISTS + b"s.",
    "lists that are filled later": (
        # Sixty lists, each twice in the next, before anything is in the first; then that grows.
        b"}K\x01]q\x00" + SHARED_LISTS + b"h\x00(" + b"N" * 500 + b"e0s."
    ),
    "shared text": b"}K\x01(X\x40\x42\x0f\x00"
    + b"x" * 10**6
    + b"q\x01"
    + b"h\x01" * 10**5
    + b"ls.",
    "a list in itself": b"}K\x01]q\x00h\x00as.",
    "a dictionary in itself": b"}q\x00K\x01h\x00s.",
    "colliding numbers": pickle.dumps({n * MODULUS: 0 for n in range(1, 1200)}),
    "a colliding set": pickle.dumps({1: {n * MODULUS for n in range(1, 1200)}}, 4),
    "colliding tuples": pickle.dumps({(0, n * MODULUS): 0 for n in range(1, 1200)}),
    "colliding tuples of tuples": pickle.dumps({((n * MODULUS,), "a"): 0 for n in range(1, 1200)}),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("place", "error"), PLACES)
def test_pickles_that_exhaust(place, error, name, tmp_path):
    with pytest.raises(error, match=r"file\.\w+ (is nested|expands|contains itself|has a dict)"):
        place(tmp_path, PROGRAMS[name])


HONEST = {
    "nested": {"a": [{"b": ({"c": [[1.0, None], (True, "x")]},)}] * 50},
    "numbers": {"ids": {number: str(number) for number in range(5000)}},
    "large numbers": {"ids": {hash(str(number)): number for number in range(3000)}},
    "tuples": {("S1", number): [number] * 3 for number in range(3000)},
    "sets": {"a": {1, 2}, "b": frozenset(range(100)), "c": {("x", 1)}},
    "one text often": {"names": ["a rather long name of an image.jpg"] * 20_000},
    "bytes": {"a": b"\0" * 1000, "b": bytearray(b"\1" * 10)},
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", HONEST)
def test_honest_pickles(name, protocol, tmp_path):
    found = in_pickle(tmp_path, pickle.dumps(HONEST[name], protocol))
    if name not in ("sets", "bytes"):
        assert found == HONEST[name]


def test_object_may_refer_to_its_container(tmp_path):
    # As omegaconf's configurations refer to their parents.
    program = b"\x80\x02}(X\x01\0\0\0acomegaconf\nNode\n)\x81q\x00}X\x06\0\0\0parenth\x00sbu."
    assert type(in_pickle(tmp_path, program)["a"]).__qualname__ == "Node"
    assert type(in_checkpoint(tmp_path, program)["a"]).__qualname__ == "Node"


@pytest.mark.parametrize(
    "program", [b"}0s.", b"}(Ns.", b"(a.", b"2.", b"h\x00.", b"NNa.", b"K\x01)R."]
)
def test_instructions_without_their_operands(program, tmp_path):
    for place, error in PLACES[::2]:
        with pytest.raises(error, match=r"file\.\w+ "):
            place(tmp_path, program)
