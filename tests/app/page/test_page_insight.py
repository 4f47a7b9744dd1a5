"""A look into images and model in a real browser: findings, heat maps, possible answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pillow_heif
import pytest
from visitor import Enter

from benchmarks.page.page_process import Page
from fewclip.samples import digits

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def test_doubtful_images_are_shown_beside_the_others_and_answered(
    enter: Enter, make_zip: Callable[..., Path], digit_png: Callable[[str, int], bytes]
) -> None:
    me = enter()
    names = ("three", "zero")
    images = {f"{c}/{i}.png": digit_png(c, i) for c in names for i in range(10)}
    images |= {"zero/copy.png": digit_png("zero", 0), "three/wrong.png": digit_png("zero", 50)}
    me.upload_zip(make_zip(images, "doubtful.zip"))
    me.told("image-summary", "2 classes with 22 images")  # nothing waits for the check
    me.told("image-review", "Looking for doubtful images")
    three, zero = me.cards(2).all()
    me.expect(three).to_contain_text("Is this really “three”? It looks more like “zero”.")
    me.expect(zero).to_contain_text("These two look the same.")
    me.expect(zero.locator(".fc-pair img")).to_have_count(2)
    me.told("image-review", "2 images are worth a second look")

    three.get_by_role("button", name="Move to zero").click()
    me.expect(zero).to_contain_text("12 images")
    me.expect(three.locator(".fc-findings")).to_have_count(0)
    zero.get_by_role("button", name="Leave one out").click()
    me.expect(zero).to_contain_text("11 images")
    me.told("image-review", "nothing looks wrong")
    assert not me.broken


def test_an_automatic_choice_shows_its_stages_and_why_it_answers(
    enter: Enter,
    page: Page,
    make_zip: Callable[..., Path],
    digit_png: Callable[[str, int], bytes],
    tmp_path: Path,
) -> None:
    before = len(page.log())
    me = enter()
    names = ("one", "zero")
    images = {f"train/{c}/{i}.png": digit_png(c, i) for c in names for i in range(10)}
    # The same image tests both classes: whatever the model answers, one of the two is a mistake.
    images |= {f"test/{c}/same.png": digit_png("zero", 50) for c in names}
    me.upload_zip(make_zip(images))
    me.told("image-summary", "2 classes with 20 images, and 2 test images")
    me.step("Train")
    me.view.get_by_label("Small parts matter").check()  # 'auto' chooses its crops itself
    me.button("Train").click()
    me.told("job", re.compile(r"at most (\d+ min )?\d+ s left"))
    me.told("job", re.compile(r"Best so far: .+ right"))
    me.expect(me.part("job")).to_contain_text("Done", timeout=600_000)

    me.step("Results")
    mistakes = me.view.locator(".fc-mistake")
    me.expect(mistakes).to_have_count(1)
    mistakes.click()
    me.expect(me.view.locator("#mistakes .fc-heat img")).to_have_count(2)
    me.view.keyboard.press("Escape")
    me.step("Try it")
    photo = tmp_path / "IMG_0001.HEIC"  # as an iPhone writes it
    pillow_heif.register_heif_opener()
    digits.draw("zero", 90).convert("RGB").save(photo, format="HEIF")
    me.upload(me.part("classify-photos"), photo)
    assert me.answers(1)[0] in ("one", "zero", "None of these")
    me.part("answers").get_by_role("button", name="Why?").click()
    heat = me.part("answers").locator(".fc-heat")
    me.expect(heat).to_contain_text("what spoke for")
    image = heat.locator("img")
    assert image.evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
    me.view.keyboard.press("Escape")
    me.expect(heat).to_be_hidden()
    me.told("answers", re.compile("possible|Could be|No other class"))

    more = [tmp_path / f"more-{i}.png" for i in range(4)]
    for i, file in enumerate(more):
        digits.draw("one", 60 + i).save(file)
    me.upload(me.part("classify-photos"), *more)
    me.answers(5)
    me.view.get_by_role("button", name="Which of these photos").click()
    me.button("Choose some for me").click()
    proposals = me.part("proposals").locator("li")
    me.expect(proposals.first).to_contain_text("labelled")
    proposals.first.get_by_role("combobox").select_option("one")
    me.expect(proposals.first).to_contain_text("Added to one.")
    me.part("proposals").get_by_role("link", name="Train again").click()
    me.step("Images")
    me.told("image-summary", "2 classes with 21 images")
    assert not me.broken
    assert "Traceback" not in page.log()[before:]
