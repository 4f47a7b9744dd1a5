"""fewclip: a few photos per class in, a deployed classifier out. The facade, and nothing else.

    import fewclip

    clf = fewclip.adapt("photos/", method="skip-tuning", shots=16)
    clf.predict(["a.jpg"])

Every name is looked up when it is first used, so `import fewclip` takes milliseconds and
serving an exported model never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fewclip.system.allocator import ask_for_huge_pages
from fewclip.system.cores import wait_asleep

if TYPE_CHECKING:
    from fewclip.adaptation import adapt
    from fewclip.backbone import list_backbones as backbones
    from fewclip.check import DataReport, check
    from fewclip.classifier import Classifier, load, zero_shot
    from fewclip.decide import Prediction
    from fewclip.errors import (
        ArtifactError,
        BackboneError,
        CheckpointError,
        ClassNameError,
        CoverageError,
        DataError,
        DivergedError,
        FewclipError,
        FormatVersionError,
        GateError,
        HubError,
        ImageError,
        InputError,
        MissingExtraError,
        OptionError,
        StoppedError,
    )
    from fewclip.methods import list_methods as methods
    from fewclip.report import Report
    from fewclip.selection.compare import compare
    from fewclip.selection.recommendation import Comparison

wait_asleep()
ask_for_huge_pages()

__version__ = "0.1.0"

__all__ = [
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

# Name -> (module, attribute there). Names not listed are error classes.
_HOMES = {
    "DataReport": ("fewclip.check.report", "DataReport"),
    "Classifier": ("fewclip.classifier", "Classifier"),
    "Comparison": ("fewclip.selection.recommendation", "Comparison"),
    "Prediction": ("fewclip.decide", "Prediction"),
    "Report": ("fewclip.report", "Report"),
    "adapt": ("fewclip.adaptation", "adapt"),
    "compare": ("fewclip.selection.compare", "compare"),
    "backbones": ("fewclip.backbone.listing", "list_backbones"),
    "load": ("fewclip.classifier", "load"),
    "zero_shot": ("fewclip.classifier", "zero_shot"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fewclip' has no attribute {name!r}")
    if name in ("check", "methods"):
        # The sub-packages of these names are callable: importing one binds `fewclip.check` to it,
        # whoever imports it first.
        return importlib.import_module(f"fewclip.{name}")
    module, attribute = _HOMES.get(name, ("fewclip.errors", name))
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
