"""Settings, flags and refusals before anything starts; and that serving never loads torch."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fewclip.errors import InputError, OptionError
from fewclip_service import Settings, serve
from fewclip_service.command import serve_arguments


def test_the_environment_carries_everything() -> None:
    settings = Settings(
        model="/m", token="t", ui=True, timeout=1.5, queue=40, cors="https://a, https://b"
    )
    assert Settings.read(environ=settings.to_env()) == settings
    assert settings.origins == ("https://a", "https://b")
    assert Settings.read(environ={}) == Settings()


@pytest.mark.parametrize(
    "bad",
    [
        {"port": 0}, {"workers": 0}, {"host": "example.org"}, {"max_batch": 1}, {"timeout": 0.0},
        {"queue": 3}, {"max_body": 1}, {"device": "tpu"}, {"token": "n\u00f6"}, {"poll": 0.0},
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(bad: dict[str, Any]) -> None:
    name = next(iter(bad))
    with pytest.raises(OptionError, match="--" + name.replace("_", "-")):
        Settings(**bad)


def test_a_bad_token_is_not_repeated() -> None:
    with pytest.raises(OptionError) as refused:
        Settings(token="geheim\u00f6")
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(("name", "text"), [("PORT", "x"), ("UI", "maybe"), ("TIMEOUT", "soon")])
def test_texts_of_another_type_are_named(name: str, text: str) -> None:
    with pytest.raises(OptionError, match=f"FEWCLIP_{name}"):
        Settings.read(environ={f"FEWCLIP_{name}": text})


def test_every_setting_has_a_flag() -> None:
    parser = argparse.ArgumentParser()
    serve_arguments(parser)
    given = vars(parser.parse_args(["folder", "--ui", "--max-bytes", "9"]))
    assert set(given) == {field.name for field in dataclasses.fields(Settings)}
    assert given["max_bytes"] == "9"
    assert given["port"] is None


def test_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no exported model"):
        serve(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "card.json").write_text("{}")
    with pytest.raises(InputError, match="format_version"):
        serve(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        serve(tmp_path / "nowhere")


_WITHOUT_TORCH = """
import sys, warnings
for name in ("torch", "open_clip", "torchvision", "gradio", "onnx"):
    sys.modules[name] = None
import fewclip_service.bento, fewclip_service.command, fewclip_service.launch
import fewclip_service.service
from starlette.testclient import TestClient
with TestClient(fewclip_service.service.Fewclip.to_asgi()) as client:
    answer = client.post("/v1/predict", files={"image": open(sys.argv[1], "rb")})
    assert answer.status_code == 200, answer.text
"""


@pytest.mark.slow
def test_serving_needs_no_torch(
    exported: Path, photo: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo)
    monkeypatch.setenv("FEWCLIP_MODEL", str(exported))
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_missing_extra_is_named(exported: Path) -> None:
    code = (
        "import sys; sys.modules['bentoml'] = None; from fewclip.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "serve", str(exported)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'fewclip[service]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
