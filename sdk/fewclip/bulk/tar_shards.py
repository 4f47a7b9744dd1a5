"""WebDataset: tars in which files of one base name are one sample. With the standard library only.

`000123.jpg`, `000123.cls`, `000123.json` next to each other in the tar are one image, its label and
its metadata. The base name ends at the first dot of the file name, as in `webdataset`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any

from fewclip.bulk.records import Record, called, failed, opened
from fewclip.errors import DataError
from fewclip.images import Image, image_suffixes, readable

MAX_BYTES = 256 << 20  # of one file in a tar; an encoded image is never larger
_LABELS = {"cls", "txt", "json", "class", "label"}
_MAX_LABEL_BYTES = 1 << 20
_BROKEN = (tarfile.TarError, EOFError, zlib.error)


@dataclasses.dataclass(frozen=True)
class TarShard:
    """One .tar, .tar.gz or .tgz.

    Attributes:
        path: on `fs`, or on this machine if that is None.
    """

    path: str
    fs: Any = None

    @property
    def name(self) -> str:
        return called(self.path, self.fs)

    def count(self) -> int | None:
        """Counted by seeking from header to header; None if that would read it all."""
        if self.fs is not None or self._is_packed():
            return None
        try:
            return sum(1 for _ in self.records(names_only=True))
        except (DataError, OSError):
            return None

    def records(self, *, names_only: bool = False) -> Iterator[Record]:
        try:
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(opened(self.path, self.fs))
                if self._is_packed():
                    tar = stack.enter_context(tarfile.open(fileobj=file, mode="r|gz"))
                else:
                    tar = stack.enter_context(tarfile.open(fileobj=file, mode="r:"))
                yield from self._samples(tar, names_only)
        except _BROKEN as error:
            raise DataError(
                f"{self.name} is truncated or not a tar file ({error}); copy it again"
            ) from error

    def _is_packed(self) -> bool:
        return not self.path.lower().endswith(".tar")

    def _samples(self, tar: tarfile.TarFile, names_only: bool) -> Iterator[Record]:
        base, sample = "", _Sample(self)
        try:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
                key, ending = _split(member)
                if not key:
                    continue
                if key != base:
                    yield from sample.records(names_only)
                    base, sample = key, _Sample(self)
                sample.add(tar, member, ending, names_only)
        except _BROKEN:
            yield from sample.records(names_only)
            raise
        yield from sample.records(names_only)


class _Sample:
    """The files of one base name, as they come."""

    def __init__(self, shard: TarShard) -> None:
        self._shard = shard
        self._name: str | None = None
        self._data: bytes | None = None
        self._label: str | None = None

    def add(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, ending: str, names_only: bool
    ) -> None:
        if f".{ending}" in image_suffixes() and self._name is None:
            self._name = f"{self._shard.name}/{readable(member.name)}"
            if not names_only and member.size <= MAX_BYTES:
                self._data = _content(tar, member)
        elif ending in _LABELS and not names_only and member.size <= _MAX_LABEL_BYTES:
            self._label = _label(_content(tar, member), ending) or self._label

    def records(self, names_only: bool) -> Iterator[Record]:
        if self._name is None:
            return
        data = self._data
        if names_only:
            yield Record(self._name, self._unread)
        elif data is None:
            reason = f"cut off, or more than the {MAX_BYTES >> 20} MiB allowed; copy it again"
            yield failed(self._name, DataError(reason))
        else:
            yield Record(self._name, lambda: data, self._label)

    @staticmethod
    def _unread() -> Image:
        raise AssertionError("records of names only cannot be loaded")


def _split(member: tarfile.TarInfo) -> tuple[str, str]:
    """(base name with its folder, lower-case extension); "" if it belongs to no sample."""
    folder, name = posixpath.split(member.name)
    stem, _, ending = name.partition(".")
    if not member.isfile() or not stem:  # a link could name anything; hidden files are not data
        return "", ""
    return posixpath.join(folder, stem), ending.lower()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    data = file.read()
    if len(data) != member.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


def _label(content: bytes, ending: str) -> str | None:
    """The label that a .cls, .txt or .json holds."""
    text = content.decode("utf-8", "replace").strip()
    if ending != "json":
        return text or None
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(plain, dict):
        plain = next((plain[key] for key in ("label", "class", "cls") if key in plain), None)
    return str(plain) if isinstance(plain, (str, int)) else None
