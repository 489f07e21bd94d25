"""Seeds from numbers: of a training, a step, a process."""

import numpy as np

__all__ = ["seed_of"]


def seed_of(*numbers: int) -> int:
    """A seed that differs for any other numbers (each 0 or more)."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0]) >> 1  # torch takes 63 bits
