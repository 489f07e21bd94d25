"""Results of ``flowprior fit``: the file of all people, and what is written from it."""

from flowprior.results.fits import CONFIDENCE_DISTANCE_MM, Fits
from flowprior.results.motion.amass_file import AmassMotion, read_amass, write_amass
from flowprior.results.motion.animated_glb import write_animated_glb
from flowprior.results.motion.bvh_file import write_bvh

__all__ = [
    "CONFIDENCE_DISTANCE_MM",
    "AmassMotion",
    "Fits",
    "read_amass",
    "write_amass",
    "write_animated_glb",
    "write_bvh",
]
