import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.data import annotations
from examples.data.annotations import PROHMR_KEYS, SPIN_KEYS, Annotations
from flowprior.skeleton import BODY_25, PROHMR_44
from tests.examples.data.made import prohmr_columns, spin_columns, write_images


@pytest.fixture
def written(tmp_path):
    def write(columns):
        np.savez(tmp_path / "people.npz", **columns)
        return tmp_path / "people.npz"

    return write


def findings(found):
    return {reason: (finding.count, finding.examples[0]) for reason, finding in found.items()}


@pytest.mark.parametrize("columns", [prohmr_columns, spin_columns])
@pytest.mark.parametrize("unit", ["normalised", "scores"])
def test_keypoints_in_other_units_are_refused(written, columns, unit):
    content = columns()
    for key in content.keys() & {"body_keypoints_2d", "extra_keypoints_2d", "openpose", "part"}:
        if unit == "normalised":
            content[key][..., :2] /= 300
        else:
            content[key][..., 2] *= 7
    message = {"normalised": "pixels are expected", "scores": "probabilities from 0 to 1"}[unit]
    with pytest.raises(ValueError, match=message) as caught:
        annotations.read(written(content))
    assert "people.npz" in str(caught.value)


class TestProHMR:
    def test_a_clean_file_comes_back_as_written(self, written):
        columns = prohmr_columns()
        rows, report = annotations.read(written(columns), keep_body_3d=True)
        assert report.clean
        assert (report.kind, report.unit) == ("ProHMR annotations", "person")
        assert report.rows == report.kept == len(rows) == 6
        assert rows.imgname.tolist() == columns["imgname"].tolist()
        pose = np.concatenate([rows.global_orient, rows.body_pose], axis=1)
        np.testing.assert_allclose(pose, columns["body_pose"], rtol=1e-6)
        np.testing.assert_allclose(rows.box_size, columns["scale"], rtol=1e-6)
        np.testing.assert_allclose(rows.center, columns["center"], rtol=1e-6)
        np.testing.assert_allclose(rows.betas, columns["betas"], rtol=1e-6)
        for kind in ("2d", "3d"):
            both = [columns[f"{part}_keypoints_{kind}"] for part in ("body", "extra")]
            stored = getattr(rows, f"keypoints_{kind}")
            np.testing.assert_allclose(stored, np.concatenate(both, axis=1), rtol=1e-6)
            assert stored.dtype == np.float32
        assert rows.has_body_pose.all()
        assert rows.has_betas.all()
        assert rows.gender.tolist() == ["male", "female"] * 3

    def test_3d_confidences_of_openpose_limbs_are_dropped(self, written):
        rows, report = annotations.read(written(prohmr_columns()))
        dropped = (rows.keypoints_3d[..., -1] == 0).all(axis=0)
        assert np.flatnonzero(dropped).tolist() == list(range(1, 15))
        assert (rows.keypoints_3d[:, 1:15, :3] != 0).all()
        assert report.clean

    @pytest.mark.parametrize("key", [*PROHMR_KEYS, "gender"])
    def test_a_missing_column_is_not_annotated(self, written, key):
        columns = prohmr_columns()
        del columns[key]
        rows, report = annotations.read(written(columns), keep_body_3d=True)
        joints = slice(0, 25) if key.startswith("body_key") else slice(25, None)
        if key == "gender":
            assert set(rows.gender) == {"neutral"}
        elif "keypoints" in key:
            assert (getattr(rows, key.split("_", 1)[1])[:, joints] == 0).all()
        else:
            name = key.removeprefix("has_")
            assert not getattr(rows, f"has_{name}").any()
        # Without the flag, ProHMR drops a pose and says nothing.
        unsaid = {f"{key.removeprefix('has_')} without {key}": (6, "row 0")}
        assert findings(report.ignored) == (unsaid if key.startswith("has_") else {})
        assert len(rows) == 6

    def test_boxes_alone_are_enough(self, written):
        columns = prohmr_columns()
        rows, report = annotations.read(written({k: columns[k] for k in annotations.BOX_KEYS}))
        assert report.clean
        assert len(rows) == 6
        assert not rows.keypoints_2d.any()
        assert report.facts["with a pose"] == "0"

    @pytest.mark.parametrize("shape", [(6, 1), (6, 2)])
    def test_the_largest_side_counts(self, written, shape):
        columns = prohmr_columns()
        columns["scale"] = np.random.default_rng(1).uniform(150, 250, shape)
        rows, _ = annotations.read(written(columns))
        np.testing.assert_allclose(rows.box_size, columns["scale"].max(axis=1), rtol=1e-6)

    @pytest.mark.parametrize("dtype", ["S", "U", "O"])
    def test_names_of_any_kind_of_text(self, written, dtype):
        columns = prohmr_columns()
        columns["imgname"] = columns["imgname"].astype(dtype)
        columns["gender"] = columns["gender"].astype(dtype)
        rows, report = annotations.read(written(columns))
        assert report.clean
        assert rows.imgname[3] == "images/003.jpg"
        assert rows.gender[1] == "female"

    def test_names_that_are_not_utf8(self, written):
        columns = prohmr_columns(1)
        columns["imgname"] = np.array(["bücher.jpg".encode("latin-1")])
        assert annotations.read(written(columns))[0].imgname[0] == "bücher.jpg"

    def test_other_columns_are_named(self, written):
        _, report = annotations.read(written({**prohmr_columns(), "maskname": np.zeros(6)}))
        assert report.facts["not read"] == "maskname"

    def test_no_rows(self, written):
        rows, report = annotations.read(written(prohmr_columns(0)))
        assert len(rows) == report.rows == report.kept == 0
        assert report.clean


