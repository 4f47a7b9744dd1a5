"""ONNX Runtime sessions: which device, how many threads, and no silent fallback. No torch.

It knows nothing of images or classes; `onnx_classifier.py` does.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import warnings
from pathlib import Path
from typing import Any

import onnxruntime as ort

from fewclip.errors import ArtifactError, OptionError
from fewclip.system.cores import usable_cores

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
DEVICES = ("auto", "cpu", "cuda")

_ERRORS_ONLY = 3  # ONNX Runtime warns of every initializer that a caller may replace
# On half-precision weights this pass can kill the process (ONNX Runtime 1.24 to 1.32, CPU). The
# text tower of an int8 model has such weights.
_FATAL_FOR_HALF = ["NchwcTransformer"]


def open_session(path: Path, *, device: str, precision: str, threads: int | None) -> Any:
    """Open a graph on a device.

    Args:
        device: "auto" (the GPU when there is one that works), "cpu" or "cuda".
        precision: of the model: "fp32", "fp16" or "int8".
        threads: per operator; None for the cores that this process may use.

    Raises:
        OptionError: the device is unknown, or asked for by name and not available.
        ArtifactError: ONNX Runtime cannot open the graph.
    """
    wanted = _provider(device)
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = usable_cores() if threads is None else threads
    # Threads that spin while they wait take the cores from those that decode images: on two busy
    # cores batches took 1.4 to 4 times as long, and one image alone was no faster for it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [wanted] if wanted == CPU else [wanted, CPU]
    disabled = [] if precision == "fp32" else _FATAL_FOR_HALF
    try:
        session = ort.InferenceSession(
            str(path), options, providers=providers, disabled_optimizers=disabled
        )
    except Exception as error:  # the library's exceptions share no narrower base
        raise ArtifactError(
            f"ONNX Runtime {ort.__version__} cannot open {path}: {error}; export the model again"
        ) from error
    if session.get_providers()[0] != wanted:
        reason = (
            "ONNX Runtime cannot use the GPU (its CUDA libraries do not load); "
            "pip install 'fewclip[cuda]'"
        )
        if device == "cuda":
            raise OptionError(f"device 'cuda' was asked for, but {reason}")
        warnings.warn(f"{reason}; using the CPU instead", RuntimeWarning, stacklevel=3)
    return session


def _provider(device: str) -> str:
    if device not in DEVICES:
        raise OptionError(f"unknown device {device!r}; use 'auto', 'cpu' or 'cuda'")
    if device == "cpu":
        return CPU
    # Built-in providers are no sign of a GPU: CUDA is listed wherever its wheel is installed.
    built_in = CUDA in ort.get_available_providers()
    if built_in and gpus():
        _preload()
        return CUDA
    if device == "auto":
        return CPU
    raise OptionError(
        "device 'cuda' was asked for, but "
        + ("there is no GPU here; use 'cpu' or 'auto'" if built_in else _CPU_WHEEL)
    )


_CPU_WHEEL = (
    "the installed ONNX Runtime is built for the CPU alone; "
    "pip uninstall onnxruntime, then pip install 'fewclip[cuda]'"
)


@functools.cache
def gpus() -> int:
    """How many NVIDIA GPUs the driver offers this process; 0 without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return 0
        return count.value
    except (OSError, AttributeError):
        return 0


@functools.cache
def _preload() -> None:
    """Load CUDA's libraries from their Python packages, where the CUDA extra put them."""
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(RuntimeError):
        ort.preload_dlls(directory="")
