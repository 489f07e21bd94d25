import json
import os
import pickle
import re

import joblib
import numpy as np
import pytest

from examples.data.__main__ import main
from examples.data.registry import READERS, find_reader, survey
from flowprior.keypoint_files.detections import read_detections
from tests.examples.data.made import prohmr_columns, spin_columns, write_images
from tests.examples.data.test_threedpw import sequence
from tests.examples.data.test_view_groups import groups


@pytest.fixture
def data(tmp_path):
    """A folder with a file of each format."""
    folder = tmp_path / "data"
    (folder / "sequenceFiles").mkdir(parents=True)
    np.savez(folder / "a_prohmr.npz", **prohmr_columns())
    np.savez(folder / "b_spin.npz", **spin_columns())
    (folder / "c_views.pkl").write_bytes(pickle.dumps(groups()))
    for name in "xy":
        content = pickle.dumps(sequence(), protocol=2)
        (folder / "sequenceFiles" / f"{name}.pkl").write_bytes(content)
    return folder


def test_readers_know_their_own_files_only(data):
    files = ["a_prohmr.npz", "b_spin.npz", "c_views.pkl", "sequenceFiles", "sequenceFiles/x.pkl"]
    for file in files:
        matching = [reader.name for reader in READERS if reader.matches(data / file)]
        assert len(matching) == 1, file
    assert find_reader(data) is None
    assert find_reader(data / "nothing.npz") is None


def test_a_folder_is_looked_through(data):
    found = survey([data])
    assert [report.kind for report in found.reports] == [
        "ProHMR annotations",
        "SPIN annotations",
        "ProHMR multi-view groups",
        "3DPW sequences",
    ]
    assert found.exit_code == 0
    assert not found.unreadable
    assert not found.unrecognised


