"""A client that openapi-python-client makes of the served document; the page that shows it."""

from __future__ import annotations

import html as escaping
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.service.server import Server

pytestmark = pytest.mark.slow

TOKEN = "a-secret-token"
PACKAGE = "made_from_the_document"


@pytest.fixture(scope="module")
def guarded(exported: Path) -> Any:
    with Server(exported, token=TOKEN) as running:
        yield running


def document(server: Server) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    found: dict[str, Any] = httpx.get(f"{server.url}/v1/openapi.json", headers=headers).json()
    return found


@pytest.fixture(scope="module")
def generated(guarded: Server, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The package that openapi-python-client makes of the document, imported."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(document(guarded)))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    command += ["--path", "openapi.json", "--output-path", PACKAGE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module(PACKAGE)


def test_a_generated_client_works(
    generated: Any, guarded: Server, exported: Path, photo: bytes
) -> None:
    def file() -> Any:
        return types.File(payload=io.BytesIO(photo), file_name="photo.png", mime_type="image/png")

    types, bodies, routes = (
        importlib.import_module(f"{PACKAGE}.{part}") for part in ("types", "models", "api.default")
    )
    predict, predict_batch, predict_classes, model, models = (
        importlib.import_module(f"{routes.__name__}.{route}").sync
        for route in ("predict", "predict_batch", "predict_classes", "model", "models")
    )
    with generated.AuthenticatedClient(f"{guarded.url}/v1", token=TOKEN) as client:
        (served,) = models(client=client).models
        assert served.name == exported.name
        one = predict(client=client, body=bodies.PredictFilesBody(image=file(), top_k=2))
        assert len(one.top) == 2
        assert one.label in model(client=client, model=served.name)["classes"]
        assert predict(client=client, body=bodies.PredictFilesBody(image=file())).label == one.label
        batch = predict_batch(client=client, body=bodies.PredictBatchBody(images=[file(), file()]))
        assert [answer.label for answer in batch] == [one.label] * 2
        named = bodies.PredictClassesBody(image=file(), classes='["red", "a zebra"]')
        assert predict_classes(client=client, body=named).label in ("red", "a zebra")


def test_a_generated_client_is_told_what_was_wrong(
    generated: Any, guarded: Server, photo: bytes
) -> None:
    models = importlib.import_module(f"{PACKAGE}.api.default.models").sync
    with generated.AuthenticatedClient(f"{guarded.url}/v1", token="wrong") as client:
        assert models(client=client).error.type_ == "unauthorized"


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
