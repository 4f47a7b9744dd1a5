"""Screenshots for the documentation, taken from the running page itself. No checks.

    python -m benchmarks.page.screenshots [--out out/screenshots]

Each step at 1280 and at 390 pixels, light and dark; a PNG of up to 256 colours stays small. Those
that README and documentation show are copied to docs/.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.page.page_process import Page, chromium_path, launch
from fewclip.samples import digits

PATIENCE = 1_200_000.0  # milliseconds
WIDTHS = (1280, 390)
IN_DOCS = ("images-1280.png", "results-1280.png", "classify-1280.png", "why-results-1280.png")
DOCS = Path(__file__).parents[2] / "docs"
TALLEST = 1400  # pixels: the tallest screenshot that people still look at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/screenshots"))
    arguments = parser.parse_args()
    if chromium_path() is None:
        raise SystemExit("Chromium is missing: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    arguments.out.mkdir(parents=True, exist_ok=True)
    with Page() as page, sync_playwright() as playwright:
        browser = launch(playwright)
        view = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
        view.set_default_timeout(PATIENCE)
        view.goto(page.url)
        take_every_step(view, arguments.out)
        browser.close()
    DOCS.mkdir(exist_ok=True)
    for name in IN_DOCS:
        shutil.copyfile(arguments.out / name, DOCS / name)


def take_every_step(view: Any, out: Path) -> None:
    """Go through the page once, and capture each step in every style."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    view.locator(".fc-card").nth(1).wait_for()
    shoot(view, out, "images", "empty-")
    view.get_by_role("button", name="Try the example").click()
    expect(view.locator(".fc-card img")).not_to_have_count(0)
    expect(view.locator("#image-summary")).to_contain_text("Ready")
    with tempfile.TemporaryDirectory() as folder:  # one that is in the wrong class
        file = Path(folder) / "eight-25.png"
        digits.draw("zero", 60).save(file)
        view.locator(".fc-card").first.locator("input[type=file]").set_input_files(file)
        expect(view.locator("#image-review")).to_contain_text("Before you train")
        expect(view.locator(".fc-card").first).to_contain_text("It looks more like")
    shoot(view, out, "images")
    go(view, "adapt")
    view.get_by_role("button", name="Train", exact=True).click()
    expect(view.locator("#job")).to_contain_text("Trying")
    shoot(view, out, "adapt")
    expect(view.locator("#job")).to_contain_text("Done")
    expect(view.locator("#headline")).to_contain_text("After")
    go(view, "results")
    expect(view.locator(".fc-mistake").first).to_be_visible()
    shoot(view, out, "results")
    view.locator(".fc-mistake").first.click()
    expect(view.locator("#mistakes .fc-heat img")).to_have_count(2)
    shoot(view, out, "results", "why-")
    view.keyboard.press("Escape")
    view.get_by_role("tab", name="Mix-ups").click()
    shoot(view, out, "results", "mix-ups-")
    go(view, "classify")
    with tempfile.TemporaryDirectory() as folder:
        images = (digits.draw("zero", 93), digits.draw("seven", 101), house())
        files = [Path(folder) / f"{name}.png" for name in ("zero", "seven", "house")]
        for file, image in zip(files, images, strict=True):
            image.save(file)
        view.locator("#classify-photos input[type=file]").first.set_input_files(files)
        expect(view.locator("#answers .fc-answer")).to_have_count(len(files))
    shoot(view, out, "classify")
    view.get_by_label("More classes, by name alone").fill("a house")
    view.keyboard.press("Enter")
    expect(view.locator("#answers")).to_contain_text("a house")
    shoot(view, out, "classify", "typed-")
    view.get_by_role("button", name="Why?").last.click()
    expect(view.locator("#answers .fc-heat img")).to_have_count(1)
    shoot(view, out, "classify", "why-")
    view.keyboard.press("Escape")
    go(view, "download")
    view.get_by_role("button", name="Prepare the files").click()
    expect(view.locator("#download-status")).to_contain_text("Ready")
    shoot(view, out, "download")


def go(view: Any, step: str) -> None:
    """Show another step."""
    view.evaluate(f"location.hash = '#step-{step}'")
    view.locator(f"#step-{step}").wait_for()


def house() -> Image.Image:
    """An image that resembles no class of the example."""
    picture = Image.new("RGB", (256, 256), (150, 205, 255))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 180, 256, 256), fill=(90, 170, 80))
    pen.ellipse((190, 20, 240, 70), fill=(255, 220, 60))
    pen.rectangle((70, 120, 180, 210), fill=(235, 225, 205))
    pen.polygon([(55, 120), (125, 60), (195, 120)], fill=(190, 60, 50))
    pen.rectangle((110, 155, 140, 210), fill=(110, 70, 40))
    return picture


def whole_rows(view: Any, step: str) -> int:
    """The height up to TALLEST at which no row of a step is cut, pixels."""
    ends = view.locator(f"#step-{step} :is(.fc-card, .fc-mistake, .fc-answer)").evaluate_all(
        "(all, step) => all.map(e => e.getBoundingClientRect().bottom -"
        " document.querySelector(step).getBoundingClientRect().top)",
        f"#step-{step}",
    )
    return round(max((end for end in ends if end <= TALLEST), default=TALLEST)) + 6


def shoot(view: Any, out: Path, step: str, kind: str = "") -> None:
    """One step at both widths, light and dark, as NAME-WIDTH.png and NAME-WIDTH-dark.png."""
    for width in WIDTHS:
        view.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            view.evaluate(
                f"document.body.classList.toggle('dark', {str(scheme == 'dark').lower()})"
            )
            view.mouse.move(0, 0)
            view.wait_for_timeout(400)  # colour transitions
            shot = Image.open(io.BytesIO(view.locator(f"#step-{step}").screenshot()))
            height = shot.height if shot.height <= TALLEST else whole_rows(view, step)
            picture = shot.convert("RGB").crop((0, 0, shot.width, height))
            name = f"{kind}{step}-{width}{'-dark' if scheme == 'dark' else ''}.png"
            picture.quantize(256, dither=Image.Dither.NONE).save(out / name, optimize=True)
    view.evaluate("document.body.classList.remove('dark')")
    view.set_viewport_size({"width": WIDTHS[0], "height": 900})


if __name__ == "__main__":
    main()
