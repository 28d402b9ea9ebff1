"""The picture of a report in the README: the top of the page in light, its galleries in dark, side by side.

    python examples/screenshot.py RUN/report.html docs/images/report.png

Needs ``pip install playwright`` and Debian's chromium (``apt-get install chromium``).
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH_PX, HEIGHT_PX = 800, 1067


def main(page_path: Path, output: Path) -> None:
    """Write ``output``; both halves are the same page."""
    halves = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for scheme, anchor in (("light", ""), ("dark", "#galleries")):
            page = browser.new_page(color_scheme=scheme, viewport={"width": WIDTH_PX - 8, "height": HEIGHT_PX})
            page.goto(page_path.resolve().as_uri() + anchor)
            halves.append(Image.open(io.BytesIO(page.screenshot())))
        browser.close()
    both = Image.new("RGB", (2 * WIDTH_PX, HEIGHT_PX), "white")
    both.paste(halves[0], (0, 0))
    both.paste(halves[1], (WIDTH_PX + 8, 0))
    output.parent.mkdir(parents=True, exist_ok=True)
    both.quantize(128).save(output, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
