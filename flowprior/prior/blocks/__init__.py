"""Densities of whole poses, composed of a body and its hands."""

from flowprior.prior.blocks.layout import BLOCKS
from flowprior.prior.blocks.posterior import BlockPosterior
from flowprior.prior.blocks.prior import BlockPrior

__all__ = ["BLOCKS", "BlockPosterior", "BlockPrior"]
