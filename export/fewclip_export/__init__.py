"""Classifier -> ONNX: graph, precision, parity gate. Cheap to import until `export` is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fewclip.errors import MissingExtraError
from fewclip_export.report import ExportReport

if TYPE_CHECKING:
    from fewclip_export.exporter import export

__all__ = ["ExportReport", "export"]

_EXTRA = {"onnx", "onnxscript", "torch", "open_clip", "safetensors"}


def __getattr__(name: str) -> Any:
    """Import `export` when it is first used.

    Raises:
        MissingExtraError: the 'export' extra is not installed.
    """
    if name != "export":
        raise AttributeError(f"module 'fewclip_export' has no attribute {name!r}")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401

        from fewclip_export.exporter import export
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRA:
            raise
        raise MissingExtraError("exporting to ONNX", "export") from error
    return export
