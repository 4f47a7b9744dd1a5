"""Zip files in and out. An untrusted zip is checked before a byte of it is written.

Nothing here knows what the files mean, and nothing is written outside the given folder.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from fewclip.errors import DataError

_LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini"}
_CHUNK = 1024**2
# End of a zip's directory: disks (2 numbers), entries here and in total, bytes, offset, comment.
_END = struct.Struct("<4s4H2LH")
_END_MARK, _ZIP64_MARK, _ZIP64_SIZE = b"PK\x05\x06", b"PK\x06\x07", 20
_MAX_COMMENT = 65535
_ENTRY_BYTES = 1024  # of the directory per allowed file: some have long names


def unpack(archive: Path, target: Path, *, max_files: int, max_bytes: int) -> None:
    """Unpack a zip into `target`, which must not exist; on any error nothing is left.

    Hidden files and what desktops leave behind are skipped.

    Args:
        max_files, max_bytes: limits on what is unpacked.

    Raises:
        DataError: not a zip, broken, encrypted, too large, or an entry leads out of `target`.
    """
    try:
        _check_directory(archive, max_files)
        with zipfile.ZipFile(archive) as zipped:
            entries = _checked(zipped, max_files, max_bytes)
            target.mkdir(parents=True)
            left = max_bytes
            for path, info in entries:
                left -= _write(zipped, info, target / path, left)
    except DataError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    # Corruption surfaces as any of these, depending on where it is.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise DataError(
            f"this is not a zip file that can be opened ({error}); zip the folder again"
        ) from error
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise DataError(
            f"the zip could not be unpacked ({error.strerror or error}); "
            "shorten the names in it and zip the folder again"
        ) from error


def root_of(folder: Path) -> Path:
    """The folder below mere wrappers: zipping `photos/` itself adds a `photos/` around it."""
    while True:
        entries = list(folder.iterdir())
        if len(entries) != 1 or not entries[0].is_dir():
            return folder
        inner = list(entries[0].iterdir())
        if not (any(e.is_dir() for e in inner) or (entries[0] / "card.json").is_file()):
            return folder
        folder = entries[0]


def pack(folder: Path, target: Path) -> None:
    """Zip `folder` under its own name. Weights hardly compress, so files are only stored."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as zipped:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                zipped.write(path, Path(folder.name) / path.relative_to(folder))


def consume(file: Path, read: Callable[[Path], None]) -> None:
    """Read an uploaded file and delete it, whether or not that succeeded."""
    try:
        read(file)
    finally:
        file.unlink(missing_ok=True)


def _check_directory(archive: Path, max_files: int) -> None:
    """Bound the list of files before it is read: `ZipFile` holds all of it in memory.

    Raises:
        DataError: it is larger than `max_files` need, or Zip64 (for more than 4 GB).
    """
    with archive.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END.size - _MAX_COMMENT - _ZIP64_SIZE))
        tail = file.read()
    at = tail.rfind(_END_MARK)
    if at < 0 or len(tail) - at < _END.size:
        return  # not a zip, which `ZipFile` reports
    if tail[max(0, at - _ZIP64_SIZE) : at].startswith(_ZIP64_MARK):
        raise DataError(
            "the zip is of the kind for more than 65,535 files or 4 GB (Zip64); zip fewer images"
        )
    _, _, _, _, _, length, _, _ = _END.unpack_from(tail, at)
    if length > max(1000, 2 * max_files) * _ENTRY_BYTES:
        raise DataError(
            f"the zip's list of files takes {length / 1e6:,.0f} MB, and {max_files:,} files are "
            "allowed; leave some out, or split it"
        )


def _checked(
    zipped: zipfile.ZipFile, max_files: int, max_bytes: int
) -> list[tuple[Path, zipfile.ZipInfo]]:
    """Every file to write and where, once all entries have been found harmless."""
    entries: dict[Path, zipfile.ZipInfo] = {}
    for info in zipped.infolist():
        path = _safe_path(info)
        if path is None:
            continue
        if info.flag_bits & 1:
            raise DataError("the zip is protected by a password; zip the folder without one")
        # Others are rare, and a few bytes can make LZMA allocate gigabytes.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                "the zip is compressed in a way that few programs read; zip the folder again with "
                "the usual one (deflate)"
            )
        if path in entries:
            raise DataError(f"the zip holds {str(path)!r} twice; zip the folder again")
        entries[path] = info
        if len(entries) > max_files:
            raise DataError(
                f"the zip holds more than {max_files:,} files; leave some out, or split it"
            )
    total = sum(info.file_size for info in entries.values())
    if total > max_bytes:
        raise DataError(
            f"the zip holds {total / 1e6:,.0f} MB unpacked, and {max_bytes / 1e6:,.0f} MB are "
            "allowed; leave some images out, or make them smaller"
        )
    if not entries:
        raise DataError("the zip is empty; put one folder of images per class in it")
    return list(entries.items())


def _safe_path(info: zipfile.ZipInfo) -> Path | None:
    """The entry's path below the target; None if it is skipped.

    Raises:
        DataError: the entry is a link or a device, or its name leads out of the target.
    """
    name = info.filename.replace("\\", "/")  # some Windows tools write backslashes
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or any(":" in part for part in parts[:1]):
        raise DataError(
            f"the zip is refused: {info.filename!r} would be written outside its folder; "
            "zip the folder of images itself"
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(
            f"the zip is refused: {info.filename!r} is a link or a device, not an image; "
            "put the images themselves in"
        )
    hidden = any(part.startswith(".") or part in _LITTER for part in parts)
    return None if info.is_dir() or name.endswith("/") or hidden or not parts else Path(*parts)


def _write(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, left: int) -> int:
    """Write one entry and return its size; the zip's headers are not trusted for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with zipped.open(info) as source, path.open("xb") as out:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > left:
                raise DataError("the zip unpacks to more than it says; it is refused")
            out.write(chunk)
    return written
