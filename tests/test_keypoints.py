import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.keypoints import (
    check_keypoints,
    example_keypoints,
    keypoint_context,
    keypoint_squares,
    pixel_keypoints,
    seen_keypoints,
    unit_fault,
)
from flowprior.skeleton import COCO_17


def people(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    places = 300 * torch.rand(*shape, 2, generator=generator)
    return torch.cat([places, torch.ones(*shape, 1)], dim=-1)


def test_by_hand():
    keypoints = torch.tensor([[100.0, 50, 0.9], [200, 50, 0.5], [150, 250, 1], [900, 900, 0.1]])
    centre, side = keypoint_squares(keypoints)
    assert centre.tolist() == [150, 150]
    assert side.item() == pytest.approx(240)
    expected = [-50 / 120, -100 / 120, 1, 50 / 120, -100 / 120, 1, 0, 100 / 120, 1, 0, 0, 0]
    assert keypoint_context(keypoints).tolist() == pytest.approx(expected)


@given(st.integers(0, 100), st.floats(0.1, 20), st.floats(-500, 500))
def test_neither_place_nor_size_matters(seed, scale, shift):
    seen = people(5, 17, seed=seed)
    seen[:, 7, 2] = 0
    moved = seen.clone()
    moved[..., :2] = scale * seen[..., :2] + shift
    context = keypoint_context(seen)
    assert context.shape == (5, 51)
    torch.testing.assert_close(context, keypoint_context(moved), atol=1e-3, rtol=1e-3)
    assert context.abs().max() <= 1
    assert (context.unflatten(1, (17, 3))[:, 7] == 0).all()


@pytest.mark.parametrize("anything", [7e4, torch.nan, torch.inf])
def test_unseen_keypoints_may_hold_anything(anything):
    seen = people(3, 25)
    seen[:, :20, 2] = 0
    other = seen.clone()
    other[:, :20, :2] = anything
    assert torch.equal(keypoint_context(seen), keypoint_context(other))


def test_no_row_depends_on_another():
    seen = people(2, 4, 17)
    context = keypoint_context(seen)
    assert context.shape == (2, 4, 51)
    assert torch.equal(context[1, 2], keypoint_context(seen[1, 2]))


def test_nobody_seen():
    nobody = torch.zeros(2, 17, 3)
    centre, side = keypoint_squares(nobody)
    assert centre.isfinite().all()
    assert (side > 0).all()
    assert (keypoint_context(nobody) == 0).all()


@pytest.mark.parametrize("garbage", [(0, 0, 0.0012), (1900, 20, 0.03), (-500, 9e4, 0.1)])
def test_doubtful_keypoints_change_nothing(garbage):
    clear = people(5, 17)
    clear[:, [7, 9, 15]] = 0
    doubtful = clear.clone()
    doubtful[:, [7, 9, 15]] = torch.tensor(garbage, dtype=torch.float32)
    assert torch.equal(seen_keypoints(doubtful), clear)
    assert torch.equal(keypoint_context(doubtful), keypoint_context(clear))
    for square, expected in zip(keypoint_squares(doubtful), keypoint_squares(clear), strict=True):
        assert torch.equal(square, expected)


def test_nobody_is_seen_below_the_threshold():
    unsure = people(17)
    unsure[:, 2] = 0.05
    assert (keypoint_context(unsure) == 0).all()
    assert torch.equal(keypoint_squares(unsure)[1], keypoint_squares(torch.zeros(17, 3))[1])


UNITS = [keypoint_context, keypoint_squares, seen_keypoints, check_keypoints]


@pytest.mark.parametrize("function", UNITS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (-0.5, 0.5), (0, 1.78), (-0.2, 1.2)])
def test_normalised_coordinates_are_refused(function, dtype, low, high):
    scaled = people(3, 17)
    scaled[..., :2] = low + (high - low) * scaled[..., :2] / 300
    scaled[:, 3] = torch.tensor([900.0, 900.0, 0.01])  # unseen: it tells nothing of the unit
    scaled = scaled.to(dtype)
    with pytest.raises(ValueError, match="as normalised ones do, but pixels are expected"):
        function(scaled)
    with pytest.raises(ValueError, match="as normalised ones do"):
        function(scaled[0])


