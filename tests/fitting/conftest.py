"""Bodies, people and priors shared by the tests of fits."""

import pytest

from flowprior.body import BodyModel
from tests.fitting.people import Priors, random_people


@pytest.fixture(scope="session")
def body():
    return BodyModel()


@pytest.fixture(scope="session")
def people(body):
    return random_people(body, 64)


@pytest.fixture(scope="session")
def priors():
    return Priors()
