"""The page in a real browser, driven as a person would."""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.page import Page
from benchmarks.server import Server
from fewclip.samples import digits, surfaces

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PATIENCE = 120_000.0  # milliseconds; two cores may be shared with other tests


class Visitor:
    """One person in front of a browser of their own."""

    def __init__(self, context: Any, page: Page) -> None:
        from playwright.sync_api import expect

        expect.set_options(timeout=PATIENCE)
        context.set_default_timeout(PATIENCE)
        self.expect = expect
        self.view = context.new_page()
        self.asked: list[str] = []
        self.broken: list[str] = []
        self.view.on("request", lambda request: self.asked.append(request.url))
        self.view.on("pageerror", lambda error: self.broken.append(str(error)))
        self.view.goto(page.url)
        self.cards(2)

    def button(self, name: str) -> Any:
        return self.view.get_by_role("button", name=name, exact=True)

    def part(self, name: str) -> Any:
        return self.view.locator(f"#{name}")

    def cards(self, count: int) -> Any:
        cards = self.view.locator(".fc-card")
        self.expect(cards).to_have_count(count)
        return cards

    def upload(self, where: Any, *files: Path) -> None:
        where.locator("input[type=file]").first.set_input_files([str(file) for file in files])

    def upload_zip(self, file: Path) -> None:
        with self.view.expect_file_chooser() as chooser:
            self.button("Upload a zip").click()
        chooser.value.set_files(str(file))

    def choose(self, *, method: str = "DePT", shots: int = 2, epochs: int = 1) -> None:
        self.view.get_by_label(method, exact=True).check()
        self.view.get_by_role("button", name="Advanced").click()
        fields = {re.compile("number input for Images"): shots, re.compile("Epochs"): epochs}
        for name, number in fields.items():
            field = self.view.get_by_role("spinbutton", name=name)
            self.expect(field).to_be_visible()
            self.view.wait_for_timeout(300)  # nobody types sooner after the fold has opened
            field.fill(str(number))
            field.press("Tab")
            self.expect(field).to_have_value(str(number))

    def adapt(self) -> None:
        self.button("Adapt").click()

    def told(self, part: str, text: str) -> None:
        self.expect(self.part(part)).to_contain_text(text)

    def answers(self, count: int) -> list[str]:
        """The bold answer of each classified image."""
        found = self.part("answers").locator(".fc-answer strong")
        self.expect(found).to_have_count(count)
        return list(found.all_inner_texts())


Enter = Callable[..., Visitor]


@pytest.fixture
def enter(browser: Any, page: Page) -> Iterator[Enter]:
    """A new visitor, with a browser profile of their own."""
    with contextlib.ExitStack() as closing:

        def make(**options: Any) -> Visitor:
            context = browser.new_context(**options)
            closing.callback(context.close)
            return Visitor(context, page)

        yield make


def test_from_the_example_to_a_served_model(enter: Enter, page: Page, tmp_path: Path) -> None:
    before = len(page.log())  # other tests of this page may have made it complain
    me = enter(accept_downloads=True)
    me.told("headline", "Nothing to measure yet")
    me.told("answers", "No model yet")
    me.button("Try the example").click()
    me.cards(10)
    me.told("image-summary", "10 classes with 240 images, and 200 test images")
    me.choose(shots=4, epochs=2)
    me.adapt()
    me.told("job", "Done after 2 epochs")

    me.told("headline", "of 200 images right")
    me.told("headline", "95% interval")
    me.view.locator("#mistakes .thumbnail-lg").first.click()
    me.expect(me.part("mistake")).to_contain_text(re.compile(r"test/\w+/\S+\.png is \w+"))
    me.view.get_by_role("tab", name="Mix-ups").click()
    me.expect(me.part("confusion").locator("tbody tr")).to_have_count(10)
    me.view.get_by_role("tab", name="Each class").click()
    me.expect(me.part("per-class").locator("tbody tr")).to_have_count(10)
    me.view.get_by_role("tab", name="Can I trust the score?").click()
    me.expect(me.part("reliability").locator("circle").first).to_be_visible()

    photos = [tmp_path / "digit.png", tmp_path / "stranger.png"]
    digits.draw("three", 100).save(photos[0])
    surfaces.draw("cracked", 3).save(photos[1])
    me.upload(me.part("classify-photos"), *photos)
    assert me.answers(2)[0] in (*digits.NAMES, "None of these")
    me.view.get_by_label("More classes, by name alone").fill("zebra")
    me.view.keyboard.press("Enter")
    me.expect(me.part("answers").locator(".fc-bar", has_text="zebra")).to_have_count(2)
    said = me.answers(2)

    me.view.get_by_label("Name", exact=True).fill("digits")
    me.button("Prepare the files").click()
    me.told("take-status", "Ready")
    me.told("commands", "fewclip serve digits-onnx")
    links = me.part("files").locator("a[download]")
    me.expect(links).to_have_count(2)
    with me.view.expect_download() as download:
        links.nth(1).click()
    assert download.value.suggested_filename == "digits-onnx.zip"
    download.value.save_as(tmp_path / "onnx.zip")
    assert not me.broken
    hosts = {urlsplit(url).hostname for url in me.asked if url.startswith(("http", "ws"))}
    assert hosts == {"127.0.0.1"}

    me.view.reload()  # nothing of it is lost
    me.cards(10)
    me.told("headline", "of 200 images right")
    me.told("job", "Done after 2 epochs")
    me.expect(me.view.get_by_label("More classes, by name alone")).to_have_value("zebra")

    with zipfile.ZipFile(tmp_path / "onnx.zip") as zipped:
        zipped.extractall(tmp_path)
    with Server(tmp_path / "digits-onnx") as server:
        for photo, expected in zip(photos, said, strict=True):
            with photo.open("rb") as file:
                answer = httpx.post(f"{server.url}/v1/predict", files={"image": file}).json()
            assert (answer["label"] if answer["known"] else "None of these") == expected
        assert "zebra" in httpx.get(f"{server.url}/v1/model").json()["classes"]
    assert "Traceback" not in page.log()[before:]


