"""Seeds derived from numbers, such as the seed of a training, a step and a process."""

import numpy as np

__all__ = ["seed_of"]


def seed_of(*numbers: int) -> int:
    """Derive a seed from numbers (each at least 0); other numbers give another seed."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0]) >> 1  # torch accepts 63 bits
