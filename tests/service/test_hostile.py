"""A few hundred requests that nobody should send; `benchmarks/service/` has ten thousand."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.service import hostile
from benchmarks.service.hostile_cases import cases
from benchmarks.service.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def target(exported: Path) -> Iterator[Server]:
    with Server(exported, **hostile.LIMITS) as running:
        yield running
        events = list(running.events())
    assert len({event["pid"] for event in events if event["event"] == "model_loaded"}) == 1
    assert [event for event in events if event["level"] == "error"] == []


def check(target: Server, result: tuple[Counter[str], list[str]], at_least: int) -> None:
    outcomes, findings = result
    assert findings == []
    assert outcomes.total() >= at_least
    assert hostile.is_well(target)


def test_hand_made_requests(target: Server) -> None:
    result = hostile.attack(target, itertools.islice(cases(seed=7), 280))
    check(target, result, 280)
    answered = Counter(key.split("|")[1] for key in result[0].elements())
    assert answered["closed"] < 60  # they reach the service, and it says what it thinks of them


def test_requests_made_up_by_hypothesis(target: Server) -> None:
    check(target, hostile.made_up(target, 100), 100)


@pytest.mark.filterwarnings("default")  # of what schemathesis imports
def test_requests_derived_from_the_openapi_document(target: Server) -> None:
    check(target, hostile.derived(target, 12), 60)


def test_a_finding_is_seen() -> None:
    case = next(cases(seed=0))
    assert hostile.findings(case, b"HTTP/1.1 200 OK\r\n\r\n{}") == []
    assert hostile.findings(case, b"HTTP/1.1 503 Service Unavailable\r\n\r\n") == []
    assert len(hostile.findings(case, b"HTTP/1.1 500 Internal Server Error\r\n\r\nTraceback")) == 2
