"""A file of arrays beside plain JSON, replaced whole. No pickle."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewclip.errors import CheckpointError

PLAIN = "plain.json"


def save_arrays(path: Path, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a `.npz` file so that a crash at any moment leaves the old one or the new one.

    Raises:
        CheckpointError: it cannot be written; the old one stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **{**dict[str, Any](arrays), PLAIN: np.array(json.dumps(plain))})
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"checkpoint {path.parent} cannot be written: {error.strerror or error}"
        ) from error


def load_arrays(path: Path) -> tuple[Any, dict[str, NDArray[Any]]] | None:
    """The plain JSON and the arrays; None if `save_arrays` did not write the file, or not all."""
    try:
        with np.load(path) as found:
            arrays = dict(found)
        return json.loads(str(arrays.pop(PLAIN))), arrays
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
