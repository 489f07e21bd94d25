"""A headless Chromium, where the machine has one, and pages that report their errors."""

import io
import shutil

import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)


@pytest.fixture(scope="session")
def chromium():
    """A browser with WebGL on the processor."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium is installed: none of {', '.join(NAMES)}")
    playwright = pytest.importorskip("playwright.sync_api", reason="flowprior[dev] has Playwright")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """An open page and what went wrong on it."""

    def __init__(self, browser, *, width=900, height=700, scheme="light", offline=False):
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, offline=offline
        )
        self.page = self.context.new_page()
        self.errors, self.requests = [], []
        self.page.on("console", self._log)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _log(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def shot(self, selector="canvas"):
        """The pixels (H, W, 3) of an element."""
        images = pytest.importorskip("PIL.Image")
        png = self.page.locator(selector).first.screenshot()
        return np.asarray(images.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.fixture
def visit(chromium):
    """Open pages with ``visit(width=..., scheme=...)``; they are closed after the test."""
    opened = []

    def open_one(**options):
        opened.append(Visit(chromium, **options))
        return opened[-1]

    yield open_one
    for each in opened:
        each.context.close()


def share_of(pixels, colour, tolerance=60):
    """Share of pixels whose hue is near that of a colour, whatever the light."""
    direction = np.asarray(colour, float) / np.linalg.norm(colour)
    length = np.linalg.norm(pixels, axis=-1)
    away = np.linalg.norm(pixels - length[..., None] * direction, axis=-1)
    return float(((away < tolerance / 255 * length) & (length > 60)).mean())
