"""Settings from files: every one needed, each of its type, any of them overridden."""

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
    path.write_text(TEXT)
    return path


def test_a_file_is_read_and_written(file):
    some = read_settings(Some, file)
    assert some == Some("x", 1e-4, 3, True, {"a": 1.0, "b": 0.5})
    file.write_text(as_yaml(some))
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
        (["steps=1.5"], "steps must be of type int, got 1.5"),
        (["quick=1"], "quick must be of type bool, got 1"),
        (["shares={a: x}"], "shares.a must be of type float, got 'x'"),
        (["shares=[1]"], "shares must be of type dict"),
        (["rate=["], "no YAML value"),
    ],
)
def test_what_cannot_be_is_named(file, overrides, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        read_settings(Some, file, overrides)


@pytest.mark.parametrize(
    ("text", "words"), [("name: x", "missing rate"), ("- 1", "got list"), ("a: [", "not a YAML")]
)
def test_a_file_that_is_none_is_named(file, text, words):
    file.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_settings(Some, file)
