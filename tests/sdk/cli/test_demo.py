"""The demo from end to end, with few images and no time to train: what it writes can be used."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import pytest

import fewclip
from fewclip.cli import demo


def test_no_image_is_in_train_and_test(tmp_path: Path) -> None:
    for each in demo.SETS:
        demo.write_images(each, tmp_path / each.name, train=3, test=4)
        for label in each.phrases:
            train = {p.read_bytes() for p in (tmp_path / each.name / "train" / label).iterdir()}
            test = {p.read_bytes() for p in (tmp_path / each.name / "test" / label).iterdir()}
            assert (len(train), len(test)) == (3, 4)
            assert not train & test


@pytest.mark.slow
def test_the_demo_leaves_models_reports_and_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SETS", [dataclasses.replace(s, shots=2) for s in demo.SETS])
    quick = {name: {**demo.METHODS[name], "epochs": 2} for name in ("skip-tuning", "dept")}
    monkeypatch.setattr(demo, "METHODS", {**demo.METHODS, **quick})
    out = tmp_path / "a demo"
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".* (made things worse|answers )", category=UserWarning
        )
        rows = demo.run(out, train=4, test=3, budget=1e-9)
    assert json.loads((out / "results.json").read_text("utf-8")) == rows
    assert [(row["set"], row["method"]) for row in rows] == [
        (each.name, method) for each in demo.SETS for method in demo.METHODS
    ]
    for row in rows:
        clf = fewclip.load(row["model"])
        report = clf.evaluate(out / row["set"] / "images")
        assert report.accuracy == pytest.approx(row["accuracy"])
        assert report.n == row["n"] == 3 * len(clf.classes)
        assert clf.card.calibration.calibrated
        assert 0 <= row["ood_known"] <= 1
        saved = out / row["set"] / f"{row['method']}-report"
        assert json.loads((saved / "report.json").read_text("utf-8"))["n"] == row["n"]
        assert (saved / "confusion.png").is_file()
    said = capsys.readouterr().out
    assert "digits: 10 classes" in said
    assert "auto took" in said
    assert "'" + str(out / "surfaces" / "auto") + "'" in said  # a blank is quoted
    assert "fewclip adapt" in said
