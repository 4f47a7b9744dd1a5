"""A run's state, in one safetensors file that is replaced whole. No pickle, no training logic.

A checkpoint is a folder with `state.safetensors`, and below it one such folder, `part-0` and so on,
for each further training of the same run; `selection*.npz` are of the choice of a method. The state
is trained parameters, momentum buffers, the method's own state, and, as JSON in the header, the
run's fingerprint, history and a sha256 over all of it. Everything random in a run follows from its
seed and the epoch, so no generator needs saving.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fewclip.errors import ArtifactError, CheckpointError
from fewclip.methods.base import Method
from fewclip.model_folder import card_schema, tensor_file
from fewclip.training.arrays_file import load_arrays, save_arrays

STATE_FILE = "state.safetensors"
CHOICE_FILE = "selection.npz"
FOLD_FILES = "selection-*.npz"  # of a choice that is not finished
HEADER = "fewclip_checkpoint"
FORMAT = 2  # 1 had no checksum
PARTS = ("parameters", "momentum", "state")

# What a killed writer leaves behind: our files, and the safetensors library's own.
_TEMPORARY = (f".{STATE_FILE}.*", ".selection*", ".tmp*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run after `epochs_done` epochs.

    Attributes:
        run: what the run is, as plain JSON; another run's checkpoint is refused.
        history: mean loss of each finished epoch.
        resumed_from: epochs at which the run was resumed.
        parameters, momentum, state: tensors by name.
    """

    run: Mapping[str, Any]
    epochs_done: int
    history: tuple[float, ...]
    resumed_from: tuple[int, ...]
    parameters: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]
    state: Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Header:
    """What the file holds besides tensors; `sha256` is over all else."""

    format: int
    run: Mapping[str, Any]
    epochs_done: int
    history: tuple[float, ...]
    resumed_from: tuple[int, ...]
    momentum: tuple[str, ...]
    sha256: str = ""


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write it so that a crash at any moment leaves the old one or the new one.

    Raises:
        CheckpointError: it cannot be written; the old one stays.
    """
    tensors = {
        f"{part}/{name}": value.detach().cpu().contiguous()
        for part in PARTS
        for name, value in getattr(checkpoint, part).items()
    }
    header = _Header(
        format=FORMAT,
        run=checkpoint.run,
        epochs_done=checkpoint.epochs_done,
        history=checkpoint.history,
        resumed_from=checkpoint.resumed_from,
        momentum=tuple(checkpoint.momentum),
    )
    header = dataclasses.replace(header, sha256=_digest(header, tensors))
    temporary = folder / f".{STATE_FILE}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove(folder, _TEMPORARY)
        text = json.dumps(dataclasses.asdict(header))
        tensor_file.write(temporary, tensors, {HEADER: text})
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(folder / STATE_FILE)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"checkpoint {folder} cannot be written: {error.strerror or error}; "
            f"the run stopped after {checkpoint.epochs_done} epochs"
        ) from error


def load(folder: Path, run: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint in `folder`, None if there is none.

    Raises:
        CheckpointError: it is broken, or belongs to a run with other data or settings.
    """
    found = _read(folder)
    if found is None:
        return None
    wanted = json.loads(json.dumps(run))
    differing = sorted(k for k in {*wanted, *found.run} if wanted.get(k) != found.run.get(k))
    if differing:
        was = ", ".join(
            f"{k}={_short(found.run.get(k))} (now {_short(wanted.get(k))})" for k in differing
        )
        cure = "run with the same settings to continue it"
        if differing == ["threads"]:
            cure = f"set OMP_NUM_THREADS={found.run['threads']} to continue it to the same result"
        raise CheckpointError(
            f"checkpoint {folder} belongs to another run: {was}; {cure}, or delete it to start over"
        )
    return found


def read_run(folder: Path) -> Mapping[str, Any]:
    """The run that a checkpoint belongs to, as plain JSON; empty if there is none.

    Raises:
        CheckpointError: it is broken.
    """
    found = _read(folder)
    return {} if found is None else found.run


