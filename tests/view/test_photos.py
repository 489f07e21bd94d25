"""Photos of fits."""

import io

import pytest

from flowprior.view.photos import photo_array, photo_jpeg, smaller_jpeg
from tests.view.people import picture

images = pytest.importorskip("PIL.Image")


def test_photos_become_smaller_and_keep_their_shape(tmp_path):
    path = str(picture(tmp_path / "photo.png", (640, 480)))
    assert photo_array(path, 100).shape == (75, 100, 3)
    assert photo_array(path, 1000).shape == (480, 640, 3)
    jpeg = images.open(io.BytesIO(photo_jpeg(path, 64)))
    assert (jpeg.format, jpeg.size) == ("JPEG", (64, 48))
    assert jpeg.getpixel((5, 20))[0] > 200
    whole = photo_jpeg(path, 64)
    assert smaller_jpeg(whole, 64) == whole
    assert images.open(io.BytesIO(smaller_jpeg(whole, 32))).size == (32, 24)


def test_a_photo_taken_upright_is_turned(tmp_path):
    exif = images.Exif()
    exif[0x0112] = 6  # stored on its side
    source = images.open(picture(tmp_path / "a.png", (640, 480)))
    source.save(tmp_path / "b.jpg", exif=exif)
    assert photo_array(str(tmp_path / "b.jpg"), 64).shape == (64, 48, 3)


@pytest.mark.parametrize("name", ["", "gone.jpg", "text.txt"])
def test_what_is_no_photo_is_none(tmp_path, name):
    (tmp_path / "text.txt").write_text("no picture")
    path = str(tmp_path / name) if name else ""
    assert photo_array(path, 64) is None
    assert photo_jpeg(path, 64) is None
