"""Model folders that appear whole or not at all. No torch, and no idea of what the files mean.

A folder is filled beside its target under a hidden name, hashed, synced to disk and renamed into
place. `card.json` is written last and carries the sha256 of every other file and of itself, so
that whatever is loaded is exactly what was written.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import datetime
import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fewclip.contract import CARD_FILE, Card
from fewclip.errors import ArtifactError, InputError
from fewclip.model_folder.model_files import MAX_CARD, is_plain_name, read_inside, sha256_inside

if sys.platform != "win32":
    import fcntl

CARD_DIGEST = "card_sha256"  # key in card.json: sha256 of the rest of the card

# Whatever was written where: a full or read-only disk is the same story for the caller.
DISK_REFUSES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def now_utc() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_folder(
    target: str | os.PathLike[str], fill: Callable[[Path], Card], *, overwrite: bool = False
) -> Card:
    """Write a model folder whole or not at all.

    Args:
        target: the folder to make. Its parents are made; an empty folder counts as absent.
        fill: writes all files but `card.json`, no sub-folders, into the folder it is given, and
            returns the card. Whatever it raises leaves nothing behind.
        overwrite: replace a model folder that stands there; no other folder is ever replaced.

    Returns:
        The card as written, `files` filled in.

    Raises:
        InputError: the target exists and may not be replaced, or the disk refuses.
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
    _write_card(temporary, card)
    return card


def check_target(target: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse a target that `write_folder` would refuse, before hours of work go into its content.

    Raises:
        InputError: something stands there that may not be replaced.
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


def read_card(folder: str | os.PathLike[str], *, verify: bool = True) -> Card:
    """Read a model folder's card, and make sure that the folder is what was written.

    Args:
        verify: compare the sha256 of every file with the card's.

    Raises:
        FormatVersionError: written in a format that this version does not know.
        ArtifactError: no model folder, or broken, edited or incomplete.
    """
    root = Path(folder)
    plain = _read_json(root)
    card = Card.from_dict({k: v for k, v in plain.items() if k != CARD_DIGEST})
    if plain.get(CARD_DIGEST) != _card_digest(plain):
        raise ArtifactError(
            f"{root / CARD_FILE} was changed since it was written; save or export the model again"
        )
    for name in card.files:
        if name == CARD_FILE or not is_plain_name(name):
            raise ArtifactError(
                f"{root / CARD_FILE} names the file {name!r}, which is not inside the folder; "
                "do not use this model"
            )
    if verify:
        _verify(root, card.files)
    return card


def _read_json(root: Path) -> Mapping[str, Any]:
    path = root / CARD_FILE
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise ArtifactError(f"{root} {what}; give a folder made by `adapt`, `save` or `export`")
    try:
        plain = json.loads(read_inside(root, CARD_FILE, MAX_CARD), parse_constant=_no_constant)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{root} is not a fewclip model (it holds no {CARD_FILE}); give a folder made by "
            "`adapt`, `save` or `export`"
        ) from error
    except ArtifactError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    if not isinstance(plain, dict):
        raise ArtifactError(f"{path} is not a fewclip card: it holds no JSON object")
    return plain


def _no_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no JSON")


def _verify(root: Path, files: Mapping[str, str]) -> None:
    for name, expected in files.items():
        try:
            found = sha256_inside(root, name)
        except OSError as error:
            raise ArtifactError(
                f"{root} is incomplete: {name} cannot be read ({error.strerror}); "
                "copy or export the whole folder again"
            ) from error
        if found != expected:
            raise ArtifactError(
                f"{root / name} was changed since it was written: its sha256 is {found[:12]}..., "
                f"the card says {expected[:12]}...; copy or export the whole folder again"
            )


def _card_digest(plain: Mapping[str, Any]) -> str:
    """sha256 over the card's content, whatever its layout as text."""
    content = {key: value for key, value in plain.items() if key != CARD_DIGEST}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    entries = sorted(folder.iterdir())
    assert all(entry.is_file() and is_plain_name(entry.name) for entry in entries), entries
    return {entry.name: sha256_file(entry) for entry in entries}


def _write_card(folder: Path, card: Card) -> None:
    plain = card.to_dict()
    plain[CARD_DIGEST] = _card_digest(plain)
    # What could not be read back is refused before it stands anywhere, such as a NaN (null here).
    Card.from_dict({k: v for k, v in plain.items() if k != CARD_DIGEST})
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    content = text.encode()
    if len(content) > MAX_CARD:
        raise InputError(
            f"the card would take {len(content):,} bytes and at most {MAX_CARD:,} are read back; "
            "give fewer or shorter class names"
        )
    (folder / CARD_FILE).write_bytes(content)


def _temporary(place: Path) -> Path:
    """A free hidden name beside `place`: a rename only works within one file system."""
    return place.parent / f".{place.name}.{secrets.token_hex(4)}.tmp"


def _remove_leftovers(place: Path) -> None:
    """Remove what killed writers of the same target left; a living writer holds a lock."""
    if sys.platform == "win32":  # no such locks there: leftovers stay
        return
    for leftover in place.parent.glob(f".{_escaped(place.name)}.????????.tmp"):
        try:
            with _locked(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError:  # locked by its writer, or removed meanwhile
            continue


def _escaped(name: str) -> str:
    """A file name that stands for itself in a glob pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, which the system lifts when its holder dies.

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
    """Bring the files, then the folder that names them, to the disk."""
    for path in [*sorted(folder.iterdir()), folder]:
        _fsync(path)


def _fsync(path: Path) -> None:
    if sys.platform == "win32":  # there a folder cannot be opened, nor a reader's file synced
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move_into_place(temporary: Path, place: Path, *, overwrite: bool) -> None:
    # Asked again: the target may have come into being while the folder was filled.
    check_target(place, overwrite=overwrite)
    if place.exists() and any(place.iterdir()):
        if not _exchange(temporary, place):
            # Without an atomic exchange there is a moment with no folder at all; a crash in it
            # leaves the old one, whole, under its hidden name.
            aside = _temporary(place)
            os.rename(place, aside)
            os.rename(temporary, place)
            shutil.rmtree(aside, ignore_errors=True)
    else:
        if sys.platform == "win32" and place.exists():  # there a rename replaces no folder
            place.rmdir()
        os.rename(temporary, place)
    _fsync(place.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, where the system can (Linux); afterwards `one` is the old."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    done = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(done == 0)


def _unwritable(target: str | os.PathLike[str], error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(f"{target} cannot be written: {reason}; nothing was left behind")