class TestSPIN:
    def test_a_clean_file_takes_the_same_form(self, written):
        columns = spin_columns()
        rows, report = annotations.read(written(columns))
        assert report.clean
        assert report.kind == "SPIN annotations"
        np.testing.assert_allclose(rows.box_size, 200 * columns["scale"], rtol=1e-6)
        pose = np.concatenate([rows.global_orient, rows.body_pose], axis=1)
        np.testing.assert_allclose(pose, columns["pose"], rtol=1e-6)
        np.testing.assert_allclose(rows.betas, columns["shape"], rtol=1e-6)
        np.testing.assert_allclose(rows.keypoints_2d[:, :25], columns["openpose"], rtol=1e-6)
        np.testing.assert_allclose(rows.keypoints_2d[:, 25:], columns["part"][:, :19], rtol=1e-6)
        np.testing.assert_allclose(rows.keypoints_3d[:, 25:], columns["S"][:, :19], rtol=1e-6)
        assert rows.has_body_pose.all()
        assert rows.has_betas.all()

    def test_its_face_fills_in_for_openpose(self, written):
        columns = spin_columns()
        nose, left_ear = BODY_25.index("nose"), BODY_25.index("left_ear")
        columns["openpose"][2, [nose, left_ear]] = 0
        rows, _ = annotations.read(written(columns))
        np.testing.assert_allclose(rows.keypoints_2d[2, nose], columns["part"][2, 19], rtol=1e-6)
        np.testing.assert_allclose(
            rows.keypoints_2d[2, left_ear], columns["part"][2, 22], rtol=1e-6
        )
        np.testing.assert_allclose(rows.keypoints_2d[1, 0], columns["openpose"][1, 0], rtol=1e-6)
        face = [
            PROHMR_44.index(f"{side}_{part}")
            for part in ("eye", "ear")
            for side in ("left", "right")
        ]
        for joint, source in zip([nose, *face], [19, 20, 21, 22, 23], strict=True):
            np.testing.assert_allclose(
                rows.keypoints_3d[:, joint], columns["S"][:, source], rtol=1e-6
            )

    @pytest.mark.parametrize("key", [*SPIN_KEYS, "gender"])
    def test_a_missing_column(self, written, key):
        columns = spin_columns()
        del columns[key]
        rows, report = annotations.read(written(columns))
        assert report.clean
        assert rows.has_body_pose.all() == (key != "pose")
        assert rows.has_betas.all() == (key != "shape")  # and has_smpl: true of every row
        assert len(rows) == 6

    def test_flags_hold_for_pose_and_shape(self, written):
        columns = spin_columns()
        columns["has_smpl"][2] = 0
        rows, _ = annotations.read(written(columns))
        assert np.flatnonzero(~rows.has_body_pose).tolist() == [2]
        assert np.flatnonzero(~rows.has_betas).tolist() == [2]


