"""The house: one install finds four roots, the facade is lazy, serving never needs torch."""

from __future__ import annotations

import graphlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import fewclip

HOME = Path(__file__).parents[3]
ROOTS = {
    "fewclip": "sdk",
    "fewclip_export": "export",
    "fewclip_service": "service",
    "fewclip_app": "app",
}
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text("utf-8"))["project"]

# What serving must import without; the second list is what else base dependencies do not bring.
TORCH = ("torch", "torchvision", "open_clip", "timm")
EXTRAS = (
    "safetensors",
    "tqdm",
    "matplotlib",
    "onnx",
    "onnxscript",
    "gradio",
    "sklearn",
    "scipy",
    "pyarrow",
    "ray",
    "fsspec",
)
TORCH_FREE = (
    "base",
    "bulk",
    "bulk.local",
    "bulk.ray_engine",
    "bulk.sources",
    "bulk.tables",
    "bulk.tar_shards",
    "bulk.urls",
    "class_set",
    "contract",
    "errors",
    "preprocess",
    "tokenizer",
    "conformal",
    "decide",
    "runtime",
    "cli",
    "report",
)

BLOCK = """
import importlib, pkgutil, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def python(code: str, cwd: Path) -> str:
    """stdout of `code` in a fresh interpreter that knows the installation and nothing of `cwd`."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_editable_install_finds_all_four_roots(tmp_path: Path) -> None:
    names = ", ".join(ROOTS)
    found = python(f"import {names}\nfor m in ({names}): print(m.__file__)", tmp_path)
    assert [Path(line) for line in found.splitlines()] == [
        HOME / root / name / "__init__.py" for name, root in ROOTS.items()
    ]


def test_every_root_is_typed() -> None:
    assert all((HOME / root / name / "py.typed").is_file() for name, root in ROOTS.items())


def test_torch_free_modules_import_on_base_dependencies_alone(tmp_path: Path) -> None:
    code = f"BLOCKED = {TORCH + EXTRAS + ('bentoml', 'fastapi')}\n{BLOCK}" + "".join(
        f"import fewclip.{name}\n" for name in TORCH_FREE
    )
    python(code, tmp_path)


def test_the_service_imports_without_torch(tmp_path: Path) -> None:
    code = f"""BLOCKED = {TORCH}
{BLOCK}
import fewclip_service
for module in pkgutil.walk_packages(fewclip_service.__path__, "fewclip_service."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    # BentoML and what it brings warn on their own account: this asks only what is imported.
    python("import warnings; warnings.simplefilter('ignore')\n" + code, tmp_path)


def test_the_block_really_blocks(tmp_path: Path) -> None:
    code = f"""BLOCKED = {TORCH}
{BLOCK}
try:
    import fewclip.backbone.towers
except ModuleNotFoundError as error:
    print(error)
"""
    assert python(code, tmp_path) == "blocked: torch"


def test_no_import_circle_even_inside_functions() -> None:
    graph = grimp.build_graph(*ROOTS, exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    imports["fewclip.classifier"].remove("fewclip_export")  # the one lazy edge: export_onnx
    graphlib.TopologicalSorter(imports).prepare()  # CycleError names the modules of a circle


def test_importing_fewclip_is_light(tmp_path: Path) -> None:
    code = "import sys, fewclip; print([m for m in ('numpy', 'PIL', 'torch') if m in sys.modules])"
    assert python(code, tmp_path) == "[]"


def test_public_names_are_pinned() -> None:
    assert fewclip.__all__ == [
        "ArtifactError",
        "BackboneError",
        "CheckpointError",
        "ClassNameError",
        "Classifier",
        "Comparison",
        "CoverageError",
        "DataError",
        "DataReport",
        "DivergedError",
        "FewclipError",
        "FormatVersionError",
        "GateError",
        "HubError",
        "ImageError",
        "InputError",
        "MissingExtraError",
        "OptionError",
        "Prediction",
        "Report",
        "StoppedError",
        "__version__",
        "adapt",
        "backbones",
        "check",
        "compare",
        "load",
        "methods",
        "zero_shot",
    ]
    assert set(fewclip.__all__) <= set(dir(fewclip))


def test_public_names_are_what_they_say() -> None:
    for name in fewclip.__all__:
        value = getattr(fewclip, name)
        if name.endswith("Error"):
            assert issubclass(value, fewclip.FewclipError)
        elif name[0].isupper():
            assert value.__name__ == name
        elif name != "__version__":
            assert callable(value)
    with pytest.raises(AttributeError, match="no attribute 'adopt'"):
        _ = fewclip.adopt


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "names = fewclip.methods()\nimport fewclip.methods.prompting.coop\n"
        "assert fewclip.methods() == names",
        "import fewclip.methods.prompting.coop as c\nassert c.CoOp\nnames = fewclip.methods()",
    ],
    ids=["called first", "imported first"],
)
def test_methods_is_a_function_however_it_was_imported(tmp_path: Path, code: str) -> None:
    listed = python(f"import fewclip\n{code}\nprint(*names)", tmp_path).split()
    assert listed == sorted(listed)
    assert {"zero-shot", "skip-tuning", "kgcoop", "kgcoop+dept"} <= set(listed)


def test_version_is_the_distributions() -> None:
    assert importlib.metadata.version("fewclip") == fewclip.__version__


def test_exactly_one_onnx_runtime_is_asked_for_on_every_platform() -> None:
    asked = [Requirement(line) for line in PROJECT["dependencies"]]
    runtimes = [r for r in asked if r.name.startswith("onnxruntime")]
    for system, machine, wanted in [
        ("Linux", "x86_64", "onnxruntime-gpu"),
        ("Linux", "aarch64", "onnxruntime"),
        ("Darwin", "arm64", "onnxruntime"),
        ("Darwin", "x86_64", "onnxruntime"),
        ("Windows", "AMD64", "onnxruntime-gpu"),
        ("Windows", "ARM64", "onnxruntime"),
    ]:
        place = {"platform_system": system, "platform_machine": machine}
        chosen = [r.name for r in runtimes if r.marker and r.marker.evaluate(place)]
        assert chosen == [wanted], (system, machine)


def test_the_lock_pins_everything_that_is_declared_and_names_no_host() -> None:
    lines = (HOME / "requirements.lock").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"==[^,*]+", str(pin.specifier)) for pin in pins)
    assert not [line for line in lines if "://" in line or line.startswith("-")]
    here = {
        pin.name.lower().replace("_", "-"): Version(str(pin.specifier)[2:])
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }
    extras = [
        lines
        for name, lines in PROJECT["optional-dependencies"].items()
        if name != "transformers"  # which `dev` does not bring
    ]
    declared = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    for each in map(Requirement, declared):
        if each.name != "fewclip" and (each.marker is None or each.marker.evaluate()):
            assert here[each.name.lower().replace("_", "-")] in each.specifier, each


@pytest.mark.slow
def test_a_wheel_holds_all_roots_the_weights_and_the_samples(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=HOME, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    for path in (
        "fewclip/micro/open_clip_model.safetensors",
        "fewclip/micro/README.md",
        "fewclip/samples/digits.png",
        "fewclip/samples/README.md",
        *(f"{name}/py.typed" for name in ROOTS),
    ):
        assert path in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "sdk"))]
