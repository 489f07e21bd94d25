import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.fitting import CROP_PX, Cameras, cameras_for

CENTRE = torch.tensor([[300.0, 400.0], [1200.0, 100.0]])
SIDE = torch.tensor([250.0, 700.0])
KEYPOINTS = torch.tensor([[[200.0, 300, 1], [400, 500, 1]], [[900.0, 50, 1], [1500, 150, 1]]])
SIZE = torch.tensor([[1920.0, 1080.0], [1920.0, 1080.0]])


def cameras():
    return {
        "crop": Cameras.crop(CENTRE, SIDE),
        "full": Cameras.full(SIZE, CENTRE, SIDE, 1500.0),
        "original": Cameras.full(SIZE, CENTRE, SIDE, 1500.0, original_units=True),
    }


@pytest.mark.parametrize("name", cameras())
def test_units_and_pixels_are_each_others_inverse(name):
    camera = cameras()[name]
    pixels = 1000 * torch.rand(2, 7, 2)
    torch.testing.assert_close(camera.to_pixels(camera.to_units(pixels)), pixels)


def test_the_three_frames_are_those_of_the_reference():
    crop, full, original = cameras().values()
    assert crop.focal.tolist() == [5000.0, 5000.0]
    torch.testing.assert_close(crop.data_weight, torch.full((2,), (1000 / 224) ** 2))
    torch.testing.assert_close(original.data_weight, torch.full((2,), (1000 / 1920) ** 2))
    torch.testing.assert_close(original.principal_point, SIZE / 2)
    torch.testing.assert_close(full.focal_px, torch.full((2,), 1500.0))
    torch.testing.assert_close(full.principal_point_px, SIZE / 2)
    torch.testing.assert_close(crop.principal_point_px, CENTRE)
    edge = CENTRE[:, None] + SIDE[:, None, None] / 2
    torch.testing.assert_close(crop.to_units(edge), torch.full((2, 1, 2), CROP_PX / 2))


def test_the_whole_image_sees_the_same_in_either_unit():
    _, full, original = cameras().values()
    points = torch.randn(2, 9, 3) + torch.tensor([0.0, 0.0, 6.0])
    pixels = 1500 * points[..., :2] / points[..., 2:] + SIZE[:, None] / 2
    torch.testing.assert_close(full.to_pixels(full.project(points)), pixels)
    torch.testing.assert_close(original.project(points), pixels)


@pytest.mark.parametrize("name", cameras())
@given(depth=st.floats(5, 60), x=st.floats(-1, 1), y=st.floats(-1, 1))
def test_finds_where_somebody_stands(name, depth, x, y):
    camera = cameras()[name]
    generator = torch.Generator().manual_seed(0)
    # Flat people: then weak perspective is exact.
    points = torch.randn(2, 12, 3, generator=generator) * torch.tensor([0.4, 0.8, 0.0])
    transl = torch.tensor([x, y, depth]).expand(2, 3)
    seen = camera.project(points + transl[:, None])
    conf = torch.rand(2, 12, generator=generator) + 0.1
    found = camera.translation_for(points, seen, conf)
    torch.testing.assert_close(found, transl, atol=2e-3, rtol=2e-3)


def test_somebody_mirrored_is_placed_by_size():
    camera = cameras()["crop"]
    points = torch.randn(2, 12, 3) * torch.tensor([1.0, 1.0, 0.0])
    seen = camera.project(points * torch.tensor([-1.0, -1.0, 1.0]) + torch.tensor([0, 0, 40.0]))
    found = camera.translation_for(points, seen, torch.ones(2, 12))
    assert (found[:, 2] > 35).all()
    assert (found[:, 2] < 80).all()


def test_behind_the_camera_nothing_is_infinite():
    camera = cameras()["full"]
    points = torch.tensor([[[0.0, 1.0, -1.0], [0.0, 0.0, 0.0]]] * 2).requires_grad_()
    seen = camera.project(points)
    assert seen.isfinite().all()
    (gradient,) = torch.autograd.grad(seen.sum(), points)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Cameras.crop(CENTRE, SIDE[:1]), r"centre \(P, 2\)"),
        (lambda: Cameras.crop(CENTRE, torch.tensor([1.0, 0.0])), "above 0, the least is 0"),
        (lambda: Cameras.full(SIZE[:1], CENTRE, SIDE), r"image_size of shape \(2, 2\)"),
    ],
)
def test_refuses_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("focal", [0.0, -1500.0, math.nan, math.inf])
def test_a_focal_length_must_be_positive(focal):
    for make in (
        lambda: Cameras.crop(CENTRE, SIDE, focal),
        lambda: Cameras.full(SIZE, CENTRE, SIDE, focal),
        lambda: Cameras.full(SIZE, CENTRE, SIDE, torch.tensor([1500.0, focal])),
        lambda: cameras_for(KEYPOINTS, None, focal, frame="crop"),
        lambda: cameras_for(KEYPOINTS, SIZE, focal, frame="full"),
    ):
        with pytest.raises(ValueError, match="expected a positive number of pixels"):
            make()


