"""The Hub's own client: which server it asks, what its cache holds, its errors in one line each.

It transfers nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from fewclip.contract import OPEN_CLIP_WEIGHTS
from fewclip.errors import HubError, first_line

CONNECT_SECONDS = 5
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def endpoint() -> str:
    """Address of the Hub in use: the user's HF_ENDPOINT, else the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def unreachable(address: str = "") -> str | None:
    """Why a server cannot be reached, after one short attempt; None when it can.

    The Hub's client alone would retry for most of a minute.

    Args:
        address: of the server; empty for the Hub's.
    """
    if _offline_mode():
        return "offline mode is set (HF_HUB_OFFLINE)"
    url = urlsplit(address or endpoint())
    way = urlsplit(getproxies().get(url.scheme, url.geturl()))
    try:
        port = way.port or (80 if way.scheme == "http" else 443)
        socket.create_connection((way.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return f"{way.hostname} cannot be reached ({error})"
    return None


def _offline_mode() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep the Hub's client from asking its server about files that are already cached."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def file_cached(repo: str, name: str) -> bool:
    """Whether the client's cache holds a file of a repository."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, name), str)


def weights_cached(config: Mapping[str, Any]) -> bool:
    """Whether the client's cache holds the weights of an open_clip pretrained tag.

    Args:
        config: open_clip's, of the tag.
    """
    repo = str(config.get("hf_hub", "")).split("/")
    if len(repo) < 2:
        return False
    names = [repo[2]] if len(repo) > 2 and repo[2] else []
    names += [OPEN_CLIP_WEIGHTS, "open_clip_pytorch_model.bin"]
    return any(file_cached("/".join(repo[:2]), name) for name in names)


@contextlib.contextmanager
def clear_errors(what: str) -> Iterator[None]:
    """Raise the client's errors as HubError.

    Args:
        what: the repository, as the user named it.

    Raises:
        HubError: what was wrong, and how to fix it.
    """
    from huggingface_hub import errors

    try:
        yield
    except HubError:
        raise
    except errors.HFValidationError as error:
        raise HubError(
            f"{what} does not name a repository on the Hub: {first_line(error)}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{what} has no such revision; give a branch, a tag or a commit") from error
    except errors.RepositoryNotFoundError as error:  # raised for gated ones too
        raise HubError(
            f"{what} is not on {endpoint()}, or it is private or gated and you may not see it; "
            f"check the name, or {LOG_IN}"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise HubError(
            f"{what} is not in the local cache, and {endpoint()} cannot be reached"
            + (" (HF_HUB_OFFLINE is set)" if _offline_mode() else "")
            + "; connect once to fetch it, or give a local folder"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        hint = f"; {LOG_IN}" if status in (401, 403) else ""
        raise HubError(f"{endpoint()} refused {what}: {first_line(error)}{hint}") from error
    except (_network_error(), OSError, RuntimeError) as error:  # RuntimeError: a failed upload
        raise HubError(
            f"{endpoint()} cannot be reached for {what}: {first_line(error)}; "
            "check the connection and try again"
        ) from error


def _network_error() -> type[Exception]:
    """What the client's HTTP library raises, which differs between its versions."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(base for base in HfHubHTTPError.__mro__[1:] if issubclass(base, Exception))
