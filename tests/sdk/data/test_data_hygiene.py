"""What real folders hold: each thing is handled as a user expects, or refused by name."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures_on_disk import fill, picture
from PIL import Image

from fewclip.contract import Preprocess
from fewclip.data import Pool, few_shot, read
from fewclip.errors import DataError
from fewclip.preprocess import load_image, preprocess

SPEC = Preprocess(size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three cats and three dogs."""
    folder = tmp_path / "photos"
    fill(folder / "cat", 3)
    fill(folder / "dog", 3)
    return folder


def reasons(pool: Pool) -> dict[str, str]:
    return {skip.source: skip.reason for skip in pool.skipped}


def only_skipped(folder: Path, source: str) -> str:
    """The reason for the one thing that was skipped; everything else is used, and it is told."""
    pool = read(folder)
    assert list(reasons(pool)) == [source]
    assert len(pool.train) == 6
    split = few_shot(pool, shots=2)
    assert source in split.describe()
    assert source in json.dumps(split.summary(), ensure_ascii=False)
    return reasons(pool)[source]


# Handled.


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("grey.png", "L"),
        ("bits.png", "1"),
        ("deep.png", "I;16"),
        ("deep.tif", "I;16"),
        ("palette.gif", "P"),
        ("cmyk.jpg", "CMYK"),
        ("cmyk.tif", "CMYK"),
        ("alpha.png", "RGBA"),
        ("alpha.webp", "RGBA"),
        ("grey alpha.png", "LA"),
    ],
)
def test_every_colour_mode_is_used(photos: Path, name: str, mode: str) -> None:
    if mode == "I;16":
        grey = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 109
        image = Image.fromarray(grey)
    else:
        image = picture(name, (30, 20)).convert(mode)
    image.save(photos / "cat" / name)
    pool = read(photos)
    assert pool.skipped == []
    (item,) = [item for item in pool.train if item.source.endswith(name)]
    seen = preprocess([item.image], SPEC)
    assert seen.shape == (1, 3, 8, 8)
    assert seen.std() > 0.05  # not clipped to one shade


def test_an_animation_is_its_first_frame(photos: Path) -> None:
    frames = [picture(str(i)) for i in range(3)]
    path = photos / "cat" / "moving.png"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    frames[0].save(photos / "cat" / "still.png")
    assert "the same picture as photos/cat/moving.png" in only_skipped_of(photos, "still.png")


def only_skipped_of(folder: Path, name: str) -> str:
    ((source, reason),) = reasons(read(folder)).items()
    assert source.endswith("/" + name)
    return reason


def test_a_rotated_photo_is_seen_upright(photos: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture("scene").rotate(90, expand=True).save(photos / "cat" / "turned.png", exif=exif)
    picture("scene").save(photos / "cat" / "upright.png")
    assert "the same picture as photos/cat/turned.png" in only_skipped_of(photos, "upright.png")


def test_one_pixel_is_a_picture(photos: Path) -> None:
    Image.new("RGB", (1, 1), "red").save(photos / "cat" / "dot.png")
    pool = read(photos)
    assert pool.skipped == []
    assert preprocess([photos / "cat" / "dot.png"], SPEC).shape == (1, 3, 8, 8)


def test_a_picture_without_or_with_a_wrong_ending_is_told_by_its_bytes(photos: Path) -> None:
    picture("a").save(photos / "cat" / "no ending", "PNG")
    picture("b").save(photos / "cat" / "really a webp.jpg", "WEBP")
    pool = read(photos)
    assert pool.skipped == []
    assert len(pool.train) == 8


def test_unicode_and_very_long_names(tmp_path: Path) -> None:
    labels = ["日本語の猫", "naïve café", "🐈 cat", "x" * 255, "it's", "-rf *", "a, b; c"]
    for label in labels:
        fill(tmp_path / label, 2, prefix="ü 🐕 ")
    pool = read(tmp_path)
    assert pool.classes == tuple(sorted(labels))
    assert len(pool.train) == 2 * len(labels)
    split = few_shot(pool, shots=1)
    assert set(json.loads(json.dumps(split.summary()))["train"]) == set(labels)


def test_what_desktops_leave_behind_is_not_worth_a_word(photos: Path) -> None:
    for folder in (photos, photos / "cat"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", ".hidden.png"):
            (folder / name).write_bytes(b"litter")
        fill(folder / "__MACOSX", 1)
        fill(folder / ".thumbnails", 1)
    pool = read(photos)
    assert pool.classes == ("cat", "dog")
    assert pool.skipped == []
    assert len(pool.train) == 6


# Skipped, and said.


@pytest.mark.parametrize("part", [0.1, 0.6, 0.95])
@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp"])
def test_truncated(photos: Path, ending: str, part: float) -> None:
    path = photos / "cat" / f"half.{ending}"
    picture("half", (90, 70)).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    assert "again" in only_skipped(photos, f"photos/cat/half.{ending}")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"remember the milk", "not an image"),
        ("text.jpg", b"remember the milk", "not an image"),
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        ("empty.png", b"", "empty file"),
        ("iphone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        ("zipped.jpg", b"PK\3\4" + bytes(40), "not an image"),
    ],
)
def test_not_an_image(photos: Path, name: str, content: bytes, words: str) -> None:
    (photos / "cat" / name).write_bytes(content)
    assert words in only_skipped(photos, f"photos/cat/{name}")


