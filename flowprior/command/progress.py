"""Progress on standard error: one line that is rewritten on a terminal, else lines in a log."""

import sys
import time
from typing import TextIO

__all__ = ["Progress"]

_TERMINAL_SECONDS, _LOG_SECONDS = 0.2, 10.0


class Progress:
    """Counts images and people.

    Args:
        total: Number of images; 0 if unknown.
        quiet: Whether to print nothing.
        stream: Standard error if None.
    """

    def __init__(self, total: int, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.total, self.quiet = total, quiet
        self.stream = stream or sys.stderr
        self.images = self.people = self.before = 0
        self.start = self.shown = time.monotonic()
        self.is_terminal = self.stream.isatty()

    def resume(self, images: int, people: int) -> None:
        """Count what earlier runs finished."""
        self.images, self.people, self.before = images, people, images

    def add(self, images: int, people: int) -> None:
        """Count finished images and people."""
        self.images += images
        self.people += people
        now = time.monotonic()
        pause = _TERMINAL_SECONDS if self.is_terminal else _LOG_SECONDS
        if not self.quiet and (now - self.shown >= pause or self.images == self.total):
            self.shown = now
            self._print(self.line(now - self.start))

    def line(self, seconds: float) -> str:
        """The state after some seconds: "12/40 images, 31 people, 20 s, about 47 s left"."""
        of = f"/{self.total}" if self.total else ""
        text = f"{self.images}{of} images, {self.people} people, {_duration(seconds)}"
        done = self.images - self.before
        if self.total > self.images and done:
            text += f", about {_duration(seconds / done * (self.total - self.images))} left"
        return text

    def close(self) -> None:
        """End the line."""
        if self.is_terminal and not self.quiet:
            self.stream.write("\n")
            self.stream.flush()

    def _print(self, text: str) -> None:
        self.stream.write(f"\r\x1b[K{text}" if self.is_terminal else f"{text}\n")
        self.stream.flush()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole / 3600:.1f} h"
