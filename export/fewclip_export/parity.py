"""The gate: torch against ONNX Runtime, from the same image files. It writes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip import decide
from fewclip.class_set import prompt_key
from fewclip.classifier import Classifier
from fewclip.contract import Card
from fewclip.errors import GateError
from fewclip_export.comparison import ModelRun
from fewclip_export.parity_images import ParitySamples
from fewclip_export.parity_probe import BATCHES, NEW
from fewclip_export.report import Findings

NEW_CLASSES = ("cat", "tree", "car", "cup", "moon")  # one token each: they fit in any template
# Every so many images, one is also run alone. In float32 an image's arithmetic should not depend on
# its batch; if it does for one of these, all are run alone. int8 has one scale for a whole batch.
ALONE_EVERY: Mapping[str, int] = {"fp32": 7, "fp16": 1, "int8": 1}
TIMEOUT = 3600.0  # seconds; a runtime that hangs fails the gate too

Floats = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that a precision must meet; None means no bound."""

    difference: float | None
    agreement: float
    accuracy_loss: float | None


LIMITS: Mapping[str, Limits] = {
    "fp32": Limits(difference=1e-3, agreement=1.0, accuracy_loss=None),
    "fp16": Limits(difference=None, agreement=0.99, accuracy_loss=None),
    "int8": Limits(difference=None, agreement=0.97, accuracy_loss=0.01),
}


@dataclasses.dataclass(frozen=True)
class TorchSide:
    """Torch's outputs for the parity samples; each image passes through the tower once.

    Attributes:
        own: with the classes of the trained model.
        new_classes: names that were added; empty if the export cannot add any.
        extended: with those added; None if there are none.
    """

    own: ModelRun
    new_classes: tuple[str, ...]
    extended: ModelRun | None


def run_torch(trained: Classifier, samples: ParitySamples) -> TorchSide:
    """Run the trained model on the parity samples.

    Args:
        trained: on the CPU, because a GPU's own rounding is not the export's fault.
    """
    card = trained.card
    taken = {prompt_key(text) for text in (*card.classes, *card.phrases.values())}
    new = tuple(name for name in NEW_CLASSES if name not in taken)
    if not (new and trained.backbone.reads_clip_bpe):  # without a text graph classes are fixed
        return TorchSide(ModelRun(card, trained.model_outputs(samples.paths)), (), None)
    sides = trained, trained.add_classes(new)
    parts = [
        [side.outputs_of(*encoded) for side in sides] for encoded in trained.encoded(samples.paths)
    ]
    own, extended = (
        ModelRun(side.card, decide.ModelOutputs.join(column))
        for side, column in zip(sides, zip(*parts, strict=True), strict=True)
    )
    return TorchSide(own, new, extended)


def examine(
    ours: TorchSide,
    folder: Path,
    card: Card,
    samples: ParitySamples,
    reference: Path | None,
    work: Path,
) -> Findings:
    """Run ONNX Runtime on the images and compare.

    Args:
        folder: graphs and tokenizer; `card` is not written there yet.
        reference: the float32 image graph, to time against; None if it is the export itself.
        work: a folder for exchanging files with the other process.

    Raises:
        GateError: ONNX Runtime crashed or refused the graphs.
    """
    request = {
        "folder": str(folder.resolve()),
        "card": card.to_dict(),
        "images": [os.path.abspath(path) for path in samples.paths],
        "new_classes": ours.new_classes,
        "reference": None if reference is None else str(reference.resolve()),
        "alone_every": ALONE_EVERY[card.precision],
        "reply": str(work / "reply.npz"),
    }
    reply = _run(request, work, card.precision)
    own = ours.own
    alone, batch = (ModelRun(own.card, _read(reply, str(size))) for size in BATCHES)
    some = slice(None, None, int(reply["alone_every"]))
    theirs = [batch.replaced(some, alone), batch]
    pairs = [(own, side) for side in theirs]
    new_class_agreement = None
    if ours.extended is not None:
        extended = ModelRun(ours.extended.card, _read(reply, NEW))
        new_class_agreement = ours.extended.same_class([extended])[0]
        pairs.append((ours.extended, extended))
    truth = [-1 if label is None else card.classes.index(label) for label in samples.labels]
    labels = np.array(truth)
    users = np.where(np.arange(len(labels)) < samples.own, labels, -1)
    agreement, near_ties = own.same_class(theirs)
    return Findings(
        images=len(samples.paths),
        images_alone=len(samples.paths[some]),
        origin=samples.origin,
        near_ties=near_ties,
        max_abs_diff=max(one.difference(other) for one, other in pairs),
        top1_agreement=agreement,
        new_class_agreement=new_class_agreement,
        known_agreement=own.same_known(theirs),
        labelled=int((labels >= 0).sum()),
        accuracy_change=own.accuracy_change(theirs[-1], users),
        accuracy_change_all=own.accuracy_change(theirs[-1], labels),
        speed_vs_fp32=float(reply["speed"]) if "speed" in reply else 1.0,
    )


