"""The `/v1` routes: fields in, JSON out. What happens to the pixels is `engine.py`'s.

A FastAPI app that BentoML mounts. Bodies are read by `forms.py` and not by FastAPI, so that every
refusal is ours and has the one shape.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

import fewclip
from fewclip.errors import OptionError
from fewclip.runtime import OnnxClassifier
from fewclip_service.http import docs_page, schema
from fewclip_service.http.http_errors import APIError
from fewclip_service.http.middleware import request_context
from fewclip_service.http.multipart import Form
from fewclip_service.inference.worker import Worker
from fewclip_service.settings import Settings

TOP_K = 5
PREFIX = "/v1"

_SHARE = re.compile(r"0?\.[0-9]{1,9}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
ModelName = Annotated[
    str | None, Query(max_length=255, description="which model, where several are served")
]


def create_api(settings: Settings, core: Callable[[], Worker]) -> FastAPI:
    """The app; `core` gives the worker's parts once there are any."""
    api = FastAPI(
        title="fewclip",
        version=fewclip.__version__,
        description="Classify images with an exported model.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    _add_errors(api)
    _add_predictions(api, settings, core)

    @api.get(
        "/model",
        responses=schema.refusals(),
        description="The card: name, version, classes, method, precision and the execution "
        "provider really in use; `error` says why a newer folder is not served.",
    )
    async def model(model: ModelName = None) -> dict[str, Any]:
        return core().models.describe(model)

    @api.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        html = docs_page.render(api.openapi(), PREFIX)
        return HTMLResponse(html, headers={"Content-Security-Policy": docs_page.CSP})

    return api


def _add_predictions(api: FastAPI, settings: Settings, core: Callable[[], Worker]) -> None:
    refusals = schema.refusals(400, 408, 413, 415, 504)

    @api.post(
        "/predict",
        response_model=schema.Answer,
        responses=refusals,
        openapi_extra=schema.image_body(settings),
        description="Classify one image.",
    )
    async def predict(request: Request, model: ModelName = None) -> Response:
        async with core().request(request) as call:
            form = await call.read(images=1)
            native = request_context(request.scope).native
            known = {"top_k", "coverage", *_native_model(native)}
            fields = _known_fields(form, files={"image"}, fields=known)
            if native and "model" in fields:
                model = _text(fields["model"], "model")
            chosen, top_k = core().models.get(model), _top_k(fields)
            coverage = _coverage(fields, chosen.classifier)
            with core().gate.admit(1):
                image = _one_image(form)
                answer = await call.answer(chosen, chosen.classifier, image, top_k, coverage)
                return _json(answer)

    @api.post(
        "/predict_batch",
        response_model=list[schema.Answer | schema.Failure],
        responses=refusals,
        openapi_extra=schema.images_body(settings),
        description="Classify several images, in order; a bad one is that item's `error`.",
    )
    async def predict_batch(request: Request, model: ModelName = None) -> Response:
        async with core().request(request) as call:
            form = await call.read(images=settings.max_images)
            fields = _known_fields(form, files={"images"}, fields={"top_k", "coverage"})
            chosen, top_k = core().models.get(model), _top_k(fields)
            coverage = _coverage(fields, chosen.classifier)
            images = form.files.get("images", [])
            if not images:
                raise APIError("bad_field", "images: send at least one file")
            if len(images) > settings.max_images:
                most = settings.max_images
                raise APIError("too_large", f"{len(images)} images, more than the {most} allowed")

            async def one(image: bytes | APIError) -> dict[str, Any]:
                try:
                    return await call.answer(chosen, chosen.classifier, image, top_k, coverage)
                except APIError as problem:
                    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                        raise
                    return problem.body()

            with core().gate.admit(len(images)):
                answers = await _all(one(image) for image in images)
                return _json(answers)

    @api.post(
        "/predict_classes",
        response_model=schema.Answer,
        responses=refusals,
        openapi_extra=schema.classes_body(settings),
        description="Classify one image among classes named in the call.",
    )
    async def predict_classes(request: Request, model: ModelName = None) -> Response:
        async with core().request(request) as call:
            form = await call.read(images=1)
            fields = _known_fields(form, files={"image"}, fields={"classes", "top_k"})
            chosen, top_k = core().models.get(model), _top_k(fields)
            names = _classes(fields, settings.max_classes)
            with core().gate.admit(1):
                image = _one_image(form)
                classifier = await call.name_classes(chosen, names)
                return _json(await call.answer(chosen, classifier, image, top_k))


def _add_errors(api: FastAPI) -> None:
    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, APIError)
        request_context(request.scope).outcome = error.kind
        return JSONResponse(error.body(), error.status, error.headers)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        return await on_problem(request, APIError("bad_field", f"{where}: not valid"))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = await on_problem(request, APIError.of_status(error.status_code))
        response.headers.update(error.headers or {})
        return response

    async def on_any(request: Request, _: Exception) -> Response:  # the guard logs it
        return await on_problem(request, APIError("internal", "an unexpected error; see the log"))

    api.add_exception_handler(Exception, on_any)
    api.add_exception_handler(APIError, on_problem)
    api.add_exception_handler(RequestValidationError, on_validation)
    api.add_exception_handler(HTTPException, on_http)


