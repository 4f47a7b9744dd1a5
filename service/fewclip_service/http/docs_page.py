"""The OpenAPI document -> one HTML page to read it and try it out. Nothing comes from elsewhere.

The only script is docs_page.js; the page's content security policy names its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_STYLE = (_HERE / "docs_page.css").read_text("utf-8")
_SCRIPT = (_HERE / "docs_page.js").read_text("utf-8")
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()

CSP = (
    f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_HASH}'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def render(openapi: dict[str, Any], prefix: str, *, server: str, models: Sequence[str]) -> str:
    """The page.

    Args:
        openapi: the OpenAPI document.
        prefix: where its paths are mounted, "/v1".
        server: the address that the reader used, for the curl lines.
        models: names of the served models.
    """
    title = escape(f"{openapi['info']['title']} {openapi['info']['version']}")
    token = "securitySchemes" in openapi["components"]
    curl = _Curl(server + prefix, token=token, model=models[0] if len(models) > 1 else "")
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{escape(openapi['info']['description'])} Generate a client from "
        f'<a href="{prefix}/openapi.json">openapi.json</a>.</p>'
        f"<p>Models: {', '.join(f'<code>{escape(name)}</code>' for name in models) or 'none'}.</p>"
    ]
    if token:
        parts.append(
            '<p><label>Token <input id="token" type="password" autocomplete="off"></label> '
            "for the forms below; it stays in this page.</p>"
        )
    schemas = openapi["components"]["schemas"]
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts += _operation(method.upper(), prefix, path, operation, curl, schemas)
    parts.append("<h2>Shapes</h2>")
    for name, schema in schemas.items():
        parts.append(f"<h3>{escape(name)}</h3>{_fields(schema)}")
    parts.append(f"<script>{_SCRIPT}</script></body></html>")
    return "".join(parts)


class _Curl:
    """Lines to paste into a shell, with the token and the model where they are needed."""

    def __init__(self, base: str, *, token: bool, model: str) -> None:
        self._base = base
        self._start = 'curl -H "Authorization: Bearer $FEWCLIP_TOKEN"' if token else "curl"
        self._model = model

    def get(self, path: str, *, model: bool) -> str:
        query = f"?model={self._model}" if model and self._model else ""
        return f"{self._start} {shlex.quote(f'{self._base}{path}{query}')}"

    def form(self, path: str, schema: dict[str, Any]) -> str:
        values = {"image": "@photo.jpg", "images": "@photo.jpg", "classes": '["cat", "dog"]'}
        fields = {name: values[name] for name in schema["required"]}
        if self._model:
            fields["model"] = self._model
        forms = " ".join(f"-F {shlex.quote(f'{k}={v}')}" for k, v in fields.items())
        return f"{self._start} {forms} {shlex.quote(self._base + path)}"

    def bare(self, path: str) -> str:
        query = f"?top_k=3&model={self._model}" if self._model else "?top_k=3"
        url = shlex.quote(f"{self._base}{path}{query}")
        return f"{self._start} -H 'Content-Type: image/jpeg' --data-binary @photo.jpg {url}"


def _operation(
    method: str,
    prefix: str,
    path: str,
    operation: dict[str, Any],
    curl: _Curl,
    schemas: dict[str, Any],
) -> Iterator[str]:
    yield f'<h2><span class="verb">{method}</span> <code>{escape(prefix + path)}</code></h2>'
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    parameters = operation.get("parameters", [])
    for parameter in parameters:
        text = escape(parameter.get("description", ""))
        yield f"<p>Query <code>{escape(parameter['name'])}</code>: {text}</p>"
    content = operation.get("requestBody", {}).get("content", {})
    for kind, body in content.items():
        yield f"<p>Body: <code>{escape(kind)}</code></p>"
        is_form = "properties" in body["schema"]
        if is_form:
            yield _fields(body["schema"])
        line = curl.form(path, body["schema"]) if is_form else curl.bare(path)
        yield f"<pre>{escape(line)}</pre>"
    if not content:
        yield f"<pre>{escape(curl.get(path, model=bool(parameters)))}</pre>"
    if (example := _example(operation["responses"]["200"], schemas)) is not None:
        shown = json.dumps(example, indent=2, ensure_ascii=False)
        yield f"<p>Answer:</p><pre>{escape(shown)}</pre>"
    rows = "".join(
        f"<tr><td><code>{escape(status)}</code></td><td>{escape(response['description'])}</td></tr>"
        for status, response in operation["responses"].items()
    )
    yield f"<table><tr><th>Status</th><th></th></tr>{rows}</table>"
    form: dict[str, Any] = next(
        (b["schema"] for b in content.values() if "properties" in b["schema"]), {}
    )
    yield _try_it(method, prefix + path, form, parameters)


def _try_it(
    method: str, path: str, form: dict[str, Any], parameters: Sequence[dict[str, Any]]
) -> str:
    """A form that docs_page.js sends."""
    fields = form.get("properties") or {p["name"]: p["schema"] for p in parameters}
    inputs = "".join(
        f"<label>{escape(name)} {_input(name, field, name in form.get('required', []))}</label> "
        for name, field in fields.items()
    )
    return (
        f'<form class="try" data-method="{method}" data-path="{escape(path)}">{inputs}'
        '<button>Try it</button><pre class="answer" aria-live="polite" hidden></pre></form>'
    )


def _input(name: str, field: dict[str, Any], required: bool) -> str:
    needed = " required" if required else ""
    several = " multiple" if field.get("type") == "array" else ""
    if several or field.get("format") == "binary":
        return f'<input type="file" accept="image/*" name="{escape(name)}"{several}{needed}>'
    hint = '["cat", "dog"]' if name == "classes" else str(field.get("default", ""))
    return f'<input name="{escape(name)}" placeholder="{escape(hint)}"{needed}>'


def _example(response: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A sample of what a response's schema describes; None where the schema has none."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return _sample(schema, schemas)


def _sample(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return _sample(schemas[schema["$ref"].rsplit("/", 1)[-1]], schemas)
    if "example" in schema:
        return schema["example"]
    if "anyOf" in schema:
        return _sample(schema["anyOf"][0], schemas)
    if schema.get("type") == "array":
        return [_sample(schema["items"], schemas)]
    if "properties" in schema:
        return {name: _sample(field, schemas) for name, field in schema["properties"].items()}
    return "..." if schema.get("type") == "string" else None


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{'' if name in required else ' (optional)'}</td>"
        f"<td>{escape(_type(field))}</td><td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table>{rows}</table>"


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"])
    if field.get("format") == "binary":
        return "file"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    default = f", default {json.dumps(field['default'])}" if field.get("default") else ""
    return str(field.get("type", "")) + default
