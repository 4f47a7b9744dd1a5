"""Thousands of requests that nobody should send. Does the service stay up, honest and small?

    python -m benchmarks.service.hostile EXPORTED [--requests 10000]
        [--out benchmarks/results/hostile.md]

Hand-made ones on raw sockets (`hostile_cases.py`), bodies that hypothesis generates, and what
schemathesis derives from the service's own OpenAPI document. A 5xx other than 503 and 504, a
traceback in an answer, or a good request that is not answered, is a finding; memory is watched.
Good requests are timed alone and, in turns, while files that are expensive to open are sent.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import re
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks.service.hostile_cases import Case, cases, dear, photo
from benchmarks.service.load import photos
from benchmarks.service.server import Server

CLIENTS = 16
ANSWER_SECONDS = 60.0
# A body that never ends is answered after `timeout`; a head that never ends is not answered.
SILENCE_SECONDS = 5.0
BOMBERS = 4
BOMBS = 40
LATENCY_TURNS = 4
LATENCY_SECONDS = 10.0  # of each turn
SLOWER = 2.0  # at most, the median good request while bombs are sent
LIMITS: dict[str, Any] = {"max_bytes": 1_000_000, "max_pixels": 4_000_000, "timeout": 2}

_STATUS = re.compile(rb"HTTP/1\.[01] (\d\d\d) ")


def send(port: int, case: Case) -> bytes:
    """Everything the server answers on one connection, until it closes it or falls silent."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
        try:
            for piece in case.pieces:
                connection.sendall(piece)
                time.sleep(case.pause)
            if case.hang_up:
                return b""
            connection.settimeout(SILENCE_SECONDS)
            while block := connection.recv(65536):
                received += block
        except OSError:  # it may hang up on what it does not understand, or wait for the rest
            pass
    return received


def findings(case: Case, answer: bytes) -> list[str]:
    """What is wrong with an answer."""
    statuses = [int(status) for status in _STATUS.findall(answer)]
    wrong = [f"{case.kind}: status {s}" for s in statuses if s >= 500 and s not in (503, 504)]
    if b"Traceback" in answer or b'File "' in answer:
        wrong.append(f"{case.kind}: a traceback in the answer")
    return wrong


def attack(server: Server, some: Iterable[Case]) -> tuple[Counter[str], list[str]]:
    """Send cases from several clients at once: outcomes by kind and status, and findings."""
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []

    def one(case: Case) -> tuple[Case, bytes]:
        return case, send(server.port, case)

    with ThreadPoolExecutor(CLIENTS) as pool:
        for case, answer in pool.map(one, some):
            first = _STATUS.search(answer)
            outcomes[f"{case.kind}|{first[1].decode() if first else 'closed'}"] += 1
            wrong += findings(case, answer)
    return outcomes, wrong


def is_well(server: Server, seconds: float = 30.0) -> bool:
    """Whether a good request is answered, with at most a while of 503s before."""
    image = photo(random.Random(1), "JPEG")
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        answer = httpx.post(f"{server.url}/v1/predict", files={"image": image}, timeout=60)
        if answer.status_code == 200:
            return True
        time.sleep(0.2)
    return False


def latencies(server: Server, seconds: float) -> list[float]:
    """Milliseconds of one good request after another; one that is refused counts as infinite."""
    image = photos(1)[0]
    found = []
    ends = time.monotonic() + seconds
    with httpx.Client(base_url=server.url, timeout=ANSWER_SECONDS) as client:
        while time.monotonic() < ends:
            begin = time.perf_counter()
            answer = client.post("/v1/predict", files={"image": image})
            spent = (time.perf_counter() - begin) * 1000
            found.append(spent if answer.status_code == 200 else math.inf)
    return found


