"""The page in a browser: nothing overflows, axe-core finds nothing, and it prints.

Needs Debian's chromium and the packages playwright and axe-playwright-python. Pictures of the page
go to the folder that FEDTRAIN_SCREENSHOTS names, for people to look at.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.examples import EXAMPLE

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser")) if path), "")
MISSING = [
    name
    for name, found in {
        "chromium (apt-get install chromium)": CHROMIUM,
        "playwright (pip)": importlib.util.find_spec("playwright"),
        "axe-playwright-python (pip)": importlib.util.find_spec("axe_playwright_python"),
    }.items()
    if not found
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.filterwarnings("default"),  # the browser's driver has its own
]
SIZES = {"desktop": (1280, 900), "phone": (390, 844), "narrow": (320, 640)}
LOOKS = [(size, scheme) for size in SIZES for scheme in ("light", "dark")]
# Elements that reach beyond the window, but for those in a region that scrolls by itself.
OVERFLOWING = """() => [...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  const away = element.closest('.skip') || element.closest('.table') || element.closest('svg');
  return !away && box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map(element => element.tagName + ' ' + element.textContent.slice(0, 60))"""
# Texts of a picture that leave its frame or run into each other.
COLLIDING = """() => [...document.querySelectorAll('svg')].flatMap(picture => {
  const frame = picture.getBoundingClientRect();
  const texts = [...picture.querySelectorAll('text')];
  const boxes = texts.map(text => text.getBoundingClientRect());
  const out = texts.filter((text, i) => boxes[i].right > frame.right + 2
    || boxes[i].left < frame.left - 2).map(text => 'outside: ' + text.textContent);
  texts.forEach((text, i) => texts.slice(i + 1).forEach((other, k) => {
    const a = boxes[i], b = boxes[i + 1 + k];
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 2 && down > 4) out.push(text.textContent + ' / ' + other.textContent);
  }));
  return out;
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def open_page(browser: Any, size: str, scheme: str, **more: Any) -> Any:
    width, height = SIZES[size]
    page = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme=scheme, **more
    )
    page.goto((EXAMPLE / "report.html").as_uri())
    return page


def keep(page: Any, name: str) -> None:
    folder = os.environ.get("FEDTRAIN_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_nothing_overflows(browser, size, scheme):
    page = open_page(browser, size, scheme)
    keep(page, f"{size}-{scheme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate(COLLIDING) == []
    page.close()


@pytest.mark.parametrize(("size", "scheme"), LOOKS[:4])
def test_axe_finds_nothing(browser, size, scheme):
    from axe_playwright_python.sync_playwright import Axe

    # axe is injected, which the page's own policy forbids.
    page = open_page(browser, size, scheme, bypass_csp=True)
    found = Axe().run(page)
    page.close()
    assert not found.response["violations"], found.generate_report()
    assert len(found.response["passes"]) > 20


def test_axe_would_find_something(browser):
    """The check above can fail."""
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(browser, "desktop", "light", bypass_csp=True)
    page.evaluate("document.querySelector('svg').removeAttribute('aria-label')")
    page.evaluate("document.querySelector('svg title').remove()")
    page.evaluate("document.documentElement.removeAttribute('lang')")
    names = {one["id"] for one in Axe().run(page).response["violations"]}
    page.close()
    assert "html-has-lang" in names


def test_page_prints_without_colour_and_within_the_paper(browser, tmp_path):
    page = open_page(browser, "desktop", "light")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 657, "height": 960})  # A4 less its margins
    keep(page, "print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 657
    assert page.evaluate(OVERFLOWING) == []
    wide = page.evaluate(
        "() => [...document.querySelectorAll('.table')].filter(one => one.scrollWidth >"
        " one.clientWidth + 1).map(one => one.textContent.slice(0, 60))"
    )
    assert wide == []
    colour = page.evaluate("getComputedStyle(document.querySelector('svg .curve')).stroke")
    assert colour == "rgb(34, 34, 34)"
    printed = page.pdf(format="A4", prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert 5 <= printed.count(b"/Type /Page\n") <= 30
    page.close()


def test_page_reads_in_the_order_that_it_is_written(browser):
    page = open_page(browser, "phone", "light")
    tree = page.locator("main").aria_snapshot()
    first = [line for line in tree.splitlines() if "heading" in line][:3]
    page.close()
    assert "1. What can be learned about one record is bounded" in first[0]
    assert "rowheader" in tree  # a telephone's blocks are still tables
    assert tree.index("Contents") < tree.index("2. The guarantee")


def test_page_runs_no_script_and_asks_nobody(browser):
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((EXAMPLE / "report.html").as_uri())
    page.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