def broken_rows(columns):
    columns["imgname"] = columns["imgname"].astype(object)
    columns["imgname"][0] = None
    columns["center"][1, 0] = np.nan
    columns["scale"][1] = -1  # the first fault counts
    columns["scale"][2] = 0
    columns["scale"][3] = np.inf
    columns["scale"][4] = -50
    return columns


class TestFaults:
    @pytest.mark.parametrize("made", [prohmr_columns, spin_columns])
    def test_rows_that_are_left_out(self, written, made):
        rows, report = annotations.read(written(broken_rows(made())))
        assert findings(report.left_out) == {
            "no image name": (1, "row 0"),
            "NaN or infinity in the box": (2, "row 1"),
            "box of no size": (2, "row 2"),
        }
        assert not report.ignored
        assert (report.rows, report.kept) == (6, 1)
        assert rows.imgname.tolist() == ["images/005.jpg"]

    def test_boxes_in_the_other_unit(self, written):
        columns = prohmr_columns()
        columns["scale"] /= 200
        rows, report = annotations.read(written(columns))
        assert len(rows) == 0
        assert findings(report.left_out) == {
            "box of less than 8 pixels (is its unit 200 pixels?)": (6, "row 0")
        }
        columns = spin_columns()
        columns["scale"] *= 200
        rows, report = annotations.read(written(columns))
        assert len(rows) == 0
        (reason,) = report.left_out
        assert "units of 200" in reason

    @pytest.mark.parametrize(
        ("key", "entry", "value", "reason", "place"),
        [
            (
                "body_keypoints_2d",
                (2, 4, 0),
                np.nan,
                "NaN or infinity in a 2D",
                "row 2, keypoint 4",
            ),
            (
                "extra_keypoints_2d",
                (2, 0, 2),
                np.inf,
                "NaN or infinity in a 2D",
                "row 2, keypoint 25",
            ),
            (
                "extra_keypoints_3d",
                (1, 18, 1),
                np.nan,
                "NaN or infinity in a 3D",
                "row 1, keypoint 43",
            ),
            (
                "extra_keypoints_2d",
                (3, 1, 2),
                -0.1,
                "confidence of a 2D",
                "keypoint 26 right_knee_lsp",
            ),
            ("extra_keypoints_2d", (3, 1, 2), 2, "confidence of a 2D", "row 3, keypoint 26"),
            ("extra_keypoints_3d", (3, 1, 3), 7, "confidence of a 3D", "row 3, keypoint 26"),
            ("body_keypoints_2d", (0, 0, 0), 1e7, "2D keypoint beyond", "row 0, keypoint 0 nose"),
            ("extra_keypoints_3d", (0, 0, 0), 950, "millimetres", "row 0, keypoint 25"),
            ("extra_keypoints_3d", (0, 0, 0), 1e300, "NaN or infinity in a 3D", "row 0"),
            ("body_pose", (4, 0), np.nan, "NaN or infinity in the pose", "row 4"),
            ("body_pose", (4, 7), np.inf, "NaN or infinity in the pose", "row 4"),
            ("body_pose", (4, 7), 90, "degrees", "row 4"),
            ("betas", (4, 7), np.nan, "NaN or infinity in the betas", "row 4"),
            ("has_body_pose", 5, np.nan, "has_body_pose other than 0 and 1", "row 5"),
            ("has_betas", 5, 2, "has_betas other than 0 and 1", "row 5"),
        ],
    )
    def test_values_that_are_ignored(self, written, key, entry, value, reason, place):
        columns = prohmr_columns()
        columns[key][entry] = value
        rows, report = annotations.read(written(columns), keep_body_3d=True)
        assert not report.left_out
        ((said, (count, where)),) = findings(report.ignored).items()
        assert reason in said
        assert count == 1
        assert where.startswith(place) or place in where
        assert len(rows) == 6
        clean, _ = annotations.read(written(prohmr_columns()), keep_body_3d=True)
        row = entry if isinstance(entry, int) else entry[0]
        if "keypoints" in key:
            joint = entry[1] + (25 if key.startswith("extra") else 0)
            name = key.split("_", 1)[1]
            assert not getattr(rows, name)[row, joint].any()
            expected = getattr(clean, name).copy()
            expected[row, joint] = 0
            np.testing.assert_array_equal(getattr(rows, name), expected)
        else:
            flags = f"has_{key.removeprefix('has_')}"
            assert np.flatnonzero(~getattr(rows, flags)).tolist() == [row]
        for name in ("global_orient", "body_pose", "betas", "keypoints_2d", "keypoints_3d"):
            assert np.isfinite(getattr(rows, name)).all()

    def test_nan_without_confidence_is_accepted(self, written):
        columns = prohmr_columns()
        columns["has_body_pose"][1] = columns["has_betas"][1] = 0
        columns["body_pose"][1] = columns["betas"][1] = np.nan
        columns["extra_keypoints_2d"][1, 3] = (np.nan, np.nan, 0)
        rows, report = annotations.read(written(columns))
        assert report.clean
        assert np.isfinite(rows.body_pose).all()
        assert not rows.keypoints_2d[1, 28].any()

    def test_keypoints_without_confidence_keep_their_place(self, written):
        columns = prohmr_columns()
        columns["extra_keypoints_3d"][..., -1] = 0
        rows, _ = annotations.read(written(columns))
        np.testing.assert_allclose(
            rows.keypoints_3d[:, 25:], columns["extra_keypoints_3d"], rtol=1e-6
        )

    @pytest.mark.parametrize("gender", [b"\xff", "unknown", "x"])
    def test_unknown_gender(self, written, gender):
        columns = prohmr_columns()
        columns["gender"] = np.array(["Male", gender, "f", "neutral", "n", ""], dtype=object)
        rows, report = annotations.read(written(columns))
        assert rows.gender.tolist() == [
            "male",
            "neutral",
            "female",
            "neutral",
            "neutral",
            "neutral",
        ]
        assert findings(report.ignored) == {"unknown gender, taken as neutral": (1, "row 1")}

    def test_missing_images(self, written, tmp_path):
        columns = prohmr_columns()
        write_images(tmp_path / "photos", columns["imgname"][1:])
        path = written(columns)
        rows, report = annotations.read(path, images=tmp_path / "photos")
        assert findings(report.left_out) == {"image missing": (1, "row 0")}
        assert rows.imgname.tolist() == columns["imgname"][1:].tolist()
        assert report.facts["images"] == str(tmp_path / "photos")
        with pytest.raises(FileNotFoundError, match=r"no folder of images: .*elsewhere"):
            annotations.read(path, images=tmp_path / "elsewhere")

    def test_a_folder_of_images_named_twice(self, written, tmp_path):
        columns = prohmr_columns()
        write_images(tmp_path, columns["imgname"])
        _, report = annotations.read(written(columns), images=tmp_path / "images")
        assert report.clean
        assert report.facts["images"] == str(tmp_path)

    @given(st.data())
    def test_kept_values_are_finite(self, tmp_path_factory, data):
        columns = prohmr_columns(3)
        for _ in range(data.draw(st.integers(1, 6))):
            key = data.draw(st.sampled_from([k for k, v in columns.items() if v.dtype.kind == "f"]))
            place = tuple(data.draw(st.integers(0, n - 1)) for n in columns[key].shape)
            columns[key][place] = data.draw(st.floats(width=64))
        path = tmp_path_factory.mktemp("any") / "a.npz"
        np.savez(path, **columns)
        rows, report = annotations.read(path)
        assert len(rows) == report.kept
        assert report.rows == report.kept + sum(f.count for f in report.left_out.values())
        assert (rows.box_size >= 8).all()
        conf = np.concatenate([rows.keypoints_2d[..., -1], rows.keypoints_3d[..., -1]])
        assert ((conf >= 0) & (conf <= 1.5)).all()
        for name in (
            "center",
            "global_orient",
            "body_pose",
            "betas",
            "keypoints_2d",
            "keypoints_3d",
        ):
            assert np.isfinite(getattr(rows, name)).all()


