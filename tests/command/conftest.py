"""Quick fits: few iterations with the shipped prior, and one copy of it."""

import functools
import json

import pytest

from flowprior.command import fit, sequence
from flowprior.prior.conditional import ConditionalPosePrior
from flowprior.results.estimator import Estimator
from flowprior.results.sequences import SequenceEstimator

# Reading the shipped prior takes most of the time of a small fit.
read_prior = functools.cache(ConditionalPosePrior.from_pretrained)


@pytest.fixture(autouse=True)
def _quick_estimator(monkeypatch):
    def quick(prior, body, **options):
        return Estimator(read_prior(prior), body, max_iterations=4, **options)

    def smooth(prior, body, **options):
        return SequenceEstimator(read_prior(prior), body, **options)

    monkeypatch.setattr(fit, "Estimator", quick)
    monkeypatch.setattr(sequence, "SequenceEstimator", smooth)


@pytest.fixture
def coco_file(tmp_path):
    """Write a file of COCO results with people in images; returns its path."""

    def write(images, name="keypoints.json", people=1):
        from tests.command.painted import keypoints

        points = keypoints(images)
        entries = [
            {
                "image_id": f"photo{image}.png",
                "category_id": 1,
                "keypoints": [round(v, 2) for v in points[image].reshape(-1).tolist()],
                "score": 0.9,
            }
            for image in range(images)
            for _ in range(people)
        ]
        path = tmp_path / name
        path.write_text(json.dumps(entries))
        return path

    return write
