import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples.data.crops import box_affine
from examples.data.weak_perspective import (
    crop_translation,
    full_frame_translation,
    project_to_crop,
    project_to_image,
)

SEEDS = st.integers(0, 2**32 - 1)


def scene(seed, batch=5):
    g = torch.Generator().manual_seed(seed)
    camera = torch.rand(batch, 3, generator=g, dtype=torch.float64) * 0.6 - 0.3
    camera[:, 0] += 0.9
    center = 200 + 600 * torch.rand(batch, 2, generator=g, dtype=torch.float64)
    box_size = 100 + 500 * torch.rand(batch, generator=g, dtype=torch.float64)
    img_size = 400 + 1000 * torch.rand(batch, 2, generator=g, dtype=torch.float64)
    return camera, center, box_size, img_size


@given(SEEDS)
def test_translations_are_the_written_formulas(seed):
    camera, center, box_size, img_size = scene(seed)
    crop = crop_translation(camera)
    full = full_frame_translation(camera, center, box_size, img_size)
    for row in range(len(camera)):
        s, tx, ty = camera[row].tolist()
        assert crop[row].tolist() == pytest.approx([tx, ty, 10000 / (224 * s + 1e-9)], abs=1e-6)
        depth = 10000 / (box_size[row].item() * s + 1e-9)
        aside = [
            (center[row, axis].item() - img_size[row, axis].item() / 2) * depth / 5000
            for axis in (0, 1)
        ]
        expected = [tx + aside[0], ty + aside[1], depth]
        assert full[row].tolist() == pytest.approx(expected, abs=1e-6)


@given(SEEDS)
def test_projections_are_the_written_formulas(seed):
    camera, _, _, img_size = scene(seed)
    points = torch.randn(5, 7, 3, dtype=torch.float64)
    transl = crop_translation(camera)
    seen = points + transl[:, None]
    torch.testing.assert_close(
        project_to_crop(points, transl),
        5000 / 224 * seen[..., :2] / seen[..., 2:],
        atol=1e-6,
        rtol=0,
    )
    expected = 5000 * seen[..., :2] / seen[..., 2:] + img_size[:, None] / 2
    torch.testing.assert_close(
        project_to_image(points, transl, img_size), expected, atol=1e-6, rtol=0
    )


@given(SEEDS)
def test_crop_and_image_show_the_plane_of_the_body_alike(seed):
    camera, center, box_size, img_size = scene(seed)
    points = torch.randn(5, 7, 3, dtype=torch.float64) * torch.tensor([1.0, 1.0, 0.0])
    in_crop = project_to_crop(points, crop_translation(camera))
    # Weak perspective is what it says: s / 2 sides of the crop to the metre.
    torch.testing.assert_close(
        in_crop,
        camera[:, None, :1] / 2 * (points[..., :2] + camera[:, None, 1:]),
        rtol=1e-8,
        atol=1e-9,
    )
    transl = full_frame_translation(camera, center, box_size, img_size)
    in_image = project_to_image(points, transl, img_size)
    affine = box_affine(center, box_size)
    moved = (affine[:, None, :, :2] @ in_image[..., None]).squeeze(-1) + affine[:, None, :, 2]
    torch.testing.assert_close(moved / 224 - 0.5, in_crop, rtol=1e-8, atol=1e-8)


def test_leading_axes_and_gradients():
    camera = torch.tensor([0.8, 0.1, -0.2]).expand(2, 3, 3).clone().requires_grad_()
    transl = crop_translation(camera, size=256, focal=1000.0)
    assert transl.shape == (2, 3, 3)
    assert transl[0, 0, 2].item() == pytest.approx(2000 / (256 * 0.8))
    box = torch.full((2, 3), 300.0)
    full = full_frame_translation(
        camera, box[..., None].expand(2, 3, 2), box, torch.tensor([640.0, 480.0])
    )
    project_to_image(torch.zeros(2, 3, 5, 3), full, torch.tensor([640.0, 480.0])).sum().backward()
    assert camera.grad.isfinite().all()
    assert (camera.grad != 0).all()


@pytest.mark.parametrize("shape", [(), (2,), (5, 4)])
def test_another_camera_is_refused(shape):
    with pytest.raises(ValueError, match=r"camera \(\.\.\., 3\), s, tx, ty"):
        crop_translation(torch.zeros(shape))
    with pytest.raises(ValueError, match="camera"):
        full_frame_translation(torch.zeros(shape), *torch.zeros(3, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_camera_in_half_precision_is_computed_with_in_float32(dtype):
    camera, center, box_size, img_size = (each.float() for each in scene(0))
    camera = camera.to(dtype)
    points = torch.randn(5, 7, 3)
    for transl, project in (
        (crop_translation(camera), project_to_crop),
        (
            full_frame_translation(camera, center, box_size, img_size),
            lambda points, transl: project_to_image(points, transl, img_size),
        ),
    ):
        assert transl.dtype == torch.float32
        assert project(points.to(dtype), transl).dtype == torch.float32
        assert project(points.to(dtype), transl.to(dtype)).dtype == torch.float32
    torch.testing.assert_close(crop_translation(camera), crop_translation(camera.float()))


@pytest.mark.parametrize("focal", [0.0, -5000.0, math.nan, math.inf])
def test_a_focal_length_must_be_positive(focal):
    camera, box, points = torch.ones(2, 3), torch.ones(2, 2), torch.ones(2, 5, 3)
    for call in (
        lambda: crop_translation(camera, focal=focal),
        lambda: full_frame_translation(camera, box, box[:, 0], box, focal=focal),
        lambda: project_to_crop(points, camera, focal=focal),
        lambda: project_to_image(points, camera, box, focal=focal),
    ):
        with pytest.raises(ValueError, match="focal must be a positive number of pixels"):
            call()
