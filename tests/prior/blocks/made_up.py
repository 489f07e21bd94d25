"""Small priors of bodies and hands."""

import copy

import torch

from flowprior import ConditionalPosePrior

SMALL = {"hidden_features": 8, "num_steps": 2, "head_features": 8}
BODY, LEFT, RIGHT = slice(0, 22), slice(22, 37), slice(37, 52)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randomised(prior, seed=0):
    """Random weights and the spread of small rotations, instead of an untrained flow."""
    noise = generator(seed)
    with torch.no_grad():
        for name, weight in prior.named_parameters():
            if "actnorm" not in name or (prior.space.name == "so3" and "context" in name):
                weight.add_(0.03 * torch.randn(weight.shape, generator=noise))
        width = prior.context_features
        context = torch.randn(64, width, generator=noise) if width else None
        centre = torch.zeros(64, prior.space.joints, 3) if prior.space.name == "so3" else None
        if centre is not None:  # the first call sets ActNorm
            poses = 0.2 * torch.randn(centre.shape, generator=noise)
            prior.train().nll(poses, context, centre=centre, generator=noise)
    return prior.eval()


def body_prior(seed=0, **options):
    options = {"context_features": 4, "rest_joints": (22, 23), **SMALL, **options}
    return randomised(ConditionalPosePrior(**options), seed)


def hand_prior(seed=1, **options):
    """A hand that reads four numbers and the arm."""
    options = {"context_features": 16, "joints": 15, **SMALL, **options}
    return randomised(ConditionalPosePrior(**options), seed)


def evidence_hand(seed=2):
    return hand_prior(seed, context_features=None, evidence=("rotations",), encoder_features=8)


def rotation_vectors(*shape, seed=4):
    return 0.4 * torch.randn(*shape, 3, generator=generator(seed))


def prior_in_double(prior):
    return copy.deepcopy(prior).double().eval()