def _json(content: Any) -> Response:
    return JSONResponse(content)


async def _all(coroutines: Any) -> list[Any]:
    """Like gather, but the first failure cancels the others instead of letting them run on."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _native_model(native: bool) -> set[str]:
    """BentoML's client knows no query parameters, so that it names the model in a field."""
    return {"model"} if native else set()


def _known_fields(form: Form, *, files: set[str], fields: set[str]) -> dict[str, str]:
    """Text fields by name.

    Raises:
        APIError: one that the route does not know, is doubled, or is a file or a text by mistake.
    """
    for name in form.files:
        if name in fields:
            raise APIError("bad_field", f"{name}: send text, not a file")
        if name not in files:
            raise APIError("bad_field", f"unknown file field {name[:100]!r}")
    for name, values in form.fields.items():
        if name in files:
            raise APIError("bad_field", f"{name}: send a file, not text; addresses are not fetched")
        if name not in fields:
            raise APIError("bad_field", f"unknown field {name[:100]!r}")
        if len(values) > 1:
            raise APIError("bad_field", f"{name}: given {len(values)} times")
    return {name: values[0] for name, values in form.fields.items()}


def _one_image(form: Form) -> bytes | APIError:
    images = form.files.get("image", [])
    if len(images) != 1:
        raise APIError("bad_field", f"image: send one file, not {len(images)}")
    return images[0]


def _top_k(fields: dict[str, str]) -> int:
    text = fields.get("top_k", str(TOP_K))
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= schema.TOP_K_MOST:
        raise APIError("bad_field", f"top_k: send a whole number from 1 to {schema.TOP_K_MOST}")
    return int(text)


def _coverage(fields: dict[str, str], classifier: OnnxClassifier) -> float | None:
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


def _classes(fields: dict[str, str], most: int) -> list[str]:
    names = _parsed(fields.get("classes", ""), "classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise APIError("bad_field", 'classes: send a JSON list of names, ["cat", "dog"]')
    if not 1 <= len(names) <= most:
        raise APIError("bad_field", f"classes: send 1 to {most} names, not {len(names)}")
    if any(not _is_text(name) for name in names):
        raise APIError("bad_field", "classes: a name holds characters that are no text")
    return names


def _text(field: str, name: str) -> str:
    value = _parsed(field, name)
    if not isinstance(value, str):
        raise APIError("bad_field", f"{name}: send a JSON string")
    return value


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise APIError("bad_field", f"{name}: not valid JSON") from error


def _is_text(name: str) -> bool:
    """JSON can spell lone surrogates, which no encoder takes."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
