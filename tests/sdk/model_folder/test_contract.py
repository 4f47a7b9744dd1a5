"""The card: plain JSON out, the same card back, and nothing broken taken in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fewclip.errors
from fewclip.contract import FORMAT_VERSION, Calibration, Card, HeadSpec, Preprocess
from fewclip.errors import ArtifactError, FewclipError, FormatVersionError, InputError


def make_card(**changes: Any) -> Card:
    fields: dict[str, Any] = {
        "kind": "onnx",
        "name": "plätes",
        "classes": ("good", "NG_02"),
        "phrases": {"good": "a good plate", "NG_02": "a scratched plate"},
        "template": "a photo of {}.",
        "preprocessing": Preprocess(size=64, mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.25)),
        "method": "kgcoop+dept",
        "options": {"n_ctx": 4},
        "backbone": {"name": "micro", "hash": "00", "context_length": 32},
        "head": HeadSpec(logit_scale=100.0, columns=(0, -1), dept_weight=0.7),
        "calibration": Calibration(temperature=1.25, threshold=20.5, n=40),
        "seed": 1,
        "precision": "fp32",
    }
    return Card(**{**fields, **changes})


def test_a_card_survives_json() -> None:
    card = make_card(data={"skipped": [{"source": "a.jpg", "reason": "truncated"}]})
    assert Card.from_dict(json.loads(json.dumps(card.to_dict()))) == card


def test_numbers_become_json_numbers() -> None:
    metrics = {
        "a": np.float32(0.5),
        "n": np.int64(3),
        "none": math.nan,
        "inf": -math.inf,
        "b": True,
    }
    plain = make_card(metrics=metrics).to_dict()["metrics"]
    assert plain == {"a": 0.5, "n": 3, "none": None, "inf": None, "b": True}
    assert [type(v) for v in plain.values()] == [float, int, type(None), type(None), bool]
    json.dumps(plain, allow_nan=False)


def test_people_see_whether_it_is_calibrated() -> None:
    assert make_card().to_dict()["calibration"]["calibrated"] is True
    assert make_card(calibration=Calibration()).to_dict()["calibration"]["calibrated"] is False


def test_trained_classes_are_those_with_a_column() -> None:
    assert HeadSpec(logit_scale=1.0, columns=(2, -1, 0)).trained == (0, 2)


def test_a_head_of_another_width_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"2 classes.*3 columns"):
        make_card(head=HeadSpec(logit_scale=1.0, columns=(0, 1, 2)))


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, None, "1"])
def test_another_format_version_is_refused_before_anything_else(version: Any) -> None:
    with pytest.raises(FormatVersionError, match=repr(version)):
        Card.from_dict({"format_version": version})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plain: plain.pop("head"),
        lambda plain: plain["head"].pop("columns"),
        lambda plain: plain["head"].update(extra=1),
        lambda plain: plain.update(classes=7),
        lambda plain: plain.update(preprocessing=None),
        lambda plain: plain["preprocessing"].update(mean=[1, 2]),
        lambda plain: plain["preprocessing"].update(std=["a", "b", "c"]),
        lambda plain: plain.update(calibration=[]),
        lambda plain: plain["classes"].append("third"),
    ],
)
def test_a_broken_card_is_refused(spoil: Callable[[dict[str, Any]], Any]) -> None:
    plain = make_card().to_dict()
    spoil(plain)
    with pytest.raises(ArtifactError):
        Card.from_dict(plain)


def test_every_error_has_a_place_in_the_tree() -> None:
    tree = fewclip.errors.__doc__ or ""
    errors = [v for v in vars(fewclip.errors).values() if isinstance(v, type)]
    assert all(issubclass(e, FewclipError) and e.__name__ in tree for e in errors)
    assert issubclass(InputError, ValueError)
    missing = fewclip.errors.MissingExtraError("exporting", "export")
    assert isinstance(missing, ImportError)
    assert "pip install 'fewclip[export]'" in str(missing)
