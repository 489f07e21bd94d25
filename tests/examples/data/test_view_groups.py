import pickle

import numpy as np
import pytest

from examples.data import annotations, view_groups
from examples.data.annotations import Annotations
from tests.examples.data.made import prohmr_columns, write_images


def groups(sizes=(4, 2, 3)):
    made = []
    for number, size in enumerate(sizes):
        columns = prohmr_columns(size, seed=number)
        columns["imgname"] = np.array([f"{number}/{view}.jpg" for view in range(size)])
        made.append(columns)
    return made


@pytest.fixture
def written(tmp_path):
    def write(content):
        (tmp_path / "groups.pkl").write_bytes(pickle.dumps(content))
        return tmp_path / "groups.pkl"

    return write


def findings(found):
    return {reason: (finding.count, finding.examples[0]) for reason, finding in found.items()}


class TestPickle:
    def test_a_clean_file_comes_back_with_larger_boxes(self, written):
        content = groups()
        found, report = view_groups.read(written(content))
        assert report.clean
        assert (report.unit, report.rows, report.kept) == ("group", 3, 3)
        assert report.facts["views"] == "9, 9 usable"
        assert [len(views) for views in found] == [4, 2, 3]
        for views, columns in zip(found, content, strict=True):
            assert views.imgname.tolist() == columns["imgname"].tolist()
            np.testing.assert_allclose(views.box_size, 1.2 * columns["scale"], rtol=1e-6)
            np.testing.assert_allclose(views.body_pose, columns["body_pose"][:, 3:], rtol=1e-6)
            for part, joints in (("body", slice(0, 25)), ("extra", slice(25, None))):
                for kind in ("2d", "3d"):
                    stored = getattr(views, f"keypoints_{kind}")[:, joints]
                    np.testing.assert_allclose(
                        stored, columns[f"{part}_keypoints_{kind}"], rtol=1e-6
                    )

    def test_boxes_alone_are_enough(self, written):
        content = [{key: columns[key] for key in annotations.BOX_KEYS} for columns in groups()]
        found, report = view_groups.read(written(content))
        assert report.clean
        assert not found[0].keypoints_3d.any()
        assert not found[0].has_body_pose.any()

    def test_extra_keypoints_without_those_of_the_body(self, written):
        content = groups()
        for columns in content:
            del columns["body_keypoints_3d"]
        found, _ = view_groups.read(written(content))
        assert found[0].keypoints_3d[:, 25:].all()

    def test_views_that_cannot_be_used_leave_their_group(self, written):
        content = groups()
        content[0]["scale"][1] = np.nan
        content[1]["scale"][:] = 0
        content[2]["center"][2] = np.inf
        content[2]["has_body_pose"][0] = 3
        content[2]["extra_keypoints_3d"][1, 2, 0] = np.nan
        found, report = view_groups.read(written([*content, 7, {"imgname": []}]))
        assert [views.imgname.tolist() for views in found] == [
            ["0/0.jpg", "0/2.jpg", "0/3.jpg"],
            ["2/0.jpg", "2/1.jpg"],
        ]
        assert (report.rows, report.kept) == (5, 2)
        assert findings(report.left_out) == {
            "no dictionary with a box": (2, "group 3"),
            "no view that can be used": (1, "group 1"),
        }
        assert findings(report.ignored) == {
            "view with NaN or infinity in the box": (2, "view 1 of group 0"),
            "view with box of no size": (2, "view 0 of group 1"),
            "has_body_pose other than 0 and 1": (1, "view 0 of group 2"),
            "NaN or infinity in a 3D keypoint": (
                1,
                "view 1 of group 2, keypoint 27 right_hip_lsp",
            ),
        }
        assert report.facts["views"] == "9, 5 usable"

    def test_missing_images(self, written, tmp_path):
        content = groups()
        write_images(tmp_path, content[0]["imgname"])
        found, report = view_groups.read(written(content), images=tmp_path)
        assert [len(views) for views in found] == [4]
        assert findings(report.ignored) == {"view with image missing": (5, "view 0 of group 1")}
        assert report.facts["images"] == str(tmp_path)

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            ({"a": 1}, "a dict"),
            ([], "an empty list"),
            ([1], "a list that starts with a int"),
            ([{"x": 1, "center": 2}], "a list that starts with the keys center, x"),
        ],
    )
    def test_something_else(self, written, content, found):
        path = written(content)
        assert not view_groups.matches(path)
        with pytest.raises(ValueError, match=f"imgname, center, scale, found {found}"):
            view_groups.read(path)

    def test_a_wrong_shape_is_named(self, written):
        content = groups()
        content[1]["betas"] = np.zeros((2, 16))
        with pytest.raises(ValueError, match=r"group 1: expected betas of shape \(N, 10\)"):
            view_groups.read(written(content))

    def test_matches(self, written, tmp_path):
        assert view_groups.matches(written(groups()))
        assert view_groups.inspect(tmp_path / "groups.pkl").kept == 3
        (tmp_path / "noise.pkl").write_bytes(b"noise")
        assert not view_groups.matches(tmp_path / "noise.pkl")
        assert not view_groups.matches(tmp_path / "groups.npz")


def named(names):
    columns = prohmr_columns(len(names))
    columns["imgname"] = np.array(names)
    report = annotations.Report("memory", "rows")
    rows, _ = annotations.sift(
        annotations.prohmr_rows(annotations.Columns(columns, "memory"), report), report
    )
    return rows


CAMERAS = ("54138969", "55011271", "58860488", "60457274")


class TestGroup:
    def test_the_four_cameras_of_human36m(self):
        names = [
            f"images/S9_Posing_1.{camera}_{frame:06d}.jpg" for camera in CAMERAS for frame in (1, 6)
        ]
        found, report = view_groups.group(named(names))
        assert report.clean
        assert [views.imgname.tolist() for views in found] == [names[0::2], names[1::2]]

    def test_the_videos_of_mpi_inf_3dhp(self):
        names = [
            f"S1/Seq{seq}/imageFrames/video_{v}/frame_000011.jpg" for v in (0, 8) for seq in (1, 2)
        ]
        found, _ = view_groups.group(named(names))
        assert [views.imgname.tolist() for views in found] == [names[0::2], names[1::2]]

    def test_groups_and_single_rows_hold_everything_once(self):
        names = [f"{letter}{number}" for letter in "abc" for number in range(4)]
        found, report = view_groups.group(named(names), key=lambda name: name[1], fewest=1)
        assert report.clean
        assert sorted(Annotations.concatenate(found).imgname.tolist()) == sorted(names)

    def test_excluded_views(self):
        names = ["a.1", "a.2", "b.1", "c.1", "c.2", "c.1"]
        found, report = view_groups.group(named(names), key=lambda name: name[0])
        assert [views.imgname.tolist() for views in found] == [["a.1", "a.2"]]
        assert (report.rows, report.kept) == (3, 1)
        assert findings(report.left_out) == {
            "fewer than 2 views": (1, "b"),
            "several people in one image": (1, "c"),
        }

    def test_a_name_without_a_camera(self):
        with pytest.raises(ValueError, match=r"camera in it, .* got 'train2014/COCO_1\.jpg'"):
            view_groups.group(named(["train2014/COCO_1.jpg"]))
