"""The command line: exit status, JSON on stdout and nothing else there, and kill -9 survived."""

from __future__ import annotations

import importlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from handwritten_digits import LABELS
from safetensors.numpy import load_file

import fewclip
from fewclip.cli import main
from fewclip.cli.subcommands import SUBCOMMANDS
from fewclip.contract import FORMAT_VERSION

FEWCLIP = [sys.executable, "-m", "fewclip.cli"]


@pytest.fixture(scope="module")
def model(tuned: fewclip.Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "digits"
    tuned.save(path)
    return path


def ran(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return status, out, err


def test_predict_prints_one_json_list_in_order(
    capsys: pytest.CaptureFixture[str], model: Path, held_out: Path
) -> None:
    images = sorted((held_out / "one").iterdir())[:3]
    status, out, _ = ran(capsys, "predict", model, *images, "--top-k", 2, "--json")
    rows = json.loads(out)
    assert status == 0
    assert [row["image"] for row in rows] == [str(i) for i in images]
    for row in rows:
        assert set(row) == {"image", "label", "score", "known", "top"}
        assert row["label"] == row["top"][0]["label"]
        assert row["score"] == row["top"][0]["score"]
        assert len(row["top"]) == 2


def test_predict_takes_a_folder_and_prints_for_people(
    capsys: pytest.CaptureFixture[str], model: Path, held_out: Path
) -> None:
    status, out, _ = ran(capsys, "predict", model, held_out / "zero")
    assert status == 0
    assert len(out.splitlines()) == 20
    assert all("%" in line for line in out.splitlines())


def test_a_bad_image_among_good_ones_is_named_and_the_good_ones_are_answered(
    capsys: pytest.CaptureFixture[str], model: Path, held_out: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("not an image")
    good = next((held_out / "one").iterdir())
    status, out, err = ran(capsys, "predict", model, good, bad, good, "--json")
    rows = json.loads(out)
    assert status == 2
    assert ["label" in row for row in rows] == [True, False, True]
    assert "bad.jpg" in rows[1]["error"]
    assert "bad.jpg" in err
    assert "Traceback" not in err


def test_evaluate_prints_the_report(
    capsys: pytest.CaptureFixture[str], model: Path, held_out: Path, tmp_path: Path
) -> None:
    status, out, _ = ran(capsys, "evaluate", model, held_out, "--json", "--out", tmp_path / "r")
    report = json.loads(out)
    assert status == 0
    assert {"accuracy", "macro_f1", "ece", "n", "per_class", "confusion"} <= set(report)
    assert report["n"] == 60
    assert {f.name for f in (tmp_path / "r").iterdir()} == {
        "report.json",
        "confusion.png",
        "reliability.png",
    }


def test_info_is_the_card(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    status, out, _ = ran(capsys, "info", model, "--json")
    card = json.loads(out)
    assert status == 0
    assert card["classes"] == list(LABELS)
    assert card["format_version"] == FORMAT_VERSION
    assert "model.safetensors" in card["files"]
    status, out, _ = ran(capsys, "info", model)
    assert "skip-tuning on micro" in out


def test_methods_and_backbones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ran(capsys, "methods", "--json")
    names = [row["name"] for row in json.loads(out)]
    assert names == fewclip.methods()
    assert {"zero-shot", "skip-tuning", "fine-tune", "coop+dept", "kgcoop+dept"} <= set(names)
    assert {"skip-tuning+dept", "zero-shot+dept", "fine-tune+dept"}.isdisjoint(names)
    _, out, _ = ran(capsys, "backbones", "--json")
    names = [row["name"] for row in json.loads(out)]
    assert names[0] == "micro"
    assert "ViT-B-16/openai" in names
    assert "RN50/openai" in names


def test_add_classes_writes_another_model(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    status, _, _ = ran(capsys, "add-classes", model, "zebra", "dog", "--out", tmp_path / "more")
    assert status == 0
    assert fewclip.load(tmp_path / "more").classes == (*LABELS, "zebra", "dog")
    status, _, err = ran(capsys, "add-classes", model, "one", "--out", tmp_path / "no")
    assert status == 2
    assert "already among" in err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["adapt", "nowhere", "--out", "{tmp}/m"], "nowhere"),
        (["adapt", "{photos}", "--out", "{tmp}/m", "--method", "magic"], "magic"),
        (["adapt", "{photos}", "--out", "{tmp}/m", "--set", "omega"], "KEY=VALUE"),
        (["adapt", "{photos}", "--out", "{tmp}/m", "--set", "omga=3"], "omga"),
        (["adapt", "{photos}", "--out", "{tmp}/m", "--classes", "{"], "JSON"),
        (["adapt", "{photos}/one", "--out", "{tmp}/m"], "one"),
        (["predict", "{tmp}/none", "x.jpg"], "{tmp}/none"),
        (["predict", "{model}", "nothing.jpg"], "nothing.jpg"),
        (["predict", "{model}", "{photos}", "--top-k", "0"], "top_k"),
        (["evaluate", "{model}", "{tmp}"], "{tmp}"),
        (["info", "{photos}"], "card.json"),
        (["add-classes", "{model}", "a", "--out", "{model}"], "overwrite"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
    model: Path,
    photos: Path,
    tmp_path: Path,
) -> None:
    places = {"{tmp}": str(tmp_path), "{photos}": str(photos), "{model}": str(model)}

    def fill(word: str) -> str:
        for mark, place in places.items():
            word = word.replace(mark, place)
        return word

    status, out, err = ran(capsys, *[fill(word) for word in words])
    assert status == 2
    assert fill(says) in err
    assert len(err.splitlines()) == 1
    assert out == ""
    assert not (tmp_path / "m").exists()


def test_unknown_words_are_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["conquer"])
    assert caught.value.code == 2


@pytest.mark.slow
def test_adapt_tells_epochs_in_a_log_and_prints_one_json_document(
    photos: Path, tmp_path: Path
) -> None:
    words = ["adapt", str(photos), "--out", str(tmp_path / "m"), "--shots", "4", "--epochs", "2"]
    words += ["--method", "skip-tuning"]
    done = subprocess.run([*FEWCLIP, *words, "--json"], capture_output=True, text=True, check=True)
    card = json.loads(done.stdout)
    assert card["method"] == "skip-tuning"
    assert "epoch 1/2" in done.stderr
    assert "epoch 2/2" in done.stderr
    assert "images to learn from" in done.stderr
    assert not (tmp_path / "m.checkpoint").exists()
    again = subprocess.run([*FEWCLIP, *words], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    resumed = subprocess.run(
        [*FEWCLIP, *words, "--resume"], capture_output=True, text=True, check=True
    )
    assert "finished already" in resumed.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "epochs", "moment"),
    [("skip-tuning", 200, "epoch 2/"), ("skip-tuning+gda", 1, "passing")],  # in the loop, after it
)
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(
    photos: Path, tmp_path: Path, method: str, epochs: int, moment: str
) -> None:
    words = ["adapt", str(photos), "--out", str(tmp_path / "m"), "--shots", "8"]
    words += ["--method", method, "--epochs", str(epochs)]
    process = subprocess.Popen(
        [*FEWCLIP, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, Ctrl-C would be ignored by inheritance.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(moment):
            process.send_signal(signal.SIGINT)
            break
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in rest
    assert "Traceback" not in rest
    assert (tmp_path / "m.checkpoint" / "state.safetensors").exists()
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_killed_at_random_moments_it_resumes_to_the_same_weights(
    photos: Path, tmp_path: Path
) -> None:
    """kill -9 anywhere: nothing half-written ever loads, and the end is the same bit for bit."""

    def words(out: str) -> list[str]:
        return [
            *FEWCLIP, "adapt", str(photos), "--out", str(tmp_path / out), "--shots", "8",
            "--epochs", "6", "--resume", "--device", "cpu", "--method", "skip-tuning",
        ]  # fmt: skip

    begin = time.monotonic()
    subprocess.run(words("whole"), check=True, capture_output=True)
    whole = time.monotonic() - begin
    rng = random.Random(0)
    kills = runs = 0
    out = tmp_path / "m"
    while kills < 3:
        runs += 1
        assert runs < 30
        if out.exists():
            out = tmp_path / f"m{runs}"
        process = subprocess.Popen(words(out.name), stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.3, 1.1) * whole)
            whole *= 0.8  # it got there first: the machine may be less busy than it was
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        if out.exists():
            assert fewclip.load(out).classes == LABELS
    subprocess.run(words(out.name), check=True, capture_output=True)
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    for finished in tmp_path.glob("m*"):
        found = load_file(finished / "model.safetensors")
        assert found.keys() == expected.keys()
        for name in expected:
            assert (found[name] == expected[name]).all(), (finished.name, name)
    assert not list(tmp_path.glob("*.checkpoint"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_is_found_where_the_table_says(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert SUBCOMMANDS[name].help.split()[0] in capsys.readouterr().out
    module, function = SUBCOMMANDS[name].run.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_predict_answers_what_is_there_beside_what_is_missing(
    capsys: pytest.CaptureFixture[str], model: Path, held_out: Path, tmp_path: Path
) -> None:
    first, second = sorted((held_out / "one").iterdir())[:2]
    gone = tmp_path / "gone.jpg"
    status, out, err = ran(capsys, "predict", model, first, gone, second, "--json")
    rows = json.loads(out)
    assert status == 2
    assert [row["image"] for row in rows] == [str(first), str(gone), str(second)]
    assert ["label" in row for row in rows] == [True, False, True]
    assert "gone.jpg" in err
    status, out, err = ran(capsys, "predict", model, gone, "--json")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_adapt_says_what_it_did_not_use_and_that_there_is_nothing_to_resume(
    capsys: pytest.CaptureFixture[str], held_out: Path, tmp_path: Path
) -> None:
    command = ["adapt", held_out, "--out", tmp_path / "m", "--method", "zero-shot", "--shots", 4]
    status, out, err = ran(capsys, *command, "--resume")
    assert status == 0
    assert "nothing to resume" in err
    assert "--shots all" in err
    assert re.search(r"\d%? \(\d+ to \d+%\) before, \S+ \(\d+ to \d+%\) after", out)
