"""predict(coverage=...): from adapt's validation images to the answer, in torch and ONNX alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from exports import exported_model, saved_model

import fewclip
from fewclip.cli import main
from fewclip.runtime import OnnxClassifier


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory)


def test_torch_and_onnx_give_the_same_sets(
    saved: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    images = sorted(held_out.glob("*/*.png"))[::2]
    torch_model = fewclip.load(saved, device="cpu")
    onnx_model = OnnxClassifier(exported_model(tmp_path_factory))
    for how in ({"coverage": 0.9}, {"coverage": 0.8, "class_wise": True}):
        ours = torch_model.predict(images, **how)  # type: ignore[arg-type]
        theirs = onnx_model.predict(images, **how)  # type: ignore[arg-type]
        assert [p.prediction_set for p in ours] == [p.prediction_set for p in theirs]
        for predicted in ours:
            assert predicted.prediction_set is not None
            assert predicted.prediction_set[0] == predicted.label
    assert torch_model.predict(images[0])[0].prediction_set is None


def test_a_changed_class_set_and_a_model_without_validation_say_why_not(
    saved: Path, tuned_dept: fewclip.Classifier, held_out: Path
) -> None:
    image = next(held_out.glob("*/*.png"))
    model = fewclip.load(saved, device="cpu")
    renamed = model.rename_classes({"zero": "null"})
    assert renamed.predict(image, coverage=0.9)[0].prediction_set is not None
    with pytest.raises(fewclip.CoverageError, match="classes are not those"):
        model.add_classes("seven").predict(image, coverage=0.9)
    with pytest.raises(fewclip.CoverageError, match=r"18 \(enough for 95%\)"):
        model.predict(image, coverage=0.99)
    with pytest.raises(fewclip.CoverageError, match="no images were kept out"):
        tuned_dept.predict(image, coverage=0.9)
    with pytest.raises(fewclip.OptionError, match="coverage must"):
        model.predict(image, coverage=90)


def test_the_command_line_names_the_set(
    saved: Path, held_out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(next(held_out.glob("*/*.png")))
    assert main(["predict", str(saved), image, "--coverage", "0.9", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["label"] in row["prediction_set"]
    assert main(["predict", str(saved), image, "--coverage", "0.9"]) == 0
    assert "one of: " in capsys.readouterr().out
    assert main(["predict", str(saved), image, "--coverage", "0.99"]) == 2
    assert "ask for less" in capsys.readouterr().err
