"""Opening untrusted files: regular, inside their folder, bounded. No parsing.

A FIFO or a device as a model's file would keep its reader waiting, or reading, for ever; a link out
of the folder would have it read what the folder's owner cannot. There is no protection against
someone who changes the folder while it is being opened: serve from where only the owner can write.
"""

from __future__ import annotations

import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

from fewclip.errors import ArtifactError

MAX_CARD = 8 * 1024**2  # bytes; the cards of 1000 classes with all their images take 0.5 MB


def is_plain_name(name: str) -> bool:
    """Whether a file name stays inside its folder on every system."""
    return name not in {"", ".", ".."} and not set(name) & set("/\\:\0")


def open_inside(folder: Path, name: str) -> BufferedReader:
    """A regular file of a folder, for reading.

    Raises:
        FileNotFoundError: no such file.
        ArtifactError: a FIFO, a device or a folder, or a link that leads out of the folder.
        OSError: it cannot be opened.
    """
    path = Path(os.path.realpath(folder / name))
    if not path.is_relative_to(os.path.realpath(folder)):
        raise ArtifactError(
            f"{folder / name} is a link that leads out of the folder; copy the model with the "
            "files themselves (cp -rL; from the Hub, snapshot_download(..., local_dir=...))"
        )
    # Status first: merely opening some devices has an effect. O_NONBLOCK in case the name has
    # become something else since.
    _refuse_irregular(folder, name, path.stat().st_mode)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _refuse_irregular(folder, name, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_inside(folder: Path, name: str, limit: int) -> bytes:
    """The content of a regular file of a folder.

    Raises:
        ArtifactError: it has more than `limit` bytes; or as `open_inside`.
    """
    with open_inside(folder, name) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ArtifactError(
            f"{folder / name} has more than {limit:,} bytes, which no {name} of fewclip has; "
            "do not use this model"
        )
    return content


def sha256_inside(folder: Path, name: str) -> str:
    """Hex sha256 of a regular file of a folder; raises what `open_inside` does."""
    with open_inside(folder, name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_irregular(folder: Path, name: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ArtifactError(f"{folder / name} is not a regular file; do not use this model")
