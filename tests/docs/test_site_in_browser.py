"""The built site in a browser: widths, colour schemes, errors, navigation and search.

Reads ``docs/_build/html``, which ``make docs`` writes; skips without it or without Chromium.
"""

import contextlib
import functools
import http.server
import itertools
import threading

import pytest

from tests.docs.pages import ROOT

SITE = ROOT / "docs" / "_build" / "html"
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
# Elements that reach beyond the window and cannot be scrolled into view on their own.
OVERFLOWING = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll("body *")]
    .filter((each) => each.getBoundingClientRect().right > width + 1)
    .slice(0, 5)
    .map((each) => each.tagName + " " + (each.textContent || "").trim().slice(0, 40))
    .concat("page of " + document.documentElement.scrollWidth + " pixels");
}"""
# The contrast of code with its background, from the colours that the page computes.
CONTRAST = """() => {
  const block = document.querySelector("div.highlight pre");
  if (!block) return 21;
  const channels = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
  const light = (text) => {
    const [r, g, b] = channels(text).map((each) => {
      const share = each / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = block;
  const clear = (each) => /, 0\\)$|transparent/.test(getComputedStyle(each).backgroundColor);
  while (behind.parentElement && clear(behind)) behind = behind.parentElement;
  const values = [light(getComputedStyle(block).color),
                  light(getComputedStyle(behind).backgroundColor)].sort();
  return (Math.max(...values) + 0.05) / (Math.min(...values) + 0.05);
}"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="no built site: make docs"),
]


def pages():
    """Paths of the pages that the build wrote, without generated code listings."""
    paths = (path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    left_out = ("_modules/", "_static/", "genindex", "py-modindex", "search")
    return sorted(path for path in paths if not path.startswith(left_out))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves the site without a log."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    """Address of a server of the site on this machine; search needs one."""
    handler = functools.partial(QuietHandler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def window(chromium, address):
    """A window of the site, and its errors; addresses elsewhere answer with nothing."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    errors = []
    page.route(
        lambda url: not url.startswith(address), lambda route: route.fulfill(status=200, body="")
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    yield page, errors
    context.close()


def test_pages_fit_the_window_without_errors(chromium, address):
    wrong = {}
    with window(chromium, address) as (page, errors):
        for path in pages():
            page.goto(f"{address}/{path}", wait_until="load")
            for width, scheme in itertools.product(WIDTHS, SCHEMES):
                page.set_viewport_size({"width": width, "height": 800})
                page.emulate_media(color_scheme=scheme)
                found = page.evaluate(OVERFLOWING)
                if page.evaluate(CONTRAST) < 4.5:
                    found.append("code of low contrast")
                if found:
                    wrong[f"{path} {width} {scheme}"] = found
            if errors:
                wrong[path] = errors.copy()
            errors.clear()
    assert wrong == {}


def test_overflow_is_found(chromium, address):
    with window(chromium, address) as (page, _):
        page.goto(f"{address}/index.html")
        page.evaluate("document.querySelector('article p').style.width = '3000px'")
        found = page.evaluate(OVERFLOWING)
    assert found[-1].startswith("page of 3")
    assert any(each.startswith("P ") for each in found)


def test_every_page_is_reached_from_the_navigation(chromium, address):
    with window(chromium, address) as (page, _):
        page.goto(f"{address}/index.html")
        script = "links => links.map((each) => new URL(each.href).pathname.slice(1))"
        linked = set(page.eval_on_selector_all(".sidebar-tree a", script))
        page.goto(f"{address}/api/index.html")
        linked |= set(page.eval_on_selector_all(".sidebar-tree a", script))
        linked |= {"index.html", ""}
    unreached = [
        path for path in pages() if path not in linked and not path.startswith("auto_gallery/")
    ]
    assert unreached == []
    assert [path for path in linked if path and not (SITE / path).is_file()] == []


@pytest.mark.parametrize("word", ["sample", "6D", "OpenPose"])
def test_search_finds(chromium, address, word):
    with window(chromium, address) as (page, errors):
        page.goto(f"{address}/search.html?q={word}")
        page.wait_for_selector("#search-results li a", timeout=30_000)
        titles = page.eval_on_selector_all(
            "#search-results li a", "links => links.map((each) => each.textContent)"
        )
        assert titles
        assert errors == []