def test_a_decompression_bomb(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A true one stands in test_preprocess; here it shows that it costs itself and no other file.
    picture("large", (300, 200)).save(photos / "cat" / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    assert "pixels allowed" in only_skipped(photos, "photos/cat/bomb.png")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux's /proc")
def test_a_file_whose_reading_fails(photos: Path) -> None:
    # A regular file that even root cannot read from its start.
    (photos / "cat" / "bad sector.jpg").symlink_to("/proc/self/mem")
    assert "cannot be read (Input/output" in only_skipped(photos, "photos/cat/bad sector.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(photos: Path) -> None:
    picture("secret").save(photos / "cat" / "secret.png")
    (photos / "cat" / "secret.png").chmod(0)
    assert "Permission denied" in only_skipped(photos, "photos/cat/secret.png")


def test_links_that_lead_nowhere_and_pipes(photos: Path) -> None:
    (photos / "cat" / "gone.png").symlink_to(photos / "nowhere.png")
    (photos / "cat" / "loop.png").symlink_to(photos / "cat" / "loop.png")
    os.mkfifo(photos / "dog" / "pipe.png")
    found = reasons(read(photos))
    assert "no such file" in found["photos/cat/gone.png"]
    assert "cannot be read" in found["photos/cat/loop.png"]
    assert "not an image file" in found["photos/dog/pipe.png"]


def test_an_empty_class_folder(photos: Path) -> None:
    (photos / "emu").mkdir()
    pool = read(photos)
    assert pool.classes == ("cat", "dog")
    assert "no usable image" in reasons(pool)["class 'emu'"]


def test_a_class_of_broken_files_only(photos: Path) -> None:
    (photos / "emu").mkdir()
    (photos / "emu" / "a.jpg").write_bytes(b"text")
    pool = read(photos)
    assert pool.classes == ("cat", "dog")
    assert set(reasons(pool)) == {"photos/emu/a.jpg", "class 'emu'"}
    with pytest.raises(DataError, match=r"'emu'.*photos/emu/a\.jpg: not an image"):
        read(photos, classes=["cat", "emu"])


def test_files_outside_and_folders_inside_the_class_folders(photos: Path) -> None:
    picture("stray").save(photos / "stray.png")
    fill(photos / "cat" / "kittens", 2)
    found = reasons(read(photos))
    assert found["photos/stray.png"] == "outside the class folders"
    assert "a folder inside a class folder" in found["photos/cat/kittens"]
    assert len(found) == 2


def test_fewer_images_than_shots(photos: Path) -> None:
    split = few_shot(read(photos), shots=16, val=0)
    assert len(split.train) == 6
    assert "fewer than 16 images to learn from: cat (3), dog (3)" in split.describe()


# The same picture twice.


def test_twice_in_one_class_is_used_once(photos: Path) -> None:
    shutil.copy(photos / "cat" / "0.png", photos / "cat" / "9 copy.png")
    reason = only_skipped(photos, "photos/cat/9 copy.png")
    assert reason == "the same picture as photos/cat/0.png; used once"


def test_saved_again_without_loss_is_the_same_picture(photos: Path) -> None:
    with Image.open(photos / "cat" / "0.png") as image:
        image.save(photos / "cat" / "9.bmp")
    assert "the same picture" in only_skipped(photos, "photos/cat/9.bmp")


def test_in_two_classes_is_used_in_neither(photos: Path) -> None:
    extra = photos / "cat" / "5.png"
    picture("which").save(extra)
    shutil.copy(extra, photos / "dog" / "7.png")
    shutil.copy(extra, photos / "dog" / "8.png")
    pool = read(photos)
    assert len(pool.train) == 6
    found = reasons(pool)
    assert "the same picture as photos/dog/7.png, of class 'dog'" in found["photos/cat/5.png"]
    assert "the same picture as photos/cat/5.png, of class 'cat'" in found["photos/dog/7.png"]
    assert "of class 'cat'" in found["photos/dog/8.png"]


def test_in_train_and_test_it_is_left_out_of_train(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            fill(folder / split / label, 3, prefix=split)
    shutil.copy(folder / "test" / "cat" / "test0.png", folder / "train" / "cat" / "t.png")
    shutil.copy(folder / "val" / "dog" / "val0.png", folder / "train" / "dog" / "v.png")
    shutil.copy(folder / "test" / "dog" / "test1.png", folder / "val" / "dog" / "t.png")
    shutil.copy(folder / "test" / "dog" / "test2.png", folder / "train" / "cat" / "two.png")
    pool = read(folder)
    found = reasons(pool)
    same = "the same picture as d/"
    assert found["d/train/cat/t.png"] == f"{same}test/cat/test0.png; left out of train"
    assert found["d/train/dog/v.png"] == f"{same}val/dog/val0.png; left out of train"
    assert found["d/val/dog/t.png"] == f"{same}test/dog/test1.png; left out of val"
    assert "left out in both" in found["d/train/cat/two.png"]
    assert "left out in both" in found["d/test/dog/test2.png"]
    assert len(found) == 5
    parts = [{item.content for item in part or ()} for part in (pool.train, pool.val, pool.test)]
    assert [len(part) for part in parts] == [6, 6, 5]
    assert len(set.union(*parts)) == 17


# Refused.


def test_a_single_class(photos: Path) -> None:
    shutil.rmtree(photos / "dog")
    with pytest.raises(DataError, match=r"only the class 'cat'.*at least two"):
        read(photos)
    with pytest.raises(DataError, match="at least two"):
        read({"cat": [picture("1")]})


def test_a_folder_too_high_up_is_explained(photos: Path) -> None:
    with pytest.raises(DataError, match="photos/cat: a folder inside a class folder"):
        read(photos.parent)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "nowhere", "nowhere cannot be opened .No such file.*looked up from"),
        (lambda p: "nul\0", "cannot be opened"),
        (lambda p: p / "void", "is empty; make one sub-folder per class"),
        (lambda p: p / "flat", "holds files but no class folders"),
        (lambda p: p / "flat" / "0.png", "neither a folder nor a .csv"),
        (lambda p: {}, "dict is empty"),
        (lambda p: [], "list is empty"),
        (lambda p: {"cat": "folder/"}, "'cat' holds a str"),
        (lambda p: {"cat": 3}, "'cat' holds a int"),
        (lambda p: {1: [], "dog": []}, "1 is not a class name"),
        (lambda p: {" ": []}, "not a class name"),
        (lambda p: {"a\udce4": []}, "UTF-8"),
        (lambda p: {"cat": [], "dog": []}, "no class with usable images"),
        (lambda p: ["a.png", "b.png"], "item 0 of the list is a str"),
        (lambda p: [("a.png", "cat", 1)], "item 0"),
        (lambda p: [("a.png", None)], "None is not a class name"),
        (lambda p: 42, "data is a int"),
        (lambda p: None, "data is a NoneType"),
    ],
)
def test_data_that_is_none(tmp_path: Path, make: object, words: str) -> None:
    (tmp_path / "void").mkdir()
    (tmp_path / "void" / ".DS_Store").write_bytes(b"litter")
    fill(tmp_path / "flat", 2)
    with pytest.raises(DataError, match=words):
        read(make(tmp_path))  # type: ignore[operator]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_a_name_that_is_no_text(photos: Path) -> None:
    named = os.fsencode(photos / "cat") + b"/\xe4.png"
    picture("latin").save(photos / "cat" / "x.png")
    os.rename(photos / "cat" / "x.png", named)
    pool = read(photos)
    assert pool.skipped == []
    (item,) = [item for item in pool.train if "\ufffd" in item.source]
    assert load_image(item.image).size == (12, 9)
    os.mkdir(os.fsencode(photos) + b"/caf\xe9")
    with pytest.raises(DataError, match="photos/caf\ufffd: the class name is not valid UTF-8"):
        read(photos)


def test_images_in_memory_are_named_by_their_place() -> None:
    good = [picture(str(i)) for i in range(4)]
    bad: Any = np.zeros((2, 2))
    pool = read({"cat": [good[0], b"text", "gone.png"], "dog": [good[1], bad]})
    found = reasons(pool)
    assert list(found) == ["cat[1]", "cat[2] (gone.png)", "dog[1]"]
    assert "RGB uint8" in found["dog[1]"]
    bad = None
    pool = read([(good[2], "cat"), (good[3], "dog"), (bad, "dog")])
    assert "not an image" in reasons(pool)["item 2"]
