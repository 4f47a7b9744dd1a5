"""Models pushed to a Hub on loopback by the Hub's own client, and loaded from there."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from exports import exported_model
from hub_server import TOKEN, Hub

import fewclip
from fewclip import artifact
from fewclip.cli import main
from fewclip.contract import Card
from fewclip.errors import ArtifactError, BackboneError, HubError, OptionError
from fewclip.hub import local_folder
from fewclip.runtime import OnnxClassifier

REPO = "someone/digits"

# The client's own way to send a file, to its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Asked instead of the public one, with a cache of its own and a token."""
    from huggingface_hub import constants

    home = tmp_path / "home"
    with Hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # Read from the environment when the client was imported, perhaps by an earlier test.
        monkeypatch.setattr(constants, "HF_HOME", str(home))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # Git LFS, which is plain HTTP
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield running


@pytest.fixture(scope="module")
def tuned(photos: Path) -> fewclip.Classifier:
    """Both towers changed, in seconds."""
    return fewclip.adapt(
        photos, method="fine-tune", shots=2, epochs=1, device="cpu", progress=False
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory)


def images(held_out: Path) -> list[Path]:
    return sorted(held_out.rglob("*.png"))[::7]


def test_pushed_and_loaded_it_answers_alike(
    hub: Hub, tuned: fewclip.Classifier, held_out: Path
) -> None:
    assert tuned.push_to_hub(REPO).startswith(f"{hub.url}/{REPO}/commit/")
    loaded = fewclip.load(f"hf://{REPO}")
    assert loaded.card.metrics == tuned.card.metrics
    assert loaded.predict(images(held_out)) == tuned.predict(images(held_out))
    page = hub.files(REPO)["README.md"].decode()
    assert f'fewclip.load("hf://{REPO}")' in page
    assert "README.md" not in json.loads(hub.files(REPO)["card.json"])["files"]
    # The towers in open_clip's layout are for open_clip alone.
    assert not [line for line in hub.asked if "GET" in line and "open_clip_model" in line]


def test_the_page_may_be_edited_and_a_commit_be_named(hub: Hub, tuned: fewclip.Classifier) -> None:
    tuned.push_to_hub(REPO)
    first = hub.repos[REPO][-1].oid
    hub.commit(REPO, hub.files(REPO) | {"README.md": b"# Ours"})
    fewclip.load(f"hf://{REPO}")
    tuned.add_classes(["nine"]).push_to_hub(REPO)
    assert "nine" in fewclip.load(f"hf://{REPO}").classes
    assert "nine" not in fewclip.load(f"hf://{REPO}@{first}").classes


def test_open_clip_loads_the_tuned_towers(
    hub: Hub, tuned: fewclip.Classifier, held_out: Path, tmp_path: Path
) -> None:
    import open_clip
    import torch
    from PIL import Image

    tuned.push_to_hub(REPO)
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (tmp_path / name).write_bytes(hub.files(REPO)[name])
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    paths = images(held_out)
    pixels = torch.stack([preprocess(Image.open(path).convert("RGB")) for path in paths])
    with torch.inference_mode():
        found = model.encode_image(pixels, normalize=True).numpy()
    np.testing.assert_allclose(found, tuned.embed(paths), atol=1e-5)
    # And fewclip takes it for a backbone.
    again = fewclip.zero_shot(["one", "zero"], backbone=tmp_path)
    np.testing.assert_allclose(again.embed(paths), tuned.embed(paths), atol=1e-5)


