"""Paths given by a user: checked to exist, and listed without what desktops leave behind."""

from __future__ import annotations

import os
from pathlib import Path

from fewclip.errors import DataError
from fewclip.images import readable

_LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini"}


def existing(path: str | os.PathLike[str]) -> Path:
    """The path, checked to exist."""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{readable(path)} cannot be opened ({reason}); check the path, which is looked up "
            f"from {os.getcwd()}"
        ) from error
    return Path(path)


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted, without hidden files and what desktops leave behind."""
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(
            f"{readable(folder)} cannot be listed ({error.strerror}); check its permissions"
        ) from error
    return [folder / e for e in entries if not e.startswith(".") and e not in _LITTER]
