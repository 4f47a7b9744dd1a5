"""`method="auto"`: what is tried, what is chosen, and what a stop or an old choice does to it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handwritten_digits import PHRASES

import fewclip
from fewclip.bench.measure import Cost
from fewclip.bench.results import Store
from fewclip.cli import main
from fewclip.decide import fit_calibration
from fewclip.heads import FoldOutputs, folds_from_arrays, folds_to_arrays
from fewclip.selection.auto import default_budget, select
from fewclip.selection.candidates import CHEAP, TRAINED, ZERO_SHOT, Candidate, named
from fewclip.selection.cross_validation import CrossValidation, options_of, tower_of, with_candidate
from fewclip.selection.evaluated import (
    FAR,
    HOPELESS,
    NOISE,
    Evaluated,
    Run,
    Selection,
    behind,
    choose,
)
from fewclip.selection.kept_folds import KeptFolds
from fewclip.selection.kept_runs import KeptRuns
from fewclip.training import AdaptConfig, Plan, checkpoint, make_plan
from fewclip.training.checkpoint import CHOICE_FILE, read_choice, save_choice


def evaluated(loss: list[float], name: str = "some", trains: bool = False) -> Evaluated:
    values = np.array(loss)
    return Evaluated(Candidate(name, "gda", trains=trains), values, (values < 1).astype(float))


def plan_for(photos: Path, **more: Any) -> Plan:
    given = {"shots": 4, "val": 0, "classes": PHRASES, "device": "cpu", **more}
    return make_plan(photos, AdaptConfig(**given))


def test_one_is_behind_where_the_gap_is_more_than_noise() -> None:
    steady, better = evaluated([1.0, 1.1, 0.9, 1.0]), evaluated([0.5, 0.6, 0.4, 0.5])
    assert behind(steady, better, NOISE)
    assert not behind(better, steady, NOISE)
    assert not behind(evaluated([1.0, 0.0, 1.0, 0.0]), evaluated([0.0, 1.0, 0.0, 0.9]), NOISE)
    assert not behind(steady, evaluated([np.nan] * 4), NOISE)  # nothing in common


def test_what_is_behind_by_noise_is_not_far_behind() -> None:
    steady, better = evaluated([1.0, 1.1, 0.9, 1.0]), evaluated([0.5, 1.0, 0.9, 1.0])
    assert behind(steady, better, HOPELESS)
    assert not behind(steady, better, FAR)


def test_the_simpler_one_is_taken_within_noise() -> None:
    simple = evaluated([0.50, 0.60, 0.40, 0.50], "simple")
    alike = evaluated([0.40, 0.70, 0.30, 0.59], "alike")
    better = evaluated([0.10, 0.20, 0.10, 0.10], "better")
    assert choose([simple, alike]) is simple
    assert choose([simple, alike, better]) is better
    assert choose([evaluated([np.nan])]).candidate.name == "some"
    better.dropped = True
    assert choose([simple, alike, better]) is simple


def test_what_trains_has_to_be_ahead_by_less() -> None:
    simple = evaluated([0.50, 0.60, 0.40, 0.50], "simple")
    head, trained = (
        evaluated([0.40, 0.70, 0.20, 0.50], name, trains=name == "trained")
        for name in ("head", "trained")
    )
    assert choose([simple, head]) is simple
    assert choose([simple, trained]) is trained


def test_only_what_trains_gets_a_backbone_of_its_own(photos: Path) -> None:
    plan = plan_for(photos)
    assert with_candidate(plan, CHEAP[1]).backbone is plan.backbone
    assert with_candidate(plan, TRAINED[0]).backbone is not plan.backbone


@pytest.fixture(scope="module")
def heads_only(photos: Path) -> tuple[Selection, list[str]]:
    """A choice without time to train anything, and what it reported."""
    lines: list[str] = []
    return select(plan_for(photos, seed=3), budget=1e-9, report_progress=lines.append), lines


def test_heads_finish_whatever_the_budget(heads_only: tuple[Selection, list[str]]) -> None:
    selection, lines = heads_only
    rows = {row.candidate.name: row.to_dict() for row in selection.rows}
    assert [rows[c.name]["images"] for c in CHEAP] == [12, 12, 12]
    assert all(rows[c.name]["note"] == "the budget ended first" for c in TRAINED)
    assert not selection.chosen.trains
    assert lines[-1] == f"chosen: {selection.chosen.name}"


def test_compare_gives_the_same_figures_and_the_same_answer(
    photos: Path, heads_only: tuple[Selection, list[str]]
) -> None:
    selection, _ = heads_only
    found = fewclip.compare(
        photos, methods=[c.name for c in CHEAP], classes=PHRASES, shots=4, seed=3, device="cpu"
    )
    auto = {r.candidate.name: r.to_dict() for r in selection.rows if not r.candidate.trains}
    rows = {r.method: (r.accuracy, r.log_loss, r.n) for r in found.rows if not r.outside}
    assert rows == {n: (r["accuracy"], r["log_loss"], r["images"]) for n, r in auto.items()}
    assert found.best == selection.chosen.name


def test_one_pass_over_the_images_serves_zero_shot_and_heads_in_any_order(photos: Path) -> None:
    cv = CrossValidation(plan_for(photos))
    (_, one), (_, other) = cv.evaluate_heads([ZERO_SHOT, named("gda")])
    assert one is other


def test_no_fold_is_empty(photos: Path) -> None:
    two = {folder.name: sorted(folder.iterdir())[:2] for folder in sorted(photos.iterdir())[:2]}
    cv = CrossValidation(make_plan(two, AdaptConfig(val=0, device="cpu")))
    assert [len(cv.held(k)) for k in range(cv.folds)] == [2, 2]
    assert cv.held(None).tolist() == [0, 1, 2, 3]


def test_what_shares_a_training_is_what_its_own_training_gives(photos: Path) -> None:
    cv = CrossValidation(plan_for(photos))
    head, whole, half = (
        dataclasses.replace(c, options={**c.options, "epochs": 1})
        for c in TRAINED
        if "gentle crops" in c.name and c.method.startswith("skip-tuning")
    )
    shared = cv.evaluate_trained([whole, half, head, half], 0)
    alone = [cv.evaluate_trained([each], 0) for each in (half, head)]
    assert shared
    for k, own in zip((1, 2, 3), (alone[0], alone[1], alone[0]), strict=True):
        assert own
        np.testing.assert_allclose(shared[k].loss, own[0].loss, atol=1e-4)


def outputs_of(cv: CrossValidation, k: int) -> FoldOutputs:
    """Of one head that is always right, beside a text that knows nothing."""
    images, rng = cv.held(k), np.random.default_rng(k)
    labels, noise = cv.labels[images], rng.standard_normal((len(images), 3)).astype(np.float32)
    return FoldOutputs(images, labels, noise, [noise + 5 * np.eye(3, dtype=np.float32)[labels]])


def test_a_head_on_tuned_features_is_weighed_on_all_folds_so_far(
    photos: Path, tmp_path: Path
) -> None:
    cv = CrossValidation(plan_for(photos))
    candidate = next(c for c in TRAINED if c.method == "skip-tuning+gda")
    (row,) = cv.empty_rows([candidate])
    kept, folds = KeptRuns(Store(tmp_path), cv), [outputs_of(cv, k) for k in range(2)]
    for k, held in enumerate(folds):
        kept.add(candidate, k, Run.of_fold(held))
        found = kept.find(candidate, k)
        assert found
        row.add(found)
    pooled = Run.of_fold(FoldOutputs.join(folds))
    np.testing.assert_allclose(row.loss[pooled.images], pooled.loss)
    assert row.accuracy == 1
    assert len(row.folds) == 2


@pytest.mark.slow
def test_every_candidate_is_tried_and_the_card_lists_them(
    photos: Path, held_out: Path, zero_shot_accuracy: float
) -> None:
    clf = fewclip.adapt(
        photos, budget=300, shots=8, val=0, classes=PHRASES, device="cpu", progress=False
    )
    listed = clf.card.training["selection"]
    assert [row["candidate"] for row in listed["rows"]] == [c.name for c in (*CHEAP, *TRAINED)]
    tried = {row["candidate"] for row in listed["rows"] if row["images"]}
    assert {"skip-tuning, gentle crops, 40 epochs", "kgcoop+dept, gentle crops"} <= tried
    assert all("not tried" in r["note"] for r in listed["rows"] if r["candidate"] not in tried)
    assert listed["chosen"] in [row["candidate"] for row in listed["rows"]]
    assert clf.evaluate(held_out).accuracy > zero_shot_accuracy + 0.2


def test_ctrl_c_is_not_taken_for_the_end_of_the_budget(photos: Path) -> None:
    pressed = iter([True])

    def stop() -> bool:  # polled while a candidate trains
        if next(pressed, False):
            raise KeyboardInterrupt
        return False

    cv = CrossValidation(plan_for(photos))
    with pytest.raises(fewclip.StoppedError):
        cv.evaluate_trained([TRAINED[1]], 0, 600.0, stop)


def test_towers_below_a_head_are_tuned_with_the_crops_of_the_head(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(photos)
    monkeypatch.setattr(plan.backbone, "method_defaults", {})  # as most backbones are
    whole = named("skip-tuning+gda")
    tower = tower_of(plan, whole)
    assert tower.method == "skip-tuning"
    for name in ("crop_area", "flip", "epochs"):
        assert tower.options[name] == options_of(plan, whole)[name]
    assert tower_of(plan, ZERO_SHOT) is ZERO_SHOT


def test_a_training_is_shared_only_with_the_same_options() -> None:
    tuned = named("skip-tuning, gentle crops, 40 epochs")
    head = named("skip-tuning+gda, gentle crops, 40 epochs")
    half = named("skip-tuning, gentle crops, 40 epochs, half of the change")
    assert half.comes_from(tuned)
    assert dataclasses.replace(head, options={**head.options, "views": 2}).comes_from(tuned)
    for each in (head, half):
        longer = dataclasses.replace(each, options={**each.options, "epochs": 50})
        assert not longer.comes_from(tuned)
    weaker = dataclasses.replace(tuned, options={**tuned.options, "interpolation": 0.2})
    assert not half.comes_from(weaker)
    assert not head.comes_from(weaker)


def trainings_until_stopped(plan: Plan, count: int) -> list[str]:
    """What a choice says before each training; it is stopped in the last of `count`."""
    lines: list[str] = []

    def report_progress(line: str) -> None:
        lines.extend([line.split(" on part")[0]] if line.startswith("trying ") else [])

    with pytest.raises(fewclip.StoppedError, match="'auto' was choosing") as stopped:
        select(
            plan,
            budget=300,
            report_progress=report_progress,
            stop=lambda: len(lines) == count,
        )
    assert "keep_best" in str(stopped.value)
    assert stopped.value.checkpoint == (str(plan.checkpoint) if plan.checkpoint else None)
    return lines


def test_a_choice_that_was_stopped_goes_on_with_what_it_has_evaluated(
    photos: Path, tmp_path: Path
) -> None:
    plan = plan_for(photos, shots=2, checkpoint=tmp_path / "c")
    first, second = trainings_until_stopped(plan, 2)
    assert first != second
    assert trainings_until_stopped(plan, 1) == [second]
    assert checkpoint.exists(tmp_path / "c")
    assert checkpoint.set_aside(tmp_path / "c") is None  # a new run begins with it
    assert not checkpoint.exists(tmp_path / "c")
    assert trainings_until_stopped(dataclasses.replace(plan, checkpoint=None), 1) == [first]


def test_a_fold_is_kept_as_it_was_found(photos: Path, tmp_path: Path) -> None:
    plan = plan_for(photos, checkpoint=tmp_path / "c")
    cv, group = CrossValidation(plan), [TRAINED[1], TRAINED[0]]
    runs = [dataclasses.replace(Run.of_fold(outputs_of(cv, 0)), cost=Cost(1.0, 2.0))] * 2
    kept = KeptFolds(plan)
    kept.add(group, 0, runs)
    found = kept.find(group, 0)
    assert found
    for one, other in zip(runs, found, strict=True):
        assert one.cost == other.cost
        np.testing.assert_array_equal(one.loss, other.loss)
    assert kept.find(group, 1) is kept.find(group[:1], 0) is None
    assert KeptFolds(dataclasses.replace(plan, run={})).find(group, 0) is None


def test_options_of_a_method_need_a_method() -> None:
    with pytest.raises(fewclip.OptionError, match="name a method"):
        AdaptConfig(epochs=3)
    with pytest.raises(fewclip.OptionError, match="budget"):
        AdaptConfig(budget=0)


def test_the_budget_grows_with_the_images_up_to_a_limit() -> None:
    assert default_budget(100) == 260
    assert default_budget(10**6) == 900


def test_a_choice_is_kept_for_its_own_run_only(tmp_path: Path) -> None:
    save_choice(tmp_path / "c", "one", {"chosen": "gda"}, {"0/labels": np.arange(3)})
    choice, arrays = read_choice(tmp_path / "c", "one") or ({}, {})
    assert choice == {"chosen": "gda"}
    np.testing.assert_array_equal(arrays["0/labels"], np.arange(3))
    assert read_choice(tmp_path / "c", "other") is None
    (tmp_path / "c" / CHOICE_FILE).write_text("{", "utf-8")
    assert read_choice(tmp_path / "c", "one") is None
    assert read_choice(tmp_path / "none", "one") is None


def test_what_folds_say_survives_being_stored(photos: Path) -> None:
    cv = CrossValidation(plan_for(photos))
    terms = {"mahalanobis": np.ones((len(cv.held(0)), 3))}
    folds = [dataclasses.replace(outputs_of(cv, 0), ood_terms=terms), outputs_of(cv, 1)]
    arrays = folds_to_arrays(folds)
    again = folds_to_arrays(folds_from_arrays(arrays))
    assert arrays.keys() == again.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, again[name])


@pytest.mark.slow
def test_a_resumed_run_keeps_its_choice(photos: Path, tmp_path: Path) -> None:
    plan = plan_for(photos)
    chosen = {"chosen": "skip-tuning, gentle crops, 40 epochs", "rows": []}
    cv = CrossValidation(plan)
    candidate = next(c for c in TRAINED if c.name == chosen["chosen"])
    runs = cv.evaluate_trained([candidate], 0)
    assert runs
    assert runs[0].outputs
    arrays = folds_to_arrays([runs[0].outputs])
    save_choice(tmp_path / "m.checkpoint", plan.run_id, chosen, arrays)
    words = ["adapt", str(photos), "--out", str(tmp_path / "m"), "--shots", "4", "--val", "0"]
    words += ["--device", "cpu", "--resume", "--classes", json.dumps(PHRASES)]
    assert main(words) == 0
    card = fewclip.load(tmp_path / "m").card
    assert card.method == "skip-tuning"
    assert card.training["run_id"] == plan.run_id
    # Without validation images, the folds of the choice give temperature and threshold.
    told = runs[0].outputs
    wanted = fit_calibration(told.logits_itm, None, told.labels, card.head)
    assert card.calibration.n == len(told.labels) > 0
    assert card.calibration.temperature == wanted.temperature != 1
    assert card.calibration.threshold is not None
    assert not (tmp_path / "m.checkpoint").exists()
    assert main(words) == 0  # finished already
