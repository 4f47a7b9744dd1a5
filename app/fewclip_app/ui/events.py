"""Between the page and its handlers: how events run, errors as text, and uploaded files."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio.utils import get_upload_folder

from fewclip.errors import DataError
from fewclip_app.work.job_queue import user_message

# How every event of the page runs. Not through Gradio's queue: there, an event that directly
# follows the end of another can be dropped together with the stream that carried the other, and
# the page waits forever. Work that must be limited takes a lock of its own.
EVENT: dict[str, Any] = {"api_visibility": "private", "queue": False}

LOST = "it did not arrive: the file is too large, or the connection broke; add it again"

F = TypeVar("F", bound=Callable[..., Any])


def on_error(function: F) -> F:
    """A handler whose errors the page shows in a box, and a client gets as an exception."""

    @functools.wraps(function)
    def handler(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise gr.Error(user_message(error), duration=None, print_exception=False) from error

    return handler  # type: ignore[return-value]


def uploaded(file: Mapping[str, Any]) -> Path:
    """The uploaded file behind {"path": ...} from a browser or client.

    Raises:
        DataError: any other path, which would be one of the server's own files.
    """
    path = os.path.realpath(str(file.get("path", "")))
    inside = os.path.realpath(get_upload_folder()) + os.sep
    if path.startswith(inside) and os.path.isfile(path):
        return Path(path)
    raise DataError("this file is not on the server any more; add it again")
