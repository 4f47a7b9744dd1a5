"""Settings, sessions, drawings and names: the small parts of the page."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fewclip
import fewclip_app
from fewclip.data import Skipped
from fewclip.decide import Prediction, Score
from fewclip.errors import ClassNameError, DataError, OptionError, StoppedError
from fewclip.report import Report
from fewclip_app.command import app_arguments
from fewclip_app.settings import Settings
from fewclip_app.ui import render
from fewclip_app.ui.steps import step_results
from fewclip_app.ui.steps.step_download import NAME, slug
from fewclip_app.work.evaluation import Evaluation
from fewclip_app.work.job_queue import Job
from fewclip_app.work.sessions import Sessions
from fewclip_app.work.training import Model, read_names

EVIL = "<script>alert(1)</script>\"'&"


def view(name: str | None) -> Any:
    return SimpleNamespace(session_hash=name)


# ---- settings ------------------------------------------------------------------------------------


def test_flags_go_before_the_environment_and_that_before_the_defaults() -> None:
    env = {"FEWCLIP_APP_MAX_FILES": "7", "FEWCLIP_APP_TRAININGS": "2", "MAX_PIXELS": "1"}
    read = Settings.read({"max_files": 9, "trainings": None}, env)
    assert (read.max_files, read.trainings) == (9, 2)
    assert read.max_pixels == Settings().max_pixels
    assert Settings.read({"backbones": "micro, ViT-B-16/openai"}, {}).backbones == (
        "micro",
        "ViT-B-16/openai",
    )


@pytest.mark.parametrize(
    "given",
    [
        {"max_files": 0},
        {"max_bytes": "much"},
        {"backbones": ""},
        {"user": "me"},
        {"password": "secret"},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(given)).replace("_", "-")):
        Settings.read(given, {})


def test_every_setting_has_a_flag() -> None:
    parser = argparse.ArgumentParser()
    app_arguments(parser)
    told = parser.format_help()
    assert "--max-total-bytes" in told
    given = vars(parser.parse_args(["--max-pixels", "5", "--port", "1"]))
    assert Settings.read({"max_pixels": given["max_pixels"]}, {}).max_pixels == 5


# ---- sessions ------------------------------------------------------------------------------------


@pytest.fixture
def sessions(tmp_path: Path) -> Any:
    made = Sessions(tmp_path / "people", Settings(keep_minutes=1))
    yield made
    made.close()
    assert not (tmp_path / "people").exists()


def test_two_views_have_two_workspaces_and_a_reload_finds_its_own(sessions: Sessions) -> None:
    mine, token = sessions.join(view("a"), None)
    other = sessions.of(view("b"))
    assert other is not mine
    assert sessions.of(view("a")) is mine
    sessions.left(view("a"))
    again, same = sessions.join(view("a2"), token)
    assert (again, same) == (mine, token)


@pytest.mark.parametrize("token", ["", "guess", "../..", None])
def test_a_guessed_token_opens_nothing(token: str | None, sessions: Sessions) -> None:
    mine, _ = sessions.join(view("a"), None)
    stranger, fresh = sessions.join(view("b"), token)
    assert stranger is not mine
    assert fresh != token


def test_the_token_is_not_in_any_address(sessions: Sessions) -> None:
    mine, token = sessions.join(view("a"), None)
    assert token not in str(mine.store.folder)


def test_a_call_without_a_session_is_refused(sessions: Sessions) -> None:
    with pytest.raises(DataError, match="no session"):
        sessions.of(view(None))


def test_what_was_left_is_deleted_after_its_time_and_not_before(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, token = sessions.join(view("a"), None)
    open_one = sessions.of(view("b"))
    sessions.left(view("a"))
    begin = time.monotonic()
    monkeypatch.setattr("fewclip_app.work.sessions.time.monotonic", lambda: begin + 50)
    sessions.sweep()
    assert left.store.folder.exists()
    monkeypatch.setattr("fewclip_app.work.sessions.time.monotonic", lambda: begin + 70)
    sessions.sweep()
    assert not left.store.folder.exists()
    assert open_one.store.folder.exists()
    assert sessions.join(view("a3"), token)[0] is not left


def test_a_training_whose_page_was_closed_gives_way_only_to_someone_who_waits(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training(job: Job) -> None:
        while not job.stopping():
            time.sleep(0.005)
        raise StoppedError("stopped")

    left = sessions.of(view("a"))
    left.job = sessions.jobs.submit(training)
    sessions.left(view("a"))
    begin = time.monotonic()
    monkeypatch.setattr("fewclip_app.work.sessions.LEFT", -1.0)
    sessions.sweep()
    assert not left.job.stopping()
    other = sessions.of(view("b"))
    other.job = sessions.jobs.submit(training)
    while left.job.state == "waiting":
        assert time.monotonic() - begin < 60
        time.sleep(0.005)
    sessions.sweep()
    assert left.job.stopping()
    assert not other.job.stopping()


# ---- drawings ------------------------------------------------------------------------------------


def report(right: int, n: int, classes: tuple[str, ...] = ("a", "b")) -> Report:
    proba = np.tile([0.9] + [0.1 / (len(classes) - 1)] * (len(classes) - 1), (n, 1))
    return Report.from_predictions(proba, [0] * right + [1] * (n - right), classes)


def test_nothing_of_a_persons_text_becomes_markup() -> None:
    said = Prediction(EVIL, 0.7, (Score(EVIL, 0.7),), True)
    evil = report(3, 4, (EVIL, "b"))
    for html in (
        render.note(EVIL, "error"),
        render.empty(EVIL),
        render.skipped([Skipped(EVIL, EVIL)], EVIL),
        render.answer(None, EVIL, said),
        render.answer(None, EVIL, EVIL),
        render.figures([(EVIL, EVIL, EVIL)]),
        render.per_class(evil),
        render.confusion(evil),
        render.reliability(evil),
    ):
        assert "<script" not in html
        assert EVIL not in html


def test_an_unknown_image_is_none_of_these() -> None:
    top = (Score("cat", 0.6), Score("dog", 0.4))
    assert "None of these" in render.answer(None, "x", Prediction("cat", 0.6, top, False))
    assert "None of these" not in render.answer(None, "x", Prediction("cat", 0.6, top, True))


def test_a_typed_class_is_shown_however_small_its_score() -> None:
    top = (*(Score(f"class {i}", 0.1) for i in range(10)), Score("zebra", 0.0))
    said = Prediction("class 0", 0.1, top, True)
    assert "zebra" not in render.answer(None, "x", said)
    assert "zebra" in render.answer(None, "x", said, ["zebra"])
    assert "class 7" not in render.answer(None, "x", said, ["zebra"])


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0%"),
        (1, "100%"),
        (0.996, "99.6%"),
        (0.99999, "99.9%"),
        (0.5, "50%"),
        (0.051, "5.1%"),
        (0.0001, "0.0%"),
    ],
)
def test_a_share_is_never_rounded_to_certainty(share: float, text: str) -> None:
    assert render.percent(share) == text


def test_of_many_classes_the_mix_ups_are_listed() -> None:
    names = tuple(f"class {i}" for i in range(render.MATRIX + 1))
    html = render.confusion(report(1, 4, names))
    assert "<table" not in html
    assert "class 1 taken for class 0: 3 times" in html


@pytest.fixture(scope="module")
def untrained() -> fewclip.Classifier:
    return fewclip.zero_shot(["cat", "dog"], device="cpu")


def test_the_headline_says_how_sure_it_is(untrained: fewclip.Classifier) -> None:
    def headline(before: Report, after: Report) -> str:
        evaluation = Evaluation(before=before, after=after, own=False, mistakes=())
        return step_results.draw_headline(Model(untrained, evaluation))

    few = headline(report(4, 10), report(8, 10))
    assert "40%" in few
    assert "80%" in few
    assert "49% to 94%" in few  # Wilson, 8 of 10
    assert "more images to measure on" in few
    assert "worse" not in few
    many = headline(report(900, 1000), report(800, 1000))
    assert "more images to measure on" not in many
    assert "worse" in many


def test_without_images_to_measure_on_it_says_so(untrained: fewclip.Classifier) -> None:
    assert "none of these" in step_results.draw_headline(Model(untrained))


# ---- names ---------------------------------------------------------------------------------------


def test_typed_names_are_read_as_people_type_them() -> None:
    assert read_names(" zebra,a  red bus;\ncat,,zebra ") == ["zebra", "a red bus", "cat"]
    assert read_names(" , ") == []
    with pytest.raises(ClassNameError, match="too long"):
        read_names("x" * 201)


@pytest.mark.parametrize(
    ("typed", "safe"),
    [
        ("My pets!", "My-pets"),
        ("../../etc", "etc"),
        ("", NAME),
        ("日本", NAME),
        ("a" * 99, "a" * 60),
    ],
)
def test_a_model_name_is_safe_as_a_file_name(typed: str, safe: str) -> None:
    assert slug(typed) == safe


def test_what_the_package_promises_is_there() -> None:
    assert all(getattr(fewclip_app, name) is not None for name in fewclip_app.__all__)
