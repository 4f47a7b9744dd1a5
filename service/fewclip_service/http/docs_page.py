"""The OpenAPI document -> one plain HTML page. No script, nothing fetched from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff; }
h2 { margin-top: 2.5rem; border-top: 1px solid #d0d7de; padding-top: 1rem; }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f3f5f7; border-radius: 4px; }
code { padding: .1em .3em; } pre { padding: .8rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
         border-bottom: 1px solid #e5e9ed; }
.verb { color: #0a5; font-weight: 600; }
@media (prefers-color-scheme: dark) {
  body { color: #dde3e9; background: #14171a; } code, pre { background: #22272c; }
  h2, th, td { border-color: #333a41; } a { color: #7ab8ff; } .verb { color: #4c9; } }
"""


def render(openapi: dict[str, Any], prefix: str) -> str:
    """The page.

    Args:
        openapi: the OpenAPI document.
        prefix: where its paths are mounted, "/v1".
    """
    title = escape(f"{openapi['info']['title']} {openapi['info']['version']}")
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{escape(openapi['info']['description'])} "
        f'The same as <a href="{prefix}/openapi.json">OpenAPI</a>.</p>'
    ]
    for path, verbs in openapi["paths"].items():
        for verb, operation in verbs.items():
            parts += _operation(verb.upper(), prefix + path, operation)
    parts.append("<h2>Shapes</h2>")
    for name, schema in openapi["components"]["schemas"].items():
        parts.append(f"<h3>{escape(name)}</h3>{_fields(schema)}")
    parts.append("</body></html>")
    return "".join(parts)


def _operation(verb: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f'<h2><span class="verb">{verb}</span> <code>{escape(path)}</code></h2>'
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    for parameter in operation.get("parameters", []):
        told = escape(parameter.get("description", ""))
        yield f"<p>Query <code>{escape(parameter['name'])}</code>: {told}</p>"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body: <code>{escape(kind)}</code></p>{_fields(content['schema'])}"
        yield f"<pre>{escape(_curl(path, content['schema']))}</pre>"
    rows = "".join(
        f"<tr><td><code>{escape(status)}</code></td><td>{escape(response['description'])}</td></tr>"
        for status, response in operation["responses"].items()
    )
    yield f"<table><tr><th>Status</th><th></th></tr>{rows}</table>"


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
    if field.get("format") == "binary":
        return "file"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    default = f", default {json.dumps(field['default'])}" if "default" in field else ""
    return str(field.get("type", "")) + default


def _curl(path: str, schema: dict[str, Any]) -> str:
    values = {"image": "@photo.jpg", "images": "@photo.jpg", "classes": '["cat", "dog"]'}
    forms = " ".join(f"-F '{name}={values[name]}'" for name in schema["required"])
    return f"curl {forms} http://HOST:PORT{path}"