class TestExitCodes:
    def test_clean(self, data, capsys):
        assert main(["check", str(data / "a_prohmr.npz")]) == 0
        printed = capsys.readouterr().out
        assert "ProHMR annotations: 6 people, 6 usable" in printed
        assert "images: not looked for" in printed
        assert "with 2D keypoints: 6" in printed

    def test_faults(self, tmp_path, capsys):
        columns = prohmr_columns()
        columns["scale"][2] = 0
        columns["extra_keypoints_2d"][3, 4, 0] = np.nan
        np.savez(tmp_path / "a.npz", **columns)
        assert main(["check", str(tmp_path / "a.npz")]) == 1
        printed = capsys.readouterr().out
        assert "6 people, 5 usable" in printed
        assert "left out: 1 person, box of no size (row 2)" in printed
        assert "ignored: 1 value, NaN or infinity in a 2D keypoint (row 3, keypoint 29" in printed

    def test_nothing_usable(self, tmp_path):
        np.savez(tmp_path / "a.npz", **prohmr_columns(0))
        assert main(["check", str(tmp_path / "a.npz")]) == 1

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("a.npz", b"PK\x03\x04 and noise", "not an .npz file, or a damaged one"),
            ("a.npz", b"noise", "does not start like a zip archive"),
            ("a.pkl", b"noise", "not a pickle, or a damaged one"),
            ("a.pkl", pickle.dumps({"x": 1, "y": 2}), "a pickle with the keys x, y"),
            ("a.pkl", pickle.dumps(3), "a pickled int, not of a known format"),
            ("a.txt", b"noise", "a file, not of a known format: .*3DPW sequences"),
        ],
    )
    def test_unreadable(self, tmp_path, capsys, name, content, said):
        (tmp_path / name).write_bytes(content)
        assert main(["check", str(tmp_path / name)]) == 2
        printed = capsys.readouterr().out
        assert printed.startswith(f"{tmp_path / name}\n  cannot be read: ")
        assert re.search(said, printed)
        assert printed.count(str(tmp_path)) == 1

    def test_unknown_keys_are_listed(self, tmp_path, capsys):
        np.savez(tmp_path / "a.npz", v_template=np.zeros(3), weights=np.zeros(3))
        assert main(["check", str(tmp_path / "a.npz")]) == 2
        assert "an archive with the keys v_template, weights, not of" in capsys.readouterr().out

    def test_a_wrong_shape(self, tmp_path, capsys):
        np.savez(tmp_path / "a.npz", **{**prohmr_columns(), "betas": np.zeros((6, 16))})
        assert main(["check", str(tmp_path / "a.npz")]) == 2
        assert "expected betas of shape (N, 10)" in capsys.readouterr().out

    def test_nothing_there(self, tmp_path, capsys):
        assert main(["check", str(tmp_path / "a.npz")]) == 2
        assert "no such file or folder" in capsys.readouterr().out
        (tmp_path / "empty").mkdir()
        assert main(["check", str(tmp_path / "empty")]) == 2
        assert "nothing in it is of a known format" in capsys.readouterr().out

    def test_a_damaged_file_among_others(self, data, capsys):
        whole = (data / "a_prohmr.npz").read_bytes()
        (data / "a_prohmr.npz").write_bytes(whole[: len(whole) // 2] + whole[-2000:])
        np.savez(data / "d_other.npz", x=np.zeros(2))
        (data / "e.npz").write_bytes(whole[: len(whole) // 2])
        (data / "README.txt").write_text("about", encoding="utf-8")
        assert main(["check", str(data)]) == 2
        printed = capsys.readouterr().out
        assert f"{data / 'a_prohmr.npz'}\n  cannot be read: not an .npz file, or" in printed
        assert f"{data / 'e.npz'}\n  cannot be read: not an .npz file" in printed
        assert f"not recognised: 1 more ({data / 'd_other.npz'})" in printed
        assert "SPIN annotations: 6 people, 6 usable" in printed

    def test_several_paths(self, data, capsys):
        paths = [str(data / name) for name in ("b_spin.npz", "nothing.npz", "c_views.pkl")]
        assert main(["check", *paths]) == 2
        printed = capsys.readouterr().out
        assert "SPIN" in printed
        assert "multi-view" in printed


class TestImages:
    def test_missing_ones_are_counted(self, data, tmp_path, capsys):
        write_images(tmp_path / "photos", prohmr_columns()["imgname"][:4])
        arguments = ["check", str(data / "a_prohmr.npz"), "--images", str(tmp_path / "photos")]
        assert main(arguments) == 1
        assert "left out: 2 people, image missing (row 4, row 5)" in capsys.readouterr().out

    def test_a_folder_that_is_not_there(self, data, capsys):
        assert main(["check", str(data), "--images", str(data / "photos")]) == 2
        assert "no folder of images" in capsys.readouterr().err

    def test_known_data_sets_have_their_own(self, tmp_path):
        np.savez(tmp_path / "h36m_val_p2.npz", **prohmr_columns())
        (alone,) = survey([tmp_path / "h36m_val_p2.npz"]).reports
        assert alone.facts["data set"].startswith("H36M-VAL-P2: Human3.6M, subjects 9 and 11")
        assert alone.facts["images"] == "not looked for, no folder given"
        write_images(tmp_path / "h36m", prohmr_columns()["imgname"][1:])
        (report,) = survey([tmp_path / "h36m_val_p2.npz"]).reports
        assert report.left_out["image missing"].count == 1


def test_json(data, tmp_path, capsys):
    columns = prohmr_columns()
    columns["scale"][2] = 0
    np.savez(data / "a_prohmr.npz", **columns)
    code = main(["check", str(data), str(tmp_path / "nothing"), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["exit_code"] == code == 2
    assert printed["unreadable"] == {str(tmp_path / "nothing"): "no such file or folder"}
    first = printed["reports"][0]
    assert (first["unit"], first["rows"], first["kept"]) == ("person", 6, 5)
    assert first["left_out"] == {"box of no size": {"count": 1, "examples": ["row 2"]}}
    assert len(printed["reports"]) == 4


def test_help_has_the_formats_and_codes(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(reader.name in printed for reader in READERS)
    assert "exit code: 0" in printed


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".json", ".npy", ".csv", ".mat"])
@pytest.mark.parametrize("place", ["pipe", "device"])
def test_only_regular_files_are_read(tmp_path, suffix, place):
    path = tmp_path / f"a{suffix}"
    if place == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert "a named pipe" in (why := survey([path]).unreadable[str(path)]) or "a device" in why


@pytest.mark.parametrize("options", [{}, {"compress": 3}])
def test_files_of_joblib_are_identified(tmp_path, options):
    path = tmp_path / "wham_output.pkl"
    joblib.dump({0: {"pose": np.zeros((50, 72)), "trans": np.zeros((50, 3))}}, path, **options)
    assert (
        "written by joblib.dump: read it with joblib.load" in survey([path]).unreadable[str(path)]
    )


def test_files_of_matlab_are_identified(tmp_path):
    path = tmp_path / "x.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + b" " * 90)
    assert "a MATLAB v7.3 file: read it with h5py" in survey([path]).unreadable[str(path)]


@pytest.mark.parametrize("text", ["[" * 10**5, '{"people":' * 300 + "1" + "}" * 300])
def test_json_that_is_nested_too_deep(tmp_path, text):
    path = tmp_path / "a_keypoints.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a_keypoints\.json: is (not JSON|nested)"):
        read_detections(path)
    assert survey([path]).exit_code == 2
