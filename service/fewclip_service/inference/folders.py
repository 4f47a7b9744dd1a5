"""Which folders hold models. It loads nothing from them and needs only the SDK."""

from __future__ import annotations

from pathlib import Path

from fewclip.artifact import read_card
from fewclip.contract import CARD_FILE
from fewclip.errors import ArtifactError


def is_model(folder: Path) -> bool:
    """Whether a folder claims to be a model."""
    return (folder / CARD_FILE).is_file()


def model_folders(root: Path) -> list[Path]:
    """The root if it is a model, else the models in it; hidden ones are still being written."""
    if is_model(root) or not root.is_dir():
        return [root]
    return sorted(f for f in root.iterdir() if is_model(f) and not f.name.startswith("."))


def check_models(root: Path) -> None:
    """Refuse what no worker could serve, before anything starts.

    Raises:
        ArtifactError: there is no intact exported folder.
    """
    errors = []
    for folder in model_folders(root):
        try:
            if read_card(folder).kind == "onnx":
                return
            raise ArtifactError(f"{folder} is a saved model; export it first: fewclip export")
        except ArtifactError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    raise ArtifactError(f"{root} holds no exported model; make one with `fewclip export`")
