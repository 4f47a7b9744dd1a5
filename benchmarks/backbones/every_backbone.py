"""Every architecture in open_clip's list: which methods work with it, run with random weights.

    python -m benchmarks.backbones.every_backbone --export       # what benchmarks/results keeps
    python -m benchmarks.backbones.every_backbone --only EVA     # a part of the table, kept nowhere

With --export, gda is also adapted, saved, loaded and exported on a small model of each kind.

Each architecture runs in a process of its own within a memory limit. Those above `LARGEST`
parameters are built and run without memory (torch's meta device): shapes are checked, not numbers.
Weights are random and made here; nothing is downloaded. Text towers and tokenizers from Hugging
Face are replaced: the former by a small model of the same type, which needs the extra
`transformers`, the latter by random token ids. Writes `parameters.json`, which `fewclip backbones`
reads.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import multiprocessing
import resource
import sys
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray

from benchmarks.backbones.tower_kinds import CONFIGS, write
from fewclip.backbone import FeatureBackbone, load_backbone
from fewclip.backbone.checks import missing_blocks, missing_parts, read_preprocess
from fewclip.backbone.listing import PARAMETERS_FILE
from fewclip.backbone.loading import model_class
from fewclip.backbone.text_tokens import context_length, reads_clip_bpe
from fewclip.errors import first_line
from fewclip.methods.registry import feature_methods, list_methods

LARGEST = 160_000_000  # most parameters that are given memory
MEMORY = 5 << 30
SECONDS = 600.0
TEXT_TYPES = {"roberta-base": "roberta", "xlm-roberta": "xlm-roberta", "nllb": "m2m_100"}
RESULTS = Path(__file__).parents[1] / "results" / "backbones.md"


class RandomTokens:
    """Stands in for a tokenizer whose files are not here."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def encode(self, texts: Sequence[str], context_length: int) -> NDArray[np.int64]:
        rng = np.random.default_rng(0)
        return rng.integers(3, self._vocabulary, (len(texts), context_length))


