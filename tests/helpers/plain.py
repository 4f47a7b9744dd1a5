"""A plain second implementation of towers, methods and DePT, for tests to compare with.

Written from the papers' descriptions with open_clip's own blocks: full-length tokens, every class
and every row through every block, everything from the pixels at every step; nothing is shared, cut,
skipped or kept. A method's parameters come as the product names them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

Parameters = Mapping[str, Tensor]


@functools.cache
def tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def overwrite(x: Tensor, start: int, rows: Tensor) -> Tensor:
    """Rows `start .. start+n-1` of (B, T, w) replaced by (n, w)."""
    x = x.clone()
    x[:, start : start + len(rows)] = rows
    return x


def text(clip: Any, prompts: Sequence[str], levels: Sequence[Tensor] = ()) -> Tensor:
    """(M, D); `levels[k]` (n, w) is at positions 1..n of the input of block k."""
    tokens = tokenizer()(list(prompts), len(clip.positional_embedding))
    x = clip.token_embedding(tokens)
    if levels:
        x = overwrite(x, 1, levels[0])
    x = x + clip.positional_embedding
    for k, block in enumerate(clip.transformer.resblocks):
        if 1 <= k < len(levels):
            x = overwrite(x, 1, levels[k])
        x = block(x, attn_mask=clip.attn_mask)
    x = clip.ln_final(x)[torch.arange(len(tokens)), tokens.argmax(-1)]
    features: Tensor = x @ clip.text_projection
    return features


def image(clip: Any, pixels: Tensor, levels: Sequence[Tensor] = ()) -> Tensor:
    """(B, D); `levels[k]` (n, w) follows the patches in the input of block k."""
    visual = clip.visual
    patches = visual.conv1(pixels).flatten(2).mT
    x = torch.cat([visual.class_embedding.expand(len(pixels), 1, -1), patches], 1)
    x = x + visual.positional_embedding
    if levels:
        x = torch.cat([x, levels[0].expand(len(pixels), -1, -1)], 1)
    x = visual.ln_pre(x)
    for k, block in enumerate(visual.transformer.resblocks):
        if 1 <= k < len(levels):
            x = overwrite(x, x.shape[1] - len(levels[k]), levels[k])
        x = block(x)
    features: Tensor = visual.ln_post(x)[:, 0] @ visual.proj
    return features


def numbered(parameters: Parameters, prefix: str) -> list[Tensor]:
    """prefix.0, prefix.1, ..."""
    count = sum(name.startswith(prefix + ".") for name in parameters)
    return [parameters[f"{prefix}.{k}"] for k in range(count)]


def cosine(v: Tensor, t: Tensor, clip: Any) -> Tensor:
    scale: Tensor = clip.logit_scale.exp()
    return scale * F.normalize(v, dim=-1) @ F.normalize(t, dim=-1).T


@dataclasses.dataclass(frozen=True)
class Plain:
    """One method on one class set.

    Attributes:
        name: of the method, with or without +dept.
        clip: open_clip's model.
        p: the trained parameters by name.
        options: as the product's, with dept_weight where it applies.
        template: with one {}.
    """

    name: str
    clip: Any
    p: Parameters
    options: Mapping[str, Any]
    template: str

    @property
    def inner(self) -> str:
        return self.name.removesuffix("+dept")

    def images(self, pixels: Tensor) -> Tensor:
        """(B, D)."""
        if self.inner == "maple":
            sources = [self.p["context"], *numbered(self.p, "text_prompts")]
            count = sum(n.startswith("projections") for n in self.p) // 2
            levels = [
                s @ self.p[f"projections.{k}.weight"].T + self.p[f"projections.{k}.bias"]
                for k, s in enumerate(sources[:count])
            ]
            return image(self.clip, pixels, levels)
        if self.inner in ("promptsrc", "vpt"):
            return image(self.clip, pixels, numbered(self.p, "image_prompts"))
        v = image(self.clip, pixels)
        if self.inner == "clip-adapter":
            hidden = (v @ self.p["adapter.0.weight"].T).relu()
            ratio: float = self.options["ratio"]
            return ratio * (hidden @ self.p["adapter.2.weight"].T).relu() + (1 - ratio) * v
        return v

    def texts(self, names: Sequence[str], v: Tensor) -> Tensor:
        """(B, M, D), the same for every image of v (B, D) except with CoCoOp."""
        if "context" not in self.p:
            t = text(self.clip, [self.template.format(name) for name in names])
            return t.expand(len(v), -1, -1)
        context = self.p["context"]
        words = "X " * len(context)
        if self.inner == "maple":
            words = self.options["context"] + " "
        prompts = [f"{words}{name}." for name in names]
        if self.inner != "cocoop":
            levels = [context, *numbered(self.p, "text_prompts")]
            return text(self.clip, prompts, levels).expand(len(v), -1, -1)
        rows = []
        for one in F.normalize(v, dim=-1):
            hidden = (self.p["meta_net.0.weight"] @ one + self.p["meta_net.0.bias"]).relu()
            shift = self.p["meta_net.2.weight"] @ hidden + self.p["meta_net.2.bias"]
            rows.append(text(self.clip, prompts, [context + shift]))
        return torch.stack(rows)

    def logits(self, pixels: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """ITM (B, M), and CAT (B, trained classes) with DePT."""
        v = self.images(pixels)
        t = self.texts(names, v)
        itm = torch.cat([cosine(v[i : i + 1], t[i], self.clip) for i in range(len(v))])
        if "dept.weight" not in self.p:
            return itm, None
        shifted = self.p["dept.image_gamma"] * v + self.p["dept.image_beta"]
        return itm, shifted @ self.p["dept.weight"].T + self.p["dept.bias"]

    def loss(self, pixels: Tensor, labels: Tensor, names: Sequence[str]) -> Tensor:
        v = self.images(pixels)
        t = self.texts(names, v)
        itm = torch.cat([cosine(v[i : i + 1], t[i], self.clip) for i in range(len(v))])
        total = F.cross_entropy(itm, labels)
        if self.name.endswith("+dept"):
            total = self._dept(v, t, labels, total)
        if self.inner == "kgcoop":
            frozen = text(self.clip, [self.template.format(name) for name in names])
            near = (F.normalize(frozen, dim=-1) * F.normalize(t[0], dim=-1)).sum(-1).mean()
            total = total + self.options["kg_weight"] * (1 - near)
        if self.inner == "promptsrc":
            total = total + self._self_regulation(pixels, v, t[0], itm, names)
        return total

    def _dept(self, v: Tensor, t: Tensor, labels: Tensor, itm_loss: Tensor) -> Tensor:
        own = torch.stack([t[i, y] for i, y in enumerate(labels)])
        rows = torch.cat(
            [
                self.p["dept.text_gamma"] * own + self.p["dept.text_beta"],
                self.p["dept.image_gamma"] * v + self.p["dept.image_beta"],
            ]
        )
        cat = rows @ self.p["dept.weight"].T + self.p["dept.bias"]
        weight: float = self.options["dept_weight"]
        doubled = torch.cat([labels, labels])
        return (1 - weight) * itm_loss + weight * F.cross_entropy(cat, doubled)

    def _self_regulation(
        self, pixels: Tensor, v: Tensor, t: Tensor, itm: Tensor, names: Sequence[str]
    ) -> Tensor:
        with torch.no_grad():
            each = [
                text(self.clip, [template.format(name) for name in names])
                for template in self.options["templates"]
            ]
            t0, v0 = sum(each, torch.zeros(())) / len(each), image(self.clip, pixels)
        text_l1 = (F.normalize(t, dim=-1) - F.normalize(t0, dim=-1)).abs().mean()
        image_l1 = (F.normalize(v, dim=-1) - F.normalize(v0, dim=-1)).abs().mean()
        p0 = cosine(v0, t0, self.clip).softmax(-1)
        kl = (p0 * (p0.log() - itm.log_softmax(-1))).mean()
        text_weight: float = self.options["text_weight"]
        image_weight: float = self.options["image_weight"]
        return text_weight * text_l1 + image_weight * image_l1 + kl


def train(
    plain: Plain, names: Sequence[str], batches: Sequence[tuple[Tensor, Tensor]]
) -> list[float]:
    """SGD with momentum, written out; DePT's own parameters at 6.5 times the rate."""
    velocity: dict[str, Tensor] = {}
    losses = []
    for pixels, labels in batches:
        loss = plain.loss(pixels, labels, names)
        gradients = torch.autograd.grad(loss, list(plain.p.values()))
        with torch.no_grad():
            for (name, parameter), gradient in zip(plain.p.items(), gradients, strict=True):
                step = gradient + plain.options["weight_decay"] * parameter
                step = plain.options["momentum"] * velocity.get(name, 0.0) + step
                velocity[name] = step
                rate = plain.options["lr"] * (6.5 if name.startswith("dept.") else 1.0)
                parameter -= rate * step
        losses.append(loss.item())
    return losses
