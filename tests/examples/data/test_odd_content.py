"""Readers read columns of any content, or raise a ValueError that names the file."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.data import annotations, threedpw, view_groups
from tests.examples.data.made import prohmr_columns, spin_columns
from tests.examples.data.test_threedpw import sequence
from tests.examples.data.test_view_groups import groups

ODD = (
    None,
    3,
    "x",
    b"\xff",
    [],
    {},
    [None] * 5,
    ["a", 1, None],
    [np.zeros(2), np.zeros(3)],
    [[1], [2, 3]],
    np.zeros(()),
    np.zeros((0, 0)),
    np.zeros((5, 0)),
    np.array([None, "a"], dtype=object),
    np.full(6, "2020-01-01", "datetime64[D]"),
    np.zeros(6, complex),
    np.array("x"),
)


def reads_or_says(read, path):
    try:
        rows, report = read(path)
    except ValueError as error:
        said = str(error)
    else:
        said = report.source
        assert len(rows) == report.kept
    assert str(path) in said


@settings(max_examples=60)
@given(st.data())
def test_npz(tmp_path_factory, data):
    columns = data.draw(st.sampled_from([prohmr_columns, spin_columns]))()
    key = data.draw(st.sampled_from(sorted(columns)))
    odd = data.draw(st.sampled_from(ODD))
    if isinstance(odd, list):
        array = np.empty(len(odd), object)
        array[:] = odd
        odd = array
    path = tmp_path_factory.mktemp("odd") / "a.npz"
    np.savez(path, **{**columns, key: odd})
    reads_or_says(annotations.read, path)
    annotations.matches(path)


@settings(max_examples=60)
@given(st.data())
def test_sequence(tmp_path_factory, data):
    content = sequence()
    key = data.draw(st.sampled_from(sorted(content)))
    odd = data.draw(st.sampled_from(ODD))
    if isinstance(content[key], list) and content[key] and data.draw(st.booleans()):
        content[key][1] = odd
    else:
        content[key] = odd
    path = tmp_path_factory.mktemp("odd") / "a.pkl"
    path.write_bytes(pickle.dumps(content))
    reads_or_says(threedpw.read, path)
    threedpw.matches(path)


@settings(max_examples=60)
@given(st.data())
def test_groups(tmp_path_factory, data):
    content = groups()
    key = data.draw(st.sampled_from([*sorted(content[1]), 3]))
    content[1][key] = data.draw(st.sampled_from(ODD))
    path = tmp_path_factory.mktemp("odd") / "a.pkl"
    path.write_bytes(pickle.dumps(content))
    reads_or_says(view_groups.read, path)
    view_groups.matches(path)


@pytest.mark.parametrize("odd", [*ODD, (), (1, 2), {1: 2, "a": 3}])
@pytest.mark.parametrize("reader", [threedpw, view_groups])
def test_pickles_of_other_content(tmp_path, reader, odd):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(odd))
    assert not reader.matches(path)
    with pytest.raises(ValueError, match=r"a\.pkl"):
        reader.read(path)
