"""The wall clock is set while requests wait: a time server, a machine that was asleep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# A process of its own: the settings are read when the service is imported. Eight clients keep
# batches waiting while the clock is set forward four times and back at last.
PROGRAM = """
import json, sys, threading, time
from collections import Counter

ahead, real = 0.0, time.time
time.time = lambda: real() + ahead

from starlette.testclient import TestClient
from fewclip_service.service import Fewclip

outcomes, ends = Counter(), threading.Event()
image = sys.stdin.buffer.read()


def ask(client):
    while not ends.is_set():
        outcomes[client.post("/v1/predict", files={"image": image}).status_code] += 1


with TestClient(Fewclip.to_asgi()) as client:
    threads = [threading.Thread(target=ask, args=(client,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    for step in (600, 600, 600, 600, -2400):
        ahead += step
        time.sleep(0.5)
    ends.set()
    for thread in threads:
        thread.join()
print(json.dumps(outcomes))
"""


def test_requests_are_answered_while_the_clock_is_set(
    exported: Path, photo: bytes, tmp_path: Path
) -> None:
    settings = {"FEWCLIP_MODEL": str(exported), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=photo,
        env=os.environ | settings,
        capture_output=True,
        timeout=120,
        check=True,
    )
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert set(outcomes) == {"200"}
    assert outcomes["200"] > 8  # the clients did not all wait until the end
