"""Cards edited as a forger would: any entry changed, and the digest made to fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewclip.artifact import CARD_DIGEST, card_digest


def changed(plain: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    plain = json.loads(json.dumps(plain))
    at: Any = plain
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return plain


def resign(folder: Path, change: dict[tuple[Any, ...], Any]) -> Path:
    """Edit card.json as a forger would, with the digest made to fit."""
    plain = json.loads((folder / "card.json").read_text())
    for path, value in change.items():
        plain = changed(plain, path, value)
    plain[CARD_DIGEST] = card_digest(plain)
    (folder / "card.json").write_text(json.dumps(plain))
    return folder
