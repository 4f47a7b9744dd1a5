"""The wheel in empty virtual environments: each extra on each Python, by plain pip, then used.

    python -m benchmarks.wheels [--python python3.12 ...] [--extra base --extra service ...]

Prints a Markdown table. What is run after each install is in `USES`. PyTorch and its GPU libraries,
3 GB in each, are installed once per Python and linked into the environments of the extras that need
them; pip resolves and fetches everything else for each. The checkout is not on the path.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from benchmarks.service.server import Server
from benchmarks.service.web_process import START_SECONDS, free_port
from fewclip.errors import FewclipError
from fewclip.samples import digits

ROOT = Path(__file__).parents[1]
PYTHONS = ("python3.11", "python3.12", "python3.13")
TORCH = "torch>=2.8"  # as pyproject.toml has it
INSTALL_SECONDS = 1800
USE_SECONDS = 600


class FailedError(FewclipError):
    """A command ended with an unexpected status."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """A virtual environment, and the folder that commands run in.

    Attributes:
        work: holds photos/ (two classes), onnx/ (an exported model) and what commands write.
    """

    folder: Path
    work: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def pip(self, *words: str) -> str:
        return self.run("-m", "pip", "--disable-pip-version-check", *words, seconds=INSTALL_SECONDS)

    def fewclip(self, *words: str, status: int = 0) -> str:
        return self.run("-m", "fewclip.cli", *words, status=status)

    def run(self, *words: str, status: int = 0, seconds: int = USE_SECONDS) -> str:
        """Run the environment's Python; returns what it prints, stderr included.

        Raises:
            FailedError: another exit status, or it did not end in time.
        """
        command = [self.python, *words]
        try:
            done = subprocess.run(
                command,
                cwd=self.work,
                env=environ(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise FailedError(f"{' '.join(words)}: not done after {seconds} s") from error
        if done.returncode != status:
            tail = "\n".join(done.stdout.splitlines()[-15:])
            raise FailedError(f"{' '.join(words)}: exit status {done.returncode}\n{tail}")
        return done.stdout


def environ() -> dict[str, str]:
    """The environment without what would put the checkout on the path."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"BENTOML_DO_NOT_TRACK": "True", "GRADIO_ANALYTICS_ENABLED": "False"}


# ---- what each extra is for --------------------------------------------------------------------


def use_base(env: Environment) -> None:
    env.fewclip("--version")
    env.fewclip("predict", "onnx", "photos", "--json")
    env.fewclip("evaluate", "onnx", "photos", "--json")
    said = env.fewclip("adapt", "photos", "--out", "no", status=2)
    if "pip install 'fewclip[train]'" not in said:
        raise FailedError(f"adapt without [train] says: {said}")


def use_train(env: Environment) -> None:
    env.fewclip("adapt", "photos", "--out", "model", "--method", "gda", "--overwrite")
    env.fewclip("predict", "model", "photos/one", "--json")
    env.fewclip("evaluate", "model", "photos", "--out", "report")


def use_export(env: Environment) -> None:
    use_train(env)
    env.fewclip("export", "model", "--out", "exported", "--overwrite")
    env.fewclip("predict", "exported", "photos/one", "--json")


def use_service(env: Environment) -> None:
    command = [env.python, "-m", "fewclip.cli", "serve", str(env.work / "onnx")]
    with Server("", command=command) as server:
        photo = next((env.work / "photos" / "one").iterdir()).read_bytes()
        for answer in (
            httpx.post(f"{server.url}/v1/predict", files={"image": photo}, timeout=60),
            httpx.get(f"{server.url}/v1/docs", timeout=60),
        ):
            answer.raise_for_status()
    env.fewclip("build", "onnx", "--json")


