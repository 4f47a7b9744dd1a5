"""`hf://owner/name[@revision]` -> a model folder on this disk. What is in it is checked elsewhere.

The card comes first and names the files to fetch; anything else in a repository is left there.
Where the Hub cannot be reached, its client's cache is used.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from fewclip import artifact
from fewclip.contract import CARD_FILE
from fewclip.errors import HubError
from fewclip.hub.client import clear_errors, endpoint, unreachable

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://(?P<repo>[^/@\s]+/[^/@\s]+)(?:@(?P<revision>[^@\s]+))?")


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the address of a model on the Hub."""
    return isinstance(path, str) and path.startswith(SCHEME)


def local_folder(path: str | os.PathLike[str]) -> Path:
    """The folder itself, or for `hf://owner/name[@revision]` the one that it is downloaded to.

    Raises:
        HubError: no such repository or revision, or it is out of reach and in no cache.
        ArtifactError: its card is broken.
    """
    return _downloaded(path) if isinstance(path, str) and is_address(path) else Path(path)


def _downloaded(address: str) -> Path:
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise HubError(
            f"{address} is not an address; write hf://owner/name or hf://owner/name@revision"
        )
    repo, offline = found["repo"], unreachable() is not None
    with clear_errors(address):
        snapshot = _card(address, repo, found["revision"], offline).parent
    folder = _own_folder(repo, snapshot.name)
    _link(snapshot, folder, [CARD_FILE])
    names = list(artifact.read_card(folder, verify=False).files)
    with clear_errors(address):
        # By its commit: the branch may have moved since the card was read.
        _fetch(repo, snapshot.name, names, offline)
    _link(snapshot, folder, names)
    return folder


def _card(address: str, repo: str, revision: str | None, offline: bool) -> Path:
    """Where the client keeps the card: in a folder that is named after the commit."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(
            hf_hub_download(
                repo,
                CARD_FILE,
                revision=revision,
                endpoint=endpoint(),
                local_files_only=offline,
            )
        )
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError as error:
        raise HubError(
            f"{address} is not a fewclip model: it has no {CARD_FILE}; give one that "
            "push_to_hub wrote"
        ) from error


def _fetch(repo: str, commit: str, names: Sequence[str], offline: bool) -> None:
    from huggingface_hub import snapshot_download

    patterns = [glob.escape(name) for name in names]  # names in a card are not patterns
    snapshot_download(
        repo,
        revision=commit,
        allow_patterns=patterns,
        endpoint=endpoint(),
        local_files_only=offline,
    )


def _own_folder(repo: str, commit: str) -> Path:
    from huggingface_hub import constants

    folder = Path(constants.HF_HOME) / "fewclip" / repo.replace("/", "--") / commit
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _link(snapshot: Path, folder: Path, names: Sequence[str]) -> None:
    """Link or copy the files themselves into `folder`: a snapshot holds symbolic links that lead
    out of it, which no model folder may."""
    for name in names:
        source = Path(os.path.realpath(snapshot / name))
        if not source.is_file():
            continue  # checking the folder reports what is missing
        fresh = folder / f".{secrets.token_hex(4)}.tmp"
        try:
            os.link(source, fresh)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, fresh)
        try:
            os.replace(fresh, folder / name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                fresh.unlink()  # still there: replacing a link to the same file is a no-op
