import pytest
import torch

from examples.heads.features import About, Features
from examples.prohmr.embedded import write_dataset
from flowprior import rotations

DATASETS = ("train", "val", "test")


@pytest.fixture(scope="session")
def painted(made_once):
    """A data set of 60 rendered images, 48 pixels wide; copy it to change it."""
    return made_once("painted", lambda folder: write_dataset(folder, 60, size=48, seed=0))


@pytest.fixture(scope="session")
def people():
    """500 people whose regressor errs by 2 to 40 degrees, as its first feature tells."""
    generator = torch.Generator().manual_seed(0)
    count = 500

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    truth = rotations.rotvec_to_matrix(0.4 * normal(count, 24, 3))
    truth[:, 22:] = torch.eye(3)
    features = 50 + 7 * normal(count, 6)
    size = torch.where(features[:, 0] > 50, 0.7, 0.03)
    error = rotations.rotvec_to_matrix(size[:, None, None] * normal(count, 24, 3) / 3**0.5)
    rows = torch.arange(count)
    return Features(
        features=features,
        answer=truth @ error,
        truth=truth,
        dataset=(rows >= 300).long() + (rows >= 400),
        row=rows,
        subject=rows % 10,
        hidden=(rows % 7).clamp(max=4),
        about=About("made up", "head", DATASETS, tuple(f"person{i}" for i in range(10))),
    )
