"""The Hugging Face hub's cache, and whether its server can be reached. It downloads nothing."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

CONNECT_SECONDS = 5


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """The hub's client asks its server even about files that it has, unless told not to."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def weights_cached(config: Mapping[str, Any]) -> bool:
    """Whether the hub's own cache holds the weights of a pretrained tag already."""
    repo = str(config.get("hf_hub", "")).split("/")
    if len(repo) < 2:
        return False
    names = [repo[2]] if len(repo) > 2 and repo[2] else []
    names += ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    return any(file_cached("/".join(repo[:2]), name) for name in names)


def file_cached(repo: str, name: str) -> bool:
    """Whether the hub's own cache holds a file of a repository."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, name), str)


def unreachable(address: str = "") -> str | None:
    """Why a server cannot be reached, after one short attempt; None when it can.

    The hub's client alone would retry for most of a minute.

    Args:
        address: of the server; empty for the hub's.
    """
    url = urlsplit(address or os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "offline mode is set (HF_HUB_OFFLINE)"
    way = urlsplit(getproxies().get(url.scheme, url.geturl()))
    try:
        port = way.port or (80 if way.scheme == "http" else 443)
        socket.create_connection((way.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return f"{way.hostname} cannot be reached ({error})"
    return None
