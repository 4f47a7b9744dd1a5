"""The arrays in a graph's metadata: base64 of an npz file, checked before it is unpacked."""

from __future__ import annotations

import base64
import io
import math
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from fewclip.errors import ArtifactError

MAX_ARRAYS = 24

NUMBERS = ("<f2", "<f4", "<f8", "<i8")


def unpack_arrays(text: str) -> dict[str, npt.NDArray[Any]]:
    """Name -> array. An npz whose entries are larger than the file itself is refused.

    Raises:
        ArtifactError: it is one, or holds anything but plain numbers.
        ValueError, OSError, zipfile.BadZipFile: not an npz file.
    """
    packed = base64.b64decode(text)
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ARRAYS or sum(entry.file_size for entry in entries) > len(packed):
            raise ArtifactError("its arrays unpack to more than they take; do not use this model")
        for entry in entries:
            with archive.open(entry) as file:
                arrays[entry.filename.removesuffix(".npy")] = _array(file.read(entry.file_size))
    return arrays


def _array(data: bytes) -> npt.NDArray[Any]:
    """Check the size first: numpy allocates what a header says before it reads any data."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array of an unknown format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    size = math.prod(shape) * dtype.itemsize
    if dtype.str not in NUMBERS or size != len(data) - file.tell():
        raise ValueError(f"an array of {dtype} {shape} in {len(data)} bytes")
    file.seek(0)
    array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array
