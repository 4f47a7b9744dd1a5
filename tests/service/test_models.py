"""Folders that come, change, break and go while two workers serve them; a worker that is killed."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from benchmarks.service.server import Server
from fewclip.runtime import OnnxClassifier
from fewclip_service.http.http_errors import APIError
from fewclip_service.inference.model_store import Models
from tests.attacks import hostile_images

pytestmark = pytest.mark.slow

Variant = Callable[..., None]
HTTP = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


@pytest.fixture(scope="module")
def models(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    variant(folder / "warm", 2.0)
    variant(folder / "cold", 0.5)
    return folder


@pytest.fixture(scope="module")
def several(models: Path) -> Iterator[Server]:
    with Server(models, workers=2, poll=0.1) as running:
        yield running


def ask(server: Server, image: bytes, model: str | None = None) -> httpx.Response:
    """Over a connection of its own, so that any worker may answer."""
    params = {} if model is None else {"model": model}
    return HTTP.post(f"{server.url}/v1/predict", params=params, files={"image": image})


def score(server: Server, image: bytes, model: str | None = None) -> float:
    """Which of the variants answered."""
    response = ask(server, image, model)
    assert response.status_code == 200, response.text
    found: float = response.json()["score"]
    return found


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """True many times in a row: two workers take turns at random."""
    ends, row = time.monotonic() + seconds, 0
    while row < 20:
        row = row + 1 if holds() else 0
        assert time.monotonic() < ends, "not within a minute"


def card(server: Server, model: str) -> dict[str, Any]:
    body: dict[str, Any] = HTTP.get(f"{server.url}/v1/model", params={"model": model}).json()
    return body


@contextlib.contextmanager
def in_flight(server: Server, model: str | None = None) -> Iterator[Future[httpx.Response]]:
    """One request for an image that takes seconds to decode, accepted and not yet answered."""
    slow = hostile_images.jpeg_of_many_scans(90, 2500)
    waiting = "fewclip_queue_images"
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(ask, server, slow, model)
        ends = time.monotonic() + 60
        while not server.metrics().get(waiting):
            assert time.monotonic() < ends, "not accepted within a minute"
        assert not answer.done()
        yield answer


class Load:
    """Clients that ask one model all the time, and count what they get."""

    def __init__(self, server: Server, image: bytes, model: str | None, clients: int) -> None:
        self.outcomes: Counter[Any] = Counter()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(server, image, model)) for _ in range(clients)
        ]

    def _run(self, server: Server, image: bytes, model: str | None) -> None:
        while not self._stop.is_set():
            try:
                self.outcomes[ask(server, image, model).status_code] += 1
            except httpx.ConnectError:  # nobody listens: not accepted, so not lost
                self.outcomes["refused"] += 1
                return
            except httpx.TransportError as error:
                self.outcomes[f"lost: {error!r}"] += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_models_are_told_apart(several: Server, photo: bytes) -> None:
    warm, cold = (ask(several, photo, name).json() for name in ("warm", "cold"))
    assert (warm["model"], cold["model"]) == ("warm", "cold")
    assert warm["label"] == cold["label"]
    assert warm["score"] < cold["score"]
    unnamed, unknown = ask(several, photo), ask(several, photo, "hot")
    assert (unnamed.status_code, unnamed.json()["error"]["type"]) == (422, "bad_field")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "unknown_model")
    listed = HTTP.get(f"{several.url}/v1/model").json()["models"]
    assert [model["name"] for model in listed] == ["cold", "warm"]


def test_a_replaced_folder_is_taken_up_without_a_failed_request(
    several: Server, models: Path, variant: Variant, photo: bytes
) -> None:
    old = score(several, photo, "warm")
    version = card(several, "warm")["version"]
    with Load(several, photo, "warm", clients=4) as load:
        variant(models / "warm", 5.0)
        eventually(lambda: score(several, photo, "warm") < old)
    assert set(load.outcomes) == {200}
    assert card(several, "warm")["version"] != version


def test_a_new_folder_is_taken_up_and_a_removed_one_goes(
    several: Server, models: Path, variant: Variant, photo: bytes
) -> None:
    assert ask(several, photo, "new").status_code == 404
    variant(models / "new", 1.0)
    eventually(lambda: ask(several, photo, "new").status_code == 200)
    shutil.rmtree(models / "new")
    eventually(lambda: ask(several, photo, "new").status_code == 404)


def test_a_folder_that_is_missing_for_a_moment_is_not_gone(models: Path, tmp_path: Path) -> None:
    """Renames need not be one step: looks may fall between two of them."""
    root = tmp_path / "models"
    shutil.copytree(models / "cold", root / "pets")
    watched = Models(root, OnnxClassifier, poll=3600, gone_after=3600)
    watched.scan(settled=True)
    (root / "pets").rename(tmp_path / "aside")
    for _ in range(5):
        watched.scan()
        assert watched.get("pets").name == "pets"
    (tmp_path / "aside").rename(root / "pets")
    watched.scan()
    impatient = Models(root, OnnxClassifier, poll=3600, gone_after=0)
    impatient.scan(settled=True)
    shutil.rmtree(root / "pets")
    impatient.scan()
    with pytest.raises(APIError, match="no model 'pets'"):
        impatient.get("pets")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_folder_replaced_while_a_server_starts_is_served(
    variant: Variant, tmp_path: Path, moment: str
) -> None:
    """A worker that starts just then has no old model to go on with."""
    variant(tmp_path / "pets", 2.0)
    loads: list[OnnxClassifier] = []

    def load(folder: Path) -> OnnxClassifier:
        if moment == "before" and not loads:
            variant(folder, 5.0)
        loads.append(OnnxClassifier(folder))
        if moment == "after" and len(loads) == 1:
            variant(folder, 5.0)
        return loads[-1]

    watched = Models(tmp_path, load, poll=3600)
    watched.scan(settled=True)
    assert len(loads) == 2
    assert watched.get("pets").classifier is loads[1]
    assert loads[1].card.calibration.temperature == 5.0


def test_a_folder_that_keeps_changing_at_the_start_is_left_to_later_looks(
    variant: Variant, tmp_path: Path
) -> None:
    variant(tmp_path / "pets", 2.0)
    changing = True

    def load(folder: Path) -> OnnxClassifier:
        if changing:
            (folder / "card.json").touch()
        return OnnxClassifier(folder)

    watched = Models(tmp_path, load, poll=3600)
    watched.scan(settled=True)
    assert not watched.ready
    assert watched.describe() == {"models": []}
    changing = False
    for _ in range(2):
        watched.scan()
    assert watched.get("pets").name == "pets"


def test_a_broken_folder_leaves_the_old_model_serving(
    several: Server, models: Path, variant: Variant, photo: bytes
) -> None:
    before = score(several, photo, "cold")
    graph = models / "cold" / "image.onnx"
    content = graph.read_bytes()
    with Load(several, photo, "cold", clients=2) as load:
        graph.write_bytes(content[:-1] + b"?")
        eventually(lambda: card(several, "cold")["error"] is not None)
    assert set(load.outcomes) == {200}
    assert score(several, photo, "cold") == before
    assert "image.onnx was changed" in card(several, "cold")["error"]
    assert str(models.parent) not in card(several, "cold")["error"]
    assert several.metrics()['fewclip_model_broken{model="cold"}'] == 1
    graph.write_bytes(content)
    eventually(lambda: card(several, "cold")["error"] is None)
    # Of every worker, and they look at the folder one after another.
    eventually(lambda: several.metrics()['fewclip_model_broken{model="cold"}'] == 0)


def test_a_folder_that_never_loaded_is_shown(several: Server, models: Path, photo: bytes) -> None:
    (models / "odd").mkdir()
    (models / "odd" / "card.json").write_text("{}")

    def shown() -> bool:
        listed = HTTP.get(f"{several.url}/v1/model").json()["models"]
        return any(model["name"] == "odd" and model["error"] for model in listed)

    eventually(shown)
    assert ask(several, photo, "odd").status_code == 404
    shutil.rmtree(models / "odd")


def test_a_killed_worker_is_replaced(several: Server, photo: bytes) -> None:
    def answering() -> set[int]:
        events = list(several.events())[-200:]
        return {e["pid"] for e in events if e["event"] == "request"}

    before = {worker.pid for worker in several.workers()}
    victim = min(before)
    with Load(several, photo, "cold", clients=8) as load:
        time.sleep(0.5)
        next(worker for worker in several.workers() if worker.pid == victim).send_signal(
            signal.SIGKILL
        )
        ends = time.monotonic() + 90
        while len(answering() - {victim}) < 2 or answering() <= before:
            assert time.monotonic() < ends, "no new worker answers"
            time.sleep(0.2)
    others = {outcome: count for outcome, count in load.outcomes.items() if outcome != 200}
    assert others.pop(503, 0) + sum(others.values()) <= 8  # at most one request of each client
    lost = sum(others.values())
    assert lost <= 1, others  # an answer that had begun
    assert load.outcomes[200] > 8
    assert victim not in {worker.pid for worker in several.workers()}
    eventually(lambda: several.metrics()["fewclip_queue_images"] == 0)


def test_a_request_on_a_killed_worker_is_told_to_come_again(several: Server, photo: bytes) -> None:
    with in_flight(several, "cold") as answer:
        for worker in psutil.Process(several.process.pid).children():  # either may have it
            worker.kill()
    assert answer.result().status_code == 503
    assert answer.result().json()["error"]["type"] == "busy"
    assert answer.result().headers["Retry-After"] == "1"
    several.wait_ready()
    assert ask(several, photo, "cold").status_code == 200


def test_sigterm_under_load_answers_everything(
    variant: Variant, tmp_path: Path, photo: bytes
) -> None:
    folder = tmp_path / "only"
    variant(folder, 2.0)
    with Server(folder, poll=0.1) as server:
        old = score(server, photo)
        variant(folder, 5.0)  # the only model of a server is replaced in place, too
        eventually(lambda: score(server, photo) < old)
        with Load(server, photo, None, clients=32) as load:
            time.sleep(1.0)
            assert server.stop() == 0
        assert set(load.outcomes) <= {200, "refused"}
        assert load.outcomes[200] > 32
        assert not [event for event in server.events() if event["level"] == "error"]


def test_sigterm_leaves_an_image_that_is_being_decoded_to_its_end(exported: Path) -> None:
    """BentoML sends it to every process below the server, those that decode too."""
    with Server(exported, decode_seconds=60, timeout=60) as server:
        with in_flight(server) as answer:
            assert server.stop() == 0
        assert answer.result().status_code == 200, answer.result().text
