"""Classifier -> a folder proven to answer as the trained model does, or no folder."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip import artifact
from fewclip.classifier import Classifier
from fewclip.contract import (
    CLASS_FEATURES,
    IMAGE_GRAPH,
    TEXT_GRAPH,
    TOKENIZER_FILE,
    Card,
)
from fewclip.data import read_labelled
from fewclip.errors import OptionError
from fewclip.ood import to_arrays
from fewclip.preprocess import Image, preprocess
from fewclip.system.reporting import ReportProgress, report_nothing
from fewclip.tokenizer import Tokenizer
from fewclip_export import parity
from fewclip_export.graph import export_graphs, finish_graph, on_cpu
from fewclip_export.parity_images import ParitySamples, gather
from fewclip_export.precision import check_precision, to_fp16, to_int8
from fewclip_export.report import ExportReport
from fewclip_export.sensitivity import rank_products

Floats = npt.NDArray[np.floating[Any]]
RANKED_ON = 16  # images for measuring the sensitivity of matrix products


def export(
    classifier: Classifier,
    out: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    images: Any = None,
    force: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    report_progress: ReportProgress = report_nothing,
) -> ExportReport:
    """Write an ONNX folder that is proven to answer as the trained model does, or none at all.

    Args:
        classifier: trained, or zero-shot.
        out: the folder to write.
        precision: "fp32"; "fp16" for GPUs; "int8" for CPUs.
        images: parity samples: labelled data in any form that `adapt` takes, or a plain list of
            images. None: the validation images, if this process has them or the files named in
            the card still exist; otherwise generated images, and the report says so.
        force: write it even if it answers differently; the card is marked.
        overwrite: replace a model folder at `out`.
        seed: for augmented and generated images.
        report_progress: called with one line per step.

    Raises:
        GateError: it answers differently, or crashes ONNX Runtime; nothing was written.
        OptionError: an unknown precision, or a method that cannot be exported.
        InputError: `out` exists and `overwrite` is False.
    """
    check_precision(precision)
    if classifier.method.per_image_text:
        raise OptionError(
            f"{classifier.card.method} cannot be exported: its text features depend on each "
            "image, and a graph takes them as an input; adapt with kgcoop+dept or skip-tuning"
        )
    artifact.check_target(out, overwrite=overwrite)
    trained = Classifier(on_cpu(classifier.method), classifier.card, ood_score=classifier.ood_score)
    given = None if images is None else _read_images(images, classifier.classes)
    card = _onnx_card(trained, precision, Path(out).resolve().name)
    reports: list[ExportReport] = []

    def fill(folder: Path) -> Card:
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            arrays, reference = _write_graphs(trained, card, folder, work, report_progress)
            samples = gather(given, classifier.validation, trained.card, work, seed)
            report_progress(f"comparing on {len(samples.paths)} image files")
            ours = parity.run_torch(trained, samples)
            findings = parity.examine(ours, folder, card, samples, reference, work)
            failed = parity.failures(findings, precision)
            kept: tuple[str, ...] = ()
            if failed and precision == "int8":
                graph = work / IMAGE_GRAPH
                for kept in _rescues(trained, graph, samples, report_progress):
                    to_int8(graph, folder / IMAGE_GRAPH, kept)
                    finish_graph(folder / IMAGE_GRAPH, card, arrays)
                    findings = parity.examine(ours, folder, card, samples, reference, work)
                    failed = parity.failures(findings, precision)
                    if not failed:
                        break
        if failed and not force:
            raise parity.refusal(precision, failed, findings)
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        report = ExportReport(
            **dataclasses.asdict(findings),
            precision=precision,
            folder=os.fspath(out),
            files=sizes,
            size=sum(sizes.values()),
            float_products=kept,
            failures=failed,
        )
        reports.append(report)
        metadata = {k: v for k, v in report.to_dict().items() if k not in ("folder", "files")}
        made = {"created": artifact.now_utc(), "trained_precision": classifier.card.precision}
        return dataclasses.replace(card, export={**made, **metadata})

    artifact.write_folder(out, fill, overwrite=overwrite)
    return reports[0]


def _rescues(
    trained: Classifier, graph: Path, samples: ParitySamples, report_progress: ReportProgress
) -> Iterator[tuple[str, ...]]:
    """Growing sets of the most sensitive matrix products to keep in float32, up to half."""
    report_progress("the gate refused int8: looking for the matrix products that lose most")
    images = preprocess(samples.paths[:RANKED_ON], trained.card.preprocessing)
    ranked = rank_products(graph, images)
    count = 1
    while count <= len(ranked) / 2:
        report_progress(f"keeping {count} of {len(ranked)} matrix products in float32")
        yield tuple(ranked[:count])
        count *= 2


def _write_graphs(
    trained: Classifier, card: Card, folder: Path, work: Path, report_progress: ReportProgress
) -> tuple[Mapping[str, Floats], Path | None]:
    """Write the graphs and the tokenizer.

    Returns:
        What the image graph's metadata holds besides the card, and the float32 image graph if the
        export has another precision.
    """
    text = trained.backbone.reads_clip_bpe  # else the classes are fixed: see `text_tower`
    if text:
        Tokenizer.from_open_clip().save(folder / TOKENIZER_FILE)
    prompts = [card.template.replace("{}", card.phrases[label]) for label in card.classes]
    tokens = trained.backbone.token_rows(prompts)
    plain = card.precision == "fp32"
    place = folder if plain else work
    report_progress("writing the graphs")
    features = export_graphs(
        trained.method, card, tokens, place / IMAGE_GRAPH, place / TEXT_GRAPH if text else None
    )
    if not plain:
        report_progress(f"converting them to {card.precision}")
        to_image = to_int8 if card.precision == "int8" else to_fp16
        to_image(work / IMAGE_GRAPH, folder / IMAGE_GRAPH)
        if text:
            to_fp16(work / TEXT_GRAPH, folder / TEXT_GRAPH)
    arrays: dict[str, Floats] = {CLASS_FEATURES: features}
    if trained.ood_score is not None:
        arrays |= to_arrays(trained.ood_score)
    finish_graph(folder / IMAGE_GRAPH, card, arrays)
    if text:
        finish_graph(folder / TEXT_GRAPH, card)
    return arrays, None if plain else work / IMAGE_GRAPH


def _onnx_card(trained: Classifier, precision: str, name: str) -> Card:
    return dataclasses.replace(
        trained.card,
        kind="onnx",
        name=name,
        template=trained.method.prompt("{}"),
        precision=precision,
        files={},
        export={},
    )


def _read_images(images: Any, classes: Sequence[str]) -> list[tuple[Image, str | None]]:
    """Labelled data in any form that adapt takes, or a plain list of images."""
    if isinstance(images, (list, tuple)) and not any(isinstance(i, (list, tuple)) for i in images):
        return [(image, None) for image in images]
    items, _ = read_labelled(images, classes)
    return [(item.image, classes[item.label]) for item in items]
