"""Pictures: orientation, size, focal length, damaged files, writing."""

import numpy as np
import pytest

from flowprior.files import limits
from flowprior.files.picture_file import picture_facts, read_picture, write_picture

Image = pytest.importorskip("PIL.Image", reason="Pillow draws pictures: flowprior[fit]")

PIXELS = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)


def saved(path, orientation=None, focal=None):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    if focal is not None:
        exif.get_ifd(0x8769)[0xA405] = focal
    Image.fromarray(PIXELS).save(path, exif=exif)
    return path


def test_pictures_are_read_as_they_are(tmp_path):
    path = saved(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(path), PIXELS)
    assert picture_facts(path) == ((4, 6), None)


def test_pictures_are_rotated_by_exif(tmp_path):
    path = saved(tmp_path / "a.png", orientation=6)
    np.testing.assert_array_equal(read_picture(path), np.rot90(PIXELS, -1))
    assert picture_facts(path)[0] == (6, 4)


def test_the_focal_length_follows_from_its_35_mm_equivalent(tmp_path):
    focal = picture_facts(saved(tmp_path / "a.jpg", focal=50))[1]
    # 50 mm on a diagonal of 43.27 mm.
    assert focal == pytest.approx(50 / 43.2666 * np.hypot(4, 6), rel=1e-4)
    assert picture_facts(saved(tmp_path / "b.jpg", focal=0))[1] is None


def test_grey_and_transparent_pictures_become_rgb(tmp_path):
    Image.new("L", (5, 3), 77).save(tmp_path / "grey.png")
    Image.new("RGBA", (5, 3), (1, 2, 3, 50)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "grey.png").tolist() == [[[77] * 3] * 5] * 3
    assert read_picture(tmp_path / "clear.png").shape == (3, 5, 3)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"])
def test_other_files_are_refused_with_their_name(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (read_picture, picture_facts):
        with pytest.raises(ValueError, match=r"a\.jpg is not a picture"):
            read(tmp_path / "a.jpg")


def test_a_truncated_picture_is_refused(tmp_path):
    Image.effect_noise((200, 200), 60).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a\.jpg is not a picture, or a damaged one"):
        read_picture(tmp_path / "a.jpg")


def test_too_many_pixels_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_PIXELS", 10)
    with pytest.raises(ValueError, match="pixels"):
        read_picture(saved(tmp_path / "a.png"))


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "nothing.png")


def test_pictures_are_written_and_made_smaller(tmp_path):
    write_picture(tmp_path / "a.png", PIXELS)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), PIXELS)
    write_picture(tmp_path / "b.jpg", np.zeros((300, 100, 3), np.uint8), longest=60)
    assert picture_facts(tmp_path / "b.jpg")[0] == (20, 60)
    with Image.open(tmp_path / "b.jpg") as picture:
        assert picture.format == "JPEG"
