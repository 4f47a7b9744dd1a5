"""The `/v1` routes: fields in, JSON out. Pixels are left to `inference/`.

A FastAPI app that BentoML mounts. `multipart.py` and `fields.py`, not FastAPI, read what is sent,
so every refusal is ours and has the same shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

import fewclip
from fewclip_service.http import docs_page, fields, schema
from fewclip_service.http.http_errors import APIError
from fewclip_service.http.middleware import request_context
from fewclip_service.inference.worker import Worker
from fewclip_service.settings import Settings

PREFIX = "/v1"
_OPTIONAL = ("top_k", "coverage", "model")


def create_api(settings: Settings, core: Callable[[], Worker]) -> FastAPI:
    """Create the app; `core` returns the worker, and is called once requests arrive."""
    api = FastAPI(
        title="fewclip",
        version=fewclip.__version__,
        description="Classify images with an exported model.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        servers=[{"url": PREFIX}],
        root_path_in_servers=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    _add_errors(api)
    _add_predictions(api, settings, core)

    _add_models(api, core)

    @api.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        names = [model["name"] for model in core().models.listed()]
        server = str(request.url.replace(path="", query="")).rstrip("/")
        page = docs_page.render(api.openapi(), PREFIX, server=server, models=names)
        return HTMLResponse(page, headers={"Content-Security-Policy": docs_page.CSP})

    schema.complete(api, token=bool(settings.token))
    return api


def _add_models(api: FastAPI, core: Callable[[], Worker]) -> None:
    @api.get(
        "/models",
        operation_id="models",
        response_model=schema.ModelList,
        responses=schema.refusals(),
        description="Names and versions of all models that are served.",
    )
    async def models(request: Request) -> dict[str, Any]:
        fields.query_fields(request)
        return {"models": core().models.listed()}

    @api.get(
        "/model",
        operation_id="model",
        responses=schema.refusals(),
        openapi_extra={"parameters": [schema.MODEL]},
        description="The card: name, version, classes, method, precision and the execution "
        "provider really in use; `error` says why a newer folder is not served.",
    )
    async def model(request: Request) -> dict[str, Any]:
        asked = fields.query_fields(request, "model")
        return core().models.describe(fields.model_name(asked))


def _add_predictions(api: FastAPI, settings: Settings, core: Callable[[], Worker]) -> None:
    refusals = schema.refusals(400, 408, 413, 415, 504)

    @api.post(
        "/predict",
        operation_id="predict",
        response_model=schema.Answer,
        responses=refusals,
        openapi_extra=schema.image_body(settings),
        description="Classify one image.",
    )
    async def predict(request: Request) -> Response:
        async with core().request(request) as call:
            form = await call.read(images=1, bare=True)
            asked = fields.known_fields(request, form, files="image", fields=_OPTIONAL)
            native = request_context(request.scope).native and "model" in form.fields
            chosen = core().models.get(fields.model_name(asked, native=native))
            top_k, coverage = fields.top_k(asked), fields.coverage(asked, chosen.classifier)
            with core().gate.admit(1):
                image = fields.one_image(form)
                answer = await call.answer(chosen, chosen.classifier, image, top_k, coverage)
                return _json(answer)

    @api.post(
        "/predict_batch",
        operation_id="predict_batch",
        response_model=list[schema.Answer | schema.Failure],
        responses=refusals,
        openapi_extra=schema.images_body(settings),
        description="Classify several images, in order; a bad one is that item's `error`.",
    )
    async def predict_batch(request: Request) -> Response:
        async with core().request(request) as call:
            form = await call.read(images=settings.max_images)
            asked = fields.known_fields(request, form, files="images", fields=_OPTIONAL)
            chosen, top_k = core().models.get(fields.model_name(asked)), fields.top_k(asked)
            coverage = fields.coverage(asked, chosen.classifier)
            images = form.files.get("images", [])
            if not images:
                raise APIError("bad_field", "images: send at least one file")
            if len(images) > settings.max_images:
                most = settings.max_images
                raise APIError("too_large", f"{len(images)} images, more than the {most} allowed")

            async def one(image: bytes | APIError) -> dict[str, Any]:
                try:
                    return await call.answer(chosen, chosen.classifier, image, top_k, coverage)
                except APIError as error:
                    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                        raise
                    return error.body()

            with core().gate.admit(len(images)):
                answers = await _all(one(image) for image in images)
                return _json(answers)

    @api.post(
        "/predict_classes",
        operation_id="predict_classes",
        response_model=schema.Answer,
        responses=refusals,
        openapi_extra=schema.classes_body(settings),
        description="Classify one image among classes named in the call.",
    )
    async def predict_classes(request: Request) -> Response:
        async with core().request(request) as call:
            form = await call.read(images=1)
            known = ("classes", "top_k", "model")
            asked = fields.known_fields(request, form, files="image", fields=known)
            chosen, top_k = core().models.get(fields.model_name(asked)), fields.top_k(asked)
            names = fields.classes(asked, settings.max_classes)
            with core().gate.admit(1):
                image = fields.one_image(form)
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

    async def on_any(request: Request, _: Exception) -> Response:  # the middleware logs it
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