class TestErrors:
    @pytest.mark.parametrize(
        ("key", "column", "message"),
        [
            ("center", np.zeros((6, 3)), r"center of shape \(N, 2\) with N = 6 .*, got \(6, 3\)"),
            ("center", np.zeros((5, 2)), r"center of shape .*, got \(5, 2\)"),
            ("scale", np.zeros((6, 2, 2)), r"scale of shape \(N,\) .*, got \(6, 2, 2\)"),
            ("body_pose", np.zeros((6, 69)), r"body_pose of shape \(N, 72\)"),
            ("betas", np.zeros((6, 16)), r"betas of shape \(N, 10\)"),
            ("has_betas", np.zeros((6, 1)), r"has_betas of shape \(N,\)"),
            (
                "extra_keypoints_2d",
                np.zeros((6, 24, 3)),
                r"extra_keypoints_2d of shape \(N, 19, 3\)",
            ),
            ("body_keypoints_3d", np.zeros((6, 25, 3)), r"body_keypoints_3d of shape \(N, 25, 4\)"),
            ("body_pose", np.full((6, 72), "a"), r"body_pose to hold numbers"),
            ("body_pose", np.array([1, "a"] * 3, object), r"body_pose to hold numbers"),
            ("gender", np.array([["m"] * 6]), r"gender of shape \(N,\) with N = 6 .*got \(1, 6\)"),
            ("imgname", np.array("a.jpg"), r"imgname to have an entry per row"),
        ],
    )
    def test_a_column_of_a_wrong_shape_is_named(self, written, key, column, message):
        path = written({**prohmr_columns(), key: column})
        with pytest.raises(ValueError, match=message) as error:
            annotations.read(path)
        assert str(path) in str(error.value)

    @pytest.mark.parametrize(
        "keys", [(), ("poses", "trans"), ("imgname", "center"), ("center", "scale", "pose")]
    )
    def test_neither_format(self, written, keys):
        path = written(dict.fromkeys(keys, np.zeros(3)))
        found = ", ".join(sorted(keys)) or "none"
        with pytest.raises(ValueError, match=rf"imgname.*body_pose.*openpose.*found {found}$"):
            annotations.read(path)
        assert not annotations.matches(path)

    def test_bedlam_is_neither(self, written):
        columns = prohmr_columns()
        boxes = {key: columns[key] for key in annotations.BOX_KEYS}
        path = written({**boxes, "pose_cam": columns["body_pose"], "shape": columns["betas"]})
        assert not annotations.matches(path)
        with pytest.raises(ValueError, match="pose_cam"):
            annotations.read(path)

    def test_no_npz_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            annotations.read(tmp_path / "a.npz")
        path = tmp_path / "b.npz"
        path.write_bytes(b"PK but nothing else")
        assert not annotations.matches(path)
        with pytest.raises(ValueError, match=r"b\.npz"):
            annotations.read(path)
        assert not annotations.matches(tmp_path)

    @pytest.mark.parametrize("made", [prohmr_columns, spin_columns])
    def test_matches(self, written, made):
        path = written(made())
        assert annotations.matches(path)
        assert annotations.inspect(path).kept == 6


