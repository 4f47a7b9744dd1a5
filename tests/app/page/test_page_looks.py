"""What the page looks like in a real browser, on two screens, light and dark, and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from visitor import Enter, Visitor

from benchmarks.page.page_process import Page
from fewclip.samples import digits

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

LOOKS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
# Text that does not fit its box, and boxes that stick out of the window.
CUT = """() => [...document.querySelectorAll(".fc-step *, .fc-steps *, .fc-head *")]
  .filter((e) => e.checkVisibility() && e.getClientRects().length && !e.closest(".fc-scroll, svg"))
  .filter((e) => { const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    const clipped = e.children.length === 0 && e.scrollWidth > e.clientWidth + 1
      && ["hidden", "clip", "scroll", "auto"].includes(style.overflowX) && e.clientWidth > 1;
    return box.right > innerWidth + 1 || box.left < -1 || clipped; })
  .map((e) => e.outerHTML.slice(0, 160))"""


def serious(view: Any) -> list[str]:
    """What axe finds on the page as it is shown, and calls serious or critical."""
    found = Axe().run(view).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


@pytest.fixture(scope="module")
def finished(browser: Any, page: Page, tmp_path_factory: Any) -> Iterator[Visitor]:
    """Someone who has gone through all the steps."""
    with browser.new_context() as context:
        me = Visitor(context, page)
        me.button("Try the example").click()
        me.cards(10)
        me.choose(shots=4, epochs=2)
        me.adapt()
        me.told("job", "Done after 2 epochs")
        photo = tmp_path_factory.mktemp("photo") / "three.png"
        digits.draw("three", 100).save(photo)
        me.upload(me.part("classify-photos"), photo)
        me.answers(1)
        yield me


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_each_step_is_one_screen_whole_and_readable(
    finished: Visitor, width: int, scheme: str
) -> None:
    me = finished
    me.view.set_viewport_size({"width": width, "height": 800})
    me.view.evaluate(f"document.body.classList.toggle('dark', {str(scheme == 'dark').lower()})")
    faults = {}
    for step in ("Images", "Train", "Results", "Try it", "Download"):
        me.step(step)
        me.expect(me.view.locator(".fc-step:visible")).to_have_count(1)
        me.view.wait_for_timeout(400)  # colours change softly
        assert me.view.evaluate("document.documentElement.scrollWidth") <= width
        primary = me.view.locator(":is(.fc-primary, button.primary):visible")
        assert primary.count() <= 1, step
        faults[step] = serious(me.view) + me.view.evaluate(CUT)
    assert {step: found for step, found in faults.items() if found} == {}


@pytest.mark.parametrize("width", [1280, 390])
def test_figures_use_the_width_and_images_are_whole(finished: Visitor, width: int) -> None:
    me = finished
    me.view.set_viewport_size({"width": width, "height": 800})
    me.step("Train")
    inner = me.view.locator("#job").evaluate("e => e.clientWidth")
    assert me.view.locator(".fc-curve svg").evaluate("e => e.clientWidth") > 0.85 * inner
    me.step("Results")
    for image in me.view.locator(".fc-mistake > img").all()[:4]:
        assert image.evaluate("e => e.complete && getComputedStyle(e).objectFit") == "contain"
        above, below = image.bounding_box(), image.locator("+ span").bounding_box()
        assert above["y"] + above["height"] <= below["y"]  # the caption hides nothing of it
    me.view.get_by_role("tab", name="Mix-ups").click()
    matrix = me.view.locator(".fc-matrix")
    me.expect(matrix).to_be_visible()
    sizes = matrix.evaluate("e => [e.clientWidth, e.parentElement.clientWidth]")
    assert sizes[0] <= sizes[1] < 1.02 * sizes[0]  # all of the width, and no more
    me.view.get_by_role("tab", name="Mistakes").click()


def test_the_page_works_by_keyboard_and_the_address_names_the_step(enter: Enter) -> None:
    me = enter()
    me.button("Start over").focus()
    me.view.keyboard.press("Shift+Tab")
    me.expect(me.button("Try the example")).to_be_focused()
    me.view.keyboard.press("Enter")
    me.cards(10)
    me.view.get_by_role("link", name="Continue").press("Enter")
    me.expect(me.view.get_by_role("heading", name="Train")).to_be_focused()
    assert me.view.url.endswith("#step-adapt")
    me.view.go_back()
    me.expect(me.part("step-images")).to_be_visible()
