"""A folder is opened in another process first, and what it breaks is not the service."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fewclip.artifact import read_card, write_folder
from fewclip.contract import CARD_FILE, Card
from fewclip.errors import ArtifactError
from fewclip.runtime import OnnxClassifier
from fewclip.runtime.probe import probe
from fewclip_service.inference.model_store import Models
from tests.attacks import hostile_graphs as attack

pytestmark = pytest.mark.slow


def hostile(exported: Path, target: Path) -> Path:
    def fill(folder: Path) -> Card:
        for file in exported.iterdir():
            if file.name != CARD_FILE:
                shutil.copy(file, folder)
        (folder / "image.onnx").write_bytes(attack.endless_loop())
        return read_card(exported)

    write_folder(target, fill)
    return target


def test_a_good_folder_passes_and_a_hostile_one_is_refused(exported: Path, tmp_path: Path) -> None:
    probe(exported)
    with pytest.raises(ArtifactError, match="within its graph"):
        probe(hostile(exported, tmp_path / "bad"))
    with pytest.raises(ArtifactError, match="does not answer within"):
        probe(exported, seconds=0.01)


class PanicError(BaseException):
    """What a library written in Rust raises: no Exception."""


def test_a_panic_is_recorded_and_the_other_models_go_on(exported: Path, tmp_path: Path) -> None:
    for name in ("bad", "good"):
        shutil.copytree(exported, tmp_path / name)

    def load(folder: Path) -> OnnxClassifier:
        if folder.name == "bad":
            raise PanicError("index out of bounds")
        return OnnxClassifier(folder)

    models = Models(tmp_path, load, poll=0.05)
    models.start()
    try:
        bad, good = models.describe()["models"]
        assert "index out of bounds" in bad["error"]
        assert (good["name"], good["error"]) == ("good", None)
        assert models._thread.is_alive()
    finally:
        models.stop()
