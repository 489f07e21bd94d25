"""Sequences: motions of people from measurements of single frames."""

from flowprior.fitting.sequence.fit import SequenceOptions, fit_sequence
from flowprior.fitting.sequence.rates import DEFAULT_RATES, MotionRates
from flowprior.fitting.sequence.result import SequenceFit
from flowprior.fitting.sequence.rig import PointRig, rig_of

__all__ = [
    "DEFAULT_RATES",
    "MotionRates",
    "PointRig",
    "SequenceFit",
    "SequenceOptions",
    "fit_sequence",
    "rig_of",
]
