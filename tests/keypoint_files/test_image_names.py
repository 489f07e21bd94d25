"""Names of images with equal stems, in several folders, with dots are not confused."""

import itertools

import pytest

from flowprior.keypoint_files.image_names import (
    file_label,
    locate_image,
    match_people,
    number_people,
)

IMAGES = (
    *("a", "a.jpg", "a.png", "a.b.png", "a.b", "left/a.jpg", "right/a.jpg", "left/right/a.jpg"),
    *("left%2Fa.jpg", "left\\a.jpg", "a_1", "../a.jpg", "/a.jpg", "C:a.jpg", "Müller.png"),
    *("x" * 300 + "1.png", "x" * 300 + "2.png", "ü" * 200 + ".png", "1" + "x" * 300 + "1.png"),
)


def test_labels_are_unique_and_fit_for_file_names(tmp_path):
    labels = [file_label(image, person) for image in IMAGES for person in (0, 1, 11)]
    assert len(set(labels)) == len(labels)
    for label in labels:
        (tmp_path / f"{label}_fit.png").touch()
        assert not set(label) & set('<>:"/\\|?*')
    assert len(list(tmp_path.iterdir())) == len(labels)
    assert file_label("shot", 0) == "shot_0"


def test_people_are_numbered_within_their_images():
    assert number_people(["a", "b", "a", "a", "b"]).tolist() == [0, 0, 1, 2, 1]
    assert number_people([]).tolist() == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_whole_names_come_first(order):
    images = ["a.jpg", "a.b.jpg", "left/a.jpg", "right/a.jpg"]
    known = [(images[place], 0) for place in order]
    for image in images:
        (row,) = match_people([(image, 0)], known, "x.npz")
        assert known[row] == (image, 0)
    for bare in ("a.b", "left/a", "right/a"):  # as OpenPose names them
        (row,) = match_people([(bare, 0)], known, "x.npz")
        assert known[row] == (f"{bare}.jpg", 0)
    (row,) = match_people([("a", 0)], known, "x.npz")
    assert known[row] == ("a.jpg", 0)  # the whole path


@pytest.mark.parametrize(
    ("wanted", "known"),
    [
        (("a.b.png", 0), ("a.png", 0)),
        (("a.b", 0), ("a.png", 0)),
        (("a", 0), ("a.b.png", 0)),
        (("b", 0), ("a.b.png", 0)),
        (("right/a.png", 0), ("left/a.png", 0)),
        (("right/a.png", 0), ("a.png", 0)),
        (("right/a", 0), ("a.png", 0)),
        (("a.jpg", 0), ("a.png", 0)),
        (("a.png", 1), ("a.png", 0)),
    ],
)
def test_other_images_are_not_taken(wanted, known):
    assert match_people([wanted], [known], "x.npz") == [None]


def test_names_without_folders_and_suffixes_find_the_only_image():
    known = [("data/left/a.PNG", 0), ("data\\left\\b.jpg", 0), ("data/left/a.PNG", 1)]
    wanted = [("a", 1), ("left/b", 0), ("data/left/b.jpg", 0), ("c", 0)]
    assert match_people(wanted[:2], known, "x.npz") == [2, 1]
    assert match_people(wanted[2:], known, "x.npz") == [1, None]


@pytest.mark.parametrize(
    ("wanted", "known", "words"),
    [
        ([("a", 0)], [("left/a.jpg", 0), ("right/a.jpg", 0)], "may be any of left/a.jpg, right"),
        ([("a", 0)], [("a.jpg", 0), ("a.png", 0)], r"may be any of a\.jpg, a\.png"),
        ([("a.jpg", 0)], [("a.jpg", 0), ("a.jpg", 0)], r"person 0 of a\.jpg is there 2 times"),
        ([("a", 0), ("a.jpg", 0)], [("a.jpg", 0)], "2 people are all taken for person 0"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(wanted, known, words):
    with pytest.raises(ValueError, match=f"x.npz: .*{words}"):
        match_people(wanted, known, "x.npz")


def test_names_of_another_system_are_found(tmp_path):
    (tmp_path / "left").mkdir()
    (tmp_path / "left/a.png").touch()
    assert locate_image(tmp_path, "left\\a.png") == "left/a.png"
    assert locate_image(tmp_path, "left/a.png") == "left/a.png"
    assert locate_image(tmp_path, "right\\a.png") == "right\\a.png"
