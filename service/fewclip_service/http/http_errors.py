"""What a request can be refused with: one exception, one JSON body. No HTTP framework here.

| status | type | when |
|---|---|---|
| 400 | bad_request | a body that cannot be parsed |
| 400 | not_an_image | bytes that are not a readable image |
| 401 | unauthorized | a token is set, and missing or wrong in the request |
| 404 | not_found, unknown_model | no such route, no such model |
| 405 | method_not_allowed | the route has other methods |
| 408 | too_slow | the body did not arrive in time |
| 413 | too_large | too many bytes, pixels or images |
| 415 | unsupported_media_type | neither multipart/form-data nor, for one image, image/... |
| 422 | bad_field | a field is missing, unknown, given twice or out of range |
| 499 | gone | the client went away; only the log sees it |
| 503 | busy, not_ready | the queue is full, no time to decode; no model is loaded (yet) |
| 504 | timed_out | the answer was not ready in time |
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

RETRY_AFTER = "1"  # seconds; a full queue moves within one

_STATUS = {
    "bad_request": 400,
    "not_an_image": 400,
    "unauthorized": 401,
    "not_found": 404,
    "unknown_model": 404,
    "method_not_allowed": 405,
    "too_slow": 408,
    "too_large": 413,
    "unsupported_media_type": 415,
    "bad_field": 422,
    "gone": 499,
    "internal": 500,
    "busy": 503,
    "not_ready": 503,
    "timed_out": 504,
}
_TYPE = {404: "not_found", 405: "method_not_allowed"}


class APIError(Exception):
    """A request is refused.

    Args:
        kind: one of the types above.
        message: for people: what was wrong, and how to fix it.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message

    @property
    def status(self) -> int:
        return _STATUS[self.kind]

    @property
    def headers(self) -> dict[str, str]:
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return {"Retry-After": RETRY_AFTER}
        return {"WWW-Authenticate": "Bearer"} if self.status == HTTPStatus.UNAUTHORIZED else {}

    def body(self) -> dict[str, Any]:
        """{"error": {"type", "message"}}."""
        return {"error": {"type": self.kind, "message": self.message}}

    @classmethod
    def of_status(cls, status: int) -> APIError:
        """The error behind a framework's own refusal."""
        return cls(_TYPE.get(status, "bad_request"), HTTPStatus(status).phrase)
