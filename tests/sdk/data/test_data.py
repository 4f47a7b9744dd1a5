"""The five forms of data give the same pool; classes, phrases, images to measure on."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import threading
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures_on_disk import cats_dogs_sea_lions, contents, fill, picture
from PIL import Image

from fewclip.contract import Preprocess
from fewclip.data import (
    Item,
    PixelStore,
    few_shot,
    list_images,
    read,
    read_labelled,
)
from fewclip.errors import ClassNameError, DataError, ImageError
from fewclip.images import load_image

SPEC = Preprocess(size=4, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return cats_dogs_sea_lions(tmp_path / "photos")


def names(items: list[Item]) -> list[str]:
    return sorted(item.source.split("/", 1)[1] for item in items)


# The five forms.


def test_a_folder_of_class_folders(photos: Path) -> None:
    pool = read(photos)
    assert pool.classes == ("cat", "dog", "sea_lion")
    assert pool.phrases == {"cat": "cat", "dog": "dog", "sea_lion": "sea lion"}
    assert Counter(item.label for item in pool.train) == {0: 12, 1: 9, 2: 4}
    assert pool.train[0].source == "photos/cat/0.png"
    assert pool.train[0].image == photos / "cat" / "0.png"
    assert (pool.val, pool.test, pool.skipped, pool.notes) == (None, None, [], [])


def test_all_forms_hold_the_same_pictures_and_give_the_same_split(photos: Path) -> None:
    paths = sorted(photos.glob("*/*.png"))
    table = photos.parent / "labels.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image_path", "label"])
        rows.writerows([p.relative_to(photos.parent).as_posix(), p.parent.name] for p in paths)
    forms: dict[str, Any] = {
        "text": str(photos),
        "folder": photos,
        "csv": table,
        "paths": {k: sorted((photos / k).iterdir()) for k in ("sea_lion", "dog", "cat")},
        "bytes": [(p.read_bytes(), p.parent.name) for p in reversed(paths)],
        "pil": [(Image.open(p), p.parent.name) for p in paths],
        "arrays": [(np.asarray(Image.open(p)), p.parent.name) for p in paths],
    }
    splits = {form: few_shot(read(data), shots=3, seed=5) for form, data in forms.items()}
    expected = splits["folder"]
    for form, split in splits.items():
        assert split.classes == expected.classes, form
        assert contents(split.train) == contents(expected.train), form
        assert contents(split.val) == contents(expected.val), form
        assert split.summary()["content"] == expected.summary()["content"], form


@pytest.mark.parametrize("val_name", ["val", "valid", "validation"])
def test_train_val_and_test_are_told_by_what_they_hold(tmp_path: Path, val_name: str) -> None:
    for split, n in {"train": 5, val_name: 2, "test": 3}.items():
        for label in ("cat", "dog"):
            fill(tmp_path / "d" / split / label, n, prefix=split)
    pool = read(tmp_path / "d")
    assert pool.classes == ("cat", "dog")
    assert [len(s or ()) for s in (pool.train, pool.val, pool.test)] == [10, 4, 6]
    assert few_shot(pool, shots=5).val == pool.val
    assert len(few_shot(pool, shots=5, val=0).val) == 0
    assert "is not used" in few_shot(pool, shots=3, val=0.2).notes[0]
    items, _ = read_labelled(tmp_path / "d", ["dog", "cat"])
    assert contents(items) == [(item.content, 1 - item.label) for item in pool.test or ()]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for label in ("bus", "train", "val"):
        fill(tmp_path / label, 3)
    pool = read(tmp_path)
    assert pool.classes == ("bus", "train", "val")
    assert (pool.val, pool.notes) == (None, [])


def test_classes_called_only_train_and_test_are_read_as_such_and_said(tmp_path: Path) -> None:
    fill(tmp_path / "train", 3)
    fill(tmp_path / "test", 3)
    pool = read(tmp_path)
    assert pool.classes == ("test", "train")
    assert "read as classes" in pool.notes[0]


def test_a_class_that_is_only_in_test_is_reported(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        fill(tmp_path / "train" / label, 2)
    fill(tmp_path / "test" / "zebra", 3)
    (skip,) = read(tmp_path).skipped
    assert (skip.source, skip.reason) == (
        "class 'zebra'",
        "3 images of a class that is in test and not in train",
    )


# CSV.


def write_table(photos: Path, text: str, encoding: str = "utf-8", newline: str = "\n") -> Path:
    table = photos / "labels.csv"
    table.write_bytes(text.replace("\n", newline).encode(encoding))
    return table


ROWS = "image_path,label\ncat/0.png,cat\ncat/1.png,cat\ndog/0.png,dog\n"


@pytest.mark.parametrize(
    ("text", "encoding", "newline"),
    [
        (ROWS, "utf-8", "\n"),
        (ROWS, "utf-8-sig", "\r\n"),
        (ROWS, "utf-16", "\r\n"),
        (ROWS.replace(",", ";"), "utf-8-sig", "\r\n"),
        (ROWS.replace(",", "\t"), "utf-8", "\n"),
        (ROWS.replace("/", "\\"), "utf-8", "\r\n"),
        (ROWS.replace("image_path,label", ' Image_Path ,"LABEL"'), "utf-8", "\n"),
        (ROWS.replace("cat\n", "cat ,by me\n").replace("label\n", "label,who\n"), "utf-8", "\n"),
        (ROWS.replace("dog/", "\n,\n./dog/"), "utf-8", "\n"),
    ],
    ids=["plain", "bom", "utf16", "semicolon", "tab", "windows", "header", "extra", "blank"],
)
def test_a_table_as_spreadsheets_write_it(
    photos: Path, text: str, encoding: str, newline: str
) -> None:
    pool = read(write_table(photos, text, encoding, newline))
    assert pool.classes == ("cat", "dog")
    assert [item.label for item in pool.train] == [0, 0, 1]
    assert pool.skipped == []


def test_a_table_may_name_absolute_paths(photos: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    table = write_table(elsewhere, ROWS.replace("cat/", f"{photos}/cat/"))
    shutil.copytree(photos / "dog", elsewhere / "dog")
    assert len(read(table).train) == 3


def test_rows_that_cannot_be_used_are_named_by_number(photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    text = ROWS + "\nnone.png,cat\n,dog\ndog/1.png,\nbroken.png,dog\ncat/2.png\n"
    pool = read(write_table(photos, text))
    assert len(pool.train) == 3
    reasons = {skip.source: skip.reason for skip in pool.skipped}
    assert reasons["labels.csv row 7 ()"] == "no image_path in this row"
    assert reasons["labels.csv row 8 (dog/1.png)"] == "no label in this row"
    assert reasons["labels.csv row 10 (cat/2.png)"] == "no label in this row"
    assert "no such file" in reasons["labels.csv row 6 (none.png)"]
    assert "labels.csv row 9 (broken.png)" in reasons
    assert len(reasons) == 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no column image_path and no column label"),
        (b"photo,label\na.png,cat\n", "no column image_path; its first row reads 'photo,label'"),
        (b"image_path,label\n\n", "no rows"),
        (b"image_path,label\nl\xe4mp.png,cat\n", "UTF-8"),
        (b'image_path,label\n"' + b"x" * 200_000 + b'",cat\n', "line"),
        (b"image_path,label\nnone.png,cat\n", "no class with usable images.*row 2.*no such file"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read(tmp_path / "labels.csv")


# Classes and phrases.


def test_a_list_of_classes_chooses_and_orders(photos: Path) -> None:
    (photos / "sea_lion" / "broken.png").write_bytes(b"never looked at")
    pool = read(photos, classes=["dog", "cat"])
    assert pool.classes == ("dog", "cat")
    assert Counter(item.label for item in pool.train) == {0: 9, 1: 12}
    assert pool.skipped == []
    assert "1 of the data's classes" in pool.notes[0]


def test_phrases_say_what_a_label_does_not(photos: Path) -> None:
    pool = read(photos, classes={"sea_lion": "a big seal"})
    assert pool.classes == ("cat", "dog", "sea_lion")
    assert pool.phrases == {"cat": "cat", "dog": "dog", "sea_lion": "a big seal"}


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["cat", "lion"], "'lion'.*'cat', 'dog', 'sea_lion'"),
        ({"lion": "a lion"}, "'lion'"),
        (["cat", "cat", "dog"], "twice"),
        ([], "empty"),
        ("cat", "list"),
        (["cat", 3], "3"),
        ({"cat": " "}, "words"),
        ({"cat": "A  Pet", "dog": "a pet"}, "tell them apart"),
    ],
)
def test_classes_that_cannot_be_are_refused(photos: Path, classes: object, words: str) -> None:
    with pytest.raises(ClassNameError, match=words):
        read(photos, classes=classes)  # type: ignore[arg-type]


def test_labels_that_would_be_one_prompt_are_refused(photos: Path) -> None:
    fill(photos / "Sea lion", 2)
    with pytest.raises(ClassNameError, match=r"'Sea lion' and 'sea_lion'.*phrases"):
        read(photos)


def test_one_label_in_two_unicode_spellings_is_one_class(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    data = [(picture("1"), composed), (picture("2"), apart), (picture("3"), "bar")]
    pool = read(data)
    assert pool.classes == ("bar", composed)
    assert [item.label for item in pool.train] == [1, 1, 0]
    assert read(data, classes=[apart, "bar"]).classes == (composed, "bar")


# Images to measure on, to predict, and in memory.


def test_labelled_images_keep_the_models_order_and_their_repeats(photos: Path) -> None:
    shutil.copy(photos / "cat" / "0.png", photos / "cat" / "again.png")
    items, skipped = read_labelled(photos, ("sea_lion", "cat"))
    assert Counter(item.label for item in items) == {0: 4, 1: 13}
    assert [skip.source for skip in skipped] == ["class 'dog'"]
    with pytest.raises(ClassNameError, match=r"'cat', 'dog', 'sea_lion'.*'zebra'"):
        read_labelled(photos, ["zebra"])
    with pytest.raises(DataError, match="no usable image"):
        read_labelled({"cat": [b"text"]}, ["cat"])


def test_a_divided_folder_without_test_is_not_measured_on_train(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        fill(tmp_path / "train" / label, 2)
    with pytest.raises(DataError, match=r"has no test/.*train/"):
        read_labelled(tmp_path, ["cat", "dog"])
    (tmp_path / "train").rename(tmp_path / "test")
    assert len(read_labelled(tmp_path, ["cat", "dog"])[0]) == 4
    with pytest.raises(DataError, match="no train/"):
        read(tmp_path)


def test_listing_files_folders_and_tables_in_order(photos: Path) -> None:
    (photos / "notes.txt").write_text("x")
    (photos / ".hidden.png").write_bytes(b"x")
    (photos / "cat" / "deeper").mkdir()
    picture("deep").save(photos / "cat" / "deeper" / "UPPER.JPG")
    (photos / "cat" / "loop").symlink_to(photos)
    table = photos.parent / "list.csv"
    table.write_text("image_path\nphotos/dog/3.png\nphotos/none.png\n")
    single = photos / "notes.txt"  # a file that is named is taken at its word
    found = list_images([photos / "cat", single, str(table)])
    below = sorted(str(photos / "cat" / f"{i}.png") for i in range(12))
    assert found == [
        *below,
        str(photos / "cat" / "deeper" / "UPPER.JPG"),
        str(single),
        str(photos / "dog" / "3.png"),
        str(photos / "none.png"),
    ]
    with pytest.raises(DataError, match="nowhere"):
        list_images([photos / "nowhere"])
    (photos / "void").mkdir()
    with pytest.raises(DataError, match="void holds no images"):
        list_images([photos / "void"])


def test_the_pixel_store_decodes_once_within_its_budget(photos: Path) -> None:
    items = read(photos).train
    one = 12 * 9 * 3
    store = PixelStore(items, SPEC, budget_bytes=2 * one + 1)
    assert len(store) == 25
    kept = [store.get(i) for i in range(4)]
    np.testing.assert_array_equal(kept[3], np.asarray(load_image(items[3].image)))
    assert [store.get(i) is kept[i] for i in range(4)] == [True, True, False, False]
    with pytest.raises(ValueError, match="read-only"):
        kept[0][0, 0, 0] = 0
    Path(str(items[3].image)).unlink()
    Path(str(items[0].image)).unlink()
    assert store.get(0) is kept[0]
    with pytest.raises(ImageError, match=r"photos/cat/11\.png: no such file"):
        store.get(3)


def test_the_pixel_store_hands_out_what_it_kept_at_full_size(tmp_path: Path) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.new("RGB", (12, 9)).save(small)
    Image.new("RGB", (4 * SPEC.size + 5, 4 * SPEC.size + 7)).save(large)
    items = [Item(path, 0, path.name) for path in (small, large)]
    store = PixelStore(items, SPEC, budget_bytes=10**9)
    assert store.images() == [small, large]
    kept = [store.get(i) for i in range(2)]
    first, second = store.images()
    assert first is kept[0]
    assert second == large  # what was reduced is read again: its pixels are not the file's


def test_the_pixel_store_is_safe_in_threads(photos: Path) -> None:
    items = read(photos).train
    store = PixelStore(items, SPEC, budget_bytes=10 * 12 * 9 * 3)
    start = threading.Barrier(4)

    def run(_: int) -> int:
        start.wait()
        return sum(int(store.get(i % 25).sum()) for i in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(run, range(4)))) == 1
    assert sum(store.get(i) is store.get(i) for i in range(25)) == 10


def test_data_needs_no_torch(photos: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from fewclip import data\n"
        "print(len(data.few_shot(data.read(sys.argv[1]), shots=2).train))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(photos)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "6"


def test_real_photos(shared_data: Path, tmp_path: Path) -> None:
    subprocess.run(
        ["tar", "-xf", str(shared_data / "cifar10-fewshot.tar"), "-C", str(tmp_path)], check=True
    )
    pool = read(tmp_path / "cifar10-fewshot")
    assert len(pool.classes) == 10
    assert (len(pool.train), len(pool.test or ())) == (640, 1000)
    split = few_shot(pool, shots=16)
    assert (len(split.train), len(split.val)) == (160, 480)
