"""A client made from the served OpenAPI document alone; the page that shows it, in a browser."""

from __future__ import annotations

import html as escaping
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.service.server import Server

pytestmark = pytest.mark.slow

TOKEN = "a-secret-token"


class GeneratedClient:
    """One method per operation; where a value goes is read from the document."""

    def __init__(self, url: str, document: dict[str, Any], token: str = "") -> None:
        base = url + document["servers"][0]["url"]
        self._http = httpx.Client(base_url=base, timeout=60)
        if document.get("security") == [{"token": []}]:
            assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
            self._http.headers["Authorization"] = f"Bearer {token}"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                setattr(self, operation["operationId"], self._call(method, path, operation))

    def _call(self, method: str, path: str, operation: dict[str, Any]) -> Callable[..., Any]:
        content = operation.get("requestBody", {}).get("content", {})
        form = content.get("multipart/form-data", {}).get("schema", {})
        query = {parameter["name"] for parameter in operation.get("parameters", [])}

        def call(**values: Any) -> Any:
            assert set(form.get("required", [])) <= set(values)
            files: list[tuple[str, Any]] = []
            for name, value in values.items():
                if name not in form.get("properties", {}):
                    assert name in query
                elif isinstance(value, list):
                    files += [(name, each) for each in value]
                else:
                    files.append((name, value if isinstance(value, bytes) else (None, str(value))))
            params = {n: v for n, v in values.items() if n not in form.get("properties", {})}
            answer = self._http.request(method, path, params=params, files=files or None)
            assert str(answer.status_code) in operation["responses"]
            answer.raise_for_status()
            return answer.json()

        return call


@pytest.fixture(scope="module")
def guarded(exported: Path) -> Any:
    with Server(exported, token=TOKEN) as running:
        yield running


def document(server: Server) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    found: dict[str, Any] = httpx.get(f"{server.url}/v1/openapi.json", headers=headers).json()
    return found


def test_a_generated_client_works(guarded: Server, exported: Path, photo: bytes) -> None:
    client: Any = GeneratedClient(guarded.url, document(guarded), TOKEN)
    name = client.models()["models"][0]["name"]
    assert name == exported.name
    one = client.predict(image=photo, top_k=2)
    assert len(one["top"]) == 2
    assert one["label"] in client.model(model=name)["classes"]
    assert [a["label"] for a in client.predict_batch(images=[photo, photo])] == [one["label"]] * 2
    named = client.predict_classes(image=photo, classes=json.dumps(["red", "a zebra"]), model=name)
    assert named["label"] in ("red", "a zebra")


def test_the_page_has_samples_and_lines_that_work_in_a_shell(
    guarded: Server, photo: bytes, tmp_path: Path
) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    page = httpx.get(f"{guarded.url}/v1/docs", headers=headers).text
    lines = [
        escaping.unescape(part.split("</pre>")[0])
        for part in page.split("<pre>")[1:]
        if part.startswith("curl")
    ]
    assert len(lines) == 6
    assert '"label": "cat"' in escaping.unescape(page)
    (tmp_path / "photo.jpg").write_bytes(photo)
    for line in lines:
        done = subprocess.run(
            ["sh", "-c", line.replace("curl", "curl -sS --fail-with-body", 1)],
            cwd=tmp_path,
            env={"FEWCLIP_TOKEN": TOKEN, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)


@pytest.mark.filterwarnings("default")  # of what Playwright imports
def test_try_it_in_a_browser(guarded: Server, photo: bytes, tmp_path: Path, browser: Any) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo)
    context = browser.new_context(http_credentials={"username": "anyone", "password": TOKEN})
    with context:
        page = context.new_page()
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text))
        page.goto(f"{guarded.url}/v1/docs")
        page.locator("#token").fill(TOKEN)
        form = page.locator('form[data-path="/v1/predict"]')
        form.locator("input[type=file]").set_input_files(str(tmp_path / "photo.jpg"))
        form.locator("input[name=top_k]").fill("1")
        form.locator("button").click()
        answer = form.locator(".answer")
        answer.get_by_text('"label"').wait_for(timeout=30_000)
        status, _, body = answer.inner_text().partition("\n")
        assert status == "200"
        assert len(json.loads(body)["top"]) == 1
        assert not [text for text in refused if "Content Security Policy" in text]
