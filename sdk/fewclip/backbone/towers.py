"""CLIP's two towers, split so that a method pays only for what it changes. No loading here.

A plain forward pass computes a lot that nobody reads. The interface here skips that without
approximating (losses and gradients keep their values up to float rounding):

- Text is causal and only the EOT position is read, so positions after the last EOT of a class set
  are never computed, and the tokens that all prompts share are computed once for all classes: a
  class set inside the tower is a `TextHidden`, one shared prefix and a suffix per class.
- In the last block of either tower only one row is read (CLS, or EOT): queries, MLP and output run
  for that row alone.
- Blocks run from any `start` to any `stop`, so what lies below a trained block runs once.

Learned context vectors and deep prompts enter as arguments; the towers know no method. Batch sizes
are read as `x.shape[0]`: `len(x)` would be frozen into an exported graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewclip.backbone.blocks import (
    deep_context,
    overwrite_context,
    overwrite_last,
    run_after_prefix,
    run_ends_after_prefix,
    run_one_row,
    run_rows,
)
from fewclip.backbone.class_prompts import ClassPrompts, TextHidden
from fewclip.contract import Preprocess
from fewclip.tokenizer import Tokenizer

# Bytes of activations in a pass without gradient. More would not make a CPU faster (chunks of 4
# ViT-B/16 images are as fast as chunks of 256); so few would starve a GPU.
ACTIVATION_BYTES = {"cpu": 2**25, "cuda": 2**32}
MOST_IMAGES = 256
_ROWS = 14  # floats of a block alive at once, per token and width: norms, q, k, v, MLP, residuals
_KEPT_ROWS = 20  # the same for what a block keeps for backward, the shared keys and values included


class Backbone(nn.Module):
    """An open_clip ViT CLIP behind the interface above.

    Args:
        clip: the open_clip model, in eval mode, float32, whose `checks.missing_parts` is None.
        name: as the user gave it; resolved again at load.
        weights_hash: sha256 over the weights.
        preprocess: how an image becomes its input.
        method_defaults: method name -> options measured to suit this backbone.
    """

    def __init__(
        self,
        clip: Any,
        *,
        name: str,
        weights_hash: str,
        preprocess: Preprocess,
        method_defaults: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.name = name
        self.hash = weights_hash
        self.preprocess = preprocess
        self.method_defaults = dict(method_defaults or {})
        self.requires_grad_(False)

    has_blocks = True
    reads_clip_bpe = True  # an exported folder can hold no other tokenizer
    features_only = ""  # why, if it has no blocks

    @property
    def image_depth(self) -> int:
        return len(self.clip.visual.transformer.resblocks)

    @property
    def text_depth(self) -> int:
        return len(self.clip.transformer.resblocks)

    @property
    def image_width(self) -> int:
        return int(self.clip.visual.class_embedding.shape[0])

    @property
    def text_width(self) -> int:
        return int(self.clip.token_embedding.weight.shape[1])

    @property
    def image_grid(self) -> int:
        """Rows and columns of patches; a square."""
        patches = int(self.clip.visual.positional_embedding.shape[0]) - 1
        return int(patches**0.5)

    @property
    def intermediate_width(self) -> int:
        """w of `intermediate`, which is (B, 5 w); 0 for a tower that has none."""
        return self.image_width

    @property
    def embed_dim(self) -> int:
        return int(self.clip.visual.proj.shape[1])

    @property
    def context_length(self) -> int:
        return int(self.clip.positional_embedding.shape[0])

    @property
    def device(self) -> torch.device:
        device: torch.device = self.clip.logit_scale.device
        return device

    @property
    def images_at_once(self) -> int:
        """How many images go through a tower at once without gradient, by the bytes they need."""
        tokens = int(self.clip.visual.positional_embedding.shape[0])
        budget = ACTIVATION_BYTES.get(self.device.type, ACTIVATION_BYTES["cpu"])
        return max(1, min(budget // (4 * _ROWS * tokens * self.image_width), MOST_IMAGES))

    @property
    def class_tokens_at_once(self) -> int:
        """How many class tokens go through the text tower at once with gradient, by bytes."""
        budget = 4 * ACTIVATION_BYTES.get(self.device.type, ACTIVATION_BYTES["cpu"])
        return max(1, budget // (4 * _KEPT_ROWS * self.text_width * self.text_depth))

    @property
    def logit_scale(self) -> Tensor:
        """exp(logit_scale), a scalar; never trained here."""
        scale: Tensor = self.clip.logit_scale.exp()
        return scale

    @property
    def logit_bias(self) -> Tensor | None:
        """What a sigmoid loss adds to every logit, a scalar; None without one."""
        return None

    # ---- features, of any backbone -----------------------------------------------------------

    def encode_image(self, pixels: Tensor, taps: dict[int, Tensor] | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, D), before L2 normalisation; `taps` as in `image_features`."""
        return self.image_features(self.image_embed(pixels), taps=taps)

    def encode_text(self, prompts: ClassPrompts) -> Tensor:
        """(M, D), before L2 normalisation."""
        return self.text_features(self.text_embed(prompts))

    # ---- image tower -------------------------------------------------------------------------

    def image_embed(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + patches, w), what enters block 0."""
        visual = self.clip.visual
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)  # (B, P, w)
        cls = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        x: Tensor = visual.ln_pre(torch.cat([cls, patches], 1) + visual.positional_embedding)
        return x

    def append_image_prompts(self, x: Tensor, prompts: Tensor) -> Tensor:
        """(B, T, w) -> (B, T + n, w): prompts (n, w) last, no position, through `ln_pre`."""
        new = self.clip.visual.ln_pre(prompts).expand(x.shape[0], -1, -1)
        return torch.cat([x, new.to(x.dtype)], 1)

    def image_blocks(
        self,
        x: Tensor,
        start: int,
        stop: int,
        deep: Sequence[Tensor] = (),
        taps: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """Blocks `start .. stop-1` on (B, T, w); `deep[k-1]` (n, w) overwrites the last n rows
        at the input of block k >= 1. `taps` is filled with what enters each block it names."""
        for k in range(start, stop):
            if taps is not None and k in taps:
                taps[k] = x
            x = run_rows(self.clip.visual.transformer.resblocks[k], overwrite_last(x, k, deep))
        return x

    def image_features(
        self,
        x: Tensor,
        start: int = 0,
        deep: Sequence[Tensor] = (),
        taps: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """(B, T, w) at the input of block `start` -> (B, D), before L2 normalisation."""
        visual, last = self.clip.visual, self.image_depth - 1
        x = self.image_blocks(x, start, last, deep, taps)
        if taps is not None and last in taps:
            taps[last] = x
        x = run_one_row(visual.transformer.resblocks[last], overwrite_last(x, last, deep))
        features: Tensor = visual.ln_post(x[:, 0]) @ visual.proj
        return features

    def new_taps(self) -> dict[int, Tensor]:
        """For `image_features(taps=)`: a quarter, half and three quarters up the image tower."""
        depth = self.image_depth
        return {k: torch.empty(0) for k in (depth // 4, depth // 2, 3 * depth // 4)}

    def intermediate(self, taps: Mapping[int, Tensor]) -> Tensor | None:
        """Filled `new_taps` -> (B, 5 w): statistics of the patch tokens at three depths.

        None for a tower that has no blocks of one width, such as a ResNet.

        Mean patch tokens at a quarter, half and three quarters of the tower, then their standard
        deviation and maximum at half. Prompts after the patches are left out.
        """
        patches = int(self.clip.visual.positional_embedding.shape[0]) - 1
        depth = self.image_depth
        low, middle, high = (
            taps[k][:, 1 : 1 + patches].float() for k in (depth // 4, depth // 2, 3 * depth // 4)
        )
        mean = middle.mean(1)
        deviation = (middle - mean[:, None]).square().mean(1).sqrt()
        return torch.cat([low.mean(1), mean, high.mean(1), deviation, middle.amax(1)], 1)

    # ---- text tower --------------------------------------------------------------------------

    def tokenize(self, prompts: Sequence[str]) -> ClassPrompts:
        """Tokenise prompts, one per class, as they are.

        Raises:
            ClassNameError: a prompt has more tokens than the context length.
        """
        return ClassPrompts.split(self.token_rows(prompts)).to(self.device)

    def token_rows(self, prompts: Sequence[str]) -> np.ndarray:
        """(M, context) int64, what `encode_tokens` takes."""
        return Tokenizer.from_open_clip().encode(prompts, self.context_length)

    def embed_words(self, words: str) -> Tensor:
        """(n, w) word embeddings of a phrase, without SOS, EOT and position."""
        tokens = Tokenizer.from_open_clip().encode([words], self.context_length)[0]
        inside = torch.from_numpy(tokens[1 : int(tokens.argmax())]).to(self.device)
        embedding: Tensor = self.clip.token_embedding(inside)
        return embedding

    def text_embed(self, prompts: ClassPrompts, context: Tensor | None = None) -> TextHidden:
        """What enters block 0; `context` (n, w), or (B, n, w) per image, at positions 1..n."""
        embed, positions = self.clip.token_embedding, self.clip.positional_embedding
        p, t = len(prompts.prefix), prompts.suffix.shape[1]
        prefix = embed(prompts.prefix)[None]  # (1, p, w)
        if context is not None:
            prefix = overwrite_context(prefix, context)
        prefix = prefix + positions[:p]
        suffix = (embed(prompts.suffix) + positions[p : p + t])[None]  # (1, M, t, w)
        per_image = context is not None and context.dim() == 3
        suffix = suffix.expand(len(prefix), -1, -1, -1)
        return TextHidden(prefix, suffix, prompts.eot, per_image)

    def text_blocks(
        self, hidden: TextHidden, start: int, stop: int, deep: Sequence[Tensor] = ()
    ) -> TextHidden:
        """Blocks `start .. stop-1`; `deep[k-1]` (n, w) overwrites positions 1..n at block k."""
        for k in range(start, stop):
            block = self.clip.transformer.resblocks[k]
            prefix = deep_context(hidden.prefix, k, deep)
            prefix, (suffix,) = run_after_prefix(block, prefix, [hidden.suffix])
            hidden = dataclasses.replace(hidden, prefix=prefix, suffix=suffix)
        return hidden

    def text_features(
        self, hidden: TextHidden, start: int = 0, deep: Sequence[Tensor] = ()
    ) -> Tensor:
        """`hidden` at block `start` -> (M, D), or (B, M, D) per image, before L2 normalisation."""
        last = self.text_depth - 1
        order, groups = hidden.by_length()
        prefix, suffixes = hidden.prefix, [group.suffix for group in groups]
        resblocks = self.clip.transformer.resblocks
        for k in range(start, last):
            prefix = deep_context(prefix, k, deep)
            prefix, suffixes = run_after_prefix(resblocks[k], prefix, suffixes)
        prefix, ends = deep_context(prefix, last, deep), [group.eot for group in groups]
        out = run_ends_after_prefix(resblocks[last], prefix, suffixes, ends)  # (G, M, w)
        features: Tensor = self.clip.ln_final(out) @ self.clip.text_projection
        if order is not None:
            features = features.index_select(1, order.argsort())
        return features if hidden.per_image else features[0]

    def encode_tokens(
        self, tokens: Tensor, context: Tensor | None = None, deep: Sequence[Tensor] = ()
    ) -> Tensor:
        """(n, context) int64 token rows -> (n, D), nothing shared or cut: the exported form.

        Same numbers as `text_features`; rows need no common prefix, only the n context positions.
        """
        x = self.clip.token_embedding(tokens)  # (n, T, w)
        if context is not None:
            x = overwrite_context(x, context)
        x = x + self.clip.positional_embedding
        for k, block in enumerate(self.clip.transformer.resblocks):
            x = run_rows(block, deep_context(x, k, deep), causal=True)
        rows = x[torch.arange(x.shape[0], device=x.device), tokens.argmax(-1)]
        features: Tensor = self.clip.ln_final(rows) @ self.clip.text_projection
        return features
