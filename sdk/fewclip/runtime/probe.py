"""Opening an untrusted exported folder in a process of its own first. Nothing is kept open.

ONNX Runtime may crash on a graph, take all memory or never return. Here that happens to a process
of its own instead of the service or the page, and becomes an error that says what happened.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np

from fewclip.decoding.decode_process import worker_environment
from fewclip.errors import ArtifactError, FewclipError

SECONDS = 120.0
_BASE_MEMORY = 4 << 30  # address space of ONNX Runtime, its threads and one image's activations
_FILE_MEMORY = 6  # times the folder's size: the file, its tensors, and copies prepared for use
_REFUSED = 3  # exit status: standard output says why


def probe(folder: Path, *, seconds: float = SECONDS) -> None:
    """Open an exported folder and use all of it once, within limits of memory and time.

    Raises:
        ArtifactError: it cannot be opened, or it crashes or hangs the process that does.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fewclip.runtime.probe", str(folder.absolute())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=worker_environment(),
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(
            f"{folder} does not answer within {seconds:g} s; do not use this model"
        ) from error
    if done.returncode == _REFUSED:
        raise ArtifactError(done.stdout.decode("utf-8", "replace").strip())
    if done.returncode:
        raise ArtifactError(
            f"{folder} breaks the process that opens it, or takes too much memory (exit status "
            f"{done.returncode}); do not use this model"
        )


def use_once(folder: Path) -> None:
    """What `probe` runs in its process."""
    from fewclip.runtime import OnnxClassifier

    classifier = OnnxClassifier(folder, "cpu", threads=1)
    size = classifier.card.preprocessing.size
    classifier.model_outputs(np.zeros((1, 3, size, size), np.float32))
    if classifier.takes_new_classes:
        classifier.text_features(["a first name"])


def main() -> int:
    """Exit status 0 if all went well."""
    folder = Path(sys.argv[1])
    _limit_self(folder)
    try:
        use_once(folder)
    except FewclipError as error:
        print(error)
        return _REFUSED
    except MemoryError:
        print(f"{folder} takes too much memory; do not use this model")
        return _REFUSED
    return 0


def _limit_self(folder: Path) -> None:
    if sys.platform == "win32":
        return
    import resource

    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    limits = ((resource.RLIMIT_AS, _BASE_MEMORY + _FILE_MEMORY * size), (resource.RLIMIT_CORE, 0))
    for what, most in limits:
        with contextlib.suppress(ValueError, OSError):  # a lower limit is already in force
            resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    sys.exit(main())
