"""Backbones: what loads and what is refused by name, and that the towers equal open_clip's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from tiny_backbone import config, write
from torch import nn

import fewclip
from fewclip.backbone import Backbone, FeatureBackbone, why_features_only
from fewclip.backbone.loading import load_backbone, wrap
from fewclip.errors import BackboneError, ClassNameError
from fewclip.hub import client
from fewclip.methods import registry
from fewclip.methods.base import Method

PROMPTS = ["a photo of a cat.", "a blurry photo of the very long name", "x", "a photo of a dog."]


@pytest.fixture(scope="module")
def micro() -> Backbone:
    return load_backbone("micro")


@torch.no_grad()
def check_equal_to_open_clip(backbone: Backbone) -> None:
    size = backbone.preprocess.size
    pixels = torch.from_numpy(golden.draw("pixels", (5, 3, size, size)).astype(np.float32))
    images = backbone.image_features(backbone.image_embed(pixels))
    torch.testing.assert_close(images, backbone.clip.encode_image(pixels), rtol=1e-5, atol=1e-5)
    tokens = open_clip.SimpleTokenizer(context_length=backbone.context_length)(PROMPTS)
    wanted = backbone.clip.encode_text(tokens)
    texts = backbone.text_features(backbone.text_embed(backbone.tokenize(PROMPTS)))
    torch.testing.assert_close(texts, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(backbone.encode_tokens(tokens), wanted, rtol=1e-5, atol=1e-5)


# ---- equal to open_clip ----------------------------------------------------------------------


def test_micro_equals_open_clip(micro: Backbone) -> None:
    check_equal_to_open_clip(micro)
    assert (micro.image_depth, micro.text_depth) == (8, 4)
    assert (micro.image_width, micro.text_width, micro.embed_dim) == (192, 128, 256)
    assert micro.context_length == 32
    assert micro.preprocess.size == 64
    assert micro.logit_scale.shape == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"vision__ls_init_value": 0.3, "text__ls_init_value": 0.2},
        {"vision__no_ln_pre": True},
        {"vision__mlp_ratio": 2.0, "text__mlp_ratio": 3.0},
        {"vision__pos_embed_type": "sin_cos_2d"},
        {"vision__layers": 1, "text__layers": 1},
        {"vision__patch_dropout": 0.5},
        {"quick_gelu": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_variants_equal_open_clip(tmp_path: Path, changes: dict[str, Any]) -> None:
    backbone = load_backbone(write(tmp_path / "b", config(**changes)))
    check_equal_to_open_clip(backbone)


def test_a_backbone_is_frozen_and_in_eval_mode(micro: Backbone) -> None:
    assert not any(p.requires_grad for p in micro.parameters())
    assert not any(module.training for module in micro.clip.modules())
    assert {p.dtype for p in micro.parameters()} == {torch.float32}


def test_patch_dropout_is_switched_off(tmp_path: Path) -> None:
    """Even in train mode every patch is read."""
    folder = write(tmp_path / "b", config(vision__patch_dropout=0.5))
    assert isinstance(load_backbone(folder).clip.visual.patch_dropout, nn.Identity)


def test_quick_gelu_is_honoured(tmp_path: Path) -> None:
    """The same weights with another activation give other features, those of open_clip."""
    weights = CLIP(**config())
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = {}
    for quick in (False, True):
        cfg = config(quick_gelu=quick)
        backbone = load_backbone(write(tmp_path / str(quick), cfg, weights))
        other = CLIP(**cfg).eval()
        other.load_state_dict(weights.state_dict())
        with torch.no_grad():
            found[quick] = backbone.image_features(backbone.image_embed(pixels))
            torch.testing.assert_close(found[quick], other.encode_image(pixels))
    assert (found[True] - found[False]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "quick"),
    [("ViT-B-16/openai", True), ("ViT-B-16/laion2b_s34b_b88k", False), ("ViT-B-32/openai", True)],
)
def test_tags_say_which_activation(name: str, quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's weights under a plain model name need QuickGELU: open_clip only warns."""
    asked: dict[str, Any] = {}

    def create(model: str, **options: Any) -> nn.Module:
        asked.update(options, model=model)
        clip: Any = CLIP(**config(quick_gelu=options["force_quick_gelu"]))
        clip.visual.preprocess_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
        trained: nn.Module = clip.train()
        return trained

    monkeypatch.setattr(client, "weights_cached", lambda _: True)
    monkeypatch.setattr(open_clip, "create_model", create)
    backbone = load_backbone(name)
    assert backbone.name == name
    assert f"{asked['model']}/{asked['pretrained']}" == name
    assert asked["force_quick_gelu"] is quick
    assert asked["require_pretrained"] is True
    assert not backbone.clip.training