def test_an_exported_folder_goes_the_same_way(
    hub: Hub,
    exported: Path,
    tuned: fewclip.Classifier,
    held_out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tuned.push_to_hub(REPO)
    assert main(["push", str(exported), REPO, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repo"] == f"hf://{REPO}"
    # Nothing of the saved model that was there before is left to be mistaken for this one's.
    names = {"card.json", "image.onnx", "text.onnx", "tokenizer.json", "README.md"}
    assert hub.files(REPO).keys() - {".gitattributes"} == names
    image = images(held_out)[0]
    assert main(["predict", f"hf://{REPO}", str(image), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["label"] == OnnxClassifier(exported).predict(image)[0].label
    assert main(["info", f"hf://{REPO}", "--json"]) == 0
    edited = OnnxClassifier(f"hf://{REPO}").add_classes(["two"])
    with pytest.raises(OptionError, match="export that"):
        edited.push_to_hub(REPO)


def test_a_private_one_needs_the_token(
    hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OnnxClassifier(exported).push_to_hub(REPO, private=True)
    assert REPO in hub.private
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"private or gated.*hf auth login"):
        OnnxClassifier(f"hf://{REPO}")
    with pytest.raises(HubError, match="hf auth login"):
        OnnxClassifier(exported).push_to_hub("someone/other")
    OnnxClassifier(exported).push_to_hub("someone/other", token=TOKEN)


@pytest.mark.parametrize("name", ["image.onnx", "card.json"])
def test_what_was_changed_on_the_way_is_refused(hub: Hub, exported: Path, name: str) -> None:
    OnnxClassifier(exported).push_to_hub(REPO)
    content = hub.files(REPO)[name].replace(b"zero", b"nine")
    hub.commit(REPO, hub.files(REPO) | {name: content})
    with pytest.raises(ArtifactError, match=f"{name} was changed"):
        OnnxClassifier(f"hf://{REPO}")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("hf://nobody/nothing", "is not on http"),
        (f"hf://{REPO}@no-branch", "no such revision"),
        ("hf://digits", "write hf://owner/name"),
        ("hf://a/b/c", "write hf://owner/name"),
        ("hf://someone/page", "has no card.json"),
    ],
)
def test_a_wrong_address_is_one_line(
    hub: Hub, address: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.commit(REPO, {"card.json": b"{}"})
    hub.commit("someone/page", {"README.md": b"# a page"})
    assert main(["predict", address, "x.jpg"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


def test_without_a_connection_the_cache_serves_and_else_one_line_says_so(
    hub: Hub, exported: Path, held_out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    OnnxClassifier(exported).push_to_hub(REPO)
    before = OnnxClassifier(f"hf://{REPO}").predict(images(held_out))
    hub.stop()
    assert OnnxClassifier(f"hf://{REPO}").predict(images(held_out)) == before
    capsys.readouterr()
    for words in (["info", "hf://someone/other"], ["push", str(exported), REPO]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "cannot be reached" in error
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize("backbone", ["hf://someone/else", "hf-hub:someone/else"])
def test_a_hub_that_a_card_names_is_not_asked(
    hub: Hub, tuned: fewclip.Classifier, tmp_path: Path, backbone: str
) -> None:
    card = dataclasses.replace(tuned.card, backbone={**tuned.card.backbone, "name": backbone})
    forged = fewclip.Classifier(tuned.method, card)
    forged.save(tmp_path / "forged")
    with pytest.raises(BackboneError, match="unknown backbone"):
        fewclip.load(tmp_path / "forged", allow_download=True)
    assert hub.asked == []


def test_a_card_cannot_ask_for_more_than_its_files(
    hub: Hub, exported: Path, tmp_path: Path
) -> None:
    """A file name is not a pattern: '*' would fetch all that a repository holds."""
    card = artifact.read_card(exported)

    def fill(folder: Path) -> Card:
        (folder / "*").write_bytes(b"anything")
        return card

    artifact.write_folder(tmp_path / "star", fill)
    files = {file.name: file.read_bytes() for file in (tmp_path / "star").iterdir()}
    hub.commit(REPO, files | {"huge.onnx": b"0" * 1000})
    folder = local_folder(f"hf://{REPO}")
    assert {file.name for file in folder.iterdir()} == {"*", "card.json"}
    assert not [line for line in hub.asked if "huge" in line]


def test_it_needs_no_torch() -> None:
    code = "import sys, fewclip.hub, fewclip.runtime; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
