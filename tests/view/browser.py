"""A headless Chromium that draws with the processor, for tests and for pictures of the pages."""

import contextlib
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
# Evaluates to the number of frames in a quarter of a second.
FRAMES = """new Promise((done) => {
  let count = 0;
  const start = performance.now();
  (function frame() {
    count += 1;
    if (performance.now() - start > 250) done(count);
    else requestAnimationFrame(frame);
  })();
})"""


def chromium_path():
    """Path of the browser; None without one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def launched(path):
    """A running browser, as Playwright drives it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
