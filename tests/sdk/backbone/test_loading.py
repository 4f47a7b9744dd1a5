"""Where backbones come from: the list, local folders, and what is said without a network."""

from __future__ import annotations

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

from fewclip.backbone import Backbone, loading
from fewclip.backbone.loading import CONFIG_FILE, WEIGHTS_FILE, list_backbones, load_backbone
from fewclip.errors import BackboneError


@pytest.fixture(scope="module")
def micro() -> Backbone:
    return load_backbone("micro")


def test_list_backbones() -> None:
    names = list_backbones()
    assert names[0] == "micro"
    assert len(names) == len(set(names))
    assert {"ViT-B-16/openai", "ViT-L-14/laion2b_s32b_b82k"} <= set(names)
    assert not [n for n in names if n.startswith(("RN", "coca", "convnext", "ViTamin", "EVA"))]
    assert not [n for n in names if "SigLIP" in n or "CLIPA" in n or "worldwide" in n]


def test_every_listed_model_passes_the_checks() -> None:
    """Built without weights; the list must hold nothing that loading would then refuse."""
    for model in {name.partition("/")[0] for name in list_backbones()[1:]}:
        with torch.device("meta"):
            loading.check_supported(CLIP(**open_clip.get_model_config(model)), model)


def test_a_folder_gives_back_what_it_was_written_from(micro: Backbone, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(loading.MICRO, folder)
    again = load_backbone(folder)
    assert again.name == str(folder)
    assert again.hash == micro.hash
    assert again.preprocess == micro.preprocess
    weights = load_file(folder / WEIGHTS_FILE)
    weights["logit_scale"] = weights["logit_scale"] + 0.01
    save_file(weights, folder / WEIGHTS_FILE)
    assert load_backbone(folder).hash != micro.hash


def test_a_folder_brings_its_preprocessing(tmp_path: Path) -> None:
    preprocess = load_backbone(write(tmp_path / "b", config())).preprocess
    assert (preprocess.size, preprocess.mean, preprocess.std) == (32, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_folder_without_a_file(tmp_path: Path, file: str) -> None:
    folder = write(tmp_path / "b", config())
    (folder / file).unlink()
    with pytest.raises(BackboneError, match=f"has no {file}"):
        load_backbone(folder)


def test_weights_of_another_model(tmp_path: Path) -> None:
    folder = write(tmp_path / "b", config(), CLIP(**config(vision__width=96)))
    with pytest.raises(BackboneError, match="does not fit"):
        load_backbone(folder)
    folder = write(tmp_path / "b", config(), CLIP(**config(vision__layers=3)))
    with pytest.raises(BackboneError, match="does not fit"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (CONFIG_FILE, b"not json"),
        (CONFIG_FILE, b'{"preprocess_cfg": {}}'),
        (CONFIG_FILE, b"[1, 2]"),
        (WEIGHTS_FILE, b"\x00\x01not safetensors"),
        (WEIGHTS_FILE, b""),
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
    monkeypatch.setattr(loading, "_cached", lambda _: False)
    monkeypatch.setattr(open_clip, "create_model", never)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return attempts


def test_no_network_is_said_after_one_short_attempt(no_download: list[Any]) -> None:
    with pytest.raises(BackboneError, match=r"huggingface\.co cannot be reached") as caught:
        load_backbone("ViT-B-16/openai")
    for word in ("ViT-B-16/openai", "micro", CONFIG_FILE):
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
