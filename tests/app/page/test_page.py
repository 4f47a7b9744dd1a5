"""The page in a real browser, driven as a person would: from images to a served model."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from visitor import Enter

from benchmarks.page.page_process import Page
from benchmarks.service.server import Server
from fewclip.samples import digits, surfaces

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


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
