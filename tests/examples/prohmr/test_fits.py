"""Fits with the model's posterior: smaller errors, batch independence, multi-view consistency."""

import dataclasses

import pytest
import torch

from examples.data.images import ImageBatch, ImageDataset, collate
from examples.prohmr.embedded import write_views
from examples.prohmr.evaluate import open_dataset, protocol_of
from examples.prohmr.fits import FitOptions, ImageFitter, Seen, judge_fits, judge_views
from examples.prohmr.judging import crop_batch, judge_batch
from flowprior.body import BodyModel
from flowprior.fitting.multiview_objective import MultiviewWeights
from flowprior.fitting.objective import KeypointWeights
from tests.examples.prohmr.untrained import untrained

SMALL = {"hidden_features": 16, "num_steps": 2, "context_norm": True}
PROTOCOL = protocol_of("views")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_views(folder, 3, views=3, size=48)
    return open_dataset(folder, "views")


@pytest.fixture(scope="module")
def batch(opened):
    return collate([opened.dataset[row] for row in range(len(opened.dataset))])


@pytest.fixture(scope="module")
def model():
    return untrained(SMALL)


@pytest.fixture(scope="module")
def body():
    return BodyModel()


@pytest.fixture(scope="module")
def prediction(model, batch):
    with torch.no_grad():
        return model(crop_batch(batch, model.size).images)


def options(**more):
    return FitOptions(KeypointWeights(use_hips=True), max_iterations=15, **more)


def spoilt(batch: ImageBatch, **changes) -> ImageBatch:
    return dataclasses.replace(batch, **changes)


@pytest.mark.parametrize("frame", ["crop", "full", "full-original"])
def test_a_fit_is_nearer_to_the_keypoints(model, body, prediction, batch, frame):
    fits = ImageFitter(model, body, options(frame=frame)).fit(prediction, Seen.of(batch))
    assert (fits.solution.value < fits.start_value).all()
    focal = 5000.0 * (batch.box_size / 224 if frame == "crop" else torch.ones(len(batch)))
    torch.testing.assert_close(fits.focal_px, focal)
    middle = batch.center if frame == "crop" else batch.img_size / 2
    torch.testing.assert_close(fits.principal_point_px, middle)


def test_it_starts_at_the_mode_with_the_regressed_shape_and_camera(model, body, prediction, batch):
    fitter = ImageFitter(model, body, options())
    seen = Seen.of(batch)
    none = dataclasses.replace(seen, keypoints_2d=torch.zeros_like(seen.keypoints_2d))
    held = dataclasses.replace(
        fitter.options, keypoints=KeypointWeights(shape=0.0, use_hips=True), max_iterations=1
    )
    fits = ImageFitter(model, body, held).fit(prediction, none)
    mode = model.prior.smpl_params(prediction.posterior.mode())
    torch.testing.assert_close(fits.theta[:, 1:], mode["body_pose"], atol=1e-4, rtol=0)
    torch.testing.assert_close(fits.betas, prediction.betas)
    x, y, depth = fits.transl.unbind(dim=1)
    torch.testing.assert_close(torch.stack([x, y], dim=1), prediction.camera[:, 1:])
    torch.testing.assert_close(depth, 2 * 5000 / (224 * prediction.camera[:, 0]))


def test_theta_and_latent_are_the_same_fit(model, body, prediction, batch):
    few = torch.arange(2)
    seen = Seen.of(batch)[few]
    values = [
        ImageFitter(model, body, options(theta=theta)).fit(
            model.predict(prediction.context[few]), seen
        )
        for theta in (False, True)
    ]
    torch.testing.assert_close(values[0].start_value, values[1].start_value, rtol=1e-3, atol=1e-2)


def test_somebody_alone_is_fitted_as_in_the_batch(model, body, prediction, batch):
    fitter = ImageFitter(model, body, options())
    together = fitter.fit(prediction, Seen.of(batch))
    rows = torch.tensor([4])
    alone = fitter.fit(model.predict(prediction.context[rows]), Seen.of(batch)[rows])
    torch.testing.assert_close(alone.theta, together.theta[rows], atol=1e-4, rtol=0)


