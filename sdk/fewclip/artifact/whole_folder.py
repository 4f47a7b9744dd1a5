"""A folder that is written whole or not at all.

It is filled beside its target under a hidden name, hashed, synced to disk and renamed into place.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from fewclip.artifact.card_file import sha256_file, write_card
from fewclip.contract import CARD_FILE, Card
from fewclip.errors import InputError
from fewclip.model_folder.model_files import is_plain_name

if sys.platform != "win32":
    import fcntl

# A full or read-only disk means the same to the caller, whichever file was being written.
DISK_REFUSES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_folder(
    target: str | os.PathLike[str], fill: Callable[[Path], Card], *, overwrite: bool = False
) -> Card:
    """Write a model folder whole or not at all.

    Args:
        target: the folder to create, with its parents; an empty folder counts as absent.
        fill: writes all files but `card.json`, no sub-folders, into the folder it is given, and
            returns the card. If it raises, nothing is left behind.
        overwrite: replace an existing model folder; no other folder is ever replaced.

    Returns:
        The card as written, `files` filled in.

    Raises:
        InputError: the target exists and may not be replaced, or cannot be written to disk.
    """
    place = Path(os.path.realpath(target))
    check_target(target, overwrite=overwrite)
    missing = [path for path in place.parents if not path.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(place)
        temporary = _temporary(place)
        temporary.mkdir()
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        with _locked(temporary):
            card = _filled(temporary, fill)
            try:
                _sync(temporary)
                _move_into_place(temporary, place, overwrite=overwrite)
            except OSError as error:
                raise _unwritable(target, error) from error
    except OSError as error:
        if error.errno not in DISK_REFUSES:
            raise
        raise _unwritable(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in missing:
            with contextlib.suppress(OSError):  # not empty: the folder was written
                path.rmdir()
    return card


def _filled(temporary: Path, fill: Callable[[Path], Card]) -> Card:
    card = dataclasses.replace(fill(temporary), files={})
    card = dataclasses.replace(card, files=_hashes(temporary))
    write_card(temporary, card)
    return card


def check_target(target: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse a target that `write_folder` would refuse, before hours of work are spent on it.

    Raises:
        InputError: what is there may not be replaced.
    """
    place = Path(os.path.realpath(target))
    if not place.exists():
        return
    if not place.is_dir():
        raise InputError(f"{target} is a file; name a folder that does not exist yet")
    if not any(place.iterdir()):
        return
    if not (place / CARD_FILE).is_file():
        raise InputError(
            f"{target} exists and is not a fewclip model (it holds no {CARD_FILE}), so it is "
            "never overwritten; name another folder"
        )
    if not overwrite:
        raise InputError(
            f"{target} exists; name another folder, or replace it with --overwrite "
            "(in Python: overwrite=True)"
        )


def _hashes(folder: Path) -> dict[str, str]:
    entries = sorted(folder.iterdir())
    assert all(entry.is_file() and is_plain_name(entry.name) for entry in entries), entries
    return {entry.name: sha256_file(entry) for entry in entries}


def _temporary(place: Path) -> Path:
    """A free hidden name beside `place`: a rename only works within one file system."""
    return place.parent / f".{place.name}.{secrets.token_hex(4)}.tmp"


def _remove_leftovers(place: Path) -> None:
    """Remove what killed writers of this target left behind; a live writer holds a lock."""
    if sys.platform == "win32":  # no such locks there: leftovers stay
        return
    for leftover in place.parent.glob(f".{_escaped(place.name)}.????????.tmp"):
        try:
            with _locked(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError:  # locked by its writer, or removed meanwhile
            continue


def _escaped(name: str) -> str:
    """A file name that matches only itself in a glob pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder; the system releases it when its holder dies.

    Raises:
        BlockingIOError: another process holds it.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _sync(folder: Path) -> None:
    """Sync the files to disk, then the folder that lists them."""
    for path in [*sorted(folder.iterdir()), folder]:
        sync_path(path)


def sync_path(path: Path) -> None:
    """Sync a file, or a folder's entries, to disk."""
    if sys.platform == "win32":  # folders cannot be opened there, nor read-only files synced
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move_into_place(temporary: Path, place: Path, *, overwrite: bool) -> None:
    # Checked again: the target may have appeared while the folder was being filled.
    check_target(place, overwrite=overwrite)
    if place.exists() and any(place.iterdir()):
        if not _exchange(temporary, place):
            # Without an atomic exchange there is a moment with no folder at all; a crash then
            # leaves the old one intact under its hidden name.
            aside = _temporary(place)
            os.rename(place, aside)
            os.rename(temporary, place)
            shutil.rmtree(aside, ignore_errors=True)
    else:
        if sys.platform == "win32" and place.exists():  # a rename cannot replace a folder there
            place.rmdir()
        os.rename(temporary, place)
    sync_path(place.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False if the system cannot (only Linux can)."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    done = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(done == 0)


def _unwritable(target: str | os.PathLike[str], error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(f"{target} cannot be written: {reason}; nothing was left behind")
