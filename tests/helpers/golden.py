"""The oracle's files, the small CLIP whose weights follow from a rule, a run through the product.

See tests/golden/README.md for the rule.
"""

from __future__ import annotations

import copy
import functools
import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from fewclip.backbone import Backbone
from fewclip.backbone.loading import wrap
from fewclip.methods import registry
from fewclip.methods.base import Method
from fewclip.training.loop import make_optimizer, train_step

FOLDER = Path(__file__).parents[1] / "golden"

# Parameter of ours -> name in the official code, where a start value or gradient is compared.
DEPT_NAMES = {
    "dept.image_gamma": "film_lp_img.scale",
    "dept.image_beta": "film_lp_img.bias",
    "dept.text_gamma": "film_lp_text.scale",
    "dept.text_beta": "film_lp_text.bias",
    "dept.weight": "linear_probe_proj.weight",
    "dept.bias": "linear_probe_proj.bias",
}


def read(name: str) -> tuple[dict[str, np.ndarray], Any]:
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files if key != "meta"}
        return arrays, json.loads(str(file["meta"]))


def draw(tag: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(zlib.crc32(tag.encode())).standard_normal(shape)


def images(tag: str, n: int) -> torch.Tensor:
    return torch.from_numpy(draw(tag + "images", (n, 3, 64, 64)).astype(np.float32))


def initial(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy((0.02 * draw("init:" + name, shape)).astype(np.float32))


def weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    z = draw(name, shape)
    if name == "logit_scale":
        value = np.asarray(3.0)
    elif name.endswith((".bias", "in_proj_bias")):
        value = 0.05 * z
    elif name.split(".")[-2:-1] and name.split(".")[-2] in (
        "ln_1",
        "ln_2",
        "ln_pre",
        "ln_post",
        "ln_final",
    ):
        value = 1 + 0.1 * z
    elif name == "token_embedding.weight":
        value = 0.5 * z
    elif name.endswith(("positional_embedding", "class_embedding")):
        value = 0.2 * z
    elif name in ("visual.proj", "text_projection"):
        value = z * shape[0] ** -0.5
    else:
        value = z * np.prod(shape[1:]) ** -0.5
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def clip_model(arch: dict[str, int]) -> Any:
    return copy.deepcopy(_clip_model(tuple(arch.items())))


@functools.cache  # files share their CLIP, whose embedding alone has up to 25 million weights
def _clip_model(items: tuple[tuple[str, int], ...]) -> Any:
    from open_clip.model import CLIP

    arch = dict(items)
    clip = CLIP(
        embed_dim=arch["embed"],
        vision_cfg={
            "image_size": arch["image"],
            "patch_size": arch["patch"],
            "width": arch["vw"],
            "layers": arch["vl"],
            "head_width": 64,
        },
        text_cfg={
            "context_length": arch["ctx"],
            "vocab_size": arch["vocab"],
            "width": arch["tw"],
            "layers": arch["tl"],
            "heads": arch["tw"] // 64,
        },
        quick_gelu=True,
    )
    clip.load_state_dict({k: weight(k, tuple(v.shape)) for k, v in clip.state_dict().items()})
    return clip.eval()


def backbone(arch: dict[str, int]) -> Backbone:
    return wrap(clip_model(arch), name="golden", preprocess_cfg={})


def make(name: str, meta: Any, **options: Any) -> Method:
    torch.manual_seed(0)
    return registry.build(
        name,
        backbone(meta["arch"]),
        registry.make_options(name, options),
        template=meta["template"],
        phrases=meta["classes"],
        generator=torch.Generator().manual_seed(0),
    )


def start_as_official(method: Method, meta: Any, official: dict[str, str]) -> None:
    """Draw random initial values by name, as the oracle's README describes."""
    parameters = method.trained_parameters()
    for ours, theirs in official.items():
        if ours in parameters and meta.get("init", {}).get(theirs, "").startswith("draw"):
            parameters[ours].data.copy_(initial(theirs, tuple(parameters[ours].shape)))


class Run(NamedTuple):
    """What a run shows: losses (steps,), terms (steps, n), step 0's gradient norms by name."""

    losses: np.ndarray
    terms: np.ndarray
    norms: dict[str, float]


def _grad_norm(parameter: torch.nn.Parameter) -> float:
    assert parameter.grad is not None
    return float(parameter.grad.norm())


def run(method: Method, arrays: dict[str, np.ndarray], meta: Any) -> Run:
    """All steps through the trainer's step."""
    method.setup(meta["classes"])
    optimizer: torch.optim.SGD = make_optimizer(method)
    losses, terms = [], []
    norms: dict[str, float] = {}
    for step, labels in enumerate(arrays["labels"]):
        with torch.no_grad():
            inputs = method.frozen_inputs(images(f"train{step}", len(labels)))
        found = train_step(method, optimizer, inputs, torch.from_numpy(labels))
        if step == 0:
            norms = {n: _grad_norm(p) for n, p in method.trained_parameters().items()}
        losses.append(sum(float(t) for t in found.values()))
        terms.append([float(t) for t in found.values()])
    return Run(np.array(losses), np.array(terms), norms)


@torch.no_grad()
def evaluate(method: Method, names: list[str], fuse: float | None = None) -> np.ndarray:
    image = method.image_features(images("eval", 8))
    itm, cat = method.logits(image, method.class_embeddings(names))
    if fuse is not None:
        assert cat is not None
        return ((1 - fuse) * itm + fuse * cat).numpy()
    return itm.numpy()


def check_norms(norms: dict[str, float], meta: Any, official: dict[str, str]) -> None:
    theirs = meta["grad_norms_step0"]
    for ours, name in official.items():
        if name in theirs:
            assert norms[ours] == pytest.approx(theirs[name], rel=1e-4), ours
    assert {official[n] for n in norms} == set(theirs)
