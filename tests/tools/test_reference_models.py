"""The tool writes missing reference models and changes none that exists."""

import pytest

from tools.reference_models import CASES, FOLDER, main, write_case


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_case_is_stored_and_no_stored_file_changes():
    before = content(FOLDER)
    assert main([]) == 0
    assert content(FOLDER) == before
    assert {path.stem for path in FOLDER.glob("*.json")} >= set(CASES)


def test_a_missing_case_is_written_once(tmp_path):
    assert write_case("points", tmp_path)
    before = content(tmp_path)
    assert set(before) == {"points.safetensors", "points.json"}
    assert not write_case("points", tmp_path)
    assert content(tmp_path) == before


def test_half_a_case_is_not_completed(tmp_path):
    write_case("points", tmp_path)
    (tmp_path / "points.json").unlink()
    before = content(tmp_path)
    with pytest.raises(FileExistsError, match=r"points\.safetensors and points\.json, not both"):
        write_case("points", tmp_path)
    assert content(tmp_path) == before
