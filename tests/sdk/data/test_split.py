"""Which images are learned from and which validate: it follows from pictures and seed alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pictures_on_disk import cats_dogs_sea_lions, contents, fill, picture
from PIL import Image

from fewclip.data import Item, Pool, Split, content_hash, few_shot, read
from fewclip.errors import DataError, OptionError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return cats_dogs_sea_lions(tmp_path / "photos")


def names(items: list[Item]) -> list[str]:
    return sorted(item.source.split("/", 1)[1] for item in items)


def make_pool(counts: dict[str, int]) -> Pool:
    return read({label: [picture(f"{label}{i}") for i in range(n)] for label, n in counts.items()})


def sizes(split: Split) -> list[tuple[int, int]]:
    train, val = split.counts(split.train), split.counts(split.val)
    return [(train[label], val[label]) for label in split.classes]


@pytest.mark.parametrize(
    ("shots", "val", "expected", "unused"),
    [
        # 20, 8, 7 and 1 images of a class: (train, val)
        (5, "auto", [(5, 15), (5, 3), (5, 2), (1, 0)], 0),
        (7, "auto", [(7, 13), (7, 1), (7, 0), (1, 0)], 0),
        (16, "auto", [(16, 4), (7, 1), (7, 0), (1, 0)], 0),
        ("all", "auto", [(16, 4), (7, 1), (7, 0), (1, 0)], 0),
        (5, 0, [(5, 0), (5, 0), (5, 0), (1, 0)], 20),
        ("all", 0, [(20, 0), (8, 0), (7, 0), (1, 0)], 0),
        (5, 0.25, [(5, 5), (5, 2), (5, 2), (1, 0)], 11),
        ("all", 0.99, [(1, 19), (1, 7), (1, 6), (1, 0)], 0),
    ],
)
def test_sizes_of_the_split(
    shots: object, val: object, expected: list[tuple[int, int]], unused: int
) -> None:
    pool = make_pool({"a": 20, "b": 8, "c": 7, "d": 1})
    split = few_shot(pool, shots=shots, val=val)  # type: ignore[arg-type]
    assert sizes(split) == expected
    assert split.unused == unused
    chosen = contents([*split.train, *split.val])
    assert len(set(chosen)) == len(chosen) == 36 - unused
    assert set(chosen) <= set(contents(pool.train))


def test_the_split_follows_from_pictures_names_and_seed_alone(photos: Path) -> None:
    split = few_shot(read(photos), shots=3, seed=1)
    assert few_shot(read(photos), shots=3, seed=1) == split
    assert contents(few_shot(read(photos), shots=3, seed=2).train) != contents(split.train)

    moved = photos.parent / "moved"
    for i, path in enumerate(sorted(photos.glob("*/*.png"), reverse=True)):
        target = moved / path.parent.name / f"{i:03}.bmp"  # other names, other order, other format
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(target)
    assert contents(few_shot(read(moved), shots=3, seed=1).train) == contents(split.train)


def test_the_sample_of_one_class_does_not_depend_on_the_others(photos: Path) -> None:
    def drawn(**options: object) -> list[str]:
        split = few_shot(read(photos, **options), shots=3, seed=1)  # type: ignore[arg-type]
        dog = split.classes.index("dog")
        return [item.content for item in split.train if item.label == dog]

    expected = drawn()
    assert drawn(classes=["sea_lion", "dog"]) == expected
    fill(photos / "aardvark", 6)
    fill(photos / "cat", 3, prefix="more")
    assert drawn() == expected


def test_more_shots_keep_those_of_fewer(photos: Path) -> None:
    pool = read(photos)
    few = {item.content for item in few_shot(pool, shots=2, val=0, seed=3).train}
    more = {item.content for item in few_shot(pool, shots=4, val=0, seed=3).train}
    assert few < more


def test_validation_images_from_a_folder(photos: Path, tmp_path: Path) -> None:
    val = tmp_path / "held"
    fill(val / "cat", 2, prefix="new")
    fill(val / "dog", 1, prefix="new")
    fill(val / "zebra", 2)
    shutil.copy(photos / "cat" / "5.png", val / "cat" / "same as 5.png")
    split = few_shot(read(photos), shots="all", val=str(val))
    assert sizes(split) == [(11, 3), (9, 1), (4, 0)]
    reasons = {skip.source: skip.reason for skip in split.skipped}
    assert reasons["photos/cat/5.png"] == "also a validation image; left out of train"
    assert "2 images of a class that is not among" in reasons["class 'zebra'"]
    assert "1 of 3 classes have no validation images" in split.notes


def test_a_validation_folder_that_holds_a_whole_class_is_refused(photos: Path) -> None:
    with pytest.raises(DataError, match="every image of class 'cat'"):
        few_shot(read(photos), val=photos)


@pytest.mark.parametrize("shots", [0, -1, 1.5, "16", "every", None, True])
def test_shots_out_of_range(photos: Path, shots: object) -> None:
    with pytest.raises(OptionError, match=r"shots must be .* 'all'"):
        few_shot(read(photos), shots=shots)  # type: ignore[arg-type]


@pytest.mark.parametrize("val", [1, 1.0, -0.1, 7, True, None, float("nan")])
def test_val_out_of_range(photos: Path, val: object) -> None:
    with pytest.raises(OptionError, match="val must be"):
        few_shot(read(photos), val=val)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True])
def test_seed_out_of_range(photos: Path, seed: object) -> None:
    with pytest.raises(OptionError, match="seed"):
        few_shot(read(photos), seed=seed)  # type: ignore[arg-type]


def test_what_people_and_the_card_are_told(photos: Path) -> None:
    (photos / "cat" / "notes.txt").write_text("not a picture")
    split = few_shot(read(photos), shots=6, val=0, seed=4)
    told = split.describe()
    assert "3 classes: 16 images to learn from (4 to 6 per class)" in told
    assert "9 unused" in told
    assert "photos/cat/notes.txt: not an image" in told
    assert "fewer than 6 images to learn from: sea_lion (4)" in told
    assert "uncalibrated" in told
    summary = json.loads(json.dumps(split.summary()))
    assert summary == split.summary()
    assert summary["train"] == {"cat": 6, "dog": 6, "sea_lion": 4}
    assert summary["val"] == {"cat": 0, "dog": 0, "sea_lion": 0}
    assert (summary["shots"], summary["seed"], summary["unused"]) == (6, 4, 9)
    assert summary["skipped"][0]["source"] == "photos/cat/notes.txt"


def test_content_hash_tells_pictures_labels_and_order() -> None:
    pool = make_pool({"a": 2, "b": 2})
    one, two = pool.train[:2]
    assert content_hash([one, two]) == content_hash([one, two])
    assert content_hash([one, two]) != content_hash([two, one])
    assert content_hash([one]) != content_hash([Item(one.image, 1, one.source, one.content)])
    assert content_hash([one]) == content_hash([Item(one.image, one.label, "elsewhere")])
