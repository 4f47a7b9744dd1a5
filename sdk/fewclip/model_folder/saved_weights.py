"""A tuned method <-> `model.safetensors`. The card is taken as it is; folders elsewhere.

Names within the file: `trained/...` what training changed, `state/...` what else the method
keeps, `ood/...` the OOD score, and the backbone's `logit_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fewclip.backbone import Backbone
from fewclip.contract import WEIGHTS_FILE, Card
from fewclip.errors import ArtifactError, InputError
from fewclip.methods import registry
from fewclip.methods.base import Method
from fewclip.model_folder import tensor_file
from fewclip.ood import OODScore, from_arrays, to_arrays


def write(folder: Path, method: Method, ood_score: OODScore | None) -> None:
    """Write the file into a folder.

    Raises:
        OSError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    tensors |= {f"trained/{k}": v for k, v in method.trained_parameters().items()}
    tensors |= {f"state/{k}": v for k, v in method.state().items()}
    tensors["logit_scale"] = method.backbone.logit_scale
    if ood_score is not None:
        arrays = to_arrays(ood_score)
        tensors |= {f"ood/{name}": torch.from_numpy(array) for name, array in arrays.items()}
    tensor_file.write(folder / WEIGHTS_FILE, tensors, {"format": "pt"})


def read(folder: Path, card: Card, backbone: Backbone) -> tuple[Method, OODScore | None]:
    """The method that the card describes, with the file's weights.

    Raises:
        ArtifactError: the file does not hold what the card says.
        OptionError: the card's options do not suit its method.
    """
    tensors = _read_tensors(folder, card)
    options = registry.make_options(card.method, card.options)
    try:
        method = registry.build(
            card.method,
            backbone,
            options,
            template=card.template,
            phrases=list(card.training.get("phrases", card.phrases).values()),
            generator=torch.Generator(),
        )
        _restore(method, tensors)
        arrays = {name: value.numpy() for name, value in _part(tensors, "ood/").items()}
        return method, from_arrays(arrays)
    except InputError:
        raise
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError, MemoryError) as error:
        raise ArtifactError(
            f"{folder} does not hold what its card says ({error}); it was written by a version of "
            f"fewclip whose {card.method} differs; adapt again"
        ) from error


def _read_tensors(folder: Path, card: Card) -> dict[str, Tensor]:
    if WEIGHTS_FILE not in card.files:
        raise ArtifactError(
            f"{folder} is incomplete: its card names no {WEIGHTS_FILE}; adapt again"
        )
    tensors, _ = tensor_file.read(folder, WEIGHTS_FILE)
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ArtifactError(
                f"{folder / WEIGHTS_FILE} holds numbers that are not finite ({name}); "
                "adapt again, with a lower learning rate if it is your own"
            )
    return tensors


def _restore(method: Method, tensors: Mapping[str, Tensor]) -> None:
    parameters = method.trained_parameters()
    found = _part(tensors, "trained/")
    tensor_file.check_alike(found, parameters)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(found[name])
    state = _part(tensors, "state/")
    tensor_file.check_alike(state, method.state())
    method.load_state({k: v.to(method.backbone.device) for k, v in state.items()})


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
