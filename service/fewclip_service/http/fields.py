"""What a request asks for: its form fields and its query, checked by name. No pixels here.

A field may be in the form or in the query, but not in both and not twice: it would be ambiguous.
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.requests import Request

from fewclip.errors import OptionError
from fewclip.runtime import OnnxClassifier
from fewclip_service.http import schema
from fewclip_service.http.http_errors import APIError
from fewclip_service.http.multipart import Form

TOP_K = 5
_SHARE = re.compile(r"0?\.[0-9]{1,9}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_MODEL_NAME = 255  # characters, as many as a folder's name may have


def known_fields(
    request: Request, form: Form, *, files: str = "", fields: tuple[str, ...]
) -> dict[str, str]:
    """Values by name, from the form or the query.

    Args:
        files: the one file field of the route; "" where it has none.
        fields: the route's text fields, that is, all but the file.

    Raises:
        APIError: a field is unknown to the route, given twice, or a file in place of text or the
            reverse.
    """
    for name in form.files:
        if name in fields:
            raise APIError("bad_field", f"{name}: send text, not a file")
        if name != files:
            raise APIError(
                "bad_field", f"unknown file field {name[:100]!r}; send the file as {files!r}"
            )
    if files in form.fields:
        raise APIError("bad_field", f"{files}: send a file, not text; addresses are not fetched")
    pairs = [(name, value) for name, values in form.fields.items() for value in values]
    given: dict[str, list[str]] = {}
    for name, value in [*pairs, *request.query_params.multi_items()]:
        if name not in fields:
            known = ", ".join(sorted(fields))
            raise APIError("bad_field", f"unknown field {name[:100]!r}; available: {known}")
        given.setdefault(name, []).append(value)
    for name, values in given.items():
        if len(values) > 1:
            raise APIError("bad_field", f"{name}: given {len(values)} times; send it once")
    return {name: values[0] for name, values in given.items()}


def query_fields(request: Request, *fields: str) -> dict[str, str]:
    """The same for a route without a body."""
    return known_fields(request, Form({}, {}), fields=fields)


def one_image(form: Form) -> bytes | APIError:
    """The file `image`, or why it was refused.

    Raises:
        APIError: not exactly one file of this name.
    """
    images = form.files.get("image", [])
    if len(images) != 1:
        raise APIError("bad_field", f"image: send one file of this name, not {len(images)}")
    return images[0]


def top_k(fields: dict[str, str]) -> int:
    """How many classes to name; `TOP_K` by default.

    Raises:
        APIError: not a whole number, or out of range.
    """
    text = fields.get("top_k", str(TOP_K))
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= schema.TOP_K_MOST:
        raise APIError("bad_field", f"top_k: send a whole number from 1 to {schema.TOP_K_MOST}")
    return int(text)


def coverage(fields: dict[str, str], classifier: OnnxClassifier) -> float | None:
    """How often the prediction set should hold the true class, 0..1; None if not asked for.

    Raises:
        APIError: not a number between 0 and 1, or one the model cannot promise.
    """
    text = fields.get("coverage")
    if text is None:
        return None
    if _SHARE.fullmatch(text) is None:
        raise APIError("bad_field", "coverage: send a number between 0 and 1, such as 0.9")
    try:
        classifier.check_coverage(float(text))
    except OptionError as error:
        raise APIError("bad_field", f"coverage: {error}") from error
    return float(text)


def model_name(fields: dict[str, str], *, native: bool = False) -> str | None:
    """Which model is asked for, None if none is named.

    BentoML's own client (`native`) sends the name as a JSON string.

    Raises:
        APIError: not a JSON string, or too long.
    """
    name = fields.get("model")
    if native and name is not None:
        name = _parsed(name, "model")
        if not isinstance(name, str):
            raise APIError("bad_field", "model: send a JSON string")
    if name is not None and len(name) > _MODEL_NAME:
        raise APIError("bad_field", f"model: a name has at most {_MODEL_NAME} characters")
    return name


def classes(fields: dict[str, str], most: int) -> list[str]:
    """The names of a JSON list.

    Raises:
        APIError: not a JSON list of text, empty, or more than `most` names.
    """
    names = _parsed(fields.get("classes", ""), "classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise APIError("bad_field", 'classes: send a JSON list of names, ["cat", "dog"]')
    if not 1 <= len(names) <= most:
        raise APIError("bad_field", f"classes: send 1 to {most} names, not {len(names)}")
    if any(not _is_text(name) for name in names):
        raise APIError("bad_field", "classes: a name holds characters that are not valid text")
    return names


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise APIError("bad_field", f"{name}: not valid JSON") from error


def _is_text(name: str) -> bool:
    """Whether it can be encoded: JSON can spell lone surrogates, which no encoder accepts."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
