"""The models being served: loaded from folders, watched, swapped whole. No HTTP here.

Each worker has one of these. A replaced folder is loaded beside the old model and takes its place
in one assignment: a request keeps the model it began with. A folder that cannot be loaded leaves
the old model where it is, and says why.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fewclip.contract import CARD_FILE
from fewclip.errors import ArtifactError, FewclipError
from fewclip.runtime import OnnxClassifier
from fewclip_service.http.http_errors import APIError
from fewclip_service.inference.folders import is_model
from fewclip_service.logs import log, log_exception
from fewclip_service.metrics import metrics

Signature = tuple[tuple[Any, ...], ...]

_ATTEMPTS = 5  # at the start, to load a folder that is replaced while it is read


@dataclasses.dataclass(frozen=True)
class Model:
    """One loaded model; `version` changes when any file of its folder does."""

    name: str
    version: str
    classifier: OnnxClassifier

    def describe(self) -> dict[str, Any]:
        """What `/v1/model` shows: nothing about the training photos or machine."""
        card = self.classifier.card
        return {
            "name": self.name,
            "version": self.version,
            "created": card.created,
            "classes": list(card.classes),
            "method": card.method,
            "backbone": card.backbone.get("name"),
            "precision": card.precision,
            "provider": self.classifier.provider,
            "calibrated": card.calibration.calibrated,
            "knows_unknown": card.calibration.threshold is not None,
            "image_size": card.preprocessing.size,
            "fewclip_version": card.fewclip_version,
        }


class Models:
    """Every exported folder under a root, or the root itself when it is one.

    Args:
        root: an exported folder, or a folder of them.
        load: folder -> classifier.
        poll: seconds between polls of the folders.
        gone_after: seconds until a model whose folder is missing is unloaded; where folders cannot
            be swapped in one step, a poll may fall into the gap of a replacement.
    """

    def __init__(
        self,
        root: Path,
        load: Callable[[Path], OnnxClassifier],
        *,
        poll: float,
        gone_after: float = 3.0,
    ) -> None:
        self._root = root
        self._load = load
        self._poll = poll
        self._gone_after = gone_after
        self._single = is_model(root)
        self._models: Mapping[str, Model] = {}
        self._errors: Mapping[str, str] = {}
        self._tried: dict[str, Signature] = {}  # what was loaded, or failed to
        self._seen: dict[str, Signature] = {}  # what the last poll saw
        self._absent: dict[str, float] = {}  # missing folders, since when (monotonic)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="models", daemon=True)

    def start(self) -> None:
        """Load what is there, then watch for changes."""
        self.scan(settled=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def get(self, name: str | None) -> Model:
        """The model of this name; without one, the only model there is.

        Raises:
            APIError: no such model, none loaded, or several loaded and none named.
        """
        models = self._models
        if name:
            if name in models:
                return models[name]
            if name in self._errors:
                raise APIError(
                    "unknown_model", f"model {name[:100]!r} is not loaded (see /v1/model)"
                )
            raise APIError(
                "unknown_model", f"no model {name[:100]!r}; available: {_listed(models)}"
            )
        if len(models) == 1:
            return next(iter(models.values()))
        if not models:
            raise APIError("not_ready", "no model is loaded")
        raise APIError(
            "bad_field", f"name one of the models in the field model; available: {_listed(models)}"
        )

    def classifiers(self) -> dict[str, OnnxClassifier]:
        """The classifier that each served model now answers with, by name."""
        models = self._models
        return {name: models[name].classifier for name in sorted(models)}

    def listed(self) -> list[dict[str, str]]:
        """Name and version of each model that is served, by name."""
        models = self._models
        return [{"name": name, "version": models[name].version} for name in sorted(models)]

    @property
    def ready(self) -> bool:
        return bool(self._models)

    def describe(self, name: str | None = None) -> dict[str, Any]:
        """One model's card with `error` (why its newest folder is not served), or all of them."""
        models, errors = self._models, self._errors
        names = sorted(models.keys() | errors.keys())
        if name is not None or len(models) == len(names) == 1:
            model = self.get(name)
            return model.describe() | {"error": errors.get(model.name)}
        cards = [(models[n].describe() if n in models else {"name": n}) for n in names]
        return {"models": [card | {"error": errors.get(card["name"])} for card in cards]}

    def scan(self, *, settled: bool = False) -> None:
        """Look at every folder once, and load what changed.

        Args:
            settled: load at once; else a folder is loaded when two polls saw it unchanged, so that
                one still being copied is left alone.
        """
        folders = dict(self._folders())
        for name, folder in folders.items():
            signature = _signature(folder)
            if signature == self._tried.get(name):
                continue
            if settled:
                self._insist(name, folder)
            elif signature == self._seen.get(name):
                self._try(name, folder, signature)
            self._seen[name] = signature
        absent = (self._models.keys() | self._errors.keys()) - folders.keys()
        now = time.monotonic()
        self._absent = {name: self._absent.get(name, now) for name in absent}
        for name, since in list(self._absent.items()):
            self._missing(name, now - since)

    def _folders(self) -> Iterator[tuple[str, Path]]:
        if self._single:
            if is_model(self._root):
                yield self._root.name, self._root
            return
        try:
            entries = sorted(self._root.iterdir())
        except OSError:
            return
        for entry in entries:
            if not entry.name.startswith(".") and (is_model(entry) or entry.name in self._models):
                yield entry.name, entry

    def _insist(self, name: str, folder: Path) -> None:
        """Load a folder even if it is being replaced: without it there is no model to serve."""
        for _ in range(_ATTEMPTS):
            if self._try(name, folder, _signature(folder)):
                return

    def _try(self, name: str, folder: Path, signature: Signature) -> bool:
        """Load or refuse a folder; False, with nothing recorded, if it changed meanwhile."""
        model: Model | None = None
        reason = ""
        try:
            if not is_model(folder):
                raise ArtifactError(f"{folder} holds no {CARD_FILE} any more")
            classifier = self._load(folder)
            version = hashlib.sha256((folder / CARD_FILE).read_bytes()).hexdigest()[:12]
            model = Model(name, version, classifier)
        except (FewclipError, OSError) as error:
            reason = str(error).replace(f"{self._root.parent}{os.sep}", "")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a Rust library's panic is not an Exception
            log_exception("model_failed", model=name)
            reason = f"{type(error).__name__}: {error}"
        if _signature(folder) != signature:
            return False
        if model is None:
            self._refuse(name, reason)
        else:
            self._accept(model)
        self._tried[name] = signature
        return True

    def _accept(self, model: Model) -> None:
        old = self._models.get(model.name)
        self._models = {**self._models, model.name: model}
        self._errors = {n: text for n, text in self._errors.items() if n != model.name}
        metrics().broken.labels(model=model.name).set(0)
        if old is not None:
            self._tell(old, 0)
        self._tell(model, 1)
        log(logging.INFO, "model_loaded", model=model.name, version=model.version)

    def _refuse(self, name: str, reason: str) -> None:
        self._errors = {**self._errors, name: reason}
        metrics().broken.labels(model=name).set(1)
        kept = self._models.get(name)
        version = kept.version if kept else None
        log(logging.ERROR, "model_refused", model=name, reason=reason, still_serving=version)

    def _missing(self, name: str, seconds: float) -> None:
        """A folder is gone: one of several models is unloaded, but a single model is kept."""
        if self._single:
            if name not in self._errors:
                self._refuse(name, f"{name} is gone")
            self._tried.pop(name, None)
            return
        if seconds < self._gone_after:
            return
        if (model := self._models.get(name)) is not None:
            self._tell(model, 0)
        self._models = {n: model for n, model in self._models.items() if n != name}
        self._errors = {n: text for n, text in self._errors.items() if n != name}
        self._tried.pop(name, None)
        self._seen.pop(name, None)
        del self._absent[name]
        metrics().broken.labels(model=name).set(0)
        log(logging.INFO, "model_removed", model=name)

    @staticmethod
    def _tell(model: Model, value: int) -> None:
        precision, provider = model.classifier.card.precision, model.classifier.provider
        metrics().model.labels(
            model=model.name, version=model.version, precision=precision, provider=provider
        ).set(value)

    def _watch(self) -> None:
        while not self._stop.wait(self._poll):
            try:
                self.scan()
            except BaseException:  # a watcher that died silently would serve old models forever
                log_exception("watch_failed")


def _signature(folder: Path) -> Signature:
    """Changes whenever a file of the folder is replaced, rewritten, added or removed."""
    try:
        with os.scandir(folder) as entries:
            stats = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((n, s.st_ino, s.st_size, s.st_mtime_ns) for n, s in stats))


def _listed(models: Mapping[str, Model]) -> str:
    return ", ".join(sorted(models)) or "none"
