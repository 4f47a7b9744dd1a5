"""A Bento: built by the command, unpacked, and served from what is inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks.service.server import Server
from fewclip.runtime import OnnxClassifier

pytestmark = pytest.mark.slow


def run(*words: str, home: Path) -> str:
    environ = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bento(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("bentos")
    out = run("fewclip.cli", "build", str(exported), "--name", "Pets 1", "--json", home=home)
    tag = json.loads(out)["tag"]
    assert tag.startswith("pets-1:")
    archive = home / "pets.tar"
    run("bentoml", "export", tag, str(archive), home=home)
    with tarfile.open(archive) as file:
        file.extractall(home / "unpacked", filter="data")
    return home / "unpacked"


def test_the_image_is_slim(bento: Path) -> None:
    recipe = (bento / "env" / "docker" / "Dockerfile").read_text()
    assert "FROM python:3." in recipe
    assert "-slim" in recipe
    assert "build-essential" not in recipe
    assert "ENV BENTOML_DO_NOT_TRACK" in recipe
    assert "BENTOML_HOST=0.0.0.0" in recipe
    needed = (bento / "env" / "python" / "requirements.txt").read_text()
    assert "onnxruntime==" in needed
    for heavy in ("torch", "open_clip", "gradio", "onnxruntime-gpu"):
        assert heavy not in needed
    assert not list(bento.rglob("*.safetensors"))


def test_the_readme_says_how_to_call_and_run_it(bento: Path, exported: Path) -> None:
    text = (bento / "README.md").read_text("utf-8")
    assert text.startswith("# pets-1\n")
    for label in OnnxClassifier(exported).classes:
        assert f"`{label}`" in text
    for route in (
        "/v1/predict",
        "/v1/predict_batch",
        "/v1/models",
        "/readyz",
        "/livez",
        "/metrics",
    ):
        assert route in text
    compose, kubernetes = (part.split("```")[0] for part in text.split("```yaml\n")[1:])
    assert list(yaml.safe_load(compose)["services"]) == ["pets-1"]
    deployment, service = yaml.safe_load_all(kubernetes)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 3000}
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_it_serves_the_model_and_the_code_inside(bento: Path, exported: Path, photo: bytes) -> None:
    facade = bento / "src" / "fewclip" / "__init__.py"
    facade.write_text(facade.read_text().replace('__version__ = "', '__version__ = "9.'))
    command = [sys.executable, "-m", "bentoml", "serve", str(bento)]
    with Server("", command=command) as server:
        version = httpx.get(f"{server.url}/v1/openapi.json").json()["info"]["version"]
        assert version.startswith("9.")
        model = httpx.get(f"{server.url}/v1/model").json()
        assert model["name"] == exported.name
        answer = httpx.post(f"{server.url}/v1/predict", files={"image": photo}, timeout=60).json()
    expected = OnnxClassifier(exported).predict(photo)[0]
    assert answer["score"] == pytest.approx(expected.score, abs=1e-5)
