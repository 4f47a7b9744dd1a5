"""Where a run stands, in one safetensors file that is replaced whole. No pickle, no training logic.

A checkpoint is a folder with `state.safetensors`: trained parameters, momentum buffers, the
method's own state, and, as JSON in the header, the run's fingerprint and history. Everything random
in a run follows from its seed and the epoch, so no generator needs saving.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewclip.errors import CheckpointError

STATE_FILE = "state.safetensors"
HEADER = "fewclip_checkpoint"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run after `epochs_done` epochs.

    Attributes:
        run: what the run is, as plain JSON; another run's checkpoint is refused.
        history: mean loss of each finished epoch.
        resumed_from: epochs at which the run was taken up again.
        parameters, momentum, state: tensors by name.
    """

    run: Mapping[str, Any]
    epochs_done: int
    history: tuple[float, ...]
    resumed_from: tuple[int, ...]
    parameters: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]
    state: Mapping[str, Tensor]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write it so that a crash at any moment leaves the old one or the new one."""
    from safetensors.torch import save_file

    tensors = {}
    for part in ("parameters", "momentum", "state"):
        for name, value in getattr(checkpoint, part).items():
            tensors[f"{part}/{name}"] = value.detach().cpu().contiguous().clone()
    header = {
        "run": checkpoint.run,
        "epochs_done": checkpoint.epochs_done,
        "history": checkpoint.history,
        "resumed_from": checkpoint.resumed_from,
    }
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{STATE_FILE}.{os.getpid()}"
    save_file(tensors, temporary, metadata={HEADER: json.dumps(header)})
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(folder / STATE_FILE)
    for stale in folder.glob(f".{STATE_FILE}.*"):
        stale.unlink(missing_ok=True)


def load(folder: Path, run: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint in `folder`, None where there is none.

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
        raise CheckpointError(
            f"checkpoint {folder} belongs to another run: {was}; run with the same settings to "
            f"continue it, or delete it to start afresh"
        )
    return found


def read_run(folder: Path) -> Mapping[str, Any]:
    """What run a checkpoint belongs to; empty where there is none.

    Raises:
        CheckpointError: it is broken.
    """
    found = _read(folder)
    return {} if found is None else found.run


def _read(folder: Path) -> Checkpoint | None:
    from safetensors import SafetensorError, safe_open

    file = folder / STATE_FILE
    if not file.is_file():
        return None
    parts: dict[str, dict[str, Tensor]] = {"parameters": {}, "momentum": {}, "state": {}}
    try:
        with safe_open(file, framework="pt") as handle:
            header = json.loads((handle.metadata() or {})[HEADER])
            for key in handle.keys():  # noqa: SIM118  (not a dict)
                part, _, name = key.partition("/")
                parts[part][name] = handle.get_tensor(key)
        return Checkpoint(
            run=header["run"],
            epochs_done=int(header["epochs_done"]),
            history=tuple(header["history"]),
            resumed_from=tuple(header["resumed_from"]),
            parameters=parts["parameters"],
            momentum=parts["momentum"],
            state=parts["state"],
        )
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {file} cannot be read ({error}); delete {folder} to start afresh"
        ) from error


def remove(folder: Path) -> None:
    """Delete a checkpoint folder; nothing happens where there is none."""
    if (folder / STATE_FILE).exists():
        shutil.rmtree(folder, ignore_errors=True)


def restore(
    checkpoint: Checkpoint, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.SGD
) -> None:
    """Put parameters and momentum back."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(checkpoint.parameters[name])
            if name in checkpoint.momentum:
                buffer = checkpoint.momentum[name].to(parameter.device)
                optimizer.state[parameter]["momentum_buffer"] = buffer


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:16] + "…"
