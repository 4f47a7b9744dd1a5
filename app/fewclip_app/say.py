"""Errors on their way to the person: in words, and never as a traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr

from fewclip_app.jobs import in_words

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
            raise gr.Error(in_words(error), duration=None, print_exception=False) from error

    return handler  # type: ignore[return-value]
