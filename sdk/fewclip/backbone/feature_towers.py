"""Any open_clip model as output features: ResNets, SigLIP, MobileCLIP, EVA, CoCa ... No blocks.

If all blocks of the image tower have one width, as in any ViT, the inputs of a few of them are
recorded for heads on frozen features and the OOD score.
"""

from __future__ import annotations

import contextvars
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from fewclip.backbone.class_prompts import ClassPrompts
from fewclip.backbone.text_tokens import PromptTokenizer
from fewclip.backbone.towers import ACTIVATION_BYTES, MOST_IMAGES, Backbone
from fewclip.contract import Preprocess
from fewclip.errors import OptionError

_FLOATS_PER_PIXEL = 48  # alive at once in a pass: a ResNet stem and a ViT-B/16 both need this many
_CLASSES_AT_ONCE = 64
_PrefixedBlocks = tuple[Sequence[nn.Module], int]
# Per thread: where the running pass wants the inputs of blocks stored.
_taps: contextvars.ContextVar[dict[int, Tensor] | None] = contextvars.ContextVar(
    "taps", default=None
)


class FeatureBackbone(Backbone):
    """A model behind `encode_image` and `encode_text` alone.

    Args:
        clip, name, weights_hash, preprocess: as for `Backbone`.
        embed_dim, context_length: from the model's config.
        tokenizer: of its text tower.
        reads_clip_bpe: whether that is CLIP's own, the only one an exported folder can hold.
        reason: why its blocks cannot be used, for messages.
    """

    has_blocks = False

    def __init__(
        self,
        clip: Any,
        *,
        name: str,
        weights_hash: str,
        preprocess: Preprocess,
        embed_dim: int,
        context_length: int,
        tokenizer: PromptTokenizer,
        reads_clip_bpe: bool,
        reason: str,
    ) -> None:
        super().__init__(clip, name=name, weights_hash=weights_hash, preprocess=preprocess)
        self._embed_dim = embed_dim
        self._context_length = context_length
        self.tokenizer = tokenizer
        self.reads_clip_bpe = reads_clip_bpe
        self.features_only = reason
        blocks, self._prefix = _blocks_of_one_width(clip.visual)
        self._depth = len(blocks)
        self._width = _width(clip.visual) if blocks else 0
        for k in self.new_taps():
            blocks[k].register_forward_pre_hook(_Tap(k))

    @property
    def embed_dim(self) -> int:
        return self._embed_dim

    @property
    def context_length(self) -> int:
        return self._context_length

    @property
    def intermediate_width(self) -> int:
        return self._width

    @property
    def image_width(self) -> int:
        """Width of the tower's blocks, or of its features; the arithmetic is chosen by it."""
        return self._width or self._embed_dim

    @property
    def images_at_once(self) -> int:
        budget = ACTIVATION_BYTES.get(self.device.type, ACTIVATION_BYTES["cpu"])
        pixels = self.preprocess.size**2
        return max(1, min(budget // (4 * _FLOATS_PER_PIXEL * pixels), MOST_IMAGES))

    @property
    def class_tokens_at_once(self) -> int:
        return _CLASSES_AT_ONCE * self._context_length

    @property
    def logit_scale(self) -> Tensor:
        scale: Tensor = self.clip.logit_scale.exp().reshape(())
        return scale

    @property
    def logit_bias(self) -> Tensor | None:
        bias: Tensor | None = self.clip.logit_bias
        return None if bias is None else bias.reshape(())

    def encode_image(self, pixels: Tensor, taps: dict[int, Tensor] | None = None) -> Tensor:
        token = _taps.set(taps)
        try:
            found = self.clip.visual(pixels)
        finally:
            _taps.reset(token)
        features: Tensor = found[0] if isinstance(found, tuple) else found  # CoCa adds tokens
        return features

    def new_taps(self) -> dict[int, Tensor]:
        if not self._depth:
            return {}
        return {k: torch.empty(0) for k in (n * self._depth // 4 for n in (1, 2, 3))}

    def intermediate(self, taps: Mapping[int, Tensor]) -> Tensor | None:
        if not taps:
            return None
        low, middle, high = (
            taps[n * self._depth // 4][:, self._prefix :].float() for n in (1, 2, 3)
        )
        return _patch_statistics(low, middle, high)

    def tokenize(self, prompts: Sequence[str]) -> ClassPrompts:
        """Rows are not trimmed: only such a text tower itself knows which positions it reads."""
        rows = torch.from_numpy(self.token_rows(prompts)).to(self.device)
        nothing = torch.zeros(0, dtype=torch.int64, device=self.device)
        return ClassPrompts(nothing, rows, torch.full_like(rows[:, 0], rows.shape[1] - 1))

    def token_rows(self, prompts: Sequence[str]) -> np.ndarray:
        return self.tokenizer.encode(prompts, self._context_length)

    def encode_text(self, prompts: ClassPrompts) -> Tensor:
        return self.encode_tokens(prompts.suffix)

    def encode_tokens(
        self, tokens: Tensor, context: Tensor | None = None, deep: Sequence[Tensor] = ()
    ) -> Tensor:
        if context is not None or deep:
            self._refuse()
        found = self.clip.encode_text(tokens, normalize=False)
        features: Tensor = found[0] if isinstance(found, tuple) else found
        return features

    # ---- what only towers with residual blocks have ------------------------------------------

    @property
    def image_depth(self) -> int:
        self._refuse()

    @property
    def text_depth(self) -> int:
        self._refuse()

    @property
    def text_width(self) -> int:
        self._refuse()

    def image_embed(self, pixels: Tensor) -> Tensor:
        self._refuse()

    def embed_words(self, words: str) -> Tensor:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise OptionError(
            f"backbone {self.name!r} gives features only: {self.features_only}; use a method that "
            "needs no residual blocks, such as gda"
        )


class _Tap:
    """Stores the input of block `k` if the running pass asked for it."""

    def __init__(self, k: int) -> None:
        self.k = k

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        taps = _taps.get()
        if taps is not None and self.k in taps:
            taps[self.k] = inputs[0]


def _patch_statistics(low: Tensor, middle: Tensor, high: Tensor) -> Tensor:
    """(B, P, w) patch tokens at three depths -> (B, 5 w), as `Backbone.intermediate`."""
    mean = middle.mean(1)
    deviation = (middle - mean[:, None]).square().mean(1).sqrt()
    return torch.cat([low.mean(1), mean, high.mean(1), deviation, middle.amax(1)], 1)


def _blocks_of_one_width(visual: Any) -> _PrefixedBlocks:
    """A ViT's blocks and how many tokens precede its patches; no blocks for other towers."""
    trunk = getattr(visual, "trunk", None)
    if trunk is not None:  # timm's
        blocks = getattr(trunk, "blocks", None)
        if isinstance(blocks, (nn.Sequential, nn.ModuleList)) and hasattr(
            trunk, "num_prefix_tokens"
        ):
            return list(blocks), int(trunk.num_prefix_tokens)
        return [], 0
    transformer: Any = getattr(visual, "transformer", None)
    if transformer is not None and transformer.batch_first:  # open_clip's
        return list(transformer.resblocks), 1
    return [], 0


def _width(visual: Any) -> int:
    trunk = getattr(visual, "trunk", None)
    return int(visual.class_embedding.shape[0] if trunk is None else trunk.embed_dim)