def good_beside_bombs(server: Server, seed: int) -> tuple[list[str], list[str]]:
    """Good requests alone and beside expensive ones, in turns: report lines, findings."""
    rng = random.Random(seed)
    bombs = [dear(rng) for _ in range(BOMBS)]  # making them costs more than sending them
    alone: list[float] = []
    beside: list[float] = []
    sent = 0
    for _ in range(LATENCY_TURNS):
        alone += latencies(server, LATENCY_SECONDS)
        stop = threading.Event()

        def bombard(own: random.Random, stop: threading.Event) -> int:
            count = 0
            while not stop.is_set():
                send(server.port, own.choice(bombs))
                count += 1
            return count

        with ThreadPoolExecutor(BOMBERS) as pool:
            bombers = [
                pool.submit(bombard, random.Random(rng.random()), stop) for _ in range(BOMBERS)
            ]
            try:
                beside += latencies(server, LATENCY_SECONDS)
            finally:
                stop.set()
            sent += sum(bomber.result() for bomber in bombers)
    slower = statistics.median(beside) / statistics.median(alone)
    lines = [
        "",
        f"| one client's good requests, {LATENCY_TURNS} turns | requests | median ms | p95 ms |",
        "|---|---|---|---|",
        *(
            f"| {name} | {len(each)} | {statistics.median(each):.0f} | {_p95(each):.0f} |"
            for name, each in (("alone", alone), (f"beside {BOMBERS} clients of bombs", beside))
        ),
        "",
        f"- {sent} bombs in those turns; the median good request took {slower:.1f} times as long",
    ]
    wrong = (
        [f"beside bombs good requests took {slower:.1f} times as long"] if slower > SLOWER else []
    )
    return lines, wrong


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


def made_up(server: Server, examples: int) -> tuple[Counter[str], list[str]]:
    """Bodies, headers and queries that hypothesis generates and shrinks."""
    from hypothesis import given
    from hypothesis import strategies as st

    outcomes: Counter[str] = Counter()
    name = st.sampled_from(["image", "images", "top_k", "classes", "model"]) | st.text(max_size=20)
    value = st.text(max_size=200) | st.binary(max_size=400)
    parts = st.lists(st.tuples(name, st.none() | st.text(max_size=30), value), max_size=6)
    routes = ["/v1/predict", "/v1/predict_batch", "/v1/predict_classes", "/predict", "/v1/model"]
    safe = st.characters(codec="ascii", categories=["L", "N", "P", "S"])
    headers = st.dictionaries(st.from_regex(r"[a-z-]{1,20}", fullmatch=True), st.text(safe))

    with httpx.Client(base_url=server.url, timeout=ANSWER_SECONDS) as client:

        @_many(examples)  # type: ignore[untyped-decorator]
        @given(st.sampled_from(routes), parts, headers, st.none() | st.binary(max_size=300))
        def run(
            route: str, fields: list[tuple[str, str | None, Any]], more: dict[str, str], raw: Any
        ) -> None:
            more = {k: v for k, v in more.items() if k not in ("transfer-encoding", "connection")}
            body: dict[str, Any] = {"files": [(n, (f, v)) for n, f, v in fields]}
            try:
                answer = client.post(
                    route, headers=more, **(body if raw is None else {"content": raw})
                )
            except (httpx.TransportError, UnicodeError, TypeError, ValueError):
                outcomes["made up|not sent or closed"] += 1
                return
            outcomes[f"made up|{answer.status_code}"] += 1
            assert answer.status_code < 500 or answer.status_code in (503, 504), answer.text
            assert "Traceback" not in answer.text

        try:
            run()
        except AssertionError as error:
            return outcomes, [f"made up: {error}"]
    return outcomes, []


