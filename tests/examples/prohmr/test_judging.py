"""Per-image evaluation: hidden limbs, and batch independence."""

import numpy as np
import pytest
import torch

from examples.data.crops import Labels
from examples.prohmr.judging import LIMBS, batches_of, judge_batch, limbs_hidden
from examples.prohmr.model import ProHMR
from examples.prohmr.sources import read_dataset
from flowprior.body import BodyModel
from flowprior.metrics.protocols import PROTOCOLS


def labels(points):
    batch = len(points)
    zeros = torch.zeros
    return Labels(points, zeros(batch, 44, 4), zeros(batch, 3), zeros(batch, 69), zeros(batch, 10))


def test_hidden_is_unseen_or_outside_of_the_crop():
    points = torch.zeros(3, 44, 3)
    points[..., 2] = 1
    points[1, LIMBS[:4], 2] = 0  # not annotated
    points[2, LIMBS[4], 0] = 0.51  # beyond the border
    points[2, 0, 2] = 0  # no limb
    assert limbs_hidden(labels(points)).tolist() == [0, 4, 1]


@pytest.fixture(scope="module")
def dataset(painted):
    return read_dataset(painted, "test")[0]


def test_some_images_are_evenly_chosen(dataset):
    rows = [batch.idx.tolist() for batch in batches_of(dataset, 1, images=2)]
    assert rows == [[0], [2]]
    assert sum(len(batch) for batch in batches_of(dataset, 3)) == 4


def test_errors_of_a_person_do_not_depend_on_the_batch(dataset):
    torch.manual_seed(0)
    prior = {"hidden_features": 16, "num_steps": 2, "context_norm": True}
    model = ProHMR("resnet-small", size=32, head_features=8, prior=prior).eval()
    body = BodyModel()

    def judged(size):
        found = [
            judge_batch(model, body, batch, PROTOCOLS["3DPW"], counts=(1,)).values
            for batch in batches_of(dataset, size)
        ]
        return {name: torch.cat([each[name] for each in found]).numpy() for name in found[0]}

    together, alone = judged(4), judged(1)
    assert set(together) >= {"mode_mpjpe_mm", "mode_pa_mpjpe_mm", "nll_nats", "entropy_nats"}
    for name in together:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-3, err_msg=name)
