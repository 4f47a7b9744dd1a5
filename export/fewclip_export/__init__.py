"""Classifier -> ONNX: graph, precision, parity gate. Importing it is light; `export` is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fewclip.errors import MissingExtraError
from fewclip_export.report import ExportReport

if TYPE_CHECKING:
    from fewclip.classifier import Classifier

__all__ = ["ExportReport", "export"]

_EXTRA = {"onnx", "onnxscript", "torch", "open_clip", "safetensors"}


def export(
    classifier: Classifier,
    out: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    images: Any = None,
    force: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write an ONNX folder that is proven to answer as the trained model does, or none at all.

    Args:
        classifier: trained, or zero-shot.
        out: the folder to write.
        precision: "fp32"; "fp16" for GPUs; "int8" for CPUs.
        images: what to prove it on: labelled data in any form that `adapt` takes, or a plain list
            of images. None: the validation images, where this process has them or the files that
            the card names are still there; else generated pictures, and the report says so.
        force: write it even if it answers differently; the card is branded.
        overwrite: replace a model folder that stands at `out`.
        seed: of augmented and generated images.
        progress: told in words what is being done.

    Raises:
        GateError: it answers differently, or crashes ONNX Runtime; nothing was written.
        OptionError: an unknown precision, or a method that cannot be exported.
        InputError: `out` exists and `overwrite` is False.
        MissingExtraError: the 'export' extra is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401

        from fewclip_export import exporter
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRA:
            raise
        raise MissingExtraError("exporting to ONNX", "export") from error
    return exporter.export(
        classifier,
        out,
        precision=precision,
        images=images,
        force=force,
        overwrite=overwrite,
        seed=seed,
        progress=progress,
    )
