"""Class names -> text features, from an exported `text.onnx`. No torch, and no images.

The graph is opened for the first name that has no features yet, which most uses never need.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fewclip.artifact import sha256_file
from fewclip.contract import FEATURES_OUTPUT, TEXT_GRAPH, TOKENIZER_FILE, TOKENS_INPUT, Card
from fewclip.errors import ArtifactError, ClassNameError
from fewclip.model_folder.card_schema import shown

if TYPE_CHECKING:
    from fewclip.tokenizer import Tokenizer

BATCH = 32
# Cached names, which cost nothing when named again; each of the two bounds applies on its own.
REMEMBERED = 4096
REMEMBERED_BYTES = 32 << 20

Floats = npt.NDArray[np.float32]


class TextTower:
    """The text half of an exported model; safe to use from several threads.

    Args:
        folder: the exported folder.
        card: its card; `template` is exactly the prompt that is tokenised.
        known: phrase -> (D,) features that need no computing.
        open_graph: graph file name -> ONNX Runtime session.
    """

    def __init__(
        self,
        folder: Path,
        card: Card,
        known: Mapping[str, Floats],
        open_graph: Callable[[str], Any],
    ) -> None:
        self._folder = folder
        self._card = card
        self._known = known
        self._open_graph = open_graph
        self._remembered: OrderedDict[str, Floats] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._opened: tuple[Any, Tokenizer] | None = None

    @property
    def has_graph(self) -> bool:
        """Whether names without features can get them here."""
        files = self._card.files
        return TEXT_GRAPH in files if files else (self._folder / TEXT_GRAPH).is_file()

    def features(self, phrases: Sequence[str]) -> Floats:
        """(n, D) float32 L2-normalised features of n >= 1 phrases, in order.

        Raises:
            ClassNameError: a phrase is too long for the backbone.
            ClassNameError: one is new, and the folder has no text graph.
            ArtifactError: the folder was replaced since it was opened.
        """
        with self._lock:
            found = {phrase: self._recall(phrase) for phrase in phrases}
            new = [phrase for phrase, row in found.items() if row is None]
            for first in range(0, len(new), BATCH):
                part = new[first : first + BATCH]
                for phrase, row in zip(part, self._encode(part), strict=True):
                    found[phrase] = self._remember(phrase, row.copy())  # not the whole batch
            self._forget()
        return np.stack([row for row in map(found.get, phrases) if row is not None])

    def _remember(self, phrase: str, row: Floats) -> Floats:
        self._remembered[phrase] = row
        self._bytes += _size(phrase, row)
        return row

    def _forget(self) -> None:
        while len(self._remembered) > REMEMBERED or self._bytes > REMEMBERED_BYTES:
            self._bytes -= _size(*self._remembered.popitem(last=False))

    def _recall(self, phrase: str) -> Floats | None:
        if phrase in self._remembered:
            self._remembered.move_to_end(phrase)
            return self._remembered[phrase]
        return self._known.get(phrase)

    def _encode(self, phrases: Sequence[str]) -> Floats:
        if not self.has_graph:
            name = self._card.backbone["name"]
            raise ClassNameError(
                f"this export answers with its own classes only, and {shown(phrases[0])!r} is "
                f"none of them: the tokenizer of {name} has no exported form; add the class to the "
                "trained model (fewclip add-classes) and export that"
            )
        session, tokenizer = self._open()
        prompts = [self._card.template.replace("{}", phrase) for phrase in phrases]
        tokens = tokenizer.encode(prompts, int(self._card.backbone["context_length"]))
        features: Floats = session.run([FEATURES_OUTPUT], {TOKENS_INPUT: tokens})[0]
        return features

    def _open(self) -> tuple[Any, Tokenizer]:
        if self._opened is None:
            from fewclip.tokenizer import Tokenizer  # slow to import

            for name, expected in self._card.files.items():
                if name not in (TEXT_GRAPH, TOKENIZER_FILE):
                    continue
                path = self._folder / name
                if not path.is_file() or sha256_file(path) != expected:
                    raise ArtifactError(f"{path} was replaced since it was opened; open it again")
            tokenizer = Tokenizer.from_file(self._folder / TOKENIZER_FILE)
            self._opened = self._open_graph(TEXT_GRAPH), tokenizer
        return self._opened


def _size(phrase: str, row: Floats) -> int:
    return sys.getsizeof(phrase) + row.nbytes
