"""One safetensors file, written like any other file, and read as an untrusted one.

The library makes it readable by its owner alone, whatever the umask, and its errors give no cause
that code could act on; both are fixed here. What the tensors mean is up to whoever reads them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fewclip.errors import ArtifactError
from fewclip.model_folder.model_files import open_inside

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER = 8 * 1024**2  # bytes of names, shapes and metadata; a ViT-H with momentum has 0.3 MB

_ERRNO = re.compile(r"\(os error (\d+)\)")


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file that does not exist yet.

    Raises:
        OSError: the disk is full, read-only or gone; no part of the file is left.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(plain, path, metadata=dict(metadata))
        path.chmod(mode)
    except BaseException as error:
        path.unlink(missing_ok=True)
        number = _ERRNO.search(str(error)) if isinstance(error, SafetensorError) else None
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from error


def read(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors by name, on the CPU, and the metadata.

    Raises:
        FileNotFoundError: no such file.
        ArtifactError: not a regular file of the folder, truncated, or not safetensors at all.
    """
    from safetensors import safe_open

    _check_header(folder, name)
    path = os.path.realpath(folder / name)
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
            return tensors, dict(handle.metadata() or {})
    except Exception as error:  # SafetensorError, or what torch raises on odd types and shapes
        raise ArtifactError(
            f"{folder / name} is not a readable safetensors file ({error}); copy it again, "
            "or make it again"
        ) from error


def check_alike(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Names, shapes and types must agree: torch's `copy_` would broadcast one number over a matrix.

    Raises:
        ValueError: says what differs.
    """
    odd = sorted(found.keys() ^ wanted.keys())
    if odd:
        which = "missing" if odd[0] in wanted else "unknown"
        raise ValueError(f"{which} tensor {odd[0]!r}, and {len(odd) - 1} more")
    for name, value in wanted.items():
        was, now = (f"{x.dtype} {tuple(x.shape)}" for x in (found[name], value))
        if was != now:
            raise ValueError(f"tensor {name!r} is {was} and not {now}")


def _check_header(folder: Path, name: str) -> None:
    """The library parses the whole header before it checks anything, so bound its size first."""
    with open_inside(folder, name) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise ArtifactError(
            f"{folder / name} has a header of {length:,} bytes and at most {MAX_HEADER:,} are "
            "read; it is broken or was not written by fewclip"
        )
