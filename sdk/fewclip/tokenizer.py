"""CLIP's byte-pair tokenizer: class prompts -> token ids. The only copy, and no torch.

Equal to `open_clip.get_tokenizer` with two deliberate deviations: a text that is too long is
refused by name (open_clip truncates it silently), and "<end_of_text>" inside a text is ordinary
text (in open_clip a control token, with which a class name could move the position that is read).
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import html
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ftfy
import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors

from fewclip.errors import ArtifactError, ClassNameError, MissingExtraError

START = "<start_of_text>"
END = "<end_of_text>"
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_SIZE = 49408
MERGES_DIGEST = "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"  # sha256
MAX_FILE = 8 << 20  # bytes of tokenizer.json, four times its actual size

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_SPLIT = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
_WORD_END = "</w>"
_BYTES = 256

Merges: TypeAlias = list[tuple[str, str]]


class Tokenizer:
    """Texts -> token ids.

    Attributes:
        start, end: ids of the tokens around every text; `end` is the largest id, and where a text
            tower reads its output.
    """

    def __init__(self, bpe: tokenizers.Tokenizer) -> None:
        start, end = bpe.token_to_id(START), bpe.token_to_id(END)
        if start is None or end is None:
            raise ArtifactError(f"not a CLIP tokenizer: it lacks {START} or {END}")
        self.start: int = start
        self.end: int = end
        self._bpe = bpe

    @classmethod
    @functools.lru_cache(maxsize=1)
    def from_open_clip(cls) -> Tokenizer:
        """The tokenizer of all CLIP models, from the vocabulary that open_clip ships.

        Raises:
            MissingExtraError: open_clip is not installed.
        """
        spec = importlib.util.find_spec("open_clip")
        if spec is None or not spec.submodule_search_locations:
            raise MissingExtraError("building CLIP's tokenizer", "train")
        path = Path(spec.submodule_search_locations[0]) / VOCABULARY
        return cls(_build(_vocabulary_merges(gzip.decompress(path.read_bytes()).decode())))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read `save`'s output (the `tokenizer.json` format of the tokenizers library).

        All CLIP models share one tokenizer, so only the merges are read from a file, and they
        must be CLIP's. The library itself is never given an untrusted file: one that asks for
        padding to 2^33 tokens kills the process.

        Raises:
            ArtifactError: no such file, or not CLIP's tokenizer.
        """
        try:
            with open(path, "rb") as file:
                text = file.read(MAX_FILE + 1)
            if len(text) > MAX_FILE:
                raise ValueError(f"more than {MAX_FILE:,} bytes")
            merges = _merges(json.loads(text))
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            raise ArtifactError(f"{path} is not a tokenizer: {error}") from error
        if _digest(merges) != MERGES_DIGEST:
            raise ArtifactError(f"{path} is not a CLIP tokenizer; export the model again")
        return cls(_build(merges))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json`."""
        Path(path).write_text(self._bpe.to_str(), encoding="utf-8")

    def encode(self, texts: Sequence[str], context_length: int) -> NDArray[np.int64]:
        """Token ids of each text: start, text, end, zeros.

        Returns:
            (n, context_length) int64.

        Raises:
            ClassNameError: a text has more tokens than fit; none is ever truncated.
        """
        rows = np.zeros((len(texts), context_length), dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = self.ids(text)
            length = len(ids) + 2
            if length > context_length:
                raise ClassNameError(
                    f"{shortened(text)!r} takes {length} tokens but the backbone reads "
                    f"{context_length}; shorten the class name, or give it a shorter phrase "
                    "(classes={label: phrase})"
                )
            row[:length] = [self.start, *ids, self.end]
        return rows

    def frequent_words(self, count: int) -> list[str]:
        """The vocabulary's first words and endings of four or more letters, most common first."""
        return self._words[:count]

    @functools.cached_property
    def _words(self) -> list[str]:
        vocabulary = self._bpe.get_vocab()
        ranked = sorted(vocabulary, key=vocabulary.__getitem__)
        ends = (t.removesuffix(_WORD_END) for t in ranked if t.endswith(_WORD_END))
        return [word for word in ends if len(word) >= 4 and word.isascii() and word.isalpha()]

    def ids(self, text: str) -> list[int]:
        """Token ids of one text alone, without start and end."""
        ids: list[int] = self._bpe.encode(clean(text), add_special_tokens=False).ids
        return ids


def clean(text: str) -> str:
    """Fix broken Unicode and HTML entities, collapse spaces, lowercase; as open_clip does."""
    fixed = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(fixed.split()).lower()


def words(text: str) -> list[str]:
    """The pieces of a text that are encoded independently: equal pieces, equal ids."""
    return [piece for piece, _ in _SPLIT.pre_tokenize_str(clean(text))]


def shortened(text: str, limit: int = 80) -> str:
    """A text for a message: whole, or its start and its length."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def _vocabulary_merges(vocabulary: str) -> Merges:
    """The merges of open_clip's file: a header, then more merges than CLIP uses."""
    lines = vocabulary.split("\n")[1 : VOCABULARY_SIZE - 2 * _BYTES - 1]
    return [(first, second) for first, second in (line.split() for line in lines)]


def _merges(plain: Any) -> Merges:
    """The merges of `tokenizer.json`: pairs, or "a b" as older versions of the library wrote."""
    given = plain["model"]["merges"]
    parts = (each.split(" ") if isinstance(each, str) else each for each in given)
    return [(str(first), str(second)) for first, second in parts]


def _digest(merges: Merges) -> str:
    text = "\n".join(f"{first} {second}" for first, second in merges)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _build(merges: Merges) -> tokenizers.Tokenizer:
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet(), key=_byte_order)
    words = [*symbols, *(s + _WORD_END for s in symbols), *(a + b for a, b in merges), START, END]
    ids = {word: i for i, word in enumerate(words)}
    bpe = tokenizers.Tokenizer(
        models.BPE(vocab=ids, merges=merges, end_of_word_suffix=_WORD_END, fuse_unk=False)
    )
    # `clean` has done this and more already; this is for other readers of tokenizer.json.
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            _SPLIT,
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    return bpe


def _byte_order(symbol: str) -> tuple[bool, int]:
    """CLIP numbers printable bytes first, then the others under their stand-ins from 256 on."""
    return ord(symbol) >= 256, ord(symbol)