def _read(folder: Path) -> Checkpoint | None:
    if not (folder / STATE_FILE).is_file():
        return None
    try:
        tensors, metadata = tensor_file.read(folder, STATE_FILE)
        plain = json.loads(metadata.get(HEADER, "null"))
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            raise ValueError("it was written by another version of fewclip")
        header: _Header = card_schema.read(_Header, plain, "its header")
        if header.sha256 != _digest(header, tensors):
            raise ValueError("it was changed since it was written")
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        if set(parts["momentum"]) != set(header.momentum):
            raise ValueError("its momentum is incomplete")
        if not 0 <= header.epochs_done == len(header.history):
            raise ValueError(f"{header.epochs_done} epochs, {len(header.history)} losses")
    except (ArtifactError, KeyError, ValueError, RecursionError, OSError) as error:
        reason = str(error).split(";")[0]
        raise CheckpointError(
            f"checkpoint {folder} cannot be read ({reason}); delete it to start over"
        ) from error
    return Checkpoint(
        run=header.run,
        epochs_done=header.epochs_done,
        history=header.history,
        resumed_from=header.resumed_from,
        **parts,
    )


def _digest(header: _Header, tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the header, and over every tensor's name, type, shape and bytes."""
    plain = dataclasses.asdict(dataclasses.replace(header, sha256=""))
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def exists(folder: Path) -> bool:
    """Whether there is something to resume."""
    files = (STATE_FILE, CHOICE_FILE, FOLD_FILES)
    return any(any(folder.glob(name)) for name in files)


def save_choice(
    folder: Path, run_id: str, choice: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Keep what `method="auto"` has chosen for a run: depending on time, it might choose otherwise.

    Args:
        choice: plain JSON.
        arrays: what the final fit takes from the choice.

    Raises:
        CheckpointError: it cannot be written.
    """
    save_arrays(folder / CHOICE_FILE, {"run_id": run_id, "choice": choice}, arrays)


def read_choice(
    folder: Path, run_id: str
) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]] | None:
    """What was chosen for this very run; None where nothing was, or for another run."""
    match load_arrays(folder / CHOICE_FILE):
        case {"run_id": found, "choice": dict() as choice}, arrays if found == run_id:
            return choice, arrays
    return None


def set_aside(folder: Path) -> Path | None:
    """Keep a checkpoint that a new run would replace, until `remove`; None where nothing is lost.

    What a choice has evaluated so far is deleted: a new run begins with it.

    Returns:
        The file's new path. To resume from it, rename it to `STATE_FILE`.
    """
    _remove(folder, (FOLD_FILES,))
    try:
        found = _read(folder)
        if found is None or found.epochs_done == 0:
            return None
    except CheckpointError:  # unreadable for this version, but not ours to delete
        pass
    _remove_parts(folder)
    numbers = itertools.count(1)
    aside = next(p for n in numbers if not (p := folder / f"state.{n}.safetensors").exists())
    (folder / STATE_FILE).rename(aside)
    return aside


def remove(folder: Path) -> None:
    """Delete a checkpoint, and the folder unless it holds something else."""
    _remove_parts(folder)
    _remove(folder, (STATE_FILE, "state.*.safetensors", CHOICE_FILE, FOLD_FILES, *_TEMPORARY))
    with contextlib.suppress(OSError):
        folder.rmdir()


def _remove_parts(folder: Path) -> None:
    for part in folder.glob("part-*"):
        remove(part)


def _remove(folder: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def restore(
    checkpoint: Checkpoint, method: Method, optimizer: torch.optim.Optimizer, epochs: int
) -> None:
    """Put parameters, momentum and the method's own state back.

    Raises:
        CheckpointError: it does not fit the method.
    """
    parameters = method.trained_parameters()
    device = method.backbone.device
    try:
        if checkpoint.epochs_done > epochs:
            raise ValueError(f"{checkpoint.epochs_done} epochs done of {epochs}")
        tensor_file.check_alike(checkpoint.parameters, parameters)
        kept = {n: p for n, p in parameters.items() if n in checkpoint.momentum}
        tensor_file.check_alike(checkpoint.momentum, kept)
        if checkpoint.epochs_done and method.options.momentum and not kept:
            raise ValueError("its momentum is missing")
        tensor_file.check_alike(checkpoint.state, method.state())
    except ValueError as error:
        raise CheckpointError(
            f"the checkpoint does not fit this run ({error}); delete it to start over"
        ) from error
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(checkpoint.parameters[name])
            if name in checkpoint.momentum:
                buffer = checkpoint.momentum[name].to(parameter.device)
                optimizer.state[parameter]["momentum_buffer"] = buffer
    method.load_state({k: v.to(device) for k, v in checkpoint.state.items()})


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:16] + "…"
