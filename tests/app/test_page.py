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

    def step(self, name: str) -> None:
        self.view.get_by_role("navigation").get_by_role("link", name=name).click()

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
        self.step("Train")
        self.view.get_by_role("button", name="Advanced").click()
        self.view.get_by_label(method, exact=True).check()
        fields = {re.compile("number input for Images"): shots, re.compile("Epochs"): epochs}
        for name, number in fields.items():
            field = self.view.get_by_role("spinbutton", name=name)
            self.expect(field).to_be_visible()
            self.view.wait_for_timeout(300)  # nobody types sooner after the fold has opened
            field.fill(str(number))
            field.press("Tab")
            self.expect(field).to_have_value(str(number))

    def adapt(self) -> None:
        self.step("Train")
        self.button("Train").click()

    def told(self, part: str, text: str | re.Pattern[str]) -> None:
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
    me.view.get_by_role("link", name="How good is it?").click()
    me.view.locator(".fc-mistake").first.click()
    detail = me.view.locator("#mistakes [popover]").first
    me.expect(detail).to_contain_text(re.compile(r"test/\w+/\S+\.png is \w+"))
    me.expect(detail.locator(".fc-bar")).to_have_count(5)
    me.view.keyboard.press("Escape")
    me.expect(detail).to_be_hidden()
    me.view.get_by_role("tab", name="Mix-ups").click()
    me.expect(me.part("confusion").locator("tbody tr")).to_have_count(10)
    me.view.get_by_role("tab", name="Classes").click()
    me.expect(me.part("per-class").locator("tbody tr")).to_have_count(10)
    me.view.get_by_role("tab", name="Trust").click()
    me.expect(me.part("reliability").locator("circle").first).to_be_visible()

    photos = [tmp_path / "digit.png", tmp_path / "stranger.png"]
    digits.draw("three", 100).save(photos[0])
    surfaces.draw("cracked", 3).save(photos[1])
    me.view.get_by_role("link", name="Try it", exact=True).last.click()
    me.upload(me.part("classify-photos"), *photos)
    assert me.answers(2)[0] in (*digits.NAMES, "None of these")
    me.view.get_by_label("More classes, by name alone").fill("zebra")
    me.view.keyboard.press("Enter")
    me.expect(me.part("answers").locator(".fc-bar", has_text="zebra")).to_have_count(2)
    said = me.answers(2)

    me.view.get_by_role("link", name="Download it").click()
    me.view.get_by_label("Name", exact=True).fill("digits")
    me.button("Prepare the files").click()
    me.told("download-status", re.compile(r"(Saving|Exporting|Packing).*\d+ s"))
    me.told("download-status", "Ready")
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
    heic = tmp_path / "IMG_0001.HEIC"
    heic.write_bytes(b"\0\0\0\x18ftypmif1" + bytes(64))
    me.upload(first, photo("red"), broken, heic, photo("orange"))
    me.expect(first.locator("figure")).to_have_count(2)  # the good ones are kept
    me.expect(first).to_contain_text("broken.jpg: not an image")
    me.expect(first).to_contain_text("IMG_0001.HEIC:")
    me.told("image-summary", "only one class")
    me.adapt()
    me.told("job", "there is only one class; add images of a second one in step 1")
    me.step("Images")
    me.upload(second, photo("blue"))
    me.told("image-summary", "no name yet")
    second.get_by_label("Class name").fill("warm")
    me.told("image-summary", "Two classes are called 'warm'")
    second.get_by_label("Class name").fill("cold")
    me.told("image-summary", "2 classes with 3 images")
    me.expect(me.part("job")).to_be_empty()  # what was missing is not any more

    me.button("+ Add a class").click()
    third = me.cards(3).nth(2)
    me.expect(me.cards(3).nth(0).get_by_label("Class name")).to_have_value("warm")
    third.get_by_role("button", name="Remove class 3").click()
    me.cards(2).nth(0).get_by_role("button", name="Delete orange.png").click()
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
    me.expect(me.button("Train")).to_be_disabled()
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
    one.step("Try it")
    one.upload(one.part("classify-photos"), photo("red"))
    one.told("answers", "No model yet")


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
        assert shown.evaluate_all("all => all.every(i => i.complete && i.naturalWidth > 0)")
    me.told("image-summary", "3 classes with 60 images")
    assert refused == []
    assert me.broken == []
    assert "Traceback" not in page.log()[before:]


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


LOOKS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
# What axe would call serious, in the rules that matter here: names, alt texts, contrast, ids.
FAULTS = """() => {
  const seen = (e) => e.checkVisibility() && e.getClientRects().length;
  const all = (s) => [...document.querySelectorAll(s)].filter(seen);
  const faults = [];
  const say = (rule, e) => faults.push(rule + ": " + e.outerHTML.slice(0, 120));
  for (const e of all("button, input, textarea, select, a, [role=progressbar], video, [role=img]"))
    if (e.type !== "file" && !(e.ariaLabel || e.title || e.innerText?.trim() || e.labels?.length
        || e.getAttribute("aria-labelledby") || e.querySelector("[aria-label], [title]")))
      say("no name", e);
  for (const e of all("img")) if (!e.hasAttribute("alt")) say("no alt", e);
  for (const e of all("[id]:not([id=''])"))
    if (document.querySelectorAll("#" + CSS.escape(e.id)).length > 1) say("id twice", e);
  const parts = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => parts(c).slice(0, 3).map((v) => v / 255).map((v) =>
    v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!c.startsWith("rgb")) return null;
      if ((parts(c)[3] ?? 1) === 1) return c;
      if (parts(c)[3] > 0) return null;
    }
    return "rgb(255, 255, 255)";
  };
  for (const e of all("main *, nav *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const style = getComputedStyle(e);
    const under = own && !e.closest("[disabled]") && style.color.startsWith("rgb") && ground(e);
    if (!under) continue;
    const [a, b] = [light(style.color), light(under)].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.66
      && style.fontWeight >= 700;
    if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) say("contrast", e);
  }
  return faults;
}"""
# Text that does not fit its box, and boxes that stick out of the window.
CUT = """() => [...document.querySelectorAll(".fc-step *, .fc-steps *, .fc-head *")]
  .filter((e) => e.checkVisibility() && e.getClientRects().length && !e.closest(".fc-scroll, svg"))
  .filter((e) => { const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    const clipped = e.children.length === 0 && e.scrollWidth > e.clientWidth + 1
      && ["hidden", "clip", "scroll", "auto"].includes(style.overflowX) && e.clientWidth > 1;
    return box.right > innerWidth + 1 || box.left < -1 || clipped; })
  .map((e) => e.outerHTML.slice(0, 160))"""


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
        faults[step] = me.view.evaluate(FAULTS) + me.view.evaluate(CUT)
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
