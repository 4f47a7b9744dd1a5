"""What the routes take and give, as OpenAPI tells it. Shapes only, no behaviour."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from fewclip_service.settings import Settings

TOP_K_MOST = 1000

_COVERAGE = {
    "type": "number",
    "exclusiveMinimum": 0,
    "exclusiveMaximum": 1,
    "description": "0.9: name the labels that hold the truth 9 in 10 times; refused by a model "
    "that cannot promise it",
}


class Score(BaseModel):
    """A class and its calibrated probability."""

    label: str
    score: float


class Answer(BaseModel):
    """The answer for one image; `known` is false when it looks like none of the classes.

    `prediction_set`, where a coverage was asked for, holds the truth at that rate.
    """

    label: str
    score: float
    known: bool
    top: list[Score]
    prediction_set: list[str] | None = None
    model: str
    ms: float


class Reason(BaseModel):
    """Why a request was refused."""

    type: str
    message: str


class Failure(BaseModel):
    """What every refusal looks like."""

    error: Reason


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these statuses and those that every route may give."""
    told = {
        400: "Not an image, or a broken body",
        401: "A token is set, and missing or wrong in the request",
        404: "No such model",
        408: "The body did not arrive in time",
        413: "Too many bytes, pixels or images",
        415: "Not multipart/form-data",
        422: "A field or parameter is missing, unknown or out of range",
        503: "The queue is full, or no model is loaded; Retry-After says when to come back",
        504: "No answer in time",
    }
    every = (401, 404, 422, 503)
    return {
        status: {"model": Failure, "description": told[status]}
        for status in sorted({*statuses, *every})
    }


def image_body(settings: Settings) -> dict[str, Any]:
    """`image`, optional `top_k` and `coverage`."""
    return _body({"image": _file(settings), "coverage": _COVERAGE}, ["image"])


def images_body(settings: Settings) -> dict[str, Any]:
    """`images`, several, optional `top_k` and `coverage`."""
    images = {"type": "array", "items": _file(settings), "minItems": 1}
    images["maxItems"] = settings.max_images
    return _body({"images": images, "coverage": _COVERAGE}, ["images"])


def classes_body(settings: Settings) -> dict[str, Any]:
    """`image`, `classes`, optional `top_k`."""
    classes = {
        "type": "string",
        "contentMediaType": "application/json",
        "description": f'a JSON list of 1 to {settings.max_classes} names: ["cat", "dog"]',
    }
    return _body({"image": _file(settings), "classes": classes}, ["image", "classes"])


def _file(settings: Settings) -> dict[str, Any]:
    told = f"an image of at most {settings.max_bytes:,} bytes and {settings.max_pixels:,} pixels"
    return {"type": "string", "format": "binary", "description": told}


def _body(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    top_k = {"type": "integer", "minimum": 1, "maximum": TOP_K_MOST, "default": 5}
    schema = {
        "type": "object",
        "properties": properties | {"top_k": top_k | {"description": "classes to name"}},
        "required": required,
        "additionalProperties": False,
    }
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }
