"""Which method to use: every image evaluated once out of fold, a budget, a recommendation."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import bench_data
import numpy as np
import pytest

from fewclip.bench.measure import Cost
from fewclip.cli.arguments import settings
from fewclip.errors import DataError, MissingExtraError, OptionError
from fewclip.selection.baselines import REGRESSION, SVM, fit_reference
from fewclip.selection.candidates import METHODS, Candidate, split_names
from fewclip.selection.compare import compare
from fewclip.selection.evaluated import OUT_OF_TIME, Evaluated, difference
from fewclip.selection.recommendation import advise


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench_data.write_folder(tmp_path_factory.mktemp("own") / "own", ["red", "ant"], 6, 0)


def row(
    method: str, right: list[int], seconds: float = 1.0, outside: bool = False, note: str = ""
) -> Evaluated:
    """Right where 1, wrong where 0, not evaluated where -1, and as sure of itself everywhere."""
    values = np.where(np.array(right) < 0, np.nan, right)
    loss = np.full(len(right), np.nan) if outside else np.where(values == 1, 0.5, 1.5 + 0 * values)
    return Evaluated(
        Candidate(method, method, outside=outside), loss, values, [Cost(seconds, 1.0)], note
    )


def advice(*rows: Evaluated) -> Any:
    fold = np.repeat([0, 1], 50)  # of 100 images
    return advise(rows, fold, seconds=1, budget=60, notes=[])


def test_what_another_row_beats_by_more_than_chance_is_not_recommended() -> None:
    # On the one fold of "lucky" the anchor does badly, and "steady" is better than both.
    anchor = row("anchor", [0] * 40 + [1] * 60)
    lucky = row("lucky", [1] * 20 + [0] * 20 + [-1] * 60)
    steady = row("steady", [1] * 40 + [0] * 25 + [1] * 35)
    found = advice(anchor, lucky, steady)
    assert difference(lucky, anchor)[1] > difference(steady, anchor)[1]
    assert found.best == "steady"


def test_every_image_is_evaluated_once_by_a_model_that_has_not_seen_it(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    module = sys.modules["fewclip.selection.cross_validation"]
    execute = module.execute

    def spy(plan: Any, *more: Any) -> Any:
        seen.append({item.content for item in plan.split.train})
        return execute(plan, *more)

    monkeypatch.setattr(module, "execute", spy)
    found = compare(
        own, methods=["zero-shot", "clip-adapter"], folds=3, options={"clip-adapter": {"epochs": 1}}
    )
    assert [r.method for r in found.rows] == ["zero-shot", SVM, "clip-adapter"]
    assert all((r.n, r.folds, r.given_up) == (12, 3, False) for r in found.rows)
    assert list(map(len, seen)) == [8, 8, 8]
    everything = set.union(*seen)
    held = [everything - each for each in seen]
    assert len(everything) == len(set.union(*held)) == 12  # each is held out once
    assert found.rows[1].accuracy == 1.0  # two colours are told apart by features
    assert found.best in ("zero-shot", "clip-adapter")
    assert found.best in found.advice
    assert "accuracy" in str(found)


def test_a_spent_budget_leaves_methods_out_and_says_so(own: Path) -> None:
    found = compare(own, methods=["zero-shot", "coop", "fine-tune"], folds=2, budget=1e-6)
    folds = {row.method: row.folds for row in found.rows}
    # What takes seconds always finishes.
    assert folds == {"zero-shot": 2, SVM: 2, "coop": 0, "fine-tune": 0}
    assert "ended before" in found.advice
    assert "fine-tune" in found.advice
    assert "not tried" in str(found)


def test_runs_that_are_kept_are_not_done_again(own: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    found = [
        compare(
            own,
            methods=["zero-shot"],
            folds=folds,
            out=tmp_path / "runs",
            report_progress=lines.append,
        )
        for folds in (2, 2, 3)
    ]
    assert ["kept" in line for line in lines] == [False] * 2 + [True] * 2 + [False] * 2
    assert [[r.to_dict() for r in each.rows] for each in found[:1]] == [
        [r.to_dict() for r in each.rows] for each in found[1:2]
    ]
    assert len(list((tmp_path / "runs" / "runs").glob("*.json"))) == 4


def test_what_auto_tries_is_compared_and_can_be_adapted_as_named(own: Path) -> None:
    name = "kgcoop+dept, gentle crops"
    found = compare(own, methods=["gda", name], folds=2, options={"": {"epochs": 1}})
    rows = {row.method: row for row in found.rows}
    assert set(rows) == {"gda", name, SVM}
    assert rows[name].arguments == "--method kgcoop+dept --augment gentle --set epochs=1"
    assert rows[name].folds == 2
    assert f"fewclip adapt DATA --out MODEL {rows[found.best].arguments}" in found.advice


def test_names_with_commas_can_stand_in_a_list() -> None:
    short = "skip-tuning, gentle crops, 40 epochs"
    long = f"{short}, half of the change"
    wanted = ["gda", long, "skip-tuning", short, "coop+dept"]
    for given in (wanted, [",".join(wanted)], [", ".join(wanted)], " ".join(wanted).split()):
        assert split_names(given) == wanted
    assert split_names(METHODS) == list(METHODS)
    assert split_names(["gda-x,gda,"]) == ["gda-x", "gda"]


def test_arguments_are_read_back_as_the_options_they_came_from() -> None:
    options = {"same_class": False, "omega": [3, 4], "dept_weight": None, "context": "it's a"}
    words = shlex.split(Candidate("some", "skip-tuning+gda", options).arguments)
    assert words[:2] == ["--method", "skip-tuning+gda"]
    assert settings(words[3::2]) == options


def test_every_class_needs_two_images(tmp_path: Path) -> None:
    own = bench_data.write_folder(tmp_path / "own", ["red", "ant"], 5, 0)
    with pytest.raises(DataError, match="take more than one per class"):
        compare(own, methods=["zero-shot"], shots=1)
    for i in (2, 3, 4):
        (own / "ant" / f"{i}.png").unlink()
    found = compare(own, methods=["zero-shot"], folds=8)
    assert (found.folds, found.images) == (5, 7)
    (own / "ant" / "1.png").unlink()
    with pytest.raises(DataError, match="'ant' has one image"):
        compare(own, methods=["zero-shot"])


def test_shots_are_drawn_before_the_folds(own: Path) -> None:
    found = compare(own, methods=["zero-shot"], shots=4)
    assert (found.folds, found.images) == (4, 8)
    assert "4 images beyond 4 of a class were not used" in found.notes[-1]


def test_test_images_are_left_for_the_last_check(tmp_path: Path) -> None:
    own = bench_data.write_folder(tmp_path / "own", ["red", "ant"], 4, 2)
    found = compare(own, methods=["zero-shot"], folds=2)
    assert found.images == 8
    assert "4 images of test/" in found.notes[-1]


def test_wrong_words(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: tuple[dict[str, Any], ...] = (
        {"budget": 0}, {"folds": 1}, {"methods": []}, {"template": "no braces"}, {"engine": "spark"}
    )  # fmt: skip
    for wrong in settings:
        with pytest.raises(OptionError):
            compare(own, **wrong)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"fewclip\[train\]"):
        compare(own)


def test_the_best_is_ahead_on_the_same_images_not_on_easier_ones() -> None:
    easy, hard = [1] * 50, [0] * 50
    # Evaluated on the easy half alone, where every method is right.
    lucky = row("lucky", [1] * 50 + [-1] * 50, note=OUT_OF_TIME)
    steady = row("steady", easy + [1] * 30 + [0] * 20)
    found = advice(row("zero-shot", easy + hard), lucky, steady)
    assert lucky.accuracy > steady.accuracy
    assert found.best == "steady"
    assert "lucky (1 of 2 folds)" in found.advice


def test_methods_that_chance_explains_are_as_good_and_the_quicker_is_named() -> None:
    best = row("slow", [1] * 82 + [0] * 18, seconds=100.0)
    near = row("quick", [0] * 3 + [1] * 77 + [0] * 20, seconds=10.0)
    far = row("far", [1] * 40 + [0] * 60)
    found = advice(far, near, best)
    assert found.best == "slow"
    assert "82.0% of 100 images" in found.advice
    far_off = row("far", [1] * 40 + [0] * 60)
    assert difference(far_off, best)[2] < 0
    alone = advice(far_off, best)
    assert "more than chance" in alone.advice
    tie = advice(best, row("quick", [0] + [1] * 81 + [0] * 18, seconds=10.0))
    assert "and quicker: quick" in tie.advice


def test_an_outside_reference_that_is_ahead_is_named_but_not_chosen() -> None:
    found = advice(
        row("zero-shot", [1] * 40 + [0] * 60),
        row(SVM, [1] * 90 + [0] * 10, outside=True),
    )
    assert found.best == "zero-shot"
    assert "Outside fewclip, features + linear SVM" in found.advice


def test_references_learn_from_one_image_per_class_too() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8, dtype=np.float32)
    features = np.repeat(centres, 4, 0) + rng.normal(0, 0.05, (12, 8)).astype(np.float32)
    labels = np.repeat(np.arange(3), 4)
    for name in (SVM, REGRESSION):
        for chosen in (slice(None), slice(0, None, 4)):
            model = fit_reference(name, features[chosen], labels[chosen])
            assert (model(features) == labels).all()


def test_the_command_prints_an_advice_or_one_json_document(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fewclip.cli import main

    words = ["compare", str(own), "--folds", "2", "--device", "cpu"]
    # By default all of them, whose names have commas; the first budget is too short for most.
    assert main([*words, "--budget", "0.001"]) == 0
    assert re.search("skip-tuning, gentle crops, 40 epochs +not tried", capsys.readouterr().out)
    words += ["--methods", "zero-shot"]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "Use zero-shot" in captured.out
    assert "all folds: zero-shot" in captured.err
    assert main([*words, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["best"] == "zero-shot"
    assert plain["rows"][0]["n"] == 12
    assert len(plain["rows"][0]["interval"]) == 2