@pytest.mark.parametrize("function", UNITS)
@pytest.mark.parametrize(
    "conf", [torch.linspace(0.5, 7, 17), torch.linspace(5, 99, 17), torch.full((17,), 2.0),
             torch.linspace(-4, 3, 17)], ids=["simcc", "percent", "visibility", "logits"],
)  # fmt: skip
def test_confidences_that_are_no_probabilities_are_refused(function, conf):
    scores = people(2, 17)
    scores[..., 2] = conf
    with pytest.raises(ValueError, match=r"confidences lie below 0 or above 1\.5 \(from .* clip"):
        function(scores)


def test_units_that_are_right():
    tiny = people(17)
    tiny[:, :2] /= 300  # a person of one pixel
    elsewhere = tiny.clone()
    elsewhere[:, :2] += torch.tensor([500.0, 200.0])
    confident = people(17)
    confident[:, 2] = 1.05  # OpenPose's exceed 1 by a little
    damaged = people(17)
    damaged[3, 2] = 97.0
    together = torch.stack([tiny, people(17)])
    broken = people(17)
    broken[3] = torch.nan
    nobody = torch.zeros(2, 17, 3)
    one_place = torch.ones(17, 3)
    for sound in (
        elsewhere,
        confident,
        damaged,
        together,
        broken,
        nobody,
        one_place,
        people(0, 17),
    ):
        assert unit_fault(sound) is None
        check_keypoints(sound)


@pytest.mark.parametrize("low", [0, -1])
def test_normalised_coordinates_become_pixels(low):
    pixels = people(4, 17)
    size = torch.tensor([640.0, 480.0])
    scaled = pixels.clone()
    scaled[..., :2] = low + (1 - low) * pixels[..., :2] / size
    torch.testing.assert_close(pixel_keypoints(scaled, (640, 480), low), pixels)
    sizes = torch.stack([size, size / 2, size, 2 * size])
    converted = pixel_keypoints(scaled, sizes, low)
    torch.testing.assert_close(converted[1, :, :2], pixels[1, :, :2] / 2)
    assert torch.equal(converted[..., 2], pixels[..., 2])
    for image_size, start in (((640, 0), 0), ((640,), 0), ((640, 480), 0.5)):
        with pytest.raises(ValueError, match="expected low 0 or -1 and image_size"):
            pixel_keypoints(scaled, image_size, start)


def test_contexts_inside_transforms():
    seen = people(3, 17)
    expected = keypoint_context(seen)
    torch.testing.assert_close(torch.func.vmap(keypoint_context)(seen), expected)
    compiled = torch.compile(keypoint_context, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(seen), expected)
    assert torch.func.jacrev(keypoint_context)(seen).isfinite().all()


def test_gradients_reach_the_pixels():
    seen = people(17).requires_grad_()
    keypoint_context(seen).square().sum().backward()
    assert seen.grad[:, :2].abs().sum() > 0
    assert seen.grad.isfinite().all()


def test_the_example_is_a_person():
    keypoints = example_keypoints()
    assert keypoints.shape == (17, 3)
    x, y = (dict(zip(COCO_17.joint_names, keypoints[:, axis], strict=True)) for axis in (0, 1))
    assert y["nose"] < y["left_shoulder"] < y["left_hip"] < y["left_knee"] < y["left_ankle"]
    for joint in ("shoulder", "elbow", "wrist", "hip"):  # facing us, the left is on the right
        assert x[f"left_{joint}"] > x[f"right_{joint}"]
    example_keypoints()[0] = 0
    assert torch.equal(keypoints, example_keypoints())


@pytest.mark.parametrize(
    "wrong", [torch.zeros(3), torch.zeros(17, 2), torch.zeros(17, 3, dtype=torch.long)], ids=str
)
def test_other_shapes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected keypoints \(\.\.\., K, 3\)"):
        keypoint_context(wrong)


def test_an_array_is_refused():
    with pytest.raises(TypeError, match="keypoints must be a torch"):
        keypoint_context(people(17).numpy())
