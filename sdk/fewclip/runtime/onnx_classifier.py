"""An exported folder -> the answers of the trained model. No torch; opening graphs is elsewhere.

    from fewclip.runtime import OnnxClassifier

    OnnxClassifier("pets-onnx").predict(["a.jpg"])

Preprocessing, decision and class rules are the same code that the trained model uses.
"""

from __future__ import annotations

import copy
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fewclip import artifact, decide
from fewclip.base import BaseClassifier, Floats
from fewclip.contract import (
    ARRAYS_KEY,
    CAT_OUTPUT,
    CLASS_FEATURES,
    CLASSES_INPUT,
    CLASSES_KEY,
    FEATURES_OUTPUT,
    IMAGE_GRAPH,
    IMAGE_INPUT,
    INTERMEDIATE_OUTPUT,
    ITM_OUTPUT,
    Card,
)
from fewclip.errors import ArtifactError, OptionError
from fewclip.hub.download import local_folder
from fewclip.ood import from_arrays, ood_parts
from fewclip.preprocess import WORKERS, Images
from fewclip.runtime.arrays import unpack_arrays
from fewclip.runtime.graph_check import check_graph
from fewclip.runtime.sessions import open_session
from fewclip.runtime.text_tower import TextTower


class OnnxClassifier(BaseClassifier):
    """The same answers as the Classifier that was exported, from numpy, Pillow and ONNX Runtime.

    Class sets made from one folder share its sessions. It may be used from several threads at
    once.

    Args:
        path: an exported folder, or "hf://owner/name[@revision]" for one on the Hugging Face Hub.
        device: "auto" (the GPU when there is one that works), "cpu" or "cuda"; `device`
            and `provider` say which was taken.
        threads: per operator; None for the cores that this process may use.
        workers: threads that decode images.
        card: for the export's own parity gate, which runs before the folder's card is written.

    Raises:
        ArtifactError: not an exported folder, or one that was changed since it was written.
        FormatVersionError: written by a version this one does not know.
        OptionError: the device that was asked for is not available.
        HubError: no such repository, or it is out of reach and in no cache.
    """

    batch_size = 32

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: str = "auto",
        *,
        threads: int | None = None,
        workers: int = WORKERS,
        card: Card | None = None,
    ) -> None:
        folder = local_folder(path)
        self._folder = folder
        self.card = card or _read_onnx_card(folder)
        self.workers = workers

        def open_graph(name: str) -> Any:
            precision = self.card.precision
            check_graph(folder / name, self.card.files or _names(folder))
            return open_session(folder / name, device=device, precision=precision, threads=threads)

        self._session = open_graph(IMAGE_GRAPH)
        if card is None and artifact.read_card(folder, verify=False) != self.card:
            raise ArtifactError(f"{folder} was replaced while it was opened; open it again")
        arrays = _arrays(self._session, self.card, folder)
        _check_shapes(self._session, self.card, arrays, folder)
        self._features = arrays[CLASS_FEATURES]
        self._ood_score = from_arrays(arrays)
        self._widths = {out.name: out.shape[1] for out in self._session.get_outputs()}
        phrases = [self.card.phrases[label] for label in self.card.classes]
        known = dict(zip(phrases, self._features, strict=True))
        self._text = TextTower(folder, self.card, known, open_graph)

    @property
    def takes_new_classes(self) -> bool:
        """Whether classes can be added by name; if not, the export says why."""
        return self._text.has_graph

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the execution provider really in use."""
        return str(self._session.get_providers()[0])

    @property
    def device(self) -> str:
        """ "cpu" or "cuda": where the model really runs."""
        return self.provider.removesuffix("ExecutionProvider").lower()

    def __repr__(self) -> str:
        return (
            f"OnnxClassifier({self.card.name}, {self.card.precision} on {self.device}, "
            f"{len(self.classes)} classes)"
        )

    # ---- answers -----------------------------------------------------------------------------

    def model_outputs(self, images: Images, *, run_options: Any = None) -> decide.ModelOutputs:
        """All that `decide` needs to answer for N images.

        Args:
            images: as for `predict`.
            run_options: ONNX Runtime's, for a caller that may cancel a run in progress.
        """
        return self._outputs_and_parts(images, run_options)[0]

    def _outputs_and_parts(
        self, images: Images, run_options: Any = None
    ) -> tuple[decide.ModelOutputs, tuple[npt.NDArray[np.float64], ...]]:
        found = self._run(images, run_options)
        parts = ood_parts(found[FEATURES_OUTPUT], found.get(INTERMEDIATE_OUTPUT))
        logits = found[ITM_OUTPUT], found.get(CAT_OUTPUT)
        if self._ood_score is None:
            return decide.ModelOutputs(*logits, None), parts
        seen = self._ood_score.score_and_bound(parts, self.card.head.columns)
        return decide.ModelOutputs(*logits, *seen), parts

    def _training_parts(self) -> tuple[npt.NDArray[np.float16], ...]:
        return () if self._ood_score is None else self._ood_score.images

    def embed(self, images: Images) -> Floats:
        return self._run(images, None)[FEATURES_OUTPUT]

    def _run(self, images: Images, run_options: Any) -> dict[str, Floats]:
        """All outputs of the image graph by name: (N, D) features and so on."""
        widths = self._widths | {ITM_OUTPUT: len(self.classes)}
        parts = [[np.zeros((0, width), np.float32)] for width in widths.values()]
        for batch in self._batches(images):
            inputs = {IMAGE_INPUT: batch, CLASSES_INPUT: self._features}
            outputs = self._session.run(list(widths), inputs, run_options)
            for part, output in zip(parts, outputs, strict=True):
                part.append(output)
        return dict(zip(widths, map(np.concatenate, parts), strict=True))

    def text_features(self, phrases: Sequence[str]) -> Floats:
        """(n, D) float32 L2-normalised text features of phrases, inserted into the template.

        Raises:
            ClassNameError: a phrase is too long for the backbone.
        """
        return self._text.features(phrases)

    def _to_publish(self, scratch: Path) -> tuple[Path, Mapping[str, Path]]:
        """The exported folder as it is."""
        if self.card != artifact.read_card(self._folder, verify=False):
            raise OptionError(
                "these classes differ from those of the exported folder, which is what would be "
                "published; edit them with fewclip.load(...), export that, and push it"
            )
        return self._folder, {}

    def _with_card(self, card: Card) -> Self:
        same = copy.copy(self)
        same.card = card
        same._features = self._text.features([card.phrases[label] for label in card.classes])
        return same


def _read_onnx_card(folder: Path) -> Card:
    card = artifact.read_card(folder)
    if card.kind != "onnx":
        raise ArtifactError(
            f"{folder} is a saved model, not an exported one; run `fewclip export {folder}`, "
            "or open it with fewclip.load"
        )
    return card


def _arrays(session: Any, card: Card, folder: Path) -> dict[str, Floats]:
    """What answering needs besides the graph, from the graph's metadata.

    The graph holds the class features too, as the default of an input, but ONNX Runtime does not
    expose a default's value, and `add_classes` needs it.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        if json.loads(metadata[CLASSES_KEY]) != list(card.classes):
            raise ArtifactError(f"{folder}: {IMAGE_GRAPH} holds other classes than the card says")
        arrays = unpack_arrays(metadata[ARRAYS_KEY])
        if CLASS_FEATURES not in arrays:
            raise ValueError(f"it holds only {', '.join(arrays) or 'no arrays'}")
        return arrays
    except (KeyError, ValueError, OSError, zipfile.BadZipFile, RecursionError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(
            f"{folder}: {IMAGE_GRAPH} was not exported by fewclip ({error}); export it again"
        ) from error


def _names(folder: Path) -> list[str]:
    """Files of a folder that has no card yet, which the export's own parity gate opens."""
    return [file.name for file in folder.iterdir()]


def _check_shapes(session: Any, card: Card, arrays: Mapping[str, Floats], folder: Path) -> None:
    """Check that the graph takes and returns what the card says, before any request does."""
    size = card.preprocessing.size
    features = arrays[CLASS_FEATURES]
    takes = {each.name: list(each.shape) for each in session.get_inputs()}
    takes |= {each.name: list(each.shape) for each in session.get_overridable_initializers()}
    gives = {each.name: list(each.shape) for each in session.get_outputs()}
    known = {FEATURES_OUTPUT, ITM_OUTPUT, CAT_OUTPUT, INTERMEDIATE_OUTPUT}
    width = features.shape[-1]
    fine = (
        takes.keys() == {IMAGE_INPUT, CLASSES_INPUT}
        and takes[IMAGE_INPUT][1:] == [3, size, size]
        and takes[CLASSES_INPUT][1:] == [width]
        and {FEATURES_OUTPUT, ITM_OUTPUT} <= gives.keys() <= known
        and gives[FEATURES_OUTPUT][1:] == [width]
        and features.shape == (len(card.classes), width)
    )
    if not fine:
        raise ArtifactError(
            f"{folder}: {IMAGE_GRAPH} takes {takes} and gives {sorted(gives)}, which is not what "
            "its card says; export the model again"
        )