def use_app(env: Environment) -> None:
    port = free_port()
    command = [env.python, "-m", "fewclip.cli", "app", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=env.work, env=environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as page:
        try:
            _wait_for(f"http://127.0.0.1:{port}/", page)
        finally:
            page.terminate()
            page.wait(60)


def _wait_for(url: str, page: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and page.poll() is None:
        try:
            if "fewclip" in httpx.get(url, timeout=30).raise_for_status().text:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise FailedError(f"{url} does not show the page; exit status {page.poll()}")


def use_scale(env: Environment) -> None:
    env.fewclip("predict", "onnx", "photos", "--out", "rows", "--engine", "ray", "--overwrite")
    env.fewclip("predict", "onnx", "photos", "--out", "rows-local", "--overwrite")
    env.run("-c", "import pyarrow.parquet as p; assert p.read_table('rows').num_rows == 16")


def use_check(env: Environment) -> None:
    env.fewclip("check", "photos", "--out", "faults")
    assert (env.work / "faults").is_dir()


def use_all(env: Environment) -> None:
    for use in (use_export, use_service, use_scale, use_check, use_app):
        use(env)


USES: dict[str, Callable[[Environment], None]] = {
    "base": use_base,
    "service": use_service,
    "scale": use_scale,
    "train": use_train,
    "export": use_export,
    "check": use_check,
    "app": use_app,
    "all": use_all,
}
WITHOUT_TORCH = ("base", "service", "scale")


# ---- installing --------------------------------------------------------------------------------


def build_wheel(target: Path) -> Path:
    """Build what `make wheel` builds."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(target.glob("*.whl"))


def readme_gradio() -> str:
    """The additional requirement of `[app]` and `[all]`, as the README gives it."""
    found = re.search(
        r"^pip install --no-deps '(gradio[^']*)'", (ROOT / "README.md").read_text(), re.M
    )
    assert found is not None, "the README does not say how Gradio is installed"
    return found[1]


def materials(work: Path) -> None:
    """Make photos/ and onnx/ with this checkout."""
    import fewclip

    for label in ("one", "zero"):
        (work / "photos" / label).mkdir(parents=True)
        for index in range(8):
            digits.draw(label, index).save(work / "photos" / label / f"{index}.png")
    fewclip.zero_shot(["one", "zero"]).export_onnx(work / "onnx")


def new_environment(python: str, folder: Path, work: Path) -> Environment:
    """Create an empty environment."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(folder)], check=True, env=environ())
    return Environment(folder, work)


def link_torch(source: Environment, target: Environment) -> None:
    """Hard-link into `target` what is installed in `source` and missing there."""
    (packages,) = source.folder.glob("lib/python*/site-packages")
    into = target.folder / packages.relative_to(source.folder)
    for item in packages.iterdir():
        if (into / item.name).exists():  # what an empty environment has: pip
            continue
        if item.is_dir():
            shutil.copytree(item, into / item.name, copy_function=os.link)
        else:
            os.link(item, into / item.name)


def tried(env: Environment, wheel: Path, extra: str) -> str:
    """One row: install, use, and what `pip check` says."""
    wanted = str(wheel) if extra == "base" else f"{wheel}[{extra}]"
    started = time.monotonic()
    try:
        env.pip("install", "--quiet", wanted)
        if extra in ("app", "all"):
            env.pip("install", "--quiet", "--no-deps", readme_gradio())
        installed = time.monotonic() - started
        USES[extra](env)
    except (FailedError, httpx.HTTPError, RuntimeError, AssertionError) as error:
        print(f"{extra}: {error}", file=sys.stderr)
        return f"{extra} | FAILED: {str(error).splitlines()[0][:120]} | |"
    return f"{extra} | works | {installed:.0f} s | {conflicts(env)}"


def conflicts(env: Environment) -> str:
    """What `pip check` says, "none" when all versions fit."""
    try:
        env.pip("check")
    except FailedError as error:
        return "; ".join(line for line in str(error).splitlines()[1:])
    return "none"


def rows(python: str, extras: list[str], wheel: Path, scratch: Path) -> Iterator[str]:
    """One row per extra."""
    work = scratch / "work"
    torch = None
    for extra in extras:
        env = new_environment(python, scratch / "env", scratch / "use")
        shutil.rmtree(env.work, ignore_errors=True)
        shutil.copytree(work, env.work)
        if extra not in WITHOUT_TORCH:
            if torch is None:
                torch = new_environment(python, scratch / "torch", work)
                torch.pip("install", "--quiet", TORCH)
            link_torch(torch, env)
        yield f"| {python} | {tried(env, wheel, extra)} |"
    for folder in ("env", "torch"):
        shutil.rmtree(scratch / folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", help=f"default: {', '.join(PYTHONS)}")
    parser.add_argument("--extra", action="append", choices=list(USES), help="default: each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fewclip-wheels-") as folder:
        scratch = Path(folder)
        wheel = build_wheel(scratch)
        materials(scratch / "work")
        print("| Python | extra | | installed in | conflicts that `pip check` names |")
        print("|---|---|---|---|---|", flush=True)
        for python in arguments.python or PYTHONS:
            found = shutil.which(python)
            if found is None:
                print(f"| {python} | | not on this machine | | |")
                continue
            version = subprocess.run([found, "-V"], capture_output=True, text=True, check=True)
            for row in rows(found, arguments.extra or list(USES), wheel, scratch):
                print(row.replace(found, version.stdout.split()[1]), flush=True)


if __name__ == "__main__":
    main()
