"""A saved model or an exported folder -> its classifier. It does not know what is in either."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fewclip import artifact
from fewclip.hub import local_folder

if TYPE_CHECKING:
    from fewclip.base import BaseClassifier


def open_model(path: str | os.PathLike[str], *, allow_download: bool = False) -> BaseClassifier:
    """The classifier of a folder of either kind; torch is imported for a saved model only.

    Args:
        path, allow_download: as for `fewclip.load`.

    Raises:
        ArtifactError: not a model folder, or one that was changed since it was written.
    """
    folder = local_folder(path)
    if artifact.read_card(folder, verify=False).kind == "onnx":
        from fewclip.runtime import OnnxClassifier

        return OnnxClassifier(folder)
    from fewclip.classifier import load

    return load(folder, allow_download=allow_download)
