"""Linear algebra of heads, calibration and OOD scores on one thread of BLAS.

What adapts, chooses, compares or checks is wrapped as a whole, and nothing within it again.

It is thousands of small products. BLAS splits each across all cores, and its threads spin while
they wait: on two cores that took five times the CPU time of one thread, and longer. Torch has its
own threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

P = ParamSpec("P")
R = TypeVar("R")


def one_blas_thread(function: Callable[P, R]) -> Callable[P, R]:
    """While the function runs, BLAS computes on the thread that calls it."""
    wrapped: Callable[P, R] = threadpool_limits.wrap(limits=1, user_api="blas")(function)
    return wrapped
