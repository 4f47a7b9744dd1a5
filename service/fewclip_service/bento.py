"""An exported folder -> a Bento: model, code and container recipe in one. Nothing is served here.

The code goes in as it is installed here, so the Bento need not install fewclip. The image has
what serving needs, and no torch.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fewclip.errors import FewclipError, MissingExtraError
from fewclip_service.bento_readme import bento_readme
from fewclip_service.inference.folders import check_models, model_folders

_PACKAGES = ("fewclip", "fewclip_service")
_NEEDED = (
    "numpy", "pillow", "tokenizers", "ftfy", "bentoml", "fastapi", "python-multipart",
)  # fmt: skip
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")

_SERVICE = '''\
"""Made by `fewclip build`. Settings are read from FEWCLIP_* in the environment."""

import os
from pathlib import Path

HERE = Path(__file__).parent
os.environ.setdefault("FEWCLIP_MODEL", str(HERE / "models"))

import bentoml

from fewclip_service.service import Fewclip

# A distro that BentoML knows would bring a compiler; wheels need none.
Fewclip.image = bentoml.images.Image(
    base_image="python:{python}-slim", distro="slim", lock_python_packages=False
).python_packages(*(HERE / "requirements.txt").read_text().split())
'''


def build(path: str | os.PathLike[str], *, name: str | None = None) -> str:
    """Make a Bento of an exported folder, or of a folder of them, in BentoML's store.

    Args:
        name: the Bento's; the folder's by default.

    Returns:
        Its tag, "name:version". `bentoml containerize TAG` makes the container image from the
        recipe inside, `bentoml export TAG FILE` one file.

    Raises:
        ArtifactError: no exported folder there, or a broken one.
        MissingExtraError: BentoML is not installed.
    """
    root = Path(os.path.abspath(path))
    check_models(root)
    if importlib.util.find_spec("bentoml") is None:
        raise MissingExtraError("building a Bento", "service")
    with tempfile.TemporaryDirectory(prefix="fewclip-build-") as folder:
        _fill(Path(folder), root, _bento_name(name or root.name))
        return _build(folder)


def _build(folder: str) -> str:
    """Run BentoML in a process of its own: it imports the service from the folder."""
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--output", "tag"],
        cwd=folder,
        env=os.environ | {"BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": folder},
        capture_output=True,
        text=True,
        check=False,
    )
    tag = re.search(r"__tag__:(\S+)", done.stdout)
    if done.returncode or tag is None:
        raise FewclipError(f"BentoML could not build:\n{done.stdout}{done.stderr}")
    return tag[1]


def _fill(context: Path, root: Path, name: str) -> None:
    """What the Bento holds: models, code, requirements, service."""
    for folder in model_folders(root):
        shutil.copytree(folder, context / "models" / folder.name)
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        source = Path((spec.submodule_search_locations or [])[0])
        # The bundled backbone is for training, and nothing here trains.
        ignore = shutil.ignore_patterns("__pycache__", "*.safetensors", "samples")
        shutil.copytree(source, context / package, ignore=ignore)
    # BentoML takes a README.md beside the service as the Bento's own.
    (context / "README.md").write_text(bento_readme(name, list(model_folders(root))), "utf-8")
    (context / "requirements.txt").write_text("\n".join(_requirements()) + "\n")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    (context / "service.py").write_text(_SERVICE.replace("{python}", python))
    recipe = {"service": "service:Fewclip", "name": name, "include": ["*"]}
    (context / "bentofile.yaml").write_text(json.dumps(recipe))  # JSON is valid YAML


def _requirements() -> list[str]:
    """The versions installed here. ONNX Runtime is the CPU build, a tenth of the GPU build's size;
    for a GPU, change that line of the recipe."""
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in _NEEDED]
    for name in _RUNTIMES:
        try:
            return [*pins, f"onnxruntime=={importlib.metadata.version(name)}"]
        except importlib.metadata.PackageNotFoundError:
            continue
    raise AssertionError("fewclip runs, so one of them is installed")


def _bento_name(name: str) -> str:
    """A name that BentoML accepts: lower-case letters, digits and inner dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "fewclip"
