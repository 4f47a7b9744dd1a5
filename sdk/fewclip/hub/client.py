"""The Hub's own client, and its errors in one line each. No transfer is described here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from fewclip.errors import HubError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def endpoint() -> str:
    """The Hub that is asked: the user's HF_ENDPOINT, else the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


@contextlib.contextmanager
def clear_errors(what: str) -> Iterator[None]:
    """Raise the client's errors as HubError.

    Args:
        what: the repository, as the user named it.

    Raises:
        HubError: what was wrong, and how to mend it.
    """
    from huggingface_hub import errors

    try:
        yield
    except HubError:
        raise
    except errors.HFValidationError as error:
        raise HubError(f"{what} names no repository of the Hub: {_first_line(error)}") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{what} has no such revision; give a branch, a tag or a commit") from error
    except errors.RepositoryNotFoundError as error:  # gated ones are of this kind
        raise HubError(
            f"{what} is not on {endpoint()}, or it is private or gated and you may not see it; "
            f"check the name, or {LOG_IN}"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise HubError(
            f"{what} is not in the local cache, and {endpoint()} cannot be reached"
            + (" (HF_HUB_OFFLINE is set)" if _is_offline() else "")
            + "; connect once to fetch it, or give a local folder"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        hint = f"; {LOG_IN}" if status in (401, 403) else ""
        raise HubError(f"{endpoint()} refused {what}: {_first_line(error)}{hint}") from error
    except (_network_error(), OSError, RuntimeError) as error:  # the last of a failed upload
        raise HubError(
            f"{endpoint()} cannot be reached for {what}: {_first_line(error)}; "
            "check the connection and try again"
        ) from error


def _network_error() -> type[Exception]:
    """What the client's HTTP library raises, which differs between its versions."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(base for base in HfHubHTTPError.__mro__[1:] if issubclass(base, Exception))


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
