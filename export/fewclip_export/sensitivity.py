"""Which matrix products an int8 graph should keep in float32 first. It decides nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewclip.contract import IMAGE_INPUT
from fewclip_export.graph import quiet
from fewclip_export.precision import Tower

Floats = npt.NDArray[np.float32]


def rank_products(source: Path, images: Floats) -> list[str]:
    """Names of the products that int8 would convert, most sensitive first.

    Each is quantised alone and the tower run on the images. This is slow, but only an export that
    the gate has refused needs it.

    Args:
        source: the float32 image graph with its cuts among the outputs.
        images: (n, 3, H, W) float32, preprocessed.
    """
    with quiet(), tempfile.TemporaryDirectory() as folder:
        tower = Tower(source, Path(folder))
        plain = _run(tower.prepared, images)
        change = {
            name: _change(plain, _run(tower.quantised([name]), images)) for name in tower.products
        }
    return sorted(change, key=lambda name: -change[name])


def _run(path: Path, images: Floats) -> list[Floats]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    found: list[Floats] = session.run(None, {IMAGE_INPUT: images})
    return found


def _change(plain: list[Floats], other: list[Floats]) -> float:
    """Largest relative change of any output."""
    return max(
        float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(a)), 1e-12)
        for a, b in zip(plain, other, strict=True)
    )
