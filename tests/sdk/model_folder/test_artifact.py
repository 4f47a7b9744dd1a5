"""Model folders: whole or not at all, and nothing is loaded that is not what was written."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewclip.artifact import CARD_DIGEST, check_target, read_card, sha256_file, write_folder
from fewclip.contract import Calibration, Card, HeadSpec, Preprocess
from fewclip.errors import ArtifactError, FormatVersionError, InputError


def make_card(**changes: object) -> Card:
    card = Card(
        kind="model",
        name="pets",
        classes=("cat", "dög 🐶"),
        phrases={"cat": "a cat", "dög 🐶": "a dog"},
        template="a photo of a {}.",
        preprocessing=Preprocess(size=64, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)),
        method="zero-shot",
        options={"omega": (1, 2)},
        backbone={"name": "micro", "hash": "00", "context_length": 32},
        head=HeadSpec(logit_scale=100.0, columns=(0, 1), dept_weight=0.7),
        calibration=Calibration(temperature=1.5, threshold=12.25, n=30),
        seed=3,
        precision="fp32",
    )
    return dataclasses.replace(card, **changes)  # type: ignore[arg-type]


def fill(folder: Path, content: bytes = b"weights") -> Card:
    (folder / "model.bin").write_bytes(content)
    (folder / "README.md").write_text("for people")
    return make_card()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_folder(tmp_path / "pets", fill)
    return tmp_path / "pets"


def rewrite(folder: Path, change: dict[str, object], *, resign: bool = False) -> None:
    """Edit card.json by hand; `resign` as a forger would, with the digest made to fit."""
    from fewclip.artifact import card_digest

    plain = json.loads((folder / "card.json").read_text("utf-8"))
    plain.update(change)
    if resign:
        plain[CARD_DIGEST] = card_digest(plain)
    (folder / "card.json").write_text(json.dumps(plain), encoding="utf-8")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    target = tmp_path / "not" / "yet" / "there"
    written = write_folder(target, fill)
    assert sorted(os.listdir(target)) == ["README.md", "card.json", "model.bin"]
    assert written.files == {n: sha256_file(target / n) for n in ("README.md", "model.bin")}
    assert read_card(target) == dataclasses.replace(written, options={"omega": [1, 2]})
    assert os.listdir(target.parent) == ["there"]


def test_the_folder_is_readable_as_others_made_here_are(tmp_path: Path, model: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert model.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_fill_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path) -> Card:
        fill(folder)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_folder(tmp_path / "pets", broken)
    assert os.listdir(tmp_path) == []


def test_a_failed_overwrite_leaves_the_old(tmp_path: Path, model: Path) -> None:
    def broken(folder: Path) -> Card:
        fill(folder, b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(model, broken, overwrite=True)
    assert (model / "model.bin").read_bytes() == b"weights"
    read_card(model)
    assert os.listdir(tmp_path) == ["pets"]


def test_an_existing_model_needs_overwrite(tmp_path: Path, model: Path) -> None:
    for attempt in (
        lambda: write_folder(model, fill),
        lambda: check_target(model, overwrite=False),
    ):
        with pytest.raises(InputError, match="--overwrite"):
            attempt()
    write_folder(model, lambda folder: fill(folder, b"new"), overwrite=True)
    read_card(model)
    assert (model / "model.bin").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["pets"]


def test_what_is_no_model_is_never_overwritten(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"dear")
    with pytest.raises(InputError, match="not a fewclip model"):
        write_folder(photos, fill, overwrite=True)
    assert (photos / "a.jpg").read_bytes() == b"dear"
    with pytest.raises(InputError, match="is a file"):
        write_folder(photos / "a.jpg", fill, overwrite=True)
    with pytest.raises(InputError, match="cannot be written"):
        write_folder(photos / "a.jpg" / "model", fill)


def test_an_empty_folder_counts_as_absent(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    write_folder(tmp_path / "pets", fill)
    read_card(tmp_path / "pets")


def test_a_link_to_a_model_stays_a_link(tmp_path: Path, model: Path) -> None:
    (tmp_path / "current").symlink_to(model)
    write_folder(tmp_path / "current", lambda folder: fill(folder, b"new"), overwrite=True)
    assert (tmp_path / "current").is_symlink()
    assert (model / "model.bin").read_bytes() == b"new"


def test_a_target_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    def rival(folder: Path) -> Card:
        write_folder(tmp_path / "pets", lambda f: fill(f, b"first"))
        return fill(folder, b"second")

    with pytest.raises(InputError, match="--overwrite"):
        write_folder(tmp_path / "pets", rival)
    assert (tmp_path / "pets" / "model.bin").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["pets"]


def test_without_an_atomic_exchange_overwriting_still_works(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewclip.artifact.whole_folder._exchange", lambda one, other: False)
    write_folder(model, lambda folder: fill(folder, b"new"), overwrite=True)
    assert (model / "model.bin").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["pets"]


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    (tmp_path / ".pets.0123abcd.tmp").mkdir()
    (tmp_path / ".petshop.0123abcd.tmp").mkdir()
    seen: list[str] = []

    def fill_and_look(folder: Path) -> Card:
        write_folder(tmp_path / "pets", fill)  # a rival, while this writer lives
        seen.extend(os.listdir(folder.parent))
        return fill(folder)

    write_folder(tmp_path / "pets", fill_and_look, overwrite=True)
    assert ".pets.0123abcd.tmp" not in seen
    assert ".petshop.0123abcd.tmp" in seen
    assert sorted(os.listdir(tmp_path)) == [".petshop.0123abcd.tmp", "pets"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_at_any_line_nothing_half_written_is_loadable(
    tmp_path: Path, overwrite: bool
) -> None:
    """A child process kills itself with SIGKILL at each line of fewclip.artifact in turn."""
    script = Path(__file__).parents[2] / "helpers" / "kill_while_writing.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(int(overwrite))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    moments, old, new = (int(word) for word in done.stdout.split())
    assert moments > 60
    assert min(old, new) > 0, "the kills should fall on both sides of the rename"


def test_a_changed_missing_or_truncated_file_is_refused(model: Path) -> None:
    path = model / "model.bin"
    path.write_bytes(b"Weights")
    with pytest.raises(ArtifactError, match=r"model\.bin was changed"):
        read_card(model)
    path.write_bytes(b"weight")
    with pytest.raises(ArtifactError, match=r"model\.bin was changed"):
        read_card(model)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"incomplete: model\.bin"):
        read_card(model)
    path.mkdir()
    with pytest.raises(ArtifactError, match=r"model\.bin is not a regular file"):
        read_card(model)
    read_card(model, verify=False)


def test_an_edited_card_is_refused(model: Path) -> None:
    rewrite(model, {"classes": ["dög 🐶", "cat"]})
    with pytest.raises(ArtifactError, match="was changed"):
        read_card(model, verify=False)


def test_a_card_may_be_laid_out_anew(model: Path) -> None:
    rewrite(model, {})
    assert read_card(model).name == "pets"


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "..", "", "a\\b", "C:x", "a\0b", "card.json"]
)
def test_a_card_cannot_point_outside_its_folder(model: Path, name: str) -> None:
    rewrite(model, {"files": {name: "0" * 64}}, resign=True)
    with pytest.raises(ArtifactError, match="not inside the folder"):
        read_card(model, verify=False)


@pytest.mark.parametrize("version", [0, 1, "2", None, 1.5, [1]])
def test_an_unknown_format_version_is_refused(model: Path, version: object) -> None:
    rewrite(model, {"format_version": version})
    with pytest.raises(FormatVersionError, match="format_version"):
        read_card(model)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"card"',
        "\xff\xfe",
        "[" * 100_000,
        '{"format_version": 5}',
        "1" * 5000,
    ],
)
def test_a_card_that_is_none_is_refused(model: Path, text: str) -> None:
    (model / "card.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError):
        read_card(model)


def test_no_model_at_all(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        read_card(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=r"holds no card\.json"):
        read_card(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="is not a folder"):
        read_card(tmp_path / "file")
