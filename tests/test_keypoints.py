import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowprior.keypoints import example_keypoints, keypoint_context, keypoint_squares
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


def test_unsure_keypoints_make_the_square_where_there_are_no_others():
    seen = people(17)
    seen[:, 2] = 0.05
    assert keypoint_squares(seen)[1] == keypoint_squares(people(17))[1]


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
