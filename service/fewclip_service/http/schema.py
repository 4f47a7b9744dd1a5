"""What the routes take and give, as OpenAPI describes it. Shapes only, no behaviour."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, JsonValue

from fewclip_service.settings import Settings

TOP_K_MOST = 1000

_QUERY_TOP_K = {"type": "integer", "minimum": 1, "maximum": TOP_K_MOST}
_TOP_K = _QUERY_TOP_K | {"default": 5}
_COVERAGE = {
    "type": "number",
    "exclusiveMinimum": 0,
    "exclusiveMaximum": 1,
    "description": "0.9: name the labels that hold the truth 9 in 10 times; refused by a model "
    "that cannot promise it",
}
_TOP_K_HELP = "how many classes to name"
_MODEL_HELP = "which model, where several are served (GET /v1/models)"

MODEL: dict[str, Any] = {
    "name": "model",
    "in": "query",
    "required": False,
    "schema": {"type": "string", "maxLength": 255},
    "description": _MODEL_HELP,
}
_EXAMPLE: dict[str, JsonValue] = {
    "label": "cat",
    "score": 0.94,
    "known": True,
    "top": [{"label": "cat", "score": 0.94}, {"label": "dog", "score": 0.06}],
    "model": "pets",
    "ms": 21.5,
}


class Score(BaseModel):
    """A class and its calibrated probability."""

    label: str
    score: float


class Answer(BaseModel):
    """The answer for one image; `known` is false when it looks like none of the classes.

    `prediction_set`, where a coverage was asked for, holds the truth at that rate.
    """

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    label: str
    score: float
    known: bool | None
    top: list[Score]
    prediction_set: list[str] | None = None
    model: str
    ms: float


class ServedModel(BaseModel):
    """A model that is served; `version` changes when any file of its folder does."""

    name: str
    version: str


class ModelList(BaseModel):
    """All models that are served, by name."""

    models: list[ServedModel]


class Reason(BaseModel):
    """Why a request was refused."""

    type: str
    message: str


class Failure(BaseModel):
    """What every refusal looks like."""

    error: Reason


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these statuses and those that every route may give."""
    descriptions = {
        400: "Not an image, or a broken body",
        401: "A token is set, and missing or wrong in the request",
        404: "No such model",
        408: "The body did not arrive in time",
        413: "Too many bytes, pixels or images",
        415: "Another media type than those above",
        422: "A field or parameter is missing, unknown or out of range",
        503: "The queue is full, there was no time for the image, its process ended, or no model "
        "is loaded; Retry-After says when to retry",
        504: "No answer in time",
    }
    every = (401, 404, 422, 503)
    return {
        status: {"model": Failure, "description": descriptions[status]}
        for status in sorted({*statuses, *every})
    }


def image_body(settings: Settings) -> dict[str, Any]:
    """`image`, or the bare image as the body; optional `top_k`, `coverage`, `model`."""
    extra = _body({"image": _file(settings), "coverage": _COVERAGE}, ["image"])
    extra["requestBody"]["content"]["image/*"] = {"schema": _file(settings)}
    query = [
        # No defaults: generated clients would send them, and a field given twice is refused.
        {"name": "top_k", "in": "query", "schema": _QUERY_TOP_K, "description": _TOP_K_HELP},
        {"name": "coverage", "in": "query", "schema": _COVERAGE},
        MODEL,
    ]
    return extra | {"parameters": query}


def images_body(settings: Settings) -> dict[str, Any]:
    """`images`, several; optional `top_k`, `coverage`, `model`."""
    images = {"type": "array", "items": _file(settings), "minItems": 1}
    images["maxItems"] = settings.max_images
    return _body({"images": images, "coverage": _COVERAGE}, ["images"])


def classes_body(settings: Settings) -> dict[str, Any]:
    """`image`, `classes`; optional `top_k`, `model`."""
    classes = {
        "type": "string",
        "contentMediaType": "application/json",
        "description": f'a JSON list of 1 to {settings.max_classes} names: ["cat", "dog"]',
    }
    return _body({"image": _file(settings), "classes": classes}, ["image", "classes"])


def _file(settings: Settings) -> dict[str, Any]:
    text = f"an image of at most {settings.max_bytes:,} bytes and {settings.max_pixels:,} pixels"
    return {"type": "string", "format": "binary", "description": text}


def _body(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    optional = {
        "top_k": _TOP_K | {"description": _TOP_K_HELP},
        "model": MODEL["schema"] | {"description": _MODEL_HELP},
    }
    schema = {
        "type": "object",
        "properties": properties | optional,
        "required": required,
        "additionalProperties": False,
    }
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def complete(api: FastAPI, *, token: bool) -> None:
    """Add what FastAPI cannot know: that a token is required."""
    made = api.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        if token:
            schemes = {"token": {"type": "http", "scheme": "bearer"}}
            document["components"]["securitySchemes"] = schemes
            document["security"] = [{"token": []}]
        return document

    api.openapi = openapi  # type: ignore[method-assign]