# ---- refused by name -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no-such-model/openai", "unknown"),
        ("ViT-B-16", "ViT-B-16/openai"),
        ("ViT-B-16/no-such-tag", "ViT-B-16/openai"),
    ],
)
def test_names_that_there_are_not(name: str, reason: str) -> None:
    with pytest.raises(BackboneError, match=reason) as caught:
        load_backbone(name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RN50/openai", "ResNet"),
        ("convnext_base/laion400m_s13b_b51k", "timm"),
        ("ViT-B-16-SigLIP/webli", "timm"),
        ("coca_ViT-B-32/laion2b_s13b_b90k", "CoCa"),
        ("roberta-ViT-B-32/laion2b_s12b_b32k", "Hugging Face"),
        ("ViT-L-14-CLIPA/datacomp1b", "causal"),
        ("micro", None),
        ("ViT-B-16/openai", None),
        ("no-such-model/openai", None),
    ],
)
def test_a_name_says_why_its_blocks_are_out_of_reach(name: str, reason: str | None) -> None:
    found = why_features_only(name)
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vision__layers": [1, 1, 1, 1], "vision__image_size": 64}, "ResNet"),
        ({"text__pool_type": "last"}, "EOT"),
        ({"text__no_causal_mask": True}, "causal"),
        ({"vision__pool_type": "avg"}, "CLS"),
        ({"vision__attentional_pool": True, "vision__attn_pooler_heads": 2}, "CLS"),
        ({"vision__final_ln_after_pool": True}, "CLS"),
        ({"init_logit_bias": -10}, "SigLIP"),
        ({"vision__qk_norm": True}, "blocks"),
        ({"text__scale_attn": True}, "blocks"),
        ({"text__proj_bias": True}, "projections"),
        ({"text__proj_type": "none", "embed_dim": 32}, "projections"),
        ({"nonscalar_logit_scale": True}, "logit"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_folders_that_give_features_only(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    """What the exact speed-ups rest on is missing, whether the config shows it or only the model;
    features are open_clip's own all the same."""
    backbone = load_backbone(write(tmp_path / "b", config(**changes)))
    assert isinstance(backbone, FeatureBackbone)
    assert reason in backbone.features_only
    size = backbone.preprocess.size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    tokens = open_clip.SimpleTokenizer(context_length=backbone.context_length)(PROMPTS)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone.encode_image(pixels), backbone.clip.encode_image(pixels), rtol=0, atol=0
        )
        texts = backbone.encode_text(backbone.tokenize(PROMPTS))
        torch.testing.assert_close(texts, backbone.clip.encode_text(tokens), rtol=0, atol=0)
    assert backbone.logit_scale.shape == ()
    if "init_logit_bias" in changes:
        assert backbone.logit_bias is not None
        assert float(backbone.logit_bias) == -10


def test_images_that_are_not_square_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="square"):
        load_backbone(write(tmp_path / "b", config(vision__image_size=[32, 64])))


def test_unknown_preprocessing_is_refused() -> None:
    with pytest.raises(BackboneError, match="nearest"):
        wrap(CLIP(**config()), name="mine", preprocess_cfg={"interpolation": "nearest"})


def test_a_prompt_too_long_is_refused_not_cut(micro: Backbone) -> None:
    with pytest.raises(ClassNameError, match="tokens"):
        micro.tokenize(["a photo of a " + "very " * 40 + "long name."])


# ---- exportable ------------------------------------------------------------------------------


class Towers(nn.Module):
    """Both towers of a method, prompts folded in."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, pixels: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.method.image_features(pixels), self.method.text_from_tokens(tokens)


# Between them every way that a method's parameters enter the towers.
@pytest.mark.parametrize("name", ["coop", "maple+dept", "promptsrc", "vpt", "clip-adapter"])
def test_batch_sizes_stay_dynamic_under_export(tmp_path: Path, name: str) -> None:
    backbone = load_backbone(write(tmp_path / "b", config()))
    method = registry.build(
        name,
        backbone,
        registry.make_options(name, {"n_ctx": 4} if name.startswith("coop") else {}),
        template="a photo of a {}.",
        phrases=["cat", "dog"],
        generator=torch.Generator().manual_seed(0),
    )
    towers = Towers(method).eval().requires_grad_(False)
    prompts = [method.prompt(name) for name in ("cat", "golden retriever", "x", "red", "tea")]
    tokens = open_clip.SimpleTokenizer(context_length=16)(prompts)
    pixels = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch, names = torch.export.Dim("batch"), torch.export.Dim("names")
    exported = torch.export.export(
        towers, (pixels[:2], tokens[:3]), dynamic_shapes=({0: batch}, {0: names})
    ).module()
    for images, texts in ((pixels, tokens), (pixels[:1], tokens[:1])):
        for found, wanted in zip(exported(images, texts), towers(images, texts), strict=True):
            torch.testing.assert_close(found, wanted)


def test_a_card_makes_no_one_ask_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuned_dept: fewclip.Classifier
) -> None:
    """An untrusted card names a backbone of the hub, which is not here: no connection is made."""
    import dataclasses
    import socket

    import huggingface_hub

    name = "ViT-B-32/laion2b_s34b_b79k"
    backbone = {**tuned_dept.card.backbone, "name": name}
    card = dataclasses.replace(tuned_dept.card, backbone=backbone)
    fewclip.Classifier(tuned_dept.method, card).save(tmp_path / "m")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def connect(*arguments: object, **named: object) -> None:
        raise AssertionError(f"a connection to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(BackboneError, match="--allow-download"):
        fewclip.load(tmp_path / "m", device="cpu")
