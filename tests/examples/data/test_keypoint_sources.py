"""Files of keypoints among the sources that ``python -m examples.data`` surveys."""

import pytest

from examples.data.registry import survey
from tests.conftest import REAL_DATA
from tests.keypoint_files.written import flat, openpose, person, write


def test_a_folder_of_files_has_one_report(tmp_path):
    folder = tmp_path / "cam"
    for number in range(7):
        write(folder / f"frame_{number:05d}.json", openpose(flat(seed=number)))
        (folder / f"frame_{number:05d}.png").touch()
    for given in (folder, tmp_path):
        surveyed = survey([given])
        assert [report.rows for report in surveyed.reports] == [7]
        assert str(surveyed).count("OpenPose detections") == 1


def test_a_damaged_file_among_others(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.json", openpose(flat(seed=number)) if number else "{")
    (report,) = survey([tmp_path]).reports
    assert (report.rows, report.kept) == (3, 2)


def test_files_of_several_kinds_have_a_report_each(tmp_path):
    write(tmp_path / "people.json", openpose(flat()))
    write(tmp_path / "results.json", [{"image_id": 1, "keypoints": flat(17)}])
    assert len(survey([tmp_path]).reports) == 2


def test_normalised_keypoints_are_errors(tmp_path):
    scaled = person(25) / [1500, 1500, 1]
    path = write(tmp_path / "a_keypoints.json", openpose(scaled.ravel().tolist()))
    assert survey([path]).exit_code == 2


def test_a_real_folder_of_frames():
    folder = REAL_DATA / "files" / "openpose" / "p2s_batch_cam04"
    if not folder.exists():
        pytest.skip(f"{folder} is missing")
    assert [report.rows for report in survey([folder]).reports] == [12]