class TestRows:
    @given(st.integers(0, 8), st.integers(0, 8))
    def test_concatenated_parts_equal_the_whole(self, start, stop):
        rows, _ = annotations.sift(annotations.prohmr_rows(made_columns(8), report()), report())
        start, stop = sorted((start, stop))
        parts = [rows[:start], rows[start:stop], rows[stop:]]
        assert [len(part) for part in parts] == [start, stop - start, 8 - stop]
        whole = Annotations.concatenate(parts)
        for name in ("imgname", "box_size", "keypoints_3d", "has_betas", "gender"):
            np.testing.assert_array_equal(getattr(whole, name), getattr(rows, name))

    def test_selecting(self, written):
        rows, _ = annotations.read(written(prohmr_columns()))
        assert rows[-1].imgname.tolist() == ["images/005.jpg"]
        assert rows[[4, 0]].imgname.tolist() == ["images/004.jpg", "images/000.jpg"]
        assert rows[rows.gender == "male"].imgname.tolist() == [
            f"images/00{row}.jpg" for row in (0, 2, 4)
        ]
        assert [str(row.imgname[0]) for row in rows] == rows.imgname.tolist()
        with pytest.raises(IndexError):
            rows[6]

    def test_concatenation_of_nothing(self):
        assert len(Annotations.concatenate([])) == 0

    def test_a_column_of_a_wrong_shape(self):
        row = Annotations.empty()
        with pytest.raises(ValueError, match=r"betas of shape \(0, 10\), got \(0, 16\)"):
            Annotations(**{**vars(row), "betas": np.zeros((0, 16), np.float32)})


def made_columns(n):
    return annotations.Columns(prohmr_columns(n), "memory")


def report():
    return annotations.Report("memory", "rows")