def test_without_usable_keypoints_the_mode_is_evaluated(model, body, batch):
    keypoints = batch.keypoints_2d.clone()
    keypoints[0, :, 2] = 0
    valid = batch.valid.clone()
    valid[1] = False
    given = spoilt(batch, keypoints_2d=keypoints, valid=valid)
    found = judge_fits(model, ImageFitter(model, body, options()), given, PROTOCOL)
    mode = judge_batch(model, body, given, PROTOCOL, counts=(1,)).values
    for metric in ("mpjpe_mm", "pa_mpjpe_mm"):
        torch.testing.assert_close(found[f"fit_{metric}"][0], mode[f"mode_{metric}"][0])
        assert found[f"fit_{metric}"][1].isnan()
        assert (found[f"fit_{metric}"][2:] != mode[f"mode_{metric}"][2:]).all()
    assert found["fitted_share"].nan_to_num(nan=-1).tolist() == [0, -1, *[1] * 7]
    assert found["fit_error_of_box"][2:].isfinite().all()


def test_hips_are_counted_where_they_are_used(model, body, batch):
    only_hips = torch.zeros_like(batch.keypoints_2d)
    only_hips[:, [8, 9, 12, 27, 28, 39], 2] = 1
    used = ImageFitter(model, body, options()).countable(only_hips)
    ignored = ImageFitter(model, body, FitOptions()).countable(only_hips)
    assert used.tolist() == [6] * len(batch)
    assert ignored.tolist() == [0] * len(batch)


def test_views_agree_on_one_body(model, body, prediction, batch, opened):
    refined = ImageFitter(model, body, FitOptions(max_iterations=40)).refine(
        prediction, Seen.of(batch), opened.groups_in(batch)
    )
    before, after = refined.disagreement.unbind(dim=1)
    assert (after < 0.2 * before).all()
    together, alone = refined.together, refined.first
    assert torch.equal(together[:, 0, 1:], together[:, 2, 1:])
    torch.testing.assert_close(together[:, :, 0], refined.theta[:, :, 0])
    torch.testing.assert_close(refined.averaged[:, :, 0], alone[:, :, 0])
    expected = prediction.betas.unflatten(0, (3, 3)).mean(dim=1)
    torch.testing.assert_close(refined.betas, expected)  # regressed, their mean, fixed


def test_views_are_evaluated_in_their_cameras(model, body, batch, opened):
    weights = MultiviewWeights(keypoints=1.0, pose=16.0)
    fitter = ImageFitter(model, body, options(views=weights))
    valid = batch.valid.clone()
    valid[[0, 3, 4, 5]] = False  # a view of the first person, all of the second
    found = judge_views(
        model, fitter, spoilt(batch, valid=valid), opened.groups_in(batch), PROTOCOL
    )
    assert set(found) == {
        f"{way}_{metric}_mm" for way in ("averaged", "together") for metric in ("mpjpe", "pa_mpjpe")
    }
    for value in found.values():
        assert value.isfinite().tolist() == valid.tolist()
    nothing = spoilt(batch, valid=torch.zeros_like(valid))
    found = judge_views(model, fitter, nothing, opened.groups_in(batch), PROTOCOL)
    assert all(value.isnan().all() for value in found.values())


def test_impossible_options_are_rejected():
    with pytest.raises(ValueError, match="frame must be one of crop, full"):
        FitOptions(frame="wide")
    with pytest.raises(ValueError, match="at least one step"):
        FitOptions(max_iterations=0)


def test_groups_stay_whole_in_batches(opened):
    from examples.prohmr.judging import batches_of

    assert isinstance(opened.dataset, ImageDataset)
    sizes = [len(part) for part in batches_of(opened.dataset, 4, groups=opened.groups)]
    assert sizes == [3, 3, 3]
    (one,) = batches_of(opened.dataset, 9, images=3, groups=opened.groups)
    assert [len(group) for group in opened.groups_in(one)] == [3]
