"""What `method="auto"` has evaluated by training, kept in the checkpoint until it has chosen."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewclip import __version__
from fewclip.bench.measure import Cost
from fewclip.heads import folds_from_arrays, folds_to_arrays
from fewclip.selection.candidates import Candidate
from fewclip.selection.cross_validation import options_of
from fewclip.selection.evaluated import Run
from fewclip.training import Plan
from fewclip.training.arrays_file import load_arrays, save_arrays
from fewclip.training.checkpoint import FOLD_FILES


class KeptFolds:
    """Folds of candidates that share a training; without a checkpoint none is kept.

    Heads are not kept: they take seconds, and the final fit needs their features anyway.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def find(self, group: Sequence[Candidate], k: int) -> list[Run] | None:
        """A run for each candidate on fold k; None if they are not kept."""
        found = None if (path := self._path(group, k)) is None else load_arrays(path)
        if found is None or found[0].get("group") != self._describe(group):
            return None
        cost = Cost(**found[0]["cost"])
        runs = map(Run.of_fold, folds_from_arrays(found[1]))
        return [dataclasses.replace(run, cost=cost) for run in runs]

    def add(self, group: Sequence[Candidate], k: int, runs: Sequence[Run]) -> None:
        """Keep finished runs; they are on disk when this returns.

        Raises:
            CheckpointError: they cannot be written.
        """
        if (path := self._path(group, k)) is None:
            return
        plain = {"group": self._describe(group), "cost": dataclasses.asdict(runs[0].cost)}
        save_arrays(path, plain, folds_to_arrays([run.outputs for run in runs if run.outputs]))

    def _path(self, group: Sequence[Candidate], k: int) -> Path | None:
        if self._plan.checkpoint is None:
            return None
        name = "-".join([*re.findall(r"\w+", group[0].name), str(k)])
        return self._plan.checkpoint / FOLD_FILES.replace("*", name)

    def _describe(self, group: Sequence[Candidate]) -> Any:
        """What the runs depend on, as plain JSON."""
        options = [[each.method, options_of(self._plan, each)] for each in group]
        return json.loads(json.dumps([__version__, self._plan.run_id, options]))
