"""`fewclip.check`: injected faults are found, each with what to do; others are left in peace."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps

import fewclip
from fewclip.check.duplicates import near_duplicates
from fewclip.check.photos import Photo, measure
from fewclip.cli import main
from fewclip.data import read
from fewclip.data.fixes import read_fixes
from fewclip.errors import DataError
from fewclip.samples import digits, surfaces

LABELS = ("one", "zero")


def write_splits(root: Path, train: int, test: int) -> None:
    """So many digits of each of two classes in train/, and others in test/."""
    for split, first, count in (("train", 0, train), ("test", 150, test)):
        for label in LABELS:
            (root / split / label).mkdir(parents=True)
            for i in range(first, first + count):
                digits.draw(label, i).save(root / split / label / f"{i}.png")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 digits of two classes with one wrong label, copies, and odd images; a test/ that leaks."""
    root = tmp_path_factory.mktemp("data") / "digits"
    write_splits(root, 20, 4)
    train = root / "train"
    digits.draw("one", 99).save(train / "zero" / "wrong.png")
    ImageOps.mirror(digits.draw("zero", 3)).save(train / "zero" / "mirrored.png")
    digits.draw("zero", 4).resize((80, 80)).save(train / "one" / "conflict.jpg", quality=80)
    digits.draw("one", 151).save(train / "one" / "leaked.jpg", quality=80)
    Image.new("RGB", (64, 64), "navy").save(train / "one" / "empty.png")
    (train / "one" / "broken.png").write_bytes(b"not an image")
    return root


@pytest.fixture(scope="module")
def report(faulty: Path) -> fewclip.DataReport:
    return fewclip.check(faulty)


def found(report: fewclip.DataReport) -> dict[str, set[str]]:
    by_kind: dict[str, set[str]] = {}
    for issue in report.issues:
        by_kind.setdefault(issue.kind, set()).add(issue.source.removeprefix("digits/"))
    return by_kind


def test_each_fault_is_found_under_its_name(report: fewclip.DataReport) -> None:
    by_kind = found(report)
    assert "train/zero/wrong.png" in by_kind["label"]
    assert by_kind["leak"] == {"train/one/leaked.jpg"}
    assert by_kind["conflict"] & {"train/one/conflict.jpg", "train/zero/4.png"}
    assert by_kind["duplicate"] & {"train/zero/mirrored.png", "train/zero/3.png"}
    assert by_kind["unreadable"] == {"train/one/broken.png"}
    assert by_kind["empty"] == {"train/one/empty.png"}
    wrong = next(i for i in report.issues if i.source.endswith("wrong.png"))
    assert wrong.new_label == "one"
    assert all("train/one/" in source for source in wrong.neighbours)


def test_the_page_is_self_contained_and_the_fixes_are_taken(
    report: fewclip.DataReport, faulty: Path, tmp_path: Path
) -> None:
    page = report.save(tmp_path).read_text("utf-8")
    assert "data:image/jpeg;base64," in page
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    plain = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert plain["counts"] == report.counts
    fixes = tmp_path / "fixes.csv"
    before, after = read(faulty), read(faulty, fixes=fixes)
    sources = {item.source: item.label for item in after.train}
    assert "digits/train/one/leaked.jpg" not in sources
    named = read_fixes(fixes)
    relabelled = [source for source, fix in named.items() if fix.action == "relabel"]
    assert relabelled
    assert all(after.classes[sources[s]] == named[s].label for s in relabelled if s in sources)
    assert len(after.train) < len(before.train)
    assert any("fixes.csv" in note for note in after.notes)


def test_the_command_line_lists_and_saves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "digits"
    write_splits(root, 4, 1)
    shutil.copy(root / "test" / "one" / "150.png", root / "train" / "one" / "leaked.png")
    assert main(["check", str(root), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["leak"] == 1
    assert (tmp_path / "out" / "index.html").is_file()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("digits/train/zero/0.png", "delete", ""), "unknown action 'delete'"),
        (("digits/train/zero/0.png", "relabel", ""), "without a new_label"),
        (("digits/train/zero/0.png", "relabel", "seven"), "no class of"),
        (("other/zero/0.png", "remove", ""), "not found in"),
    ],
)
def test_fixes_that_do_not_fit_are_refused(
    faulty: Path, tmp_path: Path, row: tuple[str, ...], reason: str
) -> None:
    with open(tmp_path / "fixes.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "action", "new_label"), row])
    with pytest.raises(DataError, match=reason):
        read(faulty, fixes=tmp_path / "fixes.csv")


def photo(image: Image.Image, name: str) -> Photo:
    return measure(image, image, source=name, label="a", split="train", content=name)


def test_crops_and_mirror_images_are_the_same_picture_and_others_are_not() -> None:
    whole = [surfaces.draw(label, i) for label in surfaces.PHRASES for i in range(6)]
    crops = [ImageOps.mirror(w.crop((10, 4, 120, 118))) for w in whole[:6]]
    photos = [photo(image, str(i)) for i, image in enumerate([*whole, *crops])]
    pairs = {(pair.first, pair.second) for pair in near_duplicates(photos)}
    assert len(pairs) >= 5  # weave so fine that a crop blurs it may be missed
    assert pairs <= {(i, len(whole) + i) for i in range(6)}
    assert not near_duplicates(photos[: len(whole)], crops=False)


def test_surfaces_under_the_same_light_are_not_the_same_picture() -> None:
    drawn = [surfaces.draw(label, i) for label in ("whole", "cracked") for i in range(15, 40)]
    assert near_duplicates([photo(image, str(i)) for i, image in enumerate(drawn)]) == []
