"""What runs before BentoML sees a request: ids, routes, token, limits, logs. No predictions.

It is the outermost layer. BentoML serves more than this service promises (a page with a
third-party script, the batching method as a route of its own, inputs that are fetched when they
look like a URL), so only the routes named here pass. `POST /predict`, the route of
BentoML's own client, becomes `/v1/predict`: one way in, one way to read a body.
"""

from __future__ import annotations

import base64
import dataclasses
import hmac
import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fewclip_service.http.http_errors import APIError
from fewclip_service.http.ui import PREFIX
from fewclip_service.logs import REQUEST_ID, log, log_exception
from fewclip_service.metrics import metrics
from fewclip_service.settings import MiB, Settings
from fewclip_service.shutdown import GracefulShutdown

CONTEXT = "fewclip"  # key of `RequestContext` in the ASGI scope

_API = "/v1"
_OPEN = {"/livez", "/readyz", "/healthz", "/metrics", "/"}  # need no token
_OTHERS = _OPEN | {"/schema.json"}  # BentoML's, besides the API
_ROUTES = {
    f"{_API}/{name}"
    for name in (
        "predict",
        "predict_batch",
        "predict_classes",
        "models",
        "model",
        "docs",
        "openapi.json",
    )
}
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@dataclasses.dataclass
class RequestContext:
    """Request context: what the inner layers tell the middleware about a request.

    Attributes:
        native: it came through BentoML's own route.
        outcome: type of the error it was refused with.
        status: of the answer, once it has begun.
    """

    native: bool = False
    outcome: str | None = None
    status: int = 0


class Middleware:
    """ASGI middleware around the whole service."""

    def __init__(
        self, app: ASGIApp, settings: Settings, shutdown: GracefulShutdown, page: ASGIApp | None
    ) -> None:
        self._app = app
        self._page = page
        self._token = settings.token.encode()
        self._body_bytes = settings.max_body + MiB
        self._shutdown = shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        token = REQUEST_ID.set(request_id)
        context = scope[CONTEXT] = RequestContext()
        method, path = scope["method"], scope["path"]

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                self._add_headers(MutableHeaders(raw=message["headers"]), request_id)
            try:
                await send(message)
            except Exception as error:  # uvicorn has already given up this connection
                raise APIError("gone", "the connection broke") from error

        try:
            handler = self._answer(scope, headers, context)
            await handler(scope, self._counted(path, receive), send_recorded)
        except APIError as error:
            await self._late(error, context)(scope, receive, send_recorded)
        except Exception as error:
            # FastAPI wraps it in its own error if an answer had begun.
            if isinstance(error.__cause__, APIError) and error.__cause__.kind == "gone":
                await self._late(error.__cause__, context)(scope, receive, send_recorded)
                return
            log_exception("failed", method=method, path=path[:200])
            internal = APIError("internal", "an unexpected error; the log has details")
            await self._late(internal, context)(scope, receive, send_recorded)
        finally:
            _record(method, path, context, time.perf_counter() - began)
            REQUEST_ID.reset(token)

    @staticmethod
    def _late(error: APIError, context: RequestContext) -> ASGIApp:
        """The answer when the app raised; none if one had begun, which uvicorn then ends."""

        async def nothing(_: Scope, __: Receive, ___: Send) -> None:
            context.outcome = error.kind

        return nothing if context.status else _response(error, context)

    def _answer(self, scope: Scope, headers: Headers, context: RequestContext) -> ASGIApp:
        """Who answers: a refusal, the page, or BentoML's app."""
        path = scope["path"]
        if path == "/readyz" and self._shutdown.draining:
            return _response(APIError("not_ready", "stopping"), context)
        if path == "/predict":
            if scope["method"] != "POST":
                return _response(APIError("method_not_allowed", "use POST"), context)
            context.native = True
            path = scope["path"] = f"{_API}/predict"
            scope["raw_path"] = path.encode()
        page = self._page if path == PREFIX or path.startswith(f"{PREFIX}/") else None
        # Exact names: BentoML's metrics would keep a series for every path that anyone tries.
        if page is None and path not in _OTHERS and path not in _ROUTES:
            return _response(APIError("not_found", "no such route; see /v1/docs"), context)
        if path not in _OPEN and not self._may_pass(headers):
            response = _response(APIError("unauthorized", "send the token as Bearer"), context)
            if page or path == f"{_API}/docs":  # a browser prompts: any user name, the token
                response.headers["WWW-Authenticate"] = 'Basic realm="fewclip"'
            return response
        if path == "/":
            return RedirectResponse(f"{_API}/docs", 307)
        return page or self._app

    def _may_pass(self, headers: Headers) -> bool:
        if not self._token:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        token = given.strip().encode()
        if scheme.lower() == "basic":
            try:
                token = base64.b64decode(token, validate=True).partition(b":")[2]
            except ValueError:
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(token, self._token)

    def _add_headers(self, headers: MutableHeaders, request_id: str) -> None:
        headers["X-Request-ID"] = request_id
        headers["X-Content-Type-Options"] = "nosniff"
        if self._shutdown.draining:
            headers["Connection"] = "close"

    def _counted(self, path: str, receive: Receive) -> Receive:
        """Bound bodies outside the API, which counts its own."""
        if path.startswith(f"{_API}/"):
            return receive
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._body_bytes:
                raise APIError("too_large", f"the body has more than {self._body_bytes:,} bytes")
            return message

        return counted


def _response(error: APIError, context: RequestContext) -> Response:
    context.outcome = error.kind
    return JSONResponse(error.body(), error.status, error.headers)


def _record(method: str, path: str, context: RequestContext, seconds: float) -> None:
    """Add one request to metrics and log, except probes and scrapes, which would flood them."""
    if path in _OPEN:
        return
    outcome = context.outcome or ("ok" if context.status < 400 else f"http_{context.status}")
    route = path if path in _ROUTES else "other"
    metrics().requests.labels(route=route, outcome=outcome).inc()
    metrics().seconds.labels(route=route).observe(seconds)
    fields: dict[str, Any] = {"method": method, "path": path[:200], "status": context.status}
    fields |= {"outcome": outcome, "ms": round(seconds * 1000, 1)}
    log(logging.INFO, "request", **fields)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex


def request_context(scope: Any) -> RequestContext:
    """The context of a request that passed the middleware."""
    context = scope[CONTEXT]
    assert isinstance(context, RequestContext)
    return context
