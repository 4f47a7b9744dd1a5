"""Images on their way into the page, in a real browser: many at once, and from the camera."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from visitor import Enter

from benchmarks.page.page_process import Page
from fewclip.samples import digits

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


# Every image that is on the page without a click has arrived.
LOADED = """() => [...document.querySelectorAll(".fc-card > .fc-thumbs img")]
  .every((image) => image.complete && image.naturalWidth > 0)"""


def test_three_classes_of_twenty_in_quick_succession(
    enter: Enter, page: Page, tmp_path: Path
) -> None:
    before = len(page.log())
    me = enter()
    refused: list[str] = []
    me.view.on("response", lambda r: refused.append(r.url) if r.status >= 400 else None)
    me.button("+ Add a class").click()
    names = ("one", "two", "three")
    for name, card in zip(names, me.cards(3).all(), strict=True):
        files = [tmp_path / name / f"{i}.jpg" for i in range(20)]
        files[0].parent.mkdir()
        for i, file in enumerate(files):  # as large as photos, so that they take a while
            digits.draw(name, i).convert("RGB").resize((1200, 900)).save(file)
        # The same photo in each class: Gradio keeps equal files of one name once.
        (tmp_path / name / "19.jpg").write_bytes((tmp_path / "one" / "0.jpg").read_bytes())
        card.get_by_label("Class name").fill(name)
        me.upload(card, *files)
    for card in me.cards(3).all():
        me.expect(card).to_contain_text("20 images")
        shown = card.locator(":scope > .fc-thumbs img")
        me.expect(shown).to_have_count(10)
    me.view.wait_for_function(LOADED)
    me.told("image-summary", "3 classes with 60 images")
    assert refused == []
    assert me.broken == []
    assert "Traceback" not in page.log()[before:]


def test_a_name_survives_an_older_state_from_the_server(enter: Enter) -> None:
    """The class added right after typing is shown before the name has been sent."""
    me = enter()
    me.button("+ Add a class").click()
    card = me.cards(3).first
    card.get_by_label("Class name").fill("daisy")
    me.button("+ Add a class").click()
    me.expect(me.cards(4).first.get_by_label("Class name")).to_have_value("daisy")
    me.view.wait_for_timeout(1000)  # the name is sent a quarter of a second after the last key
    me.view.reload()
    me.expect(me.cards(4).first.get_by_label("Class name")).to_have_value("daisy")


def test_the_camera_takes_a_burst_and_answers_live(enter: Enter, digits_zip: Path) -> None:
    me = enter()
    me.upload_zip(digits_zip)
    me.told("image-summary", "2 classes with 20 images")
    card = me.cards(2).nth(0)
    card.get_by_role("button", name="Webcam").click()
    record = me.button("Hold to record")
    me.expect(record).to_be_enabled()
    record.hover()
    me.view.mouse.down()
    me.view.wait_for_timeout(700)
    me.view.mouse.up()
    me.expect(card.locator(".fc-card-foot")).to_contain_text(re.compile(r"1[2-9] images"))
    me.button("Done").click()
    me.expect(me.view.locator("dialog")).to_have_count(0)

    me.step("Try it")
    me.button("Use the webcam").click()
    me.told("live-answer", "No model yet")
    me.choose()
    me.adapt()
    me.told("job", "Done after 1 epoch")
    me.step("Try it")  # the camera went on, and is answered now that there is a model
    me.expect(me.part("live-answer").locator(".fc-bar")).not_to_have_count(0)
    me.button("Stop the webcam").click()
    me.expect(me.part("live-answer").locator(".fc-bar")).to_have_count(0)
