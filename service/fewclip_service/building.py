"""An exported folder -> a Bento: model, code and container recipe in one. Nothing is served here.

The code goes in as it is installed here, so that the Bento needs no fewclip from anywhere. The
image has what serving needs, and no torch.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
from pathlib import Path

from fewclip.errors import MissingExtraError
from fewclip_service.serving import check_models

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

Fewclip.image = bentoml.images.Image(
    distro="debian", lock_python_packages=False
).requirements_file(str(HERE / "requirements.txt"))
'''


def build(path: str | os.PathLike[str], *, name: str | None = None) -> str:
    """Make a Bento of an exported folder, or of a folder of them, in BentoML's store.

    Args:
        name: of the Bento; the folder's when not given.

    Returns:
        Its tag, "name:version". `bentoml containerize TAG` makes the container image from the
        recipe inside, `bentoml export TAG FILE` one file.

    Raises:
        ArtifactError: no exported folder there, or a broken one.
        MissingExtraError: BentoML is not installed.
    """
    root = Path(os.path.abspath(path))
    check_models(root)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    try:
        import bentoml
    except ModuleNotFoundError as error:
        raise MissingExtraError("building a Bento", "service") from error

    with tempfile.TemporaryDirectory(prefix="fewclip-build-") as folder:
        context = Path(folder)
        _fill(context, root)
        bento = bentoml.build(
            "service:Fewclip",
            name=_bento_name(name or root.name),
            build_ctx=folder,
            include=["*"],
            labels={"made-by": "fewclip"},
        )
    return str(bento.tag)


def _fill(context: Path, root: Path) -> None:
    """What the Bento holds: models, code, requirements, service."""
    from fewclip_service.models import is_model

    folders = [root] if is_model(root) else [f for f in root.iterdir() if is_model(f)]
    for folder in folders:
        shutil.copytree(folder, context / "models" / folder.name)
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        source = Path((spec.submodule_search_locations or [])[0])
        # The bundled backbone is for training, and nothing here trains.
        ignore = shutil.ignore_patterns("__pycache__", "*.safetensors", "samples")
        shutil.copytree(source, context / package, ignore=ignore)
    (context / "requirements.txt").write_text("\n".join(_requirements()) + "\n")
    (context / "service.py").write_text(_SERVICE)


def _requirements() -> list[str]:
    """The versions that are installed here. ONNX Runtime is the CPU's, a tenth of the GPU's size;
    for a GPU, change that line of the recipe."""
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in _NEEDED]
    for name in _RUNTIMES:
        try:
            return [*pins, f"onnxruntime=={importlib.metadata.version(name)}"]
        except importlib.metadata.PackageNotFoundError:
            continue
    raise AssertionError("fewclip runs, so that one of them is installed")


def _bento_name(name: str) -> str:
    """A name that BentoML takes: lower case letters, digits and inner dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "fewclip"
