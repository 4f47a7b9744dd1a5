"""Runs of a sweep as Ray tasks, several at once, on one machine or many. It stores no results.

Each run is one task with declared CPUs; Ray repeats a task whose worker or node died, and no
finished run is repeated, because the caller stores each result as it comes back. Data sets and
the backbone must be at the same paths on every node.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from fewclip.bulk.ray_engine import connected
from fewclip.errors import OptionError
from fewclip.system.extras import require

T = TypeVar("T")


def completed(
    function: Callable[..., T],
    calls: Iterable[tuple[Any, ...]],
    *,
    cpus: float,
    gpus: Callable[..., int],
    address: str | None,
    throttled: bool = False,
) -> Iterator[tuple[tuple[Any, ...], T]]:
    """(arguments, what the function returned), in the order in which they finish.

    Args:
        function: sent to the cluster once, with the object it is bound to.
        calls: arguments of each run.
        cpus: CPUs that each run declares.
        gpus: its arguments -> the GPUs of a run.
        throttled: take the next call only when there is room to run it.

    Raises:
        OptionError: the cluster has fewer CPUs than one run declares.
        MissingExtraError: Ray is not installed.
        Whatever a run raises, after the results before it.
    """
    ray = require("ray", "engine 'ray'", "scale")
    with connected(ray, address):
        have = ray.cluster_resources()
        if have.get("CPU", 0.0) < cpus:
            raise OptionError(
                f"a run declares {cpus:g} CPUs and the cluster has {have.get('CPU', 0.0):g}; lower "
                "--ray-cpus"
            )
        # -1: a run whose worker died is repeated, however often.
        task = ray.remote(num_cpus=cpus, max_retries=-1)(_call)
        sent = ray.put(function)
        waiting: dict[Any, tuple[Any, ...]] = {}
        left = iter(calls)
        while True:
            room = _room(have, cpus) - len(waiting) if throttled else None
            for call in itertools.islice(left, room):
                waiting[task.options(num_gpus=gpus(*call)).remote(sent, *call)] = call
            if not waiting:
                return
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done), _result(ray, done)


def _room(have: Mapping[str, float], cpus: float) -> int:
    """How many runs the cluster has room for."""
    room = int(have.get("CPU", 0.0) // cpus) if cpus else 1
    return max(1, min(room, int(have["GPU"])) if have.get("GPU") else room)


def _call(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)


def _result(ray: Any, done: Any) -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause or error from error
