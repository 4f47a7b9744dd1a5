"""What the published runs set by hand: templates and hyper-parameters. Facts only, nothing runs.

Sources: the code of CoOp, KgCoOp, DePT and Skip Tuning, whose numbers are in the papers. Learning
rates were tuned there for ViT-B/16 with OpenAI's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLAIN = "a photo of a {}."  # for own data, and what a list does not name

# CoOp's list: for zero-shot, CLIP-Adapter and methods without a list of their own.
_COOP = {
    "oxford_pets": "a photo of a {}, a type of pet.",
    "oxford_flowers": "a photo of a {}, a type of flower.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.",
    "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.",
    "food101": "a photo of {}, a type of food.",
    "ucf101": "a photo of a person doing {}.",
}
# KgCoOp's list, also in DePT's code: what the learned context is held close to.
_KGCOOP = {**_COOP, "dtd": "a photo of a {}, a type of texture."}
# Skip Tuning's list, also for its fine-tuning baseline.
_SKIP_TUNING = {
    "caltech101": "itap of a {}.",
    "oxford_pets": "a bad photo of a {}, a type of pet.",
    "stanford_cars": "a photo of the {}, a type of car.",
    "oxford_flowers": "a close-up photo of a {}.",
    "food101": "a photo of the nice {}.",
    "fgvc_aircraft": "a bright photo of a {}, a type of aircraft.",
    "dtd": "itap of a {}.",
    "eurosat": "a centered satellite photo of {}.",
    "ucf101": "a photo of a {}, a type of sport.",
    "imagenet_sketch": "a sketch of a {}.",
    "imagenet_a": "a bad photo of a {}.",
    "imagenet_r": "a rendition of a {}.",
}
TEMPLATES = {"coop": _COOP, "kgcoop": _KGCOOP, "skip-tuning": _SKIP_TUNING}
_LIST_OF = {"kgcoop": "kgcoop", "skip-tuning": "skip-tuning", "fine-tune": "skip-tuning"}

# Where a protocol departs from a method's defaults, which are those of base-to-new.
_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "cross-dataset": {
        "skip-tuning": {"text_lr": 1e-5, "image_lr": 1e-6, "warmup_lr": 1e-8},
        "fine-tune": {"epochs": 4},
        "maple": {"epochs": 2, "depth": 3, "lr": 0.0026},
        "promptsrc": {"depth": 3, "average_mean": 6.0, "average_std": 10.0},
        "kgcoop+dept": {"dept_weight": 0.5, "dept_lr": 0.016},
    },
    "few-shot": {
        "skip-tuning": {"epochs": 40, "text_lr": 1e-5, "image_lr": 1e-5, "warmup_epochs": 0},
        "maple": {"epochs": 50},
        "promptsrc": {"epochs": 50, "average_mean": 30.0, "average_std": 30.0},
    },
}
# PromptSRC's few-shot runs average later epochs on some data sets.
_LATE_AVERAGE = {"average_mean": 45.0, "average_std": 5.0}
_LATE_AVERAGE_SETS = ("stanford_cars", "oxford_flowers", "fgvc_aircraft", "dtd", "eurosat")
_SETTINGS["domain"] = _SETTINGS["cross-dataset"]


def template_list(method: str) -> str:
    """The name of the list of templates that a method's published runs used."""
    return _LIST_OF.get(method.removesuffix("+dept"), "coop")


def template(method: str, dataset: str) -> str:
    """The template of a method's published run on a data set in the table; else the plain one."""
    return TEMPLATES[template_list(method)].get(dataset, PLAIN)


def settings(protocol: str, method: str, dataset: str = "") -> dict[str, Any]:
    """Options in which a protocol's published runs depart from the method's defaults.

    A method with DePT gets the plain method's, and its own on top.
    """
    table: Mapping[str, dict[str, Any]] = _SETTINGS.get(protocol, {})
    plain = method.removesuffix("+dept")
    own = _LATE_AVERAGE if (protocol, plain) == ("few-shot", "promptsrc") else {}
    late = own if dataset in _LATE_AVERAGE_SETS else {}
    return {**table.get(plain, {}), **table.get(method, {}), **late}
