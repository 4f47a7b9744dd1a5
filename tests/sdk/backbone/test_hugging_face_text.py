"""Tokenizers and text towers of Hugging Face, from the backbone's folder; needs transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image as PILImage
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import fewclip
from benchmarks.backbones.tower_kinds import CONFIGS, write
from fewclip.backbone import load_backbone
from fewclip.contract import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS
from fewclip.errors import ClassNameError
from fewclip.samples import digits

pytest.importorskip("transformers")

VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>", "a", "photo", "of", "the", "digit", *digits.NAMES]
NAMES = {name: f"the digit {name}" for name in digits.NAMES[:3]}


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words, in the two files that the hub has of one."""
    ids = {word: i for i, word in enumerate(VOCABULARY)}
    plain = Tokenizer(models.WordLevel(vocab=ids, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    plain.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


def photos() -> dict[str, list[PILImage.Image]]:
    return {name: [digits.draw(name, i) for i in range(5)] for name in NAMES}


@pytest.fixture
def with_tokenizer(tmp_path: Path) -> Path:
    text = CONFIGS["clipa"]["text_cfg"] | {"vocab_size": 64, "hf_tokenizer_name": "org/words"}
    folder = write(tmp_path / "b", "clipa", text_cfg=text | {"pool_type": "last"})
    write_tokenizer(folder)
    return folder


@pytest.fixture
def with_text_tower(tmp_path: Path) -> Path:
    """RoBERTa with two layers; its config in a folder within the backbone's."""
    folder = tmp_path / "b"
    text = folder / "text"
    text.mkdir(parents=True)
    small = {"model_type": "roberta", "vocab_size": 64, "hidden_size": 32, "pad_token_id": 0}
    small |= {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    (text / "config.json").write_text(json.dumps(small | {"max_position_embeddings": 40}))
    text_cfg: dict[str, Any] = {"hf_pooler_type": "mean_pooler", "hf_tokenizer_name": "org/words"}
    text_cfg |= {"context_length": 16, "hf_model_name": str(text), "hf_model_pretrained": False}
    cfg = {"embed_dim": 32, "vision_cfg": CONFIGS["clipa"]["vision_cfg"]}
    model = open_clip.CustomTextCLIP(**cfg, text_cfg=text_cfg)
    save_file(model.state_dict(), folder / OPEN_CLIP_WEIGHTS)
    text_cfg["hf_model_name"] = "text"
    config = {"model_cfg": {**cfg, "text_cfg": text_cfg}, "preprocess_cfg": {}}
    (folder / OPEN_CLIP_CONFIG).write_text(json.dumps(config), "utf-8")
    write_tokenizer(folder)
    return folder


def test_tokens_are_open_clips(with_tokenizer: Path) -> None:
    backbone = load_backbone(with_tokenizer)
    prompts = ["a photo of the digit two", "a photo"]
    wanted = open_clip.get_tokenizer(f"local-dir:{with_tokenizer}")(prompts)
    assert torch.equal(torch.from_numpy(backbone.token_rows(prompts)), wanted)
    assert backbone.token_rows(["a " * 14]).shape == (1, 16)
    with pytest.raises(ClassNameError, match="takes 17 tokens but the backbone reads 16"):
        backbone.tokenize(["a " * 15])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["with_tokenizer", "with_text_tower"])
def test_gda_adapts_saves_loads_and_exports(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    clf = fewclip.adapt(
        photos(), method="gda", classes=NAMES, backbone=folder, shots=4, progress=False
    )
    clf.save(tmp_path / "m")
    again = fewclip.load(tmp_path / "m", device="cpu")
    report = again.export_onnx(tmp_path / "x")
    assert report.passed
    assert report.new_class_agreement is None
    with torch.no_grad():
        tokens = torch.from_numpy(again.backbone.token_rows(["a photo of the digit two"]))
        torch.testing.assert_close(
            again.backbone.encode_tokens(tokens), again.backbone.clip.encode_text(tokens)
        )
