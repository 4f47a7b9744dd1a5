"""A model folder -> a repository of the Hub, in one commit. No torch; saving a model is elsewhere.

`README.md` becomes the repository's page. People edit such pages, so it is not among the files
whose hashes the published card holds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fewclip import artifact
from fewclip.contract import (
    CARD_FILE,
    IMAGE_GRAPH,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    TEXT_GRAPH,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Card,
)
from fewclip.errors import HubError
from fewclip.hub.client import clear_errors, endpoint, unreachable
from fewclip.hub.download import SCHEME
from fewclip.model_folder.readme import model_card

PAGE = "README.md"
# Left over from an earlier push of another kind of model, these would be taken for the new one's.
_OURS = {
    CARD_FILE,
    WEIGHTS_FILE,
    IMAGE_GRAPH,
    TEXT_GRAPH,
    TOKENIZER_FILE,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
}


def push(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    token: str | None = None,
    beside: Mapping[str, Path] | None = None,
) -> str:
    """Upload a saved model or an exported folder; the repository is created if missing.

    Args:
        folder: checked first, as on loading.
        repo: "owner/name".
        private: for a repository created now; an existing one stays as it is.
        token: the Hub's; None for the one of `hf auth login` or HF_TOKEN.
        beside: more files to upload, {name in the repository: file}.

    Returns:
        The commit's URL.

    Raises:
        ArtifactError: the folder is broken, or was changed since it was written.
        HubError: the Hub refuses, or is out of reach.
    """
    repo = repo.removeprefix(SCHEME)
    if repo.count("/") != 1:
        raise HubError(f"a repository is owner/name, got {repo!r}")
    card = artifact.read_card(folder)
    if (reason := unreachable()) is not None:
        raise HubError(f"{repo} cannot be published: {reason}; check the connection and try again")
    with tempfile.TemporaryDirectory(prefix="fewclip-push-") as scratch:
        staged = Path(scratch) / "model"
        _stage(Path(folder), card, staged)
        (staged / PAGE).write_text(
            model_card(card, repo=repo, for_open_clip=bool(beside)), encoding="utf-8"
        )
        files = {file.name: file for file in sorted(staged.iterdir())} | dict(beside or {})
        with clear_errors(f"{SCHEME}{repo}"):
            return _committed(repo, files, private=private, token=token)


def _stage(folder: Path, card: Card, staged: Path) -> None:
    """The folder as it is published: without its page, so that no hash covers that."""

    def fill(target: Path) -> Card:
        for name in card.files:
            if name != PAGE:
                source = os.path.realpath(folder / name)
                try:
                    os.link(source, target / name)
                except OSError:  # another file system, or one without hard links
                    shutil.copyfile(source, target / name)
        return dataclasses.replace(card, files={})

    artifact.write_folder(staged, fill)


def _committed(repo: str, files: Mapping[str, Path], *, private: bool, token: str | None) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi(endpoint=endpoint(), token=token)
    held: set[str] = set()
    with contextlib.suppress(RepositoryNotFoundError):  # created below
        held = set(api.list_repo_files(repo))
    api.create_repo(repo, private=private, exist_ok=True)
    commit = api.create_commit(
        repo,
        [
            *(CommitOperationAdd(name, file) for name, file in files.items()),
            *(CommitOperationDelete(name) for name in sorted((held & _OURS) - files.keys())),
        ],
        commit_message="Upload a model with fewclip",
    )
    return str(commit.commit_url)
