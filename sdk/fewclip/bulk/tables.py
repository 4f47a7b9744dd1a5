"""Images in the columns of Parquet and Arrow files, as paths or as bytes. It decodes none.

A column holds bytes, paths relative to the file, or what Hugging Face `datasets` writes for an
image: a struct of `bytes` and `path`. Tables of any size are read in small batches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import IO, Any

from fewclip.bulk.records import Record, called, cell_record, failed, opened
from fewclip.data.csv_file import ALIASES
from fewclip.errors import DataError, OptionError
from fewclip.system.extras import require

BATCH = 64  # rows read at once
# The column that holds images or their paths: the first of these that exists.
IMAGE_COLUMNS = ("image", "image_path", "filename", "file_name", "path", "file", "bytes")
_NAMES = ("image_path", "path", "filename", "file_name", "key", "__key__", "id")


@dataclasses.dataclass(frozen=True)
class TableShard:
    """One Parquet or Arrow file.

    Attributes:
        column: with images or paths; None for the first of `IMAGE_COLUMNS` that exists.
        fs: the fsspec file system that `path` is on; None for this machine's.
    """

    path: str
    column: str | None = None
    fs: Any = None

    @property
    def name(self) -> str:
        return called(self.path, self.fs)

    def check(self) -> None:
        """Refuse, before any long work, a file that holds no images.

        Raises:
            DataError: it cannot be read, or has no such column.
        """
        with self._open() as (schema, _, _):
            _Columns(schema, self.column, self.name)

    def count(self) -> int | None:
        with self._open() as (_, rows, _):
            return rows

    def records(self, *, names_only: bool = False) -> Iterator[Record]:
        with self._open() as (schema, _, batches):
            columns = _Columns(schema, self.column, self.name)
            number = 0
            for batch in batches(columns.needed(names_only)):
                for row in batch.to_pylist():
                    yield self._record(columns, row, number, names_only)
                    number += 1

    def _record(
        self, columns: _Columns, row: dict[str, Any], number: int, names_only: bool
    ) -> Record:
        label = columns.label_of(row)
        value = row.get(columns.image)
        if columns.holds_paths and isinstance(value, str):
            return cell_record(value, self.path, self.fs, label)
        name = str(row.get(columns.named) or f"{self.name}#{number}")
        if isinstance(value, dict):
            if value.get("bytes") is None and value.get("path"):
                inner = cell_record(value["path"], self.path, self.fs)
                return Record(name, inner.load, label)
            value = value.get("bytes")
        if names_only or isinstance(value, bytes):
            data = value or b""
            return Record(name, lambda: data, label)
        return failed(name, DataError("no image in this row"))

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Any, int | None, Any]]:
        """(schema, number of rows, columns -> record batches)"""
        what = f"reading {self.name}"
        pa = require("pyarrow", what, "scale")
        try:
            with opened(self.path, self.fs) as file:
                if self.path.lower().endswith(".parquet"):
                    yield _parquet(file, what)
                else:
                    yield _arrow(file, what)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.name} cannot be read ({error}); copy it again") from error


def _parquet(file: IO[bytes], what: str) -> tuple[Any, int, Any]:
    table = require("pyarrow.parquet", what, "scale").ParquetFile(file)
    rows = table.metadata.num_rows

    def batches(columns: list[str]) -> Iterator[Any]:
        return table.iter_batches(BATCH, columns=columns)  # type: ignore[no-any-return]

    return table.schema_arrow, rows, batches


def _arrow(file: IO[bytes], what: str) -> tuple[Any, None, Any]:
    """An Arrow file or, as `datasets` writes it, an Arrow stream."""
    ipc = require("pyarrow.ipc", what, "scale")
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    table = ipc.open_file(file) if is_file else ipc.open_stream(file)

    def batches(columns: list[str]) -> Iterator[Any]:
        whole = map(table.get_batch, range(table.num_record_batches)) if is_file else table
        for batch in whole:
            read = batch.select(columns)
            read.validate(full=True)  # Arrow trusts what it maps; broken offsets would crash us
            for first in range(0, read.num_rows, BATCH):
                yield read.slice(first, BATCH)

    return table.schema, None, batches


class _Columns:
    """Which columns of a table matter, and how labels are spelled."""

    def __init__(self, schema: Any, column: str | None, name: str) -> None:
        import pyarrow.types as types

        self.image = self._find(schema.names, [column] if column else IMAGE_COLUMNS)
        if not self.image:
            if column:
                raise OptionError(
                    f"{name} has no column {column!r}; it has {', '.join(schema.names)}"
                )
            raise DataError(
                f"{name} has no column of images (one of {', '.join(IMAGE_COLUMNS)}); it has "
                f"{', '.join(schema.names)}: name the right one with --image-column"
            )
        kind = schema.field(self.image).type
        if types.is_dictionary(kind):  # pandas' category
            kind = kind.value_type
        self.holds_paths = types.is_string(kind) or types.is_large_string(kind)
        if not (self.holds_paths or _is_bytes(kind) or types.is_struct(kind)):
            raise DataError(
                f"{name}: column {self.image!r} holds {kind}; images are bytes, paths, or the "
                "structs of `datasets`"
            )
        text = [n for n in schema.names if types.is_string(schema.field(n).type)]
        self.named = self._find(text, _NAMES)
        self.label = self._find(schema.names, ALIASES["label"])
        self._spelled = _class_names(schema.metadata, self.label)

    @staticmethod
    def _find(names: Sequence[str], wanted: Sequence[str]) -> str:
        lower = {name.lower(): name for name in reversed(names)}
        return next((lower[each.lower()] for each in wanted if each.lower() in lower), "")

    def needed(self, names_only: bool) -> list[str]:
        """The columns to read; no bytes for names alone, if another column has the names."""
        names = [self.named, self.image if self.holds_paths or not names_only else ""]
        chosen = [name for name in (*names, "" if names_only else self.label) if name]
        return list(dict.fromkeys(chosen))

    def label_of(self, row: dict[str, Any]) -> str | None:
        value = row.get(self.label)
        if isinstance(value, int) and 0 <= value < len(self._spelled):
            return self._spelled[value]
        return None if value is None or value == -1 else str(value)


def _is_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> list[str]:
    """The names behind the numbers of a `datasets.ClassLabel`."""
    try:
        plain = json.loads((metadata or {})[b"huggingface"])
        names = plain["info"]["features"][label]["names"]
        return [str(name) for name in names]
    except (KeyError, ValueError, TypeError):
        return []
