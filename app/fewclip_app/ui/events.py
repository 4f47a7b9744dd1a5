"""Between the page and its handlers: how events run, and errors as words, not as tracebacks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr

from fewclip_app.work.job_queue import user_message

# How every event of the page runs. Not through Gradio's queue: there, an event that follows at once
# on the end of another one can be thrown away together with the stream that carried the other,
# and the page waits for ever. What must be few at a time takes a lock of its own.
EVENT: dict[str, Any] = {"api_visibility": "private", "queue": False}

F = TypeVar("F", bound=Callable[..., Any])


def told(function: F) -> F:
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
