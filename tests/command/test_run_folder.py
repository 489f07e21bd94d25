"""The output folder: what is refused, what is deleted, what survives a kill."""

import json

import pytest

from flowprior.command.run_folder import RunFolder
from flowprior.results import Fits
from tests.results.helpers import small_fits


def test_parts_are_joined_in_order(tmp_path):
    folder = RunFolder(tmp_path / "out", {"a": 1})
    second, first = small_fits(2, seed=1), small_fits(3)
    folder.save_part(1, second, 1, ())
    folder.save_part(0, first, 2, ("x.jpg is damaged",))
    fits = folder.join()
    assert fits is not None
    assert fits.betas[:3].tolist() == first.betas.tolist()
    assert (folder.images, folder.people, folder.faults) == (3, 5, ["x.jpg is damaged"])
    folder.finish(["y.json is damaged"])
    again = RunFolder(tmp_path / "out", {"a": 1})
    assert again.complete
    assert again.faults == ["x.jpg is damaged", "y.json is damaged"]
    assert len(again.join()) == 5


def test_a_part_without_its_facts_is_not_done(tmp_path):
    # A killed program may have written the first file of the two.
    folder = RunFolder(tmp_path, {})
    folder.save_part(0, small_fits(1), 1, ())
    folder.save_part(1, small_fits(1), 1, ())
    (tmp_path / "parts" / "000001.json").unlink()
    assert RunFolder(tmp_path, {}).done == {0}


def test_a_run_that_ended_before_its_mark_is_finished_again(tmp_path):
    folder = RunFolder(tmp_path, {})
    folder.save_part(0, small_fits(2), 1, ())
    folder.join()
    again = RunFolder(tmp_path, {})
    assert not again.complete
    assert len(again.join()) == 2


def test_without_parts_there_is_nothing_to_join(tmp_path):
    assert RunFolder(tmp_path, {}).join() is None


def test_other_settings_are_named(tmp_path):
    RunFolder(tmp_path, {"seed": 0, "batch": 4, "prior": "p"})
    with pytest.raises(ValueError, match=r"another run \(batch, seed differ\)"):
        RunFolder(tmp_path, {"seed": 1, "batch": 5, "prior": "p"})


def test_only_results_are_deleted(tmp_path):
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "mine.txt").write_text("mine")
    RunFolder(tmp_path, {}, fresh=True)  # no run was here: nothing is deleted
    assert (tmp_path / "people" / "mine.txt").exists()
    Fits.save(small_fits(1), tmp_path / "fits.npz")
    (tmp_path / "thesis.txt").write_text("mine")
    RunFolder(tmp_path, {"a": 2}, fresh=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "thesis.txt"]


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        RunFolder(tmp_path / "out", {})


@pytest.mark.parametrize("content", ["[]", "{}", json.dumps({"settings": 3})])
def test_a_foreign_file_of_the_same_name(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json is not the file of a run"):
        RunFolder(tmp_path, {})
