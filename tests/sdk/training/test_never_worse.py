"""What keeps a run from ending worse than need be: references, warnings, stops, interpolation."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

import fewclip
from fewclip.cli import main
from fewclip.errors import DivergedError, OptionError, StoppedError
from fewclip.methods import make_options
from fewclip.model_folder.readme import model_card
from fewclip.preprocess import AUGMENTATIONS

HUGE: dict[str, Any] = {"image_lr": 1e9, "text_lr": 1e9, "warmup_epochs": 0}


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_augment_stands_for_crops_and_mirroring(name: str) -> None:
    options = make_options("coop", {"augment": name})
    assert {key: options[key] for key in ("crop_area", "flip")} == AUGMENTATIONS[name]
    assert "augment" not in options


def test_a_named_crop_goes_before_augment() -> None:
    options = make_options("coop", {"augment": "gentle", "crop_area": 0.3})
    assert (options["crop_area"], options["flip"]) == (0.3, False)


def test_an_unknown_augmentation_is_refused_with_those_there_are() -> None:
    with pytest.raises(OptionError, match="published, gentle, none; got 'wild'"):
        make_options("coop", {"augment": "wild"})


def test_a_run_of_one_epoch_has_no_warm_up() -> None:
    assert make_options("skip-tuning", {"epochs": 1})["warmup_epochs"] == 0
    assert make_options("skip-tuning", {"epochs": 5})["warmup_epochs"] == 1


def test_a_loss_that_is_not_finite_stops_and_writes_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DivergedError, match=r"learning rate .* image_lr=1e\+09"):
        fewclip.adapt(photos, method="skip-tuning", shots=4, epochs=3, progress=False, **HUGE)
    out = tmp_path / "m"
    words = [f"--set={key}={value}" for key, value in HUGE.items()]
    command = ["adapt", str(photos), "--out", str(out), "--method", "skip-tuning", "--epochs", "3"]
    assert main([*command, "--shots", "4", *words]) == 2
    assert "the loss became" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_method_that_gda_beats_says_so_in_card_and_readme(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="coop answers .* and gda, which takes seconds"):
        clf = fewclip.adapt(photos, method="coop", shots=8, epochs=1, seed=1)
    stages = capsys.readouterr().err
    assert "for comparison, out of fold on 24 training images: zero-shot" in stages
    remark = clf.card.training["warnings"][-1]
    assert "coop answers" in remark
    assert "'auto'" in remark
    assert clf.card.metrics["gda"]["n"] == clf.card.metrics["after"]["n"]
    assert clf.card.metrics["gda"]["accuracy"] > clf.card.metrics["after"]["accuracy"]
    text = model_card(dataclasses.replace(clf.card, name="m"))
    assert f"**Warning:** {remark}" in text
    assert "gda, for comparison" in text


def test_interpolation_goes_back_part_of_the_way(photos: Path) -> None:
    def weights(share: float) -> dict[str, torch.Tensor]:
        clf = fewclip.adapt(
            photos,
            method="skip-tuning",
            shots=2,
            val=0,
            epochs=1,
            seed=2,
            progress=False,
            interpolation=share,
        )
        return {k: p.detach().clone() for k, p in clf.method.trained_parameters().items()}

    none, half, whole = weights(0.0), weights(0.5), weights(1.0)
    assert any(not torch.equal(none[name], whole[name]) for name in whole)
    for name, tensor in half.items():
        torch.testing.assert_close(tensor, (none[name] + whole[name]) / 2, atol=1e-7, rtol=1e-6)
    start = fewclip.zero_shot(["one", "two"]).backbone.clip.state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in none.items())


def test_a_stopped_choice_hands_over_the_best_so_far_when_asked_to(photos: Path) -> None:
    calls = itertools.count()

    def stop() -> bool:  # asked while methods train; heads ask for nothing
        return next(calls) > 2

    with pytest.raises(StoppedError):
        fewclip.adapt(photos, shots=4, val=0, seed=0, progress=False, stop=stop)
    calls = itertools.count()
    clf = fewclip.adapt(photos, shots=4, val=0, seed=0, progress=False, stop=stop, keep_best=True)
    assert clf.card.method in ("gda", "linear-probe")
    assert "stopped" in str(clf.card.training["selection"])
