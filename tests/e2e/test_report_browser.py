"""The report in a real browser: nothing leaves the page, sorting and cells work, dark and narrow layouts hold.

Needs Debian's chromium (``apt-get install chromium``); playwright drives it without a browser of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from finetune.metrics import evaluate
from finetune.metrics.predictions import Predictions
from finetune.report.curves import Phase
from finetune.report.html import HtmlReport
from finetune.report.subject import Subject

pytestmark = pytest.mark.slow

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert Path(CHROMIUM).exists(), "this test needs Debian's browser: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """``report_of(num_classes)``: the page of 400 made predictions with pictures, curves and Grad-CAM maps."""

    def write(num_classes: int) -> Path:
        rng = np.random.default_rng(0)
        targets_N = rng.integers(0, num_classes, 400)
        logits_NK = rng.normal(size=(400, num_classes)).astype(np.float32)
        logits_NK[np.arange(400), targets_N] += 2.0
        paths = tuple(f"{row:04d}.jpg" for row in range(400))
        classes = tuple(f"class {number}" for number in range(num_classes))
        predictions = Predictions(paths, logits_NK, targets_N, classes, 1.4)
        directory = tmp_path_factory.mktemp("report")
        lines = [f"{epoch},{2 - epoch / 10},{1.9 - epoch / 12},{epoch / 10},{0.1 / (epoch + 1)}" for epoch in range(9)]
        header = "epoch,train/loss,val/loss,val/balanced_accuracy,train/lr"
        (directory / "metrics.csv").write_text("\n".join([header, *lines]) + "\n")
        subject = Subject(
            title="made",
            split="test",
            predictions=predictions,
            evaluation=evaluate(predictions, resamples=50),
            read=lambda row: np.full((64, 64, 3), row % 256, dtype=np.uint8),
            maps=lambda images, _: np.ones((len(images), 64, 64), dtype=np.float32),
            phases=(Phase(0, 3, "head"), Phase(3, 9, "everything")),
        )
        return HtmlReport().write(directory, subject)

    return write


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page; at the end of the test nothing may have been asked of a network or said on the console."""
    complaints: list[str] = []
    requests: list[str] = []
    contexts = []

    def open_page(path: Path, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("num_classes", [3, 200])
def test_choosing_a_cell_shows_its_images(
    report_of: Callable[[int], Path], opened: Callable[..., Page], num_classes: int
) -> None:
    page = opened(report_of(num_classes))
    assert page.locator("#cell").is_hidden()
    link = page.locator(".matrix a").first
    name = str(link.get_attribute("aria-label"))
    link.click()
    images = int(name.rpartition(": ")[2])
    expect(page.locator("#cell")).to_be_visible()
    assert f": {images} image" in page.locator("#cell-title").inner_text()
    assert page.locator("#cell-images figure").count() == min(images, 24)
    expect(page.locator("#cell-images img").first).to_have_js_property("complete", True)
    assert page.locator("#cell-images img").first.evaluate("image => image.naturalWidth") > 0
    labels = page.locator(".matrix text").all_text_contents()
    assert {f"class {number}" for number in range(num_classes)} <= set(labels)


def test_a_cell_can_be_reached_and_opened_with_the_keyboard(
    report_of: Callable[[int], Path], opened: Callable[..., Page]
) -> None:
    page = opened(report_of(3))
    page.locator(".matrix-box").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#cell")).to_be_visible()
    expect(page.locator("#cell")).to_be_focused()


def test_the_class_table_sorts_up_and_down(report_of: Callable[[int], Path], opened: Callable[..., Page]) -> None:
    page = opened(report_of(200))
    column = page.locator("#class-table tbody td:nth-child(5)")
    button = page.locator("#class-table th:nth-child(5) button")
    for direction in ("ascending", "descending"):
        button.click()
        assert page.locator("#class-table th:nth-child(5)").get_attribute("aria-sort") == direction
        recalls = [float(text) for text in column.all_inner_texts()]
        assert recalls == sorted(recalls, reverse=direction == "descending")
        assert len(set(recalls)) > 3
    page.locator("#class-table th:nth-child(1) button").click()
    names = page.locator("#class-table tbody th").all_inner_texts()
    assert names == [f"class {number}" for number in range(200)]  # by number, not 1, 10, 100


@pytest.mark.parametrize("num_classes", [3, 200])
def test_nothing_sticks_out_of_a_phone(
    report_of: Callable[[int], Path], opened: Callable[..., Page], num_classes: int
) -> None:
    page = opened(report_of(num_classes), viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def contrast(page: Page, selector: str) -> float:
    """WCAG contrast of a text with the card behind it."""
    colours = page.evaluate(
        """selector => [getComputedStyle(document.querySelector(selector)).color,
                        getComputedStyle(document.querySelector("section")).backgroundColor]""",
        selector,
    )
    light = []
    for colour in colours:
        channels = np.array([float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_text_is_readable_in_light_and_in_dark_and_the_button_switches(
    report_of: Callable[[int], Path], opened: Callable[..., Page]
) -> None:
    path = report_of(3)
    backgrounds = {}
    for scheme in ("light", "dark"):
        page = opened(path, color_scheme=scheme)
        for selector in ("h1", ".muted", "section a", ".card .path"):
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        tick = "getComputedStyle(document.querySelector('.curves text')).fill"
        ink = page.evaluate(tick)
        backgrounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.locator("#theme").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != backgrounds[scheme]
        assert page.evaluate(tick) != ink
    assert backgrounds["light"] != backgrounds["dark"]
