"""The priors that take part."""

from benchmarks.priors.methods.base import Method
from benchmarks.priors.methods.diffusion import Diffusion
from benchmarks.priors.methods.flow import Flow
from benchmarks.priors.methods.matching import Matching
from benchmarks.priors.methods.mixture import Mixture
from benchmarks.priors.methods.ours import Ours, Shipped
from benchmarks.priors.methods.vae import Vae

__all__ = ["METHODS", "Method"]

METHODS: dict[str, type[Method]] = {
    each.name: each for each in (Vae, Mixture, Diffusion, Matching, Flow, Ours, Shipped)
}
"""By name, in the order of the tables."""
