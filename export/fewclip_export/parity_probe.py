"""The ONNX side of the gate, in its own process because a bad graph can crash it.

Usage: python -m fewclip_export.parity_probe REQUEST.json

It imports no torch; the reply reports that.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip.contract import CLASSES_INPUT, IMAGE_GRAPH, IMAGE_INPUT, ITM_OUTPUT, Card
from fewclip.decide import ModelOutputs
from fewclip.preprocess import preprocess
from fewclip.runtime import OnnxClassifier
from fewclip.runtime.sessions import open_session

BATCHES = (1, 7)
BATCH_TOLERANCE = 1e-4  # logits of an image alone and in a batch; rounding explains no more
NEW = "new"  # outputs are named by batch size, those with added classes by this
TIMED_BATCH = 8
TIMED_SECONDS = 10.0
TIMED_RUNS = (5, 25)  # at least, at most


def main(request: dict[str, Any]) -> None:
    """Answer a request: model outputs for every image in batches and for some alone, and the speed.

    Args:
        request: `folder` with graphs, its `card`, `images` (paths), `new_classes` to add by name, a
            float32 `reference` graph to time against or None, `alone_every`, of how many images one
            is also run alone, and `reply`, the npz file to write, where it is 1 if all had to be.
    """
    folder, card = Path(request["folder"]), Card.from_dict(request["card"])
    classifier = OnnxClassifier(folder, "cpu", card=card)
    images: list[str] = request["images"]
    reply: dict[str, Any] = {}
    alone, batch = BATCHES
    if request["new_classes"]:  # added after the trained classes, so the outputs hold both
        extended = classifier.add_classes(request["new_classes"])
        found = _outputs(extended, images, batch)
        reply |= _named(NEW, found)
        found = found._replace(logits_itm=found.logits_itm[:, : len(card.classes)])
    else:
        found = _outputs(classifier, images, batch)
    reply |= _named(str(batch), found)
    reply["alone_every"], singles = _run_alone(
        classifier, images, request["alone_every"], found.logits_itm
    )
    reply |= _named(str(alone), singles)
    if request["reference"] is not None:
        reply["speed"] = _speed(classifier, folder, Path(request["reference"]), images)
    reply["torch"] = "torch" in sys.modules
    np.savez(request["reply"], **reply)


def _outputs(classifier: OnnxClassifier, images: list[str], size: int) -> ModelOutputs:
    """Outputs for image files, `size` at a time; the last batch may be smaller."""
    parts = [classifier.model_outputs(images[i : i + size]) for i in range(0, len(images), size)]
    return ModelOutputs.join(parts)


def _run_alone(
    classifier: OnnxClassifier, images: list[str], every: int, batched: npt.ArrayLike
) -> tuple[int, ModelOutputs]:
    """Outputs for one image in `every`, each in a batch of one; for all if the batch matters.

    Args:
        batched: (n, M) logits of all images, run in batches.

    Returns:
        `every`, or 1 if all were run; and the outputs.
    """
    found = _outputs(classifier, images[::every], 1)
    difference = np.abs(np.asarray(found.logits_itm) - np.asarray(batched)[::every])
    if every == 1 or difference.max() <= BATCH_TOLERANCE:
        return every, found
    return 1, _outputs(classifier, images, 1)


def _named(name: str, found: ModelOutputs) -> dict[str, npt.NDArray[Any]]:
    columns = zip(ModelOutputs._fields, found, strict=True)
    return {f"{name}/{field}": column for field, column in columns if column is not None}


def _speed(classifier: OnnxClassifier, folder: Path, reference: Path, images: list[str]) -> float:
    """Speed relative to float32: the median of alternating runs on one batch."""
    card = classifier.card
    graphs = {reference: "fp32", folder / IMAGE_GRAPH: card.precision}
    pixels = preprocess(images[:TIMED_BATCH], card.preprocessing)
    few = classifier.text_features([card.phrases[label] for label in card.classes])
    inputs = {IMAGE_INPUT: pixels, CLASSES_INPUT: few}
    sessions = [
        open_session(path, device="cpu", precision=precision, threads=None)
        for path, precision in graphs.items()
    ]
    for session in sessions:
        session.run([ITM_OUTPUT], inputs)
    seconds: list[list[float]] = []
    least, most = TIMED_RUNS
    end = time.perf_counter() + TIMED_SECONDS
    while len(seconds) < least or (len(seconds) < most and time.perf_counter() < end):
        row = []
        for session in sessions:
            start = time.perf_counter()
            session.run([ITM_OUTPUT], inputs)
            row.append(time.perf_counter() - start)
        seconds.append(row)
    slow, fast = np.median(seconds, axis=0)
    return float(slow / fast)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
