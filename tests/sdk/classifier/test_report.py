"""The report's numbers against scikit-learn and by hand, its table, and its files."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from fewclip.errors import DataError, MissingExtraError
from fewclip.report import Report

CLASSES = ("ant", "bee", "cat", "dog", "emu")


def predictions(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 5) that are right about half the time, and labels (n,); no emu is shown."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    logits = rng.normal(size=(n, 5))
    logits[np.arange(n), labels] += 1.2
    exp = np.exp(logits)
    return exp / exp.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("seed", range(5))
def test_numbers_equal_scikit_learns(seed: int) -> None:
    p, labels = predictions(200, seed)
    report = Report.from_predictions(p, labels, CLASSES)
    answers = p.argmax(axis=1)
    assert report.accuracy == pytest.approx((answers == labels).mean())
    assert report.macro_f1 == pytest.approx(f1_score(labels, answers, average="macro"))
    assert report.confusion == confusion_matrix(labels, answers, labels=range(5)).tolist()
    columns = precision_recall_fscore_support(labels, answers, labels=range(5), zero_division=0)
    for i, label in enumerate(CLASSES):
        row = report.per_class[label]
        assert list(row) == ["precision", "recall", "f1", "n"]
        assert list(row.values()) == pytest.approx([column[i] for column in columns])


def test_a_class_neither_shown_nor_answered_does_not_count_in_macro_f1() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    report = Report.from_predictions(p, [0, 1], ("a", "b", "never"))
    assert report.macro_f1 == 1.0
    assert report.per_class["never"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "n": 0}


def test_calibration_error_by_hand() -> None:
    # Two bins: three images at 0.9 of which two are right, one at 0.6 that is wrong.
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    report = Report.from_predictions(p, [0, 0, 0, 1], ("a", "b"))
    assert report.ece == pytest.approx((3 * abs(0.9 - 2 / 3) + 1 * 0.6) / 4)
    assert [b["n"] for b in report.reliability] == [1, 3]
    assert report.reliability[1]["accuracy"] == pytest.approx(2 / 3)


def test_calibration_error_of_certain_and_right_answers_is_zero() -> None:
    report = Report.from_predictions(np.eye(3), [0, 1, 2], ("a", "b", "c"))
    assert report.ece == 0.0
    assert report.accuracy_interval()[0] == pytest.approx(0.4385, abs=1e-4)  # Wilson, 3 of 3
    assert report.accuracy_interval()[1] == 1.0


def test_interval_of_half_right() -> None:
    p = np.tile([[0.6, 0.4]], (100, 1))
    report = Report.from_predictions(p, [0, 1] * 50, ("a", "b"))
    assert report.accuracy_interval() == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_no_image_is_an_error_that_says_what_to_give() -> None:
    with pytest.raises(DataError, match="no labelled image"):
        Report.from_predictions(np.zeros((0, 2)), [], ("a", "b"))


def test_table_names_classes_mistakes_and_what_was_skipped() -> None:
    p = np.eye(3)[[0, 0, 1, 1, 1, 2]]
    skipped = [{"source": "x.jpg", "reason": "truncated"}]
    report = Report.from_predictions(p, [0, 0, 1, 0, 0, 2], ("zero", "one", "two"), skipped)
    text = str(report)
    assert "accuracy 66.7%" in text
    assert "6 images" in text
    assert "1 files were not evaluated" in text
    assert "zero for one (2)" in text
    assert len([line for line in text.splitlines() if line.startswith(("zero", "one", "two"))]) == 3


def test_table_of_many_classes_shows_the_weakest() -> None:
    names = tuple(f"class {i:02d}" for i in range(40))
    labels = np.arange(40)
    answers = np.where(labels == 7, 8, labels)
    text = str(Report.from_predictions(np.eye(40)[answers], labels, names))
    assert "the 25 weakest of 40 classes" in text
    assert text.index("class 07") < text.index("class 08") < text.index("class 00")
    assert "class 39" not in text


def test_to_dict_survives_json_unchanged() -> None:
    p, labels = predictions(50, 0)
    plain = Report.from_predictions(p, labels, CLASSES).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert {"accuracy", "macro_f1", "ece", "n", "per_class", "confusion"} <= set(plain)


@pytest.mark.parametrize(
    "classes",
    [
        CLASSES,
        (
            "$5 {bill}",
            "€",
            "$x_1$",
            "犬と猫",
            "a name that is far too long to stand beside a picture",
        ),
    ],
)
def test_save_writes_json_and_two_pictures(tmp_path: Path, classes: tuple[str, ...]) -> None:
    p, labels = predictions(60, 1)
    report = Report.from_predictions(p, labels, classes)
    report.save(tmp_path / "deep" / "report")
    saved = tmp_path / "deep" / "report"
    assert json.loads((saved / "report.json").read_text(encoding="utf-8")) == report.to_dict()
    for name in ("confusion.png", "reliability.png"):
        with Image.open(saved / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) >= 300
            colours = picture.convert("RGB").getcolors(1 << 24)
            assert colours is not None
            assert len(colours) > 10


def test_save_with_two_hundred_classes(tmp_path: Path) -> None:
    Report.from_predictions(np.eye(200), range(200), [f"c{i}" for i in range(200)]).save(tmp_path)
    with Image.open(tmp_path / "confusion.png") as picture:
        assert max(picture.size) < 4000


def test_without_matplotlib_nothing_is_written_and_the_command_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'fewclip\[train\]'"):
        Report.from_predictions(np.eye(2), [0, 1], ("a", "b")).save(tmp_path / "r")
    assert not (tmp_path / "r").exists()
