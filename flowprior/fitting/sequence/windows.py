"""Windows of frames: long sequences in overlapping parts, live ones in causal parts."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Windows", "overlapping_windows", "trailing_windows"]


@dataclass(frozen=True)
class Windows:
    """Windows of L frames over sequences of P people.

    Args:
        person: (B,) person of each window.
        frame: (B, L) frames, clamped to the sequence.
        inside: (B, L) bool, whether the frame lies in the sequence.
        keep: (B, L) bool, whether the window provides the result of the frame. Each frame of each
            person is kept once.
    """

    person: Tensor
    frame: Tensor
    inside: Tensor
    keep: Tensor

    def __len__(self) -> int:
        return len(self.person)

    def __getitem__(self, rows: Tensor) -> "Windows":
        return Windows(self.person[rows], self.frame[rows], self.inside[rows], self.keep[rows])

    def gather(self, value: Tensor) -> Tensor:
        """(P, T, ...) -> (B, L, ...)."""
        return value[self.person[:, None], self.frame]

    def scatter(self, value: Tensor, into: Tensor) -> None:
        """Write the kept frames of (B, L, ...) to (P, T, ...)."""
        keep = self.keep
        into[self.person[:, None].expand_as(keep)[keep], self.frame[keep]] = value[keep]


def overlapping_windows(people: int, frames: int, length: int, overlap: int) -> Windows:
    """Windows of equal length that overlap by about ``2 * overlap``, of which half are kept.

    Args:
        people: Number P of people.
        frames: Number T of frames.
        length: Largest number of frames of a window.
        overlap: Frames at each inner end whose results come from the next window.
    """
    shared = 2 * overlap
    count = max(1, -(-(frames - shared) // max(1, length - shared)))
    length = min(frames, -(-(frames + (count - 1) * shared) // count))
    starts = [round(number * (frames - length) / max(1, count - 1)) for number in range(count)]
    ends = [(a + length + b + 1) // 2 for a, b in itertools.pairwise(starts)]
    ends = [0, *ends, frames]
    frame = torch.tensor(starts)[:, None] + torch.arange(length)
    keep = torch.stack(
        [(row >= a) & (row < b) for row, a, b in zip(frame, ends, ends[1:], strict=False)]
    )
    person = torch.arange(people).repeat_interleave(len(starts))
    return Windows(
        person,
        frame.repeat(people, 1),
        torch.ones_like(keep).repeat(people, 1),
        keep.repeat(people, 1),
    )


def trailing_windows(people: int, frames: int, length: int, lag: int) -> Windows:
    """For each frame, the window that ends ``lag`` frames after it.

    Args:
        people: Number P of people.
        frames: Number T of frames.
        length: Number of frames of a window.
        lag: Frames that a result waits for.
    """
    last = torch.arange(frames)[:, None] + lag
    frame = last + torch.arange(1 - length, 1)
    inside = (frame >= 0) & (frame < frames)
    keep = frame == last - lag
    person = torch.arange(people).repeat_interleave(frames)
    clamped = frame.clamp(0, frames - 1)
    return Windows(
        person, clamped.repeat(people, 1), inside.repeat(people, 1), keep.repeat(people, 1)
    )
