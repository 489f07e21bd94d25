"""Take the pictures of the page and the viewer, of the bodies in ``examples/keypoints``.

Run as ``python docs/drawings/view_pictures.py``. It needs Chromium, Playwright and viser.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flowprior.results import Fits
from flowprior.skeleton import SMPL_24
from flowprior.view.page import write_page
from flowprior.view.viewer import Viewer
from tests.view.browser import FRAMES, chromium_path, launched

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "_static" / "view"
WIDE, NARROW = (1280, 760), (390, 844)
PORT = 8791


def fitted(folder):
    """The fits of the example keypoints."""
    source = ROOT / "examples" / "keypoints"
    command = [sys.executable, "-m", "flowprior", "fit", str(source), "--out", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT)
    return Fits.load(folder)


def draw_page(browser, fits, folder, work):
    """The page, wide and light with the samples, narrow and dark with the spread."""
    write_page(fits, work / "index.html", title="People from keypoints")
    for name, size, scheme, boxes in (
        ("page.png", WIDE, "light", ["#samples"]),
        ("page_narrow.png", NARROW, "dark", ["#spread"]),
    ):
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        page.goto((work / "index.html").as_uri())
        page.wait_for_selector('body[data-shown="0/0/0"]')
        for box in boxes:
            page.check(box)
        page.evaluate("scene.look(-0.6, -0.15)")
        page.wait_for_timeout(300)
        page.screenshot(path=folder / name, full_page=size == NARROW)
        page.close()


def draw_viewer(browser, fits, folder):
    """The viewer, before and after a wrist is placed."""
    with Viewer(fits, port=PORT) as viewer:
        page = browser.new_page(viewport={"width": WIDE[0], "height": WIDE[1]})
        page.goto(viewer.url)
        while not viewer.clients() or page.evaluate(FRAMES) < 6:
            time.sleep(0.1)
        wrist = SMPL_24.index("left_wrist")
        place = viewer.stage.body_on_screen()[1][wrist] + [0.05, -0.35, -0.1]
        viewer.place(wrist, place)
        viewer.show_all_samples(True)
        while not viewer.is_idle():
            time.sleep(0.1)
        # Chromium draws on the processor here, of which viser warns.
        page.add_style_tag(content='[class*="Notification"] { display: none }')
        page.wait_for_timeout(3000)
        page.screenshot(path=folder / "viewer.png")
        page.close()


def main(folder=FOLDER):
    """Take all pictures."""
    path = chromium_path()
    if path is None:
        raise SystemExit("no Chromium is installed")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, launched(path) as browser:
        fits = fitted(Path(work) / "fits")
        draw_page(browser, fits, folder, Path(work))
        draw_viewer(browser, fits, folder)


if __name__ == "__main__":
    main()
