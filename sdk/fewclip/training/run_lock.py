"""One run per output: a lock on the checkpoint's folder, which the system releases when its holder
dies. What is in the folder is `checkpoint`'s business."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fewclip.errors import CheckpointError

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a checkpoint's folder, created if missing and removed again if it ends up empty.

    Raises:
        CheckpointError: another run holds it, or it cannot be created.
    """
    # The folder itself in any case: a killed run may have left it empty.
    missing = [folder, *(path for path in folder.parents if not path.exists())]
    try:
        handle = _acquire(folder)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {folder} cannot be written: {error.strerror or error}"
        ) from error
    try:
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):  # not empty: there is something to keep
                path.rmdir()
        if handle is not None:
            os.close(handle)


def _acquire(folder: Path) -> int | None:
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":  # no such locks there
        return None
    while True:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise CheckpointError(
                f"another run is using {folder}; wait until it is done, stop it, or write to "
                "another folder"
            ) from error
        except OSError:  # a file system without locks
            return handle
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(folder)):
                return handle
        # Its holder finished in between and removed the folder that was opened.
        os.close(handle)
        folder.mkdir(parents=True, exist_ok=True)
