"""Class prompts -> token rows, for text towers that do not read CLIP's BPE. It loads no weights.

CLIP's own tokenizer is `fewclip.tokenizer`. Others (SigLIP, CLIPA, multilingual towers) come as
files of Hugging Face's tokenizers: from the backbone's folder, the Hub's cache or the Hub.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fewclip.errors import BackboneError, ClassNameError, MissingExtraError, first_line
from fewclip.hub import client
from fewclip.tokenizer import Tokenizer, shortened

_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "vocab.txt")
_CONTEXT_LENGTH = 77  # open_clip's default, for text towers whose config names none


class PromptTokenizer(Protocol):
    """Texts -> (n, context_length) int64 token rows; ClassNameError for a text that is too long."""

    def encode(self, texts: Sequence[str], context_length: int) -> NDArray[np.int64]: ...


class ForeignTokenizer:
    """open_clip's tokenizer for a text tower with a vocabulary of its own.

    Args:
        inner: an `open_clip.tokenizer.HFTokenizer`.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def encode(self, texts: Sequence[str], context_length: int) -> NDArray[np.int64]:
        """As `Tokenizer.encode`.

        Raises:
            ClassNameError: a text has more tokens than fit; open_clip would silently cut it.
        """
        if not texts:
            return np.zeros((0, context_length), np.int64)
        for text in texts:
            length = self._length(text)
            if length > context_length:
                raise ClassNameError(
                    f"{shortened(text)!r} takes {length} tokens but the backbone reads "
                    f"{context_length}; shorten the class name, or give it a shorter phrase "
                    "(classes={label: phrase})"
                )
        rows: NDArray[np.int64] = self._inner(list(texts), context_length).numpy()
        return rows.astype(np.int64)

    def _length(self, text: str) -> int:
        inner = self._inner
        around = 3 if inner.tokenizer_mode == "clips" else 0  # added by that mode itself
        ids = inner.tokenizer(inner.clean_fn(text), add_special_tokens=not around).input_ids
        return len(ids) + around


def context_length(text_cfg: Mapping[str, Any]) -> int:
    """Tokens of a prompt."""
    return int(text_cfg.get("context_length", _CONTEXT_LENGTH))


def reads_clip_bpe(text_cfg: Mapping[str, Any]) -> bool:
    """Whether a text tower reads the tokens of CLIP's own tokenizer."""
    return not text_cfg.get("hf_tokenizer_name") and not text_cfg.get("tokenizer_kwargs")


def load_tokenizer(
    name: str,
    text_cfg: Mapping[str, Any],
    *,
    folder: Path | None = None,
    allow_download: bool = True,
) -> PromptTokenizer:
    """The tokenizer of a text tower.

    Args:
        name: of the backbone, for messages.
        text_cfg: of the open_clip config.
        folder: of a local backbone, which may hold the tokenizer's files.
        allow_download: False to use only what is local or in the Hub's cache.

    Raises:
        BackboneError: its files cannot be obtained.
        MissingExtraError: the library that reads them is missing.
    """
    if reads_clip_bpe(text_cfg):
        return Tokenizer.from_open_clip()
    source = str(text_cfg.get("hf_tokenizer_name", ""))
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtraError(
            f"backbone {name!r} reads text with the tokenizer of {source!r}, which", "transformers"
        )
    local = folder is not None and any((folder / file).is_file() for file in _FILES)
    cached = not local and any(client.file_cached(source, file) for file in _FILES)
    if not local and not cached:
        _check_obtainable(name, source, allow_download and folder is None)
    with client.offline() if local or not allow_download else contextlib.nullcontext():
        return ForeignTokenizer(_open(name, str(folder) if local else source, text_cfg))


def _check_obtainable(name: str, source: str, allow_download: bool) -> None:
    reason = client.unreachable() if allow_download else "nothing is downloaded for it unasked"
    if reason is not None:
        raise BackboneError(
            f"the tokenizer of backbone {name!r} ({source}) is not in the local cache and "
            f"{reason}; connect once to fetch it, or put its tokenizer.json and "
            "tokenizer_config.json into the backbone's folder"
        )


def _open(name: str, source: str, text_cfg: Mapping[str, Any]) -> Any:
    from open_clip.tokenizer import HFTokenizer

    try:
        return HFTokenizer(
            source,
            context_length=context_length(text_cfg),
            tokenizer_mode=text_cfg.get("tokenizer_mode"),
            **text_cfg.get("tokenizer_kwargs", {}),
        )
    except Exception as error:  # the library's errors share no narrower base
        raise BackboneError(
            f"the tokenizer of backbone {name!r} ({source}) could not be opened: "
            f"{first_line(error)}; its tokenizer.json and "
            "tokenizer_config.json must lie in the backbone's folder or in the hub's cache"
        ) from error
