"""A folder of finished runs, one JSON file each; a run found there is not repeated. No tables."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewclip.errors import DataError, InputError
from fewclip.images import readable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One finished run.

    Attributes:
        run: everything that determines it, as plain JSON: protocol, data, method, options, seed ...
        scores: name -> number; accuracies are fractions, 0..1.
        cost: "seconds" of training, "test_seconds", "peak_mb" of memory and "memory" ("process" or
            "gpu"), "machine", and "losses", the mean of each epoch.
    """

    run: Mapping[str, Any]
    scores: Mapping[str, float]
    cost: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only."""
        return {"run": dict(self.run), "scores": dict(self.scores), "cost": dict(self.cost)}


class Store:
    """Finished runs below `folder`/runs; a file is written whole or not at all.

    Raises:
        InputError: the folder cannot be created.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._runs = self.folder / "runs"
        try:
            self._runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{readable(folder)} cannot be written ({error.strerror}); name another folder"
            ) from error

    def find(self, run: Mapping[str, Any]) -> Result | None:
        """The finished run with exactly this description, if there is one.

        Raises:
            DataError: its file was not written by this class.
        """
        path = self._path(run)
        try:
            plain = json.loads(path.read_bytes())
            found = Result(run=plain["run"], scores=plain["scores"], cost=plain["cost"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{readable(path)} is not the result of a run ({error!r}); delete it, and that "
                "run will be repeated"
            ) from error
        if found.run != _plain(run):
            raise DataError(
                f"{readable(path)} was changed since it was written; delete it, and that one run "
                "is done again"
            )
        return found

    def add(self, result: Result) -> None:
        """Store a finished run; it is on disk when this returns."""
        path = self._path(result.run)
        temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(result.to_dict(), file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def _path(self, run: Mapping[str, Any]) -> Path:
        text = json.dumps(_plain(run), sort_keys=True)
        return self._runs / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _plain(run: Mapping[str, Any]) -> Any:
    """The run as it is read back from a file: tuples are lists there."""
    return json.loads(json.dumps(run))
