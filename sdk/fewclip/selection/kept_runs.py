"""Runs of `compare` that are kept in a folder, each under a description of all it depends on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fewclip import __version__
from fewclip.bench.measure import Cost, machine
from fewclip.bench.results import Result, Store
from fewclip.heads import FoldOutputs
from fewclip.selection.candidates import Candidate
from fewclip.selection.cross_validation import CrossValidation, options_of
from fewclip.selection.evaluated import Run

_PLAN = ("template", "phrases", "backbone", "seed", "precision", "device", "images")


class KeptRuns:
    """Finished runs of one cross-validation; without a store it keeps none."""

    def __init__(self, store: Store | None, cv: CrossValidation) -> None:
        self._store, self._cv = store, cv

    def find(self, candidate: Candidate, k: int | None) -> Run | None:
        """The candidate's run on fold k, or on all folds for None, if it is kept.

        Raises:
            DataError: its file was not written by this class.
        """
        found = self._store and self._store.find(self._describe(candidate, k))
        if not found:
            return None
        cost = Cost(*(found.cost[name] for name in ("seconds", "peak_mb", "memory")))
        images, right = self._cv.held(k), np.array(found.cost["right"], bool)
        loss, outputs = np.array(found.cost["loss"], np.float64), None
        if "logits" in found.cost:
            itm, *heads = (np.array(part, np.float32) for part in found.cost["logits"])
            outputs = FoldOutputs(images, self._cv.labels[images], itm, heads)
        return Run(images, right, loss, cost, outputs)

    def add(self, candidate: Candidate, k: int | None, run: Run) -> None:
        """Keep a finished run; it is on disk when this returns."""
        if self._store is None:
            return
        cost = {
            **dataclasses.asdict(run.cost),
            "machine": machine(self._cv.device),
            "right": run.right.astype(int).tolist(),
            "loss": [None if np.isnan(each) else each for each in run.loss.tolist()],
        }
        if (outputs := run.outputs) is not None:
            cost["logits"] = [part.tolist() for part in (outputs.logits_itm, *outputs.heads)]
        scores = {"accuracy": float(run.right.mean())}
        self._store.add(Result(run=self._describe(candidate, k), scores=scores, cost=cost))

    def _describe(self, candidate: Candidate, k: int | None) -> dict[str, Any]:
        """The run as plain JSON: equal descriptions are the same run."""
        plan = self._cv.plan
        return {
            "protocol": "compare",
            **{name: plan.run[name] for name in _PLAN},
            "method": candidate.method,
            "options": {} if candidate.outside else options_of(plan, candidate),
            "folds": self._cv.folds,
            "fold": k,
            "fewclip": __version__,
        }
