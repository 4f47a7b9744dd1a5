"""`card.json` of a model folder: written last, read first, checked against its hashes."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewclip.contract import CARD_FILE, Card
from fewclip.errors import ArtifactError, InputError
from fewclip.model_folder.model_files import MAX_CARD, is_plain_name, read_inside, sha256_inside

CARD_DIGEST = "card_sha256"  # key in card.json: sha256 of the rest of the card


def now_utc() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(folder: str | os.PathLike[str], *, verify: bool = True) -> Card:
    """Read a model folder's card, and check that the folder is what was written.

    Args:
        verify: compare the sha256 of every file with the card's.

    Raises:
        FormatVersionError: the format is one that this version does not know.
        ArtifactError: it is not a model folder, or is broken, edited or incomplete.
    """
    root = Path(folder)
    plain = _read_json(root)
    card = Card.from_dict({k: v for k, v in plain.items() if k != CARD_DIGEST})
    if plain.get(CARD_DIGEST) != card_digest(plain):
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
    raise ValueError(f"it holds {name}, which is not JSON")


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


def write_card(folder: Path, card: Card) -> None:
    """Write `card.json` with its own hash.

    Raises:
        InputError: the card would be too large to read back.
    """
    plain = card.to_dict()
    plain[CARD_DIGEST] = card_digest(plain)
    # Refuse now what could not be read back, such as a NaN (null here).
    Card.from_dict({k: v for k, v in plain.items() if k != CARD_DIGEST})
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    content = text.encode()
    if len(content) > MAX_CARD:
        raise InputError(
            f"the card would take {len(content):,} bytes and at most {MAX_CARD:,} are read back; "
            "give fewer or shorter class names"
        )
    (folder / CARD_FILE).write_bytes(content)


def card_digest(plain: Mapping[str, Any]) -> str:
    """sha256 of the card's content, however the JSON is laid out."""
    content = {key: value for key, value in plain.items() if key != CARD_DIGEST}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
