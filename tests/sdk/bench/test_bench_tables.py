"""Finished runs as files, and their table: means, spreads, harmonic means, formats."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from fewclip.bench.results import Result, Store
from fewclip.bench.tables import summarise
from fewclip.errors import DataError, InputError


def result(method: str, seed: int, dataset: str = "pets", **scores: float) -> Result:
    run = {
        "protocol": "base-to-new",
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "shots": 16,
        "options": {"omega": [1, 2]},
    }
    cost = {"seconds": 10.0 * seed, "peak_mb": 100.0}
    return Result(run=run, scores=scores, cost=cost)


RESULTS = [
    result("coop", 1, base=0.6, new=0.3, h=0.4),
    result("coop", 2, base=0.8, new=0.5, h=0.6154),
    result("coop+dept", 1, base=0.9, new=0.6, h=0.72),
]


def test_a_finished_run_is_found_again_and_no_other(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    store.add(RESULTS[0])
    assert Store(tmp_path / "out").find(RESULTS[0].run) == RESULTS[0]
    assert store.find(RESULTS[1].run) is None
    reordered = dict(reversed(list(RESULTS[0].run.items()))) | {"options": {"omega": (1, 2)}}
    assert store.find(reordered) == RESULTS[0]
    assert not list((tmp_path / "out" / "runs").glob("*.tmp"))


def test_a_result_that_was_touched_is_refused_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(RESULTS[0])
    (file,) = (tmp_path / "runs").iterdir()
    plain = json.loads(file.read_text())
    plain["run"]["seed"] = 9
    for broken in ("{", "[]", json.dumps(plain)):
        file.write_text(broken)
        with pytest.raises(DataError, match=file.name):
            store.find(RESULTS[0].run)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        Store(tmp_path / "file")


def test_rows_are_means_over_seeds_and_h_is_of_the_means() -> None:
    summary = summarise(RESULTS)
    coop = summary.row("coop").scores
    assert coop["base"].mean == pytest.approx(0.7)
    assert coop["base"].n == 2
    assert coop["base"].std == pytest.approx(0.1 * 2**0.5)
    assert coop["h"].mean == pytest.approx(2 * 0.7 * 0.4 / 1.1)
    assert summary.row("coop+dept").scores["base"].std is None
    assert summary.row("coop").seconds.mean == 15  # type: ignore[union-attr]


def test_several_data_sets_are_averaged_for_methods_that_have_all() -> None:
    more = [result("coop", 1, "cars", base=0.3, new=0.2, h=0.24)]
    summary = summarise([*RESULTS, *more])
    average = summary.row("coop", "average")
    assert average.scores["base"].mean == pytest.approx((0.7 + 0.3) / 2)
    assert average.scores["h"].mean == pytest.approx(2 * 0.5 * 0.3 / 0.8)
    assert not [r for r in summary.rows if r.dataset == "average" and r.method == "coop+dept"]


def test_markdown_csv_and_json_say_the_same() -> None:
    summary = summarise(RESULTS, notes=("made up",))
    text = summary.to_markdown()
    assert "| coop | 70.0 ± 14.1 | 40.0 ± 14.1 | 50.9 ± 15.2 | 2 | 15 | 100 |" in text
    assert "| coop+dept | 90.0 | 60.0 | 72.0 | 1 | 10 | 100 |" in text
    assert text.endswith("Note: made up.\n")
    rows = list(csv.DictReader(io.StringIO(summary.to_csv())))
    assert float(rows[0]["base mean"]) == pytest.approx(0.7)
    assert (rows[1]["base std"], rows[1]["seeds"]) == ("", "1")
    plain = json.loads(json.dumps(summary.to_dict()))
    assert plain["rows"][0]["scores"]["base"]["mean"] == pytest.approx(0.7)
    assert [run["run"]["seed"] for run in plain["runs"]] == [1, 2, 1]


def test_a_few_shot_table_has_a_column_per_number_and_zero_shot_in_all() -> None:
    results = []
    for method, shots, accuracy in (("zero-shot", 0, 0.2), ("coop", 1, 0.3), ("coop", 2, 0.4)):
        one = result(method, 1, accuracy=accuracy)
        run = {**one.run, "protocol": "few-shot", "shots": shots}
        results.append(Result(run=run, scores=one.scores, cost=one.cost))
    summary = summarise(results)
    assert summary.columns == ["1 shots", "2 shots"]
    assert summary.row("zero-shot").scores["2 shots"].mean == pytest.approx(0.2)
    assert summary.row("coop").scores["2 shots"].mean == pytest.approx(0.4)


def test_saving_writes_three_texts_and_a_picture(tmp_path: Path) -> None:
    from PIL import Image

    paths = summarise(RESULTS).save(tmp_path / "new")
    assert [p.name for p in paths] == [f"base-to-new.{s}" for s in ("md", "csv", "json", "png")]
    with Image.open(paths[-1]) as picture:
        assert min(picture.size) > 200
