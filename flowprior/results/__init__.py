"""Results of ``flowprior fit``: the file of all people, and what is written from it."""

from flowprior.results.fits import CONFIDENCE_DISTANCE_MM, Fits

__all__ = ["CONFIDENCE_DISTANCE_MM", "Fits"]
