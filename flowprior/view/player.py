"""The time of a sequence in the viewer: a slider and a button that plays the images in order."""

import threading
import time
from collections.abc import Callable
from typing import Any

from flowprior.results import Fits

__all__ = ["Player"]

IMAGES_PER_SECOND = 5.0
"""Of images that are no sequence."""


class Player:
    """A slider over the images and a button that plays them, at the frame rate of a sequence.

    Images are shown by the clock: where the browser or the network is slow, some are left out.

    Args:
        gui: The panel of ``viser``.
        fits: The people.
        show: Shows an image by its name; it returns at once.
    """

    def __init__(self, gui: Any, fits: Fits, show: Callable[[str], None]) -> None:  # noqa: ANN401
        self.images, self.rate = fits.images, fits.fps or IMAGES_PER_SECOND
        self._show = show
        self._place = {image: place for place, image in enumerate(self.images)}
        last = max(1, len(self.images) - 1)
        self._slider = gui.add_slider("Frame", 0, last, 1, 0)
        self._button = gui.add_button("Play")
        self._slider.visible = self._button.visible = len(self.images) > 1
        self._shown = threading.Event()
        self._end: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def listen(self) -> None:
        """React to the slider and the button."""

        @self._slider.on_update  # type: ignore[untyped-decorator]
        def _(event: Any) -> None:  # noqa: ANN401, viser's
            if event.client is not None:  # not the program itself
                self._show(self.images[int(event.target.value)])

        self._button.on_click(lambda _: self.stop() if self._thread else self.start())

    def show(self, image: str) -> None:
        """An image is on the screen: set the slider."""
        place = self._place[image]
        if self._slider.value != place:
            self._slider.value = place
        self._shown.set()

    def start(self) -> None:
        """Play, from the beginning again after the last image."""
        if self._thread is None and len(self.images) > 1:
            self._end = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._end,), daemon=True)
            self._thread.start()
            self._button.label = "Pause"

    def stop(self) -> None:
        """Stop playing."""
        if self._thread is not None and self._end is not None:
            self._end.set()
            self._thread.join()
            self._thread = None
            self._button.label = "Play"

    def _run(self, end: threading.Event) -> None:
        first, start = int(self._slider.value), time.monotonic()
        before = first
        while not end.wait(1 / self.rate / 4):
            passed = int((time.monotonic() - start) * self.rate)
            now = (first + passed) % len(self.images)
            if now == before:
                continue
            before = now
            self._shown.clear()
            self._show(self.images[now])
            while not end.is_set() and not self._shown.wait(0.1):
                pass  # one image at a time
