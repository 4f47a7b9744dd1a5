"""Structured logs: one JSON object per line, with the id of the request it belongs to. No policy.

Request bodies, file names, tokens and client addresses are never logged.
"""

from __future__ import annotations

import contextvars
import datetime
import json
import logging
import os
import sys
from typing import Any

REQUEST_ID: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)

_OURS = logging.getLogger("fewclip")
# BentoML and its parts bring handlers of their own; ours takes their place.
_OTHERS = ("bentoml", "circus", "uvicorn", "uvicorn.error", "uvicorn.access")


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            "pid": os.getpid(),
        }
        line |= getattr(record, "fields", {})
        if (request_id := REQUEST_ID.get()) is not None:
            line["request_id"] = request_id
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def log(level: int, event: str, **fields: Any) -> None:
    """Log an event of our own with its fields."""
    _OURS.log(level, event, extra={"fields": fields})


def log_exception(event: str, **fields: Any) -> None:
    """Log the exception being handled, with its traceback."""
    _OURS.error(event, exc_info=True, extra={"fields": fields})


def _not_about_one_request(record: logging.LogRecord) -> bool:
    """The middleware logs what happens to a request; uvicorn would repeat it without its id."""
    return "ASGI" not in record.getMessage()


def configure() -> None:
    """Send all logs of this process to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().handlers = [handler]
    for name in _OTHERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.setLevel(logging.ERROR)
    uvicorn.filters = [_not_about_one_request]
    _OURS.setLevel(logging.INFO)
