"""Samples of mutants, and the share of all that a sample stands for."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence

from tools.mutate.changes import Mutant

__all__ = ["interval", "stratified"]


def stratified(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """Draw mutants without replacement, from each file in proportion to its number of mutants.

    Args:
        mutants: All mutants.
        count: Number of mutants to draw; all if there are fewer.
        seed: Seed; the same sources and seed give the same mutants.

    Returns:
        The drawn mutants, in random order.
    """
    files: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        files[mutant.path].append(mutant)
    count = min(count, len(mutants))
    shares = {path: count * len(found) / len(mutants) for path, found in files.items()}
    sizes = {path: int(share) for path, share in shares.items()}
    by_remainder = sorted(files, key=lambda path: sizes[path] - shares[path])
    for path in by_remainder[: count - sum(sizes.values())]:
        sizes[path] += 1
    draw = random.Random(seed)
    drawn = [each for path, found in files.items() for each in draw.sample(found, sizes[path])]
    draw.shuffle(drawn)
    return drawn


def interval(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score.

    A sample without replacement, stratified by file, has a somewhat narrower one.

    Args:
        successes: Number of mutants that were noticed.
        count: Number of mutants, at least one.

    Returns:
        Lower and upper limit.

    References:
        Wilson, *Probable Inference, the Law of Succession, and Statistical Inference*, 1927.
    """
    z = 1.959964
    share, extra = successes / count, z * z / count
    centre = share + extra / 2
    half = z * math.sqrt(share * (1 - share) / count + extra / (4 * count))
    return (centre - half) / (1 + extra), (centre + half) / (1 + extra)
