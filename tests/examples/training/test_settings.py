"""Settings from files: all of them required, each type checked, any of them overridden."""

import os
import re
from dataclasses import dataclass

import pytest

from examples.training.settings import as_yaml, differences, read_settings


@dataclass(frozen=True)
class Some:
    name: str
    rate: float
    steps: int
    quick: bool
    shares: dict[str, float]


TEXT = "name: x\nrate: 1e-4\nsteps: 3\nquick: true\nshares: {a: 1, b: 0.5}\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_file_is_read_and_written(file):
    some = read_settings(Some, file)
    assert some == Some("x", 1e-4, 3, True, {"a": 1.0, "b": 0.5})
    file.write_text(as_yaml(some), encoding="utf-8")
    assert read_settings(Some, file) == some


def test_overrides_win(file):
    some = read_settings(Some, file, ["rate=0.5", "shares={c: 2}", "name=7"], steps=9, quick=None)
    assert some == Some("7", 0.5, 9, True, {"c": 2.0})
    assert differences(read_settings(Some, file), some, ignore=["shares"]) == {
        "name": "x -> 7",
        "rate": "0.0001 -> 0.5",
        "steps": "3 -> 9",
    }


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["steps"], "expected key=value, got 'steps'"),
        (["step=1"], "unknown setting step (did you mean steps?); settings are name, rate"),
        (["steps=1.5"], "steps must be a whole number, got 1.5"),
        (["quick=1"], "quick must be true or false, got 1"),
        (["shares={a: x}"], "shares.a must be a number, got 'x'"),
        (["shares=[1]"], "shares must be a mapping"),
        (["rate=["], "not a YAML value"),
    ],
)
def test_error_names_impossible_settings(file, overrides, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        read_settings(Some, file, overrides)


@pytest.mark.parametrize(
    ("text", "words"), [("name: x", "missing rate"), ("- 1", "got list"), ("a: [", "not a YAML")]
)
def test_a_file_that_is_none_is_named(file, text, words):
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read_settings(Some, file)


LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [" + ", ".join([f"*a{n - 1}"] * 9) + "]}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        MERGES,
        "a: &a [*a]\n",
        "a: &a {b: *a}\n",
        "a: " + "[" * 10_000,
        "a: " + "[" * 150 + "]" * 150,
        "a: " + "{b: " * 150 + "1" + "}" * 150,
        "a: 2001-99-99\n",
        "a: !!timestamp x\n",
        "a: !!bool perhaps\n",
        "a: !!python/object/apply:os.system [ls]\n",
        "? [a, b]\n: 1\n",
        "# " + "x" * 2**17,
        "a: \0",
    ],
    ids=range(14),
)
def test_oversized_or_invalid_yaml(file, text):
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"some\.yaml"):
        read_settings(Some, file)


def test_honest_aliases(file):
    file.write_text(
        TEXT.replace("shares: {a: 1, b: 0.5}", "shares: &s {a: 1}") + "rest: *s\n", encoding="utf-8"
    )
    with pytest.raises(ValueError, match="unknown setting rest"):
        read_settings(Some, file)
    file.write_text(
        TEXT.replace("rate: 1e-4", "rate: &r 0.5").replace("b: 0.5", "b: *r"), encoding="utf-8"
    )
    assert read_settings(Some, file).shares == {"a": 1.0, "b": 0.5}


@pytest.mark.parametrize("value", ["-1", "1e400", ".nan", "[1]", "9" * 4000])
def test_the_file_of_a_wrong_value_is_named(file, value):
    file.write_text(TEXT.replace("steps: 3", f"steps: [{value}]"), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"steps must be a whole number, .*settings of .*some\.yaml"
    ):
        read_settings(Some, file)


def test_an_override_that_exhausts(file):
    with pytest.raises(ValueError, match="not a YAML value"):
        read_settings(Some, file, ["rate=" + "[" * 10_000])


@pytest.mark.parametrize("place", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(tmp_path, place):
    path = tmp_path / "some.yaml"
    if place == "pipe":
        os.mkfifo(path)
    elif place == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(ValueError, match=r"some\.yaml is a (named pipe|device|folder), not a file"):
        read_settings(Some, path)
