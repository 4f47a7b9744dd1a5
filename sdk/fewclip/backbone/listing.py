"""The available backbones, and what is known about each before anything is built or fetched."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewclip.backbone.checks import missing_blocks
from fewclip.backbone.loading import MICRO
from fewclip.backbone.text_tokens import context_length, reads_clip_bpe
from fewclip.contract import OPEN_CLIP_CONFIG

ALL, FEATURES = "all methods", "features only"
MICRO_IS_WEAK = (
    "micro is for trying things out: it sees 64-pixel images and knows some 200 things; for "
    "real photos name another backbone (fewclip backbones)"
)
# Which to try first; the sizes are those of the weights in float32.
RECOMMENDED = {
    "micro": "bundled; weak: for trying things out",
    "ViT-B-32/laion2b_s34b_b79k": "fast on a CPU",
    "ViT-B-16/openai": "the papers' backbone, the usual choice",
    "ViT-L-14/laion2b_s32b_b82k": "the best answers of these; train it on a GPU",
}
PARAMETERS_FILE = Path(__file__).with_name("parameters.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSummary:
    """What a backbone is like, from open_clip's configs.

    Attributes:
        supports: "all methods", or "features only" (`methods.registry.feature_methods`).
        reason: why features only; None when it supports all methods.
        parameters: of both towers; None when the config alone does not say.
        resolution: side of its images, pixels.
        embed_dim: width of its output features.
        context_length: tokens of a prompt.
        tokenizer: "CLIP" (inside fewclip), or the Hub repository that its files come from.
        licence: of the weights, as named by the Hub's card in the local cache; None without one.
        note: what it is good for; only for the few to try first.
    """

    supports: str
    reason: str | None
    parameters: int | None
    resolution: int
    embed_dim: int
    context_length: int
    tokenizer: str
    licence: str | None
    note: str = ""


class BackboneInfo(str):
    """A backbone's name as `adapt` takes it, with a summary of it.

    Attributes:
        summary: what is known about it.
    """

    summary: BackboneSummary

    def __new__(cls, name: str, summary: BackboneSummary) -> BackboneInfo:
        new = super().__new__(cls, name)
        new.summary = summary
        return new

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only."""
        return {"name": str(self), **dataclasses.asdict(self.summary)}


def list_backbones() -> list[BackboneInfo]:
    """Names that `adapt` takes: 'micro' and every open_clip model with a pretrained tag.

    Local folders work too and are not listed.
    """
    from open_clip import get_model_config, list_pretrained

    parameters = json.loads(PARAMETERS_FILE.read_text("utf-8"))
    found = [_micro(parameters)]
    for model, tag in list_pretrained():
        name = f"{model}/{tag}"
        cfg = get_model_config(model) or {}
        summary = _summary(cfg, parameters.get(model), _licence(model, tag), name)
        found.append(BackboneInfo(name, summary))
    return found


def _micro(parameters: Mapping[str, int]) -> BackboneInfo:
    cfg = json.loads((MICRO / OPEN_CLIP_CONFIG).read_text("utf-8"))["model_cfg"]
    return BackboneInfo("micro", _summary(cfg, parameters.get("micro"), None, "micro"))


def _summary(
    cfg: Mapping[str, Any], parameters: int | None, licence: str | None, name: str
) -> BackboneSummary:
    text, reason = cfg["text_cfg"], missing_blocks(cfg)
    return BackboneSummary(
        supports=ALL if reason is None else FEATURES,
        reason=reason,
        parameters=parameters,
        resolution=int(cfg["vision_cfg"].get("image_size", 224)),
        embed_dim=int(cfg["embed_dim"]),
        context_length=context_length(text),
        tokenizer="CLIP" if reads_clip_bpe(text) else str(text.get("hf_tokenizer_name")),
        licence=licence,
        note=RECOMMENDED.get(name, ""),
    )


def _licence(model: str, tag: str) -> str | None:
    """The licence in the model's card, if that is cached; open_clip's configs name none."""
    from huggingface_hub import try_to_load_from_cache
    from open_clip import get_pretrained_cfg

    repository = str((get_pretrained_cfg(model, tag) or {}).get("hf_hub", "")).split("/")[:2]
    if len(repository) < 2:
        return None
    card = try_to_load_from_cache("/".join(repository), "README.md")
    return None if not isinstance(card, str) else licence_of_card(Path(card).read_text("utf-8"))


def licence_of_card(text: str) -> str | None:
    """The licence that the front matter of a Hub model card names; None without one."""
    matter = text.split("---", 2)[1] if text.startswith("---") else ""
    found = re.search(r"^license:[ \t]*(\S+)", matter, re.MULTILINE)
    return found[1] if found else None
