"""Runs of a sweep as Ray tasks, several at once, on one machine or many. It keeps no result.

Each run is one task with declared CPUs; a task whose worker or node died is repeated by Ray, and
none runs twice, for a run's result is kept by the caller when it comes back. Data sets and the
backbone must be at the same paths on every node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fewclip.bulk.ray_engine import connected
from fewclip.errors import OptionError
from fewclip.system.extras import require

if TYPE_CHECKING:
    from fewclip.bench.results import Result
    from fewclip.bench.sweep import Job, Sweep


def results(
    sweep: Sweep, todo: Sequence[tuple[Job, Mapping[str, Any]]]
) -> Iterator[tuple[int, Result]]:
    """(index in `todo`, its result), in the order in which they are done.

    Raises:
        OptionError: the cluster has not so many CPUs as one run declares.
        MissingExtraError: Ray is not installed.
        Whatever a run raises; the results before it have come.
    """
    ray = require("ray", "engine 'ray'", "scale")
    with connected(ray, sweep.ray_address):
        have = ray.cluster_resources().get("CPU", 0.0)
        if have < sweep.ray_cpus:
            raise OptionError(
                f"a run declares {sweep.ray_cpus:g} CPUs and the cluster has {have:g}; lower "
                "--ray-cpus"
            )
        # -1: a run whose worker died is done again, however often.
        task = ray.remote(num_cpus=sweep.ray_cpus, max_retries=-1)(_execute)
        waiting = {}
        for index, (job, run) in enumerate(todo):
            gpus = 1 if run["device"] == "cuda" else 0
            waiting[task.options(num_gpus=gpus).remote(sweep, job, run)] = index
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done), _result(ray, done)


def _execute(sweep: Sweep, job: Job, run: Mapping[str, Any]) -> Result:
    return sweep.execute(job, run)


def _result(ray: Any, done: Any) -> Result:
    try:
        return ray.get(done)  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:
        raise error.cause or error from error