def derived(server: Server, examples: int) -> tuple[Counter[str], list[str]]:
    """What schemathesis derives from /v1/openapi.json, good and bad, checked against it."""
    import schemathesis
    from hypothesis import given
    from schemathesis.specs.openapi import checks as conformance

    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    document = httpx.get(f"{server.url}/v1/openapi.json", timeout=30).json()
    # Not whether bad data is refused: bad fields may be serialised into good ones.
    held = [
        schemathesis.checks.not_a_server_error,
        conformance.status_code_conformance,
        conformance.content_type_conformance,
        conformance.response_schema_conformance,
        conformance.response_headers_conformance,
    ]
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]

        def check(case: Any) -> None:
            answer = case.call(base_url=f"{server.url}/v1", timeout=ANSWER_SECONDS)
            outcomes[f"OpenAPI|{answer.status_code}"] += 1
            if answer.status_code not in (503, 504):
                case.validate_response(answer, checks=held)

        described = document["paths"][operation.path][operation.method]
        can_be_wrong = "parameters" in described or "requestBody" in described
        for mode in schemathesis.GenerationMode:
            if mode.is_negative and not can_be_wrong:
                continue
            strategy = operation.as_strategy(generation_mode=mode)
            try:
                run: Any = given(strategy)(check)  # type: ignore[no-untyped-call]
                _many(examples)(run)()
            except Exception as error:  # the library's failures share no narrower base
                wrong.append(f"OpenAPI {operation.label}: {error}")
    return outcomes, wrong


def _many(examples: int) -> Any:
    """Hypothesis settings: this many examples, the same ones every time, nothing stored."""
    from hypothesis import HealthCheck, Phase, settings

    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def main() -> int:
    """Run it all and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="an exported folder")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    total = arguments.requests
    with Server(arguments.model, **LIMITS) as server:
        report = _run(server, total, arguments.seed)
        more = good_beside_bombs(server, arguments.seed)
        restarts = len({e["pid"] for e in server.events() if e["event"] == "model_loaded"}) - 1
        errors = [e for e in server.events() if e["level"] == "error"]
    lines, wrong = [*report[0], *more[0]], [*report[1], *more[1]]
    lines += [f"- workers that died: {restarts}; errors in the log: {len(errors)}"]
    lines += [f"- finding: {finding}" for finding in wrong[:20]] or ["- findings: none"]
    text = "\n".join(["# Hostile requests", "", *lines, ""])
    print(text)
    for event in errors[:5]:
        print(event, file=sys.stderr)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
    return 1 if wrong or restarts or errors else 0


def _run(server: Server, total: int, seed: int) -> tuple[list[str], list[str]]:
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    memory: list[tuple[int, int]] = []
    began = time.monotonic()

    def add(part: tuple[Counter[str], list[str]]) -> None:
        outcomes.update(part[0])
        wrong.extend(part[1])
        if not is_well(server):
            wrong.append("a good request is not answered")
        memory.append((outcomes.total(), server.memory() >> 20))
        print(f"{outcomes.total()} requests, {memory[-1][1]} MiB", file=sys.stderr)

    hand_made = cases(seed)
    for _ in range(10):
        add(attack(server, itertools.islice(hand_made, total * 7 // 100)))
    add(made_up(server, total // 4))
    while outcomes.total() < total:
        add(derived(server, max(10, total // 100)))
    seconds = time.monotonic() - began
    return _report(outcomes, memory, seconds), wrong


def _report(outcomes: Counter[str], memory: list[tuple[int, int]], seconds: float) -> list[str]:
    kinds: dict[str, Counter[str]] = {}
    for key, count in outcomes.items():
        kind, _, status = key.partition("|")
        kinds.setdefault(kind, Counter())[status] += count
    rows = [
        f"| {kind} | {counts.total()} | "
        + ", ".join(f"{status}: {n}" for status, n in sorted(counts.items()))
        + " |"
        for kind, counts in sorted(kinds.items())
    ]
    samples = ", ".join(f"{mib} ({count:,})" for count, mib in memory)
    return [
        f"{outcomes.total():,} requests in {seconds:.0f} s, {CLIENTS} clients at once; "
        "`python -m benchmarks.service.hostile EXPORTED`",
        "",
        "| kind | requests | status: count of the first answer on the connection |",
        "|---|---|---|",
        *rows,
        "",
        f"- resident MiB of the worker (after so many requests): {samples}",
    ]


if __name__ == "__main__":
    sys.exit(main())
