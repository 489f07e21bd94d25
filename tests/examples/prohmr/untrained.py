"""Models that have not been trained, with answers that differ from image to image."""

import torch

from examples.prohmr.model import ProHMR

UPRIGHT = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""6D vector of the root of somebody who stands in front of a camera whose y axis points down."""


def untrained(prior, size=32):
    """A small model whose mode is somebody upright, in another pose in each image."""
    torch.manual_seed(0)
    model = ProHMR("resnet-small", size=size, head_features=8, prior=prior).eval()
    head = model.prior.head
    with torch.no_grad():
        head.start[:6] = torch.tensor(UPRIGHT)
        head.direct.weight.normal_(std=0.05)
    return model