@pytest.mark.parametrize("millimetres", [4.2, 25.0, 50.0, 85.0])
def test_a_focal_length_in_millimetres_is_recognised(millimetres):
    for make in (
        lambda: Cameras.full(SIZE, CENTRE, SIDE, torch.tensor([1500.0, millimetres])),
        lambda: cameras_for(KEYPOINTS, None, millimetres, frame="crop"),
        lambda: cameras_for(KEYPOINTS, SIZE, millimetres, frame="full"),
        lambda: cameras_for(KEYPOINTS, SIZE, millimetres, frame="full-original"),
        lambda: cameras_for(KEYPOINTS, torch.full((2, 2), torch.nan), millimetres, frame="full"),
    ):
        with pytest.raises(ValueError, match=r"millimetres\. Convert it: f_px = f_mm"):
            make()


def test_one_image_does_not_change_the_cameras_of_others():
    whole = cameras_for(KEYPOINTS, SIZE, 1500.0, frame="full")
    for size in ([torch.nan, 1.0], [0.0, 0.0], [-5.0, 9.0], [torch.inf, 9.0], [30000.0, 200.0]):
        other = cameras_for(
            KEYPOINTS, torch.stack([SIZE[0], torch.tensor(size)]), 1500.0, frame="full"
        )
        for name in ("focal_px", "principal_point_px", "scale", "data_weight"):
            assert torch.equal(getattr(other, name)[0], getattr(whole, name)[0])
            assert getattr(other, name).isfinite().all()


def test_without_a_focal_length_it_is_the_diagonal_of_the_image():
    sizes = torch.tensor([[3000.0, 4000.0], [torch.nan, torch.nan]])
    found = cameras_for(KEYPOINTS, sizes)
    assert found.focal_px[0] == 5000.0
    assert found.focal[1] == 5000.0  # of the crop
    assert cameras_for(KEYPOINTS, (600, 800)).focal_px.tolist() == [1000.0, 1000.0]
    for frame in ("crop", "full-original"):
        whole = None if frame == "crop" else (600, 800)
        assert cameras_for(KEYPOINTS, whole, frame=frame).focal.tolist() == [5000.0, 5000.0]


def test_every_person_may_have_a_focal_length():
    focal = torch.tensor([1500.0, 2500.0])
    assert torch.equal(cameras_for(KEYPOINTS, SIZE, focal).focal_px, focal)
    assert torch.equal(cameras_for(KEYPOINTS, None, focal).focal, focal)
    assert torch.equal(cameras_for(KEYPOINTS, (1920, 1080), focal).focal_px, focal)
    with pytest.raises(ValueError, match=r"focal_px \(2,\) or one number, got \(3,\)"):
        cameras_for(KEYPOINTS, SIZE, torch.full((3,), 1500.0))
    with pytest.raises(ValueError, match="millimetres"):
        cameras_for(KEYPOINTS, SIZE, torch.tensor([1500.0, 50.0]))


def test_the_frame_is_that_of_the_image_where_its_size_is_known():
    assert torch.equal(
        cameras_for(KEYPOINTS, SIZE).data_weight,
        cameras_for(KEYPOINTS, SIZE, frame="full").data_weight,
    )
    assert cameras_for(KEYPOINTS).principal_point.eq(0).all()
    with pytest.raises(ValueError, match="must be one of crop, full, full-original, got 'half'"):
        cameras_for(KEYPOINTS, SIZE, frame="half")
    with pytest.raises(ValueError, match="needs the size"):
        cameras_for(KEYPOINTS, frame="full")
    with pytest.raises(ValueError, match=r"image_size \(2, 2\) or \(2,\), got \(3, 2\)"):
        cameras_for(KEYPOINTS, torch.ones(3, 2))
