"""One row of a bulk prediction, and how CSV, JSON lines and Parquet spell it. It opens no image.

Whatever the format, a row has `image, label, score, known, top, error`. In CSV `top` is
`top1_label, top1_score, top2_label ...`; a row with an error has only the image and the error.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from fewclip.decide import Prediction, Score
from fewclip.errors import DataError
from fewclip.system.extras import require

_BLOCK = 1 << 20  # bytes copied at once


@dataclasses.dataclass(frozen=True)
class Row:
    """The answer for one image of a source, or why there is none.

    Attributes:
        image: what the source calls it: a path, "shard.tar/key.jpg", "photos.parquet#12" ...
            always text that can be stored.
        known: None if the model cannot tell, as in `Prediction`.
        error: None unless the image could not be read; then there is no label.
        prediction_set: as in `Prediction`; printed, not written to files.
    """

    image: str
    label: str | None = None
    score: float | None = None
    known: bool | None = None
    top: tuple[Score, ...] = ()
    error: str | None = None
    prediction_set: tuple[str, ...] | None = None

    @classmethod
    def answered(cls, image: str, prediction: Prediction) -> Row:
        p = prediction
        return cls(image, p.label, p.score, p.known, p.top, prediction_set=p.prediction_set)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, every key present; `prediction_set` only if it was asked for."""
        plain: dict[str, Any] = {
            "image": self.image,
            "label": self.label,
            "score": self.score,
            "known": self.known,
            "top": [entry._asdict() for entry in self.top],
            "error": self.error,
        }
        if self.prediction_set is not None:
            plain["prediction_set"] = list(self.prediction_set)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Row:
        top = tuple(Score(**entry) for entry in plain["top"])
        return cls(**{**plain, "top": top})


class Csv:
    """Comma-separated, UTF-8, one header line; numbers as Python prints them."""

    suffix = ".csv"

    def __init__(self, top_k: int) -> None:
        numbers = range(1, top_k + 1)
        tops = [f"top{n}_{what}" for n in numbers for what in ("label", "score")]
        self._columns = ["image", "label", "score", "known", *tops, "error"]
        self._tops = 2 * top_k

    def write(self, file: IO[bytes], rows: Sequence[Row]) -> None:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        out = csv.writer(text, lineterminator="\n")
        out.writerow(self._columns)
        for row in rows:
            tops = [value for entry in row.top for value in entry]
            tops += [""] * (self._tops - len(tops))
            known = "" if row.known is None else str(row.known).lower()
            out.writerow([row.image, row.label, row.score, known, *tops, row.error])
        text.detach()  # flushed, and the file stays open for its owner

    def images(self, path: Path) -> Iterator[str]:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            if next(rows, None) != self._columns:
                raise _foreign(path)
            for row in rows:
                yield row[0]

    def joined(self, parts: Sequence[Path], out: IO[bytes]) -> None:
        """All parts as one file, under one header."""
        for number, part in enumerate(parts):
            with open(part, "rb") as file:
                header = file.readline()
                if number == 0:
                    out.write(header)
                shutil.copyfileobj(file, out, _BLOCK)


class JsonLines:
    """One JSON object a line."""

    suffix = ".jsonl"

    def write(self, file: IO[bytes], rows: Sequence[Row]) -> None:
        for row in rows:
            file.write(json.dumps(row.to_dict(), ensure_ascii=False).encode() + b"\n")

    def images(self, path: Path) -> Iterator[str]:
        with open(path, "rb") as file:
            for line in file:
                try:
                    yield json.loads(line)["image"]
                except (ValueError, KeyError, TypeError) as error:
                    raise _foreign(path) from error

    def joined(self, parts: Sequence[Path], out: IO[bytes]) -> None:
        for part in parts:
            with open(part, "rb") as file:
                shutil.copyfileobj(file, out, _BLOCK)


class Parquet:
    """Columns as in JSON; `top` is a list of {label, score}."""

    suffix = ".parquet"

    def __init__(self) -> None:
        pa = require("pyarrow", "a folder of Parquet parts", "scale")
        require("pyarrow.parquet", "a folder of Parquet parts", "scale")
        entry = pa.struct([("label", pa.string()), ("score", pa.float64())])
        self._schema = pa.schema(
            [
                ("image", pa.string()),
                ("label", pa.string()),
                ("score", pa.float64()),
                ("known", pa.bool_()),
                ("top", pa.list_(entry)),
                ("error", pa.string()),
            ]
        )

    def write(self, file: IO[bytes], rows: Sequence[Row]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist([row.to_dict() for row in rows], self._schema)
        pq.write_table(table, file)

    def images(self, path: Path | IO[bytes]) -> Iterator[str]:
        """The names of a file's rows, in order; the file is given by path, or open."""
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=["image"]):
                    yield from batch.column(0).to_pylist()
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise _foreign(path) from error


Format = Csv | JsonLines | Parquet


def _foreign(path: Path | IO[bytes]) -> DataError:
    name = path if isinstance(path, Path) else getattr(path, "full_name", "a part")
    return DataError(
        f"{name} does not hold rows as this command writes them; name another --out, or replace "
        "it with --overwrite"
    )