def failures(findings: Findings, precision: str) -> tuple[str, ...]:
    """Why the gate refuses, and by how much; empty if the export passes."""
    limits = LIMITS[precision]
    reasons = []
    difference = findings.max_abs_diff
    if not np.isfinite(difference):
        reasons.append("some logits are not finite")
    elif limits.difference is not None and difference > limits.difference:
        reasons.append(f"logits differ by up to {difference:.2g}, {limits.difference:g} is allowed")
    for share, what in (
        (findings.top1_agreement, "the same best class"),
        (findings.new_class_agreement, "the same best class once classes are added"),
        (findings.known_agreement, "the same word on what is unknown"),
    ):
        if share is not None and share < limits.agreement:
            reasons.append(f"{what} on {share:.2%} of the images, {limits.agreement:.0%} is needed")
    change = findings.accuracy_change_all
    if limits.accuracy_loss is not None and change is not None and -change > limits.accuracy_loss:
        reasons.append(
            f"{-100 * change:.2f} points of accuracy lost on {findings.labelled} labelled images, "
            f"{100 * limits.accuracy_loss:g} is allowed"
        )
    return tuple(reasons)


def refusal(precision: str, reasons: Sequence[str], findings: Findings | None) -> GateError:
    """The error for a failed gate: by how much it failed, and what to try."""
    remedy = {
        "fp32": "this is a fault of fewclip or of ONNX Runtime: please report it",
        "fp16": "try --precision fp32",
        "int8": "try --precision fp32, or fp16 for a GPU",
    }[precision]
    on = f" ({findings.images} image files: {findings.origin})" if findings else ""
    return GateError(
        f"the {precision} export does not answer as the trained model does: "
        f"{'; '.join(reasons)}{on}; "
        f"nothing was written; {remedy}" + (", or --force to write it anyway" if findings else "")
    )


def _run(request: Mapping[str, Any], work: Path, precision: str) -> dict[str, Floats]:
    """Run `parity_probe` in another process and return its reply."""
    path = work / "request.json"
    path.write_text(json.dumps(request), encoding="utf-8")
    # It imports the same packages as this process, installed or not.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fewclip_export.parity_probe", str(path)],
            env=env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        hung = f"ONNX Runtime did not answer within {TIMEOUT:.0f} seconds"
        raise refusal(precision, [hung], None) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        how = f"ONNX Runtime failed on it ({last})"
        if done.returncode < 0:
            how = f"ONNX Runtime crashed on it ({signal.Signals(-done.returncode).name})"
        raise refusal(precision, [how], None)
    with np.load(request["reply"]) as reply:
        return dict(reply)


def _read(reply: Mapping[str, Floats], name: str) -> decide.ModelOutputs:
    fields: dict[str, Any] = {f: reply.get(f"{name}/{f}") for f in decide.ModelOutputs._fields}
    return decide.ModelOutputs(**fields)
