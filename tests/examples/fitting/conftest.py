"""Priors that have hardly been trained: enough for everything but good fits."""

import pytest
import torch

from examples.fitting.choices import PriorFolder
from examples.fitting.priors import KeypointPrior
from examples.fitting.synthetic import photograph_bodies
from examples.fitting.train_prior import (
    CONDITIONAL,
    MIXTURE,
    UNCONDITIONAL,
    fit_mixture,
    train_conditional,
    train_unconditional,
)
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.files.model_folder import BUNDLED
from tests.fitting.people import Priors


@pytest.fixture(scope="session")
def poses():
    """Rotation vectors (400, 24, 3) of people who move a little."""
    generator = torch.Generator().manual_seed(7)
    return 0.25 * torch.randn(400, 24, 3, generator=generator)


@pytest.fixture(scope="session")
def prior_dir(tmp_path_factory, poses, body):
    out = tmp_path_factory.mktemp("priors")
    torch.manual_seed(0)
    model = KeypointPrior(width=64, hidden_features=64)
    train_conditional(model, poses, body, 4, seed=0)
    (out / CONDITIONAL).mkdir()
    model.save(out / CONDITIONAL)
    free = ConditionalPosePrior(0, joints=23, hidden_features=64)
    train_unconditional(free, poses, 4, seed=0)
    free.save(out / UNCONDITIONAL)
    fit_mixture(poses[:, 1:].flatten(1), components=2).save(out / MIXTURE)
    return out


@pytest.fixture(scope="session")
def priors(prior_dir):
    return PriorFolder(prior_dir, torch.device("cpu"))


@pytest.fixture(scope="session")
def body():
    return BodyModel()


@pytest.fixture(scope="session")
def people(body):
    """64 people before cameras, with every keypoint seen."""
    generator = torch.Generator().manual_seed(0)
    rotvecs = 0.25 * torch.randn(64, 24, 3, generator=generator)
    return photograph_bodies(rotvecs, body, generator)


@pytest.fixture(scope="session")
def hardly_trained(tmp_path_factory):
    """Folders of priors that take evidence, by the names of those of the library."""
    folder = tmp_path_factory.mktemp("library")
    priors = Priors()
    for name, prior in (("people", priors.people), ("body-pose", priors.body_pose)):
        prior.save_pretrained(folder / name)
    return {f"flowprior/{name}": folder / name for name in ("people", "body-pose")}


@pytest.fixture
def library(hardly_trained, monkeypatch):
    """A library that ships hardly trained priors."""
    for name, folder in hardly_trained.items():
        monkeypatch.setitem(BUNDLED, name, folder)
    return hardly_trained
