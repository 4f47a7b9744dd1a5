"""The first five minutes: an empty folder, a wheel, and README's shell commands word for word.

The environment holds our wheel alone, beside the packages of the running interpreter: installing
those anew is `benchmarks/wheels.py`'s affair.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

import pytest

from benchmarks.service.server import Server
from benchmarks.service.web_process import free_port
from fewclip.samples import digits

HOME = Path(__file__).parents[2]
MARK = "The same in the shell, and over HTTP:"


def commands() -> list[str]:
    """README's shell block, without its comments."""
    readme = (HOME / "README.md").read_text("utf-8")
    block = re.search(MARK + r"\s+```\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    return [re.sub(r"\s+#.*", "", line) for line in block.group(1).splitlines()]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a new environment into which the wheel was installed."""
    work = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(work)]
    subprocess.run(build, cwd=HOME, check=True, capture_output=True)
    (wheel,) = work.glob("*.whl")
    environment = work / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run(
        [*install, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True, timeout=300
    )
    (packages,) = (environment / "lib").glob("python3*/site-packages")
    # As a .pth inside this folder would not be read, the editable install there has no say.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


@pytest.fixture(scope="module")
def desk(scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/, and the model that README's first command makes of them."""
    folder = tmp_path_factory.mktemp("empty")
    for label in ("one", "zero"):
        (folder / "photos" / label).mkdir(parents=True)
        for index in range(8):
            digits.draw(label, index).save(folder / "photos" / label / f"{index}.png")
    for name, label in (("a", "one"), ("b", "zero")):
        digits.draw(label, 50).save(folder / f"{name}.jpg")
    return folder


def environment(scripts: Path) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**own, "PATH": f"{scripts}{os.pathsep}{own['PATH']}"}


def shell(command: str, folder: Path, scripts: Path, seconds: float = 400) -> str:
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment(scripts),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="README's call is curl's")
def test_readmes_commands_lead_from_photos_to_a_served_model_and_the_page(
    scripts: Path, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapt, predict, export, serve, call, app = commands()
    where = shell("python -c 'import fewclip; print(fewclip.__file__)'", desk, scripts)
    assert Path(where.strip()).is_relative_to(scripts.parent)
    assert "saved: pets" in shell(adapt, desk, scripts)
    answers = shell(predict, desk, scripts).splitlines()
    assert [name for name in ("a.jpg", "b.jpg") if any(name in line for line in answers)]
    shell(export, desk, scripts)
    for key, value in environment(scripts).items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(desk)
    program, *words = serve.split()
    with Server("", command=[str(scripts / program), *words]) as server:
        found = json.loads(shell(call.replace(":3000", f":{server.port}"), desk, scripts))
    assert found["label"] in ("one", "zero")
    assert found["model"] == "pets-onnx"
    port = free_port()
    program, *words = app.split()
    page = subprocess.Popen(
        [str(scripts / program), *words, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert page.stdout is not None
        for line in page.stdout:
            if str(port) in line:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
            assert "fewclip" in answer.read().decode()
    finally:
        page.terminate()
        page.wait(60)
        if page.stdout is not None:
            page.stdout.close()
