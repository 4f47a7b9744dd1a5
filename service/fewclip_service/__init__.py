"""fewclip_service: an exported classifier over HTTP. No torch here, not even indirectly.

    fewclip_service.serve("pets-onnx", port=3000)    # until SIGTERM
    fewclip_service.build("pets-onnx")               # -> tag of a Bento with the model inside

A request passes through `http/middleware` (ids, token, routes) -> `http/api` (fields) ->
`http/multipart` (bytes) -> `inference/admission` (room?) -> `inference/batching` (decode, batch,
deadline) -> `service` (BentoML's batching).
"""

from __future__ import annotations

from fewclip_service.bento import build
from fewclip_service.launch import serve
from fewclip_service.settings import Settings

__all__ = ["Settings", "build", "serve"]
