import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from examples.pictures import gallery_picture, lay_over, save_image, side_by_side

bytes_ = st.integers(0, 255)


@given(arrays(np.uint8, (3, 4, 3), elements=bytes_), arrays(np.uint8, (3, 4, 3), elements=bytes_))
def test_layer_covers_by_its_opacity(image, colour):
    def layer(alpha):
        return np.concatenate([colour, np.full((3, 4, 1), alpha, np.uint8)], axis=-1)

    np.testing.assert_array_equal(lay_over(image, layer(0)), image)
    np.testing.assert_array_equal(lay_over(image, layer(255)), colour)
    halfway = (image.astype(float) + colour) / 2
    np.testing.assert_allclose(lay_over(image, layer(128)), halfway, atol=1.1)


def test_side_by_side_centres_and_keeps_order():
    red, blue = np.zeros((10, 4, 3), np.uint8), np.zeros((6, 5, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    strip = side_by_side([red, blue], background="black", gap=3)
    assert strip.shape == (10, 12, 3)
    assert (strip[:, :4] == (255, 0, 0)).all()
    assert (strip[2:8, 7:] == (0, 0, 255)).all()
    assert strip.sum() == red.sum() + blue.sum()


def test_saved_images_come_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    save_image(tmp_path / "a.png", image)
    back = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    np.testing.assert_array_equal(np.rint(255 * back), image)


def test_a_gallery_shows_every_image_pixel_for_pixel(tmp_path):
    random = np.random.default_rng(0)
    images = {
        name: random.integers(0, 256, (20 + 5 * index, 30, 3), dtype=np.uint8)
        for index, name in enumerate(("a", "b", "c"))
    }
    path = tmp_path / "gallery.png"
    gallery_picture(path, images, title="Three", note="n", columns=2, scale=("mm", 0.0, 1.0))
    page = np.rint(255 * matplotlib.image.imread(path)[..., :3]).astype(np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(page, (1, 30, 3))[:, :, 0, 0]
    places = []
    for image in images.values():
        rows, columns = np.nonzero((windows == image[0]).all(axis=(2, 3)))
        assert len(rows) == 1
        y, x = rows[0], columns[0]
        np.testing.assert_array_equal(page[y : y + image.shape[0], x : x + 30], image)
        places.append((y, x))
    (ya, xa), (_, xb), (yc, xc) = places
    assert xb > xa
    assert xc == xa
    assert yc > ya


@pytest.mark.parametrize(
    "call", [lambda: side_by_side([]), lambda: gallery_picture("x", {}, title="")]
)
def test_no_images_is_an_error(call):
    with pytest.raises(ValueError, match="at least one image"):
        call()


def test_layers_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"expected an RGBA layer \(4, 5, 4\)"):
        lay_over(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="expected an RGB image"):
        side_by_side([np.zeros((4, 5), np.uint8)])
