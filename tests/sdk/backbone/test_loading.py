"""Where backbones come from: the list, local folders, and what is said without a network."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from tiny_backbone import config, write

from fewclip.backbone import Backbone, list_backbones, loading
from fewclip.backbone.checks import missing_blocks, missing_parts
from fewclip.backbone.listing import licence_of_card
from fewclip.backbone.loading import load_backbone
from fewclip.contract import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS
from fewclip.errors import BackboneError
from fewclip.hub import client


@pytest.fixture(scope="module")
def micro() -> Backbone:
    return load_backbone("micro")


def test_every_pretrained_model_is_listed_with_what_is_known_of_it() -> None:
    found = list_backbones()
    assert found[0] == "micro"
    assert found[1:] == [f"{model}/{tag}" for model, tag in open_clip.list_pretrained()]
    by_name = {str(each): each.summary for each in found}
    usual, siglip = by_name["ViT-B-16/openai"], by_name["ViT-B-16-SigLIP2/webli"]
    assert (usual.supports, usual.reason, usual.tokenizer) == ("all methods", None, "CLIP")
    assert (usual.resolution, usual.embed_dim, usual.context_length) == (224, 512, 77)
    assert usual.parameters == 149_620_737
    assert siglip.supports == "features only"
    assert siglip.tokenizer == "timm/ViT-B-16-SigLIP2"
    assert (siglip.resolution, siglip.embed_dim, siglip.context_length) == (224, 768, 64)
    assert "weak" in by_name["micro"].note
    assert json.loads(json.dumps(found[0].to_dict()))["name"] == "micro"


def test_a_licence_is_what_the_models_card_names() -> None:
    assert licence_of_card("---\ntags: [x]\nlicense: mit\n---\nlicense: other") == "mit"
    assert licence_of_card("# A model\nlicense: mit") is None


def test_every_model_listed_with_all_methods_has_its_blocks() -> None:
    """Built without weights; the list must hold nothing that loading would then see otherwise."""
    for model in {str(each).partition("/")[0] for each in list_backbones()[1:]}:
        cfg = open_clip.get_model_config(model)
        if missing_blocks(cfg) is None:
            with torch.device("meta"):
                assert missing_parts(CLIP(**cfg)) is None, model


def test_a_folder_gives_back_what_it_was_written_from(micro: Backbone, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(loading.MICRO, folder)
    again = load_backbone(folder)
    assert again.name == str(folder)
    assert again.hash == micro.hash
    assert again.preprocess == micro.preprocess
    weights = load_file(folder / OPEN_CLIP_WEIGHTS)
    weights["logit_scale"] = weights["logit_scale"] + 0.01
    save_file(weights, folder / OPEN_CLIP_WEIGHTS)
    assert load_backbone(folder).hash != micro.hash


def test_a_folder_brings_its_preprocessing(tmp_path: Path) -> None:
    preprocess = load_backbone(write(tmp_path / "b", config())).preprocess
    assert (preprocess.size, preprocess.mean, preprocess.std) == (32, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("file", [OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS])
def test_a_folder_without_a_file(tmp_path: Path, file: str) -> None:
    folder = write(tmp_path / "b", config())
    (folder / file).unlink()
    with pytest.raises(BackboneError, match=f"has no {file}"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vision__width": 96}, "have another shape"),
        ({"vision__layers": 3}, "are not the model's"),
        ({"vision__layers": 1}, "are missing"),
    ],
)
def test_weights_of_another_model_are_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = write(tmp_path / "b", config(), CLIP(**config(**changes)))
    with pytest.raises(BackboneError, match="does not fit") as caught:
        load_backbone(folder)
    text = str(caught.value)
    assert said in text
    assert "\n" not in text
    assert len(text) < 500 + len(str(folder))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (OPEN_CLIP_CONFIG, b"not json"),
        (OPEN_CLIP_CONFIG, b'{"preprocess_cfg": {}}'),
        (OPEN_CLIP_CONFIG, b"[1, 2]"),
        (OPEN_CLIP_WEIGHTS, b"\x00\x01not safetensors"),
        (OPEN_CLIP_WEIGHTS, b""),
    ],
)
def test_broken_files_are_named(tmp_path: Path, file: str, content: bytes) -> None:
    folder = write(tmp_path / "b", config())
    (folder / file).write_bytes(content)
    with pytest.raises(BackboneError, match=file):
        load_backbone(folder)


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Nothing is cached, and whoever lets the hub's client try (it retries for most of a minute)
    fails; gives the attempts to connect."""
    attempts: list[Any] = []

    def refuse(address: Any, *args: Any, **kwargs: Any) -> Any:
        attempts.append((address, kwargs))
        raise OSError("Name or service not known")

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the hub's client was let loose without a connection")

    for variable in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy", "HF_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(client, "weights_cached", lambda _: False)
    monkeypatch.setattr(open_clip, "create_model", never)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return attempts


def test_no_network_is_said_after_one_short_attempt(no_download: list[Any]) -> None:
    with pytest.raises(BackboneError, match=r"huggingface\.co cannot be reached") as caught:
        load_backbone("ViT-B-16/openai")
    for word in ("ViT-B-16/openai", "micro", OPEN_CLIP_CONFIG):
        assert word in str(caught.value)
    assert no_download == [(("huggingface.co", 443), {"timeout": 5})]


def test_offline_mode_does_not_even_try(
    no_download: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE"):
        load_backbone("ViT-B-16/openai")
    assert no_download == []


def test_a_proxy_or_a_mirror_is_the_way_to_try(
    no_download: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example:8443")
    with pytest.raises(BackboneError, match=r"hub\.example"):
        load_backbone("ViT-B-16/openai")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    with pytest.raises(BackboneError, match=r"proxy\.example"):
        load_backbone("ViT-B-16/openai")
    addresses = [address for address, _ in no_download]
    assert addresses == [("hub.example", 8443), ("proxy.example", 3128)]
