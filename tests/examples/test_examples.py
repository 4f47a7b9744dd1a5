"""The scripts of `examples/`, run one after the other as their docstrings say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.service.server import Server
from fewclip.samples import digits

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_is_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) < 40, path.name


@pytest.mark.slow
def test_adapt_export_serve_call(tmp_path: Path) -> None:
    for label in ("one", "zero"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(8):
            digits.draw(label, index).save(tmp_path / "photos" / label / f"{index}.png")
    image = tmp_path / "photos" / "one" / "0.png"
    model, onnx = tmp_path / "digits", tmp_path / "digits-onnx"
    assert "before" in run("adapt.py", tmp_path / "photos", model, "zero-shot")
    assert "known:" in run("export.py", model, onnx, image)
    command = [sys.executable, str(EXAMPLES / "serve.py"), str(onnx)]
    with Server("", command=command) as server:
        lines = run("call.py", server.url, image, image).splitlines()
    assert len(lines) == 4
    assert lines[0].split()[0] in ("one", "zero")
    assert lines[3] in ("cat", "dog")