def test_classes_by_hand_and_files_that_are_none(
    enter: Enter, photo: Callable[[str], Path], tmp_path: Path, make_zip: Callable[..., Path]
) -> None:
    me = enter()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image at all")
    first, second = me.cards(2).all()
    first.get_by_label("Class name").fill("warm")
    me.upload(first, photo("red"), broken, photo("orange"))
    me.expect(first.locator(".gallery-item")).to_have_count(2)  # the good ones are kept
    me.expect(first).to_contain_text("broken.jpg: not an image")
    me.told("image-summary", "only one class")
    me.adapt()
    me.told("job", "there is only one class; add images of a second one in step 1")
    me.upload(second, photo("blue"))
    me.told("image-summary", "no name yet")
    second.get_by_label("Class name").fill("warm")
    me.told("image-summary", "Two classes are called 'warm'")
    second.get_by_label("Class name").fill("cold")
    me.told("image-summary", "2 classes with 3 images")

    me.button("Add a class").click()
    third = me.cards(3).nth(2)
    me.expect(me.cards(3).nth(0).get_by_label("Class name")).to_have_value("warm")
    third.get_by_role("button", name="Remove this class").click()
    me.cards(2)
    delete = me.cards(2).nth(0).get_by_role("button", name="Delete image").first
    delete.dispatch_event("click")
    me.told("image-summary", "2 classes with 2 images")

    not_a_zip = tmp_path / "photos.zip"
    not_a_zip.write_bytes(b"no zip")
    me.upload_zip(not_a_zip)
    me.told("image-remarks", "not a zip file that can be opened")
    me.upload_zip(make_zip({"../evil/1.png": b"x"}, "evil.zip"))
    me.told("image-remarks", "would be written outside its folder")
    me.told("image-summary", "2 classes with 2 images")  # what was there stays
    me.view.reload()
    me.expect(me.cards(2).nth(1).get_by_label("Class name")).to_have_value("cold")
    me.button("Start over").click()
    me.told("image-summary", "No images yet")
    assert not me.broken


def test_cancel_ends_a_training_and_the_next_one_begins(enter: Enter, digits_zip: Path) -> None:
    me = enter()
    me.upload_zip(digits_zip)
    me.told("image-summary", "2 classes with 20 images")
    me.choose(method="Skip Tuning", epochs=1000)
    me.adapt()
    me.told("job", "of 1000")
    me.view.reload()  # the training goes on and is found again
    me.told("job", "of 1000")
    me.expect(me.button("Adapt")).to_be_disabled()
    me.button("Cancel").click()
    me.told("job", "Stopped. Nothing was changed")
    me.expect(me.button("Cancel")).to_be_hidden()
    me.told("headline", "Nothing to measure yet")
    me.choose()
    me.adapt()
    me.told("job", "Done after 1 epoch")
    me.told("headline", "After adapting")


def test_two_people_have_their_own_images_and_a_place_in_the_queue(
    enter: Enter, digits_zip: Path, make_zip: Callable[..., Path], photo: Callable[[str], Path]
) -> None:
    one, two = enter(), enter()
    one.upload_zip(digits_zip)
    colours = {f"{c}/1.png": photo(c).read_bytes() for c in ("red", "green", "blue")}
    two.upload_zip(make_zip(colours, "colours.zip"))
    one.told("image-summary", "2 classes with 20 images")
    two.told("image-summary", "3 classes with 3 images")
    for person, epochs in ((one, 1000), (two, 1)):
        person.choose(epochs=epochs)
        person.adapt()
        person.told("job", "of 1000" if person is one else "You are number 1 in the queue")
    one.button("Cancel").click()
    one.told("job", "Stopped")
    two.told("job", "Done after 1 epoch")
    two.told("headline", "no images left to measure on")
    one.told("headline", "Nothing to measure yet")
    two.upload(two.part("classify-photos"), photo("red"))
    assert two.answers(1)[0] in ("red", "green", "blue")
    one.upload(one.part("classify-photos"), photo("red"))
    one.told("answers", "No model yet")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nothing_is_cut_off_and_everything_has_a_name(
    enter: Enter, width: int, scheme: str
) -> None:
    me = enter(viewport={"width": width, "height": 800}, color_scheme=scheme)
    me.button("Try the example").click()
    me.told("image-summary", "Ready")
    me.view.get_by_role("button", name="Advanced").click()
    assert me.view.evaluate("document.documentElement.scrollWidth") <= width
    nameless = me.view.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, select, a')]
          .filter(e => e.offsetParent && e.type !== 'file')
          .filter(e => !(e.ariaLabel || e.title || e.innerText.trim() || e.labels?.length
                         || e.getAttribute('aria-labelledby')
                         || e.querySelector('[aria-label], [title]')))
          .map(e => e.outerHTML)"""
    )
    assert nameless == []
    # By keyboard alone: from the top of the page to the first button, and it works.
    me.button("Start over").focus()
    me.view.keyboard.press("Shift+Tab")
    me.expect(me.button("Add a class")).to_be_focused()
    me.view.keyboard.press("Enter")
    me.cards(11)