def prepared(model: str, folder: Path) -> dict[str, Any]:
    """The model's config; a text tower from Hugging Face becomes a small one of its type."""
    cfg: dict[str, Any] = copy.deepcopy(open_clip.get_model_config(model))
    cfg["vision_cfg"] = {**cfg["vision_cfg"]}
    if cfg["vision_cfg"].get("timm_model_name"):
        cfg["vision_cfg"]["timm_model_pretrained"] = False
    name = cfg["text_cfg"].get("hf_model_name")
    if name:
        kind = next(kind for part, kind in TEXT_TYPES.items() if part in name)
        plain = {"model_type": kind, "vocab_size": 1000, "hidden_size": 64, "pad_token_id": 1}
        plain |= {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        plain |= {"d_model": 64, "encoder_layers": 2, "decoder_layers": 1}
        plain |= {
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "max_position_embeddings": 90,
        }
        (folder / "config.json").write_text(json.dumps(plain))
        cfg["text_cfg"] |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    return cfg


def examine(model: str) -> dict[str, Any]:
    """One architecture: its parameters, what it supports, and a pass of images and prompts."""
    with tempfile.TemporaryDirectory() as name:
        cfg = prepared(model, Path(name))
        own = copy.deepcopy(cfg)
        kind: Any = model_class(own)
        own.pop("custom_text", None)
        foreign_text = "hf_model_name" in cfg["text_cfg"]
        with torch.device("meta"):
            clip = kind(**copy.deepcopy(own)).eval()
        count = sum(p.numel() for p in clip.parameters())
        real = count <= LARGEST
        if real:
            clip = kind(**own).eval()
    # Not from `cfg`, which names a stand-in.
    reason = missing_blocks(open_clip.get_model_config(model)) or missing_parts(clip)
    parameters = None if foreign_text else count
    found: dict[str, Any] = {
        "reason": reason,
        "parameters": parameters,
        "run": "in full" if real else "shapes",
    }
    if foreign_text:
        found["run"] += ", small text tower" if real else ", image tower alone"
    return {**found, **forward(clip, cfg, reason, real)}


@torch.no_grad()
def forward(clip: Any, cfg: dict[str, Any], reason: str | None, real: bool) -> dict[str, Any]:
    """Compare features with open_clip's; the features-only interface works for all models."""
    pre = read_preprocess(clip, {}, "x")
    vocabulary = 1000 if "hf_model_name" in cfg["text_cfg"] else cfg["text_cfg"]["vocab_size"]
    tower = FeatureBackbone(
        clip,
        name="x",
        weights_hash="",
        preprocess=pre,
        embed_dim=cfg["embed_dim"],
        context_length=min(context_length(cfg["text_cfg"]), 77),
        tokenizer=RandomTokens(vocabulary),
        reads_clip_bpe=reads_clip_bpe(cfg["text_cfg"]),
        reason=reason or "",
    )
    device = clip.logit_scale.device
    pixels = torch.randn(1 if real else 2, 3, pre.size, pre.size, device="cpu" if real else "meta")
    tokens = torch.from_numpy(tower.token_rows(["a", "b"])).to(device)
    taps = tower.new_taps()
    image = tower.encode_image(pixels, taps)
    # transformers reads a number out of a tensor, which has none without memory.
    nameless = not real and "hf_model_name" in cfg["text_cfg"]
    text = image if nameless else tower.encode_tokens(tokens)
    middle = tower.intermediate(taps)
    assert image.shape == (len(pixels), cfg["embed_dim"]), image.shape
    assert nameless or text.shape == (2, cfg["embed_dim"]), text.shape
    assert middle is None or middle.shape[1] == 5 * tower.intermediate_width, middle.shape
    if real:
        torch.testing.assert_close(image, clip.encode_image(pixels, normalize=False))
        assert torch.isfinite(image).all()
        assert torch.isfinite(text).all()
    return {"intermediate": tower.intermediate_width, "resolution": pre.size}


def export(kind: str) -> dict[str, Any]:
    """gda on a small model of a kind: adapted, saved, loaded, exported through the gate."""
    import fewclip

    rng = np.random.default_rng(0)
    data = {
        label: list(np.clip(rng.normal(40 * (i + 1), 20, (8, 48, 48, 3)), 0, 255).astype(np.uint8))
        for i, label in enumerate(("red", "dog", "tea"))
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backbone = write(folder / "backbone", kind)
        clf = fewclip.adapt(data, method="gda", backbone=backbone, shots=6, progress=False)
        clf.save(folder / "model")
        again = fewclip.load(folder / "model", device="cpu")
        report = again.export_onnx(folder / "onnx")
    return {
        "difference": report.max_abs_diff,
        "agreement": report.top1_agreement,
        "new_classes": report.new_class_agreement,
    }


def in_a_process(work: Any, argument: str) -> dict[str, Any]:
    """What `work` returns, or {"error": one line}."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, argument, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(SECONDS):
            process.kill()
            return {"error": f"no answer within {SECONDS:.0f} s"}
        found: dict[str, Any] = ours.recv()
        return found
    except EOFError:
        return {"error": f"ended without an answer (exit status {process.exitcode})"}
    finally:
        process.join()


def _child(work: Any, argument: str, reply: Connection) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    try:
        reply.send(work(argument))
    except Exception as error:
        reply.send({"error": f"{type(error).__name__}: {first_line(error)[:160]}"})


def table(rows: dict[str, dict[str, Any]], names: dict[str, int]) -> str:
    """Markdown, one line per architecture."""
    headings = ["architecture", "names", "million parameters", "methods"]
    return markdown(
        [*headings, "intermediate features", "forward"],
        [[model, str(names[model]), *_architecture(row)] for model, row in rows.items()],
    )


def _architecture(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return ["", "", "", f"**{row['error']}**"]
    size = "-" if row["parameters"] is None else f"{row['parameters'] / 1e6:.0f}"
    methods = "all" if row["reason"] is None else f"features only: {row['reason']}"
    return [size, methods, "yes" if row["intermediate"] else "no", row["run"]]


def export_table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown, one line per kind of tower."""
    headings = ["kind of tower", "largest logit difference", "same best class"]
    return (
        "gda on one small model of each kind: adapted on 3 classes of 6 images, saved, loaded and "
        "exported in fp32 through the parity gate.\n\n"
        + markdown(
            [*headings, "with added classes"], [[kind, *_export(row)] for kind, row in rows.items()]
        )
    )


def _export(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return ["", "", f"**{row['error']}**"]
    return [f"{row['difference']:.1e}", f"{row['agreement']:.0%}", f"{row['new_classes']:.0%}"]


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(rows: dict[str, dict[str, Any]], names: dict[str, int]) -> str:
    fine = {model: row for model, row in rows.items() if "error" not in row}
    plain = [model for model, row in fine.items() if row["reason"] is None]
    full = [model for model, row in fine.items() if row["run"].startswith("in full")]
    return (
        f"{len(fine)} of {len(rows)} architectures ({sum(names[m] for m in fine)} of "
        f"{sum(names.values())} names), built with random weights, give features; {len(plain)} "
        f"({sum(names[m] for m in plain)} names) take all {len(list_methods())} methods, the "
        f"others {', '.join(feature_methods())}. {len(full)} were run in full, the rest for shapes."
    )


def each(work: Any, names: Iterable[str], only: str) -> dict[str, dict[str, Any]]:
    """What `work` returns for every name that contains `only`, each in a process of its own."""
    rows = {}
    for name in names:
        if only in name:
            rows[name] = in_a_process(work, name)
            print(name, rows[name], file=sys.stderr, flush=True)
    return rows


def main(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    names: dict[str, int] = {}
    for model, _ in open_clip.list_pretrained():
        names[model] = names.get(model, 0) + 1
    rows = each(examine, names, arguments.only)
    names = {model: names[model] for model in rows}
    parts = ["# Every backbone", summary(rows, names), table(rows, names)]
    if arguments.export:
        parts.append(export_table(each(export, CONFIGS, arguments.only)))
    text = "\n\n".join(parts) + "\n"
    print(text)
    if not arguments.only:
        RESULTS.write_text(text)
        known = {m: row["parameters"] for m, row in rows.items() if row.get("parameters")}
        known["micro"] = sum(p.numel() for p in load_backbone("micro").clip.parameters())
        PARAMETERS_FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", default="", help="those whose name contains this")
    parser.add_argument("--export", action="store_true", help="export gda on each kind of tower")
    sys.exit(main(parser.parse_args()))
