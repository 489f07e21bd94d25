import pytest
import torch

from flowprior.fitting import Cameras, MultiviewWeights, fit_views
from flowprior.keypoints import keypoint_squares
from tests.fitting.people import FOCAL_PX, IMAGE_PX


def test_refinement_makes_the_views_agree(priors, body, people):
    seen = people.keypoints[:7]
    pose = priors.variables("conditional", seen)
    cameras = Cameras.crop(*keypoint_squares(seen))
    refined = fit_views(
        seen, pose, [[0, 1, 2], [3, 4, 5, 6]], body=body, cameras=cameras, max_iterations=40
    )
    before, after = refined.disagreement.unbind(dim=1)
    assert (after < 0.1 * before).all()
    assert refined.mask.tolist() == [[True, True, True, False], [True] * 4]
    assert refined.body_pose.shape == (2, 23, 3, 3)
    shapes = {name: tuple(tensor.shape) for name, tensor in refined.smpl_params().items()}
    assert shapes == {
        "global_orient": (2, 4, 1, 3, 3),
        "body_pose": (2, 4, 23, 3, 3),
        "betas": (2, 4, 10),
        "transl": (2, 4, 3),
    }
    arrays = refined.to_arrays()
    assert arrays["status"].tolist() == refined.status
    assert len(refined) == len(arrays["views"]) == 2


def test_one_person_in_all_views_with_a_prior_of_keypoints(priors, body, people):
    seen = people.keypoints[:3]
    options = {
        "body": body,
        "image_size": (IMAGE_PX, IMAGE_PX),
        "focal_px": FOCAL_PX,
        "weights": MultiviewWeights(keypoints=1, pose=16),
        "max_iterations": 4,
    }
    found = fit_views(seen, priors.conditional, **options)
    assert len(found) == 1
    grouped = fit_views(seen, priors.conditional, [[0, 1, 2]], **options)
    assert torch.equal(found.theta, grouped.theta)


def test_arguments_that_do_not_fit_raise(priors, body, people):
    seen = people.keypoints[:2]
    for keypoints, prior, message in (
        (seen, None, "prior over all 24 joints"),
        (seen, priors.unconditional, "prior over all 24 joints"),
        (seen[0], priors.conditional, r"keypoints_2d \(N, K, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_views(keypoints, prior, body=body)
    with pytest.raises(ValueError, match="at least one view of each person"):
        fit_views(seen, priors.conditional, [[0, 1], []], body=body)
    cameras = Cameras.crop(*keypoint_squares(seen))
    with pytest.raises(ValueError, match="not both"):
        fit_views(seen, priors.conditional, body=body, cameras=cameras, focal_px=900.0)


@pytest.mark.parametrize("groups", [None, []])
def test_an_empty_batch_gives_an_empty_result(priors, body, groups):
    weights = MultiviewWeights(keypoints=1, pose=16)
    fits = fit_views(torch.zeros(0, 25, 3), priors.conditional, groups, body=body, weights=weights)
    assert len(fits) == 0
    assert fits.status == []
    shapes = {name: array.shape for name, array in fits.to_arrays().items()}
    assert shapes["body_pose"] == (0, 23, 3, 3)
    assert shapes["transl"] == (0, 1, 3)
    assert shapes["views"] == (0, 1)
    assert fits.averaged.shape == (0, 1, 24, 3, 3)


def test_views_without_people_give_an_empty_result(priors, body, people):
    fits = fit_views(people.keypoints[:2], priors.conditional, [], body=body, max_iterations=2)
    assert len(fits) == 0
