"""The page for programs: the five endpoints of gradio_client, and what the server refuses."""

from __future__ import annotations

import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.page.page_process import Page
from fewclip.artifact import read_card
from fewclip.runtime import OnnxClassifier

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from gradio_client import Client, handle_file

# gradio_client leaves sockets and temporary folders to the garbage collector.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
QUICK = {"method": "dept", "epochs": 1, "shots": 4}


@pytest.fixture
def client(page: Page, tmp_path: Path) -> Iterator[Client]:
    made = Client(page.url, verbose=False, download_files=tmp_path / "downloads")
    yield made
    made.close()


def unzipped(path: str, target: Path) -> Path:
    with zipfile.ZipFile(path) as zipped:
        zipped.extractall(target)
    return next(p.parent for p in target.rglob("card.json"))


def test_the_whole_flow(
    client: Client, digits_zip: Path, photo: Callable[[str], Path], tmp_path: Path
) -> None:
    job = client.submit(handle_file(digits_zip), api_name="/adapt", **QUICK)
    result = job.result()
    assert result["state"] == "done"
    assert result["classes"] == ["one", "zero"]
    assert result["n"] == 12  # 10 of each, 4 to learn from
    assert result["interval"][0] <= result["accuracy"] <= result["interval"][1]
    assert (result["epoch"], result["epochs"]) == (1, 1)
    assert result["loss"] > 0
    assert [update["state"] for update in job.outputs()][-1] == "done"

    red = photo("red")
    said = client.predict(handle_file(red), api_name="/classify")
    assert said["label"] in ("one", "zero")
    assert sum(each["score"] for each in said["top"]) == pytest.approx(1)
    assert isinstance(said["known"], bool)
    assert client.predict("a red square", api_name="/add_class") == ["one", "zero", "a red square"]
    said = client.predict(handle_file(red), api_name="/classify")
    assert "a red square" in [each["label"] for each in said["top"]]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    many = client.predict([handle_file(red), handle_file(broken)], api_name="/classify")
    assert many[0]["label"] == said["label"]
    assert "not an image" in many[1]["error"]

    saved, exported = client.predict("my reds", api_name="/download")
    model = unzipped(saved, tmp_path / "saved")
    onnx = unzipped(exported, tmp_path / "onnx")
    assert (model.name, onnx.name) == ("my-reds", "my-reds-onnx")
    assert read_card(model).classes == ("one", "zero", "a red square")
    served = OnnxClassifier(onnx).predict([red], top_k=3)[0]
    assert served.label == said["label"]
    assert served.score == pytest.approx(said["score"], abs=1e-3)
    assert "fewclip-app" not in (model / "card.json").read_text()  # no path of the server


def test_the_example_is_there_in_one_call(client: Client) -> None:
    classes = client.predict(api_name="/example")["classes"]
    assert len(classes) == 10
    assert set(classes.values()) == {24}


def test_sessions_are_apart(page: Page, client: Client, digits_zip: Path) -> None:
    client.predict(api_name="/example")
    other = Client(page.url, verbose=False)
    with pytest.raises(Exception, match="no images yet"):
        other.predict(api_name="/adapt", **QUICK)
    with pytest.raises(Exception, match="no model in this session"):
        other.predict("zebra", api_name="/add_class")
    other.close()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"method": "maple"}, "not offered"),
        ({"shots": 0}, "from 1 to 1000"),
        ({"epochs": -1}, "from 0 to 1000"),
        ({"backbone": "/etc"}, "not offered by this page"),
        ({"backbone": "ViT-H-14/laion2b_s32b_b79k"}, "not offered by this page"),
    ],
)
def test_a_wrong_choice_is_told_in_words(given: dict[str, Any], match: str, client: Client) -> None:
    client.predict(api_name="/example")
    with pytest.raises(Exception, match=match):
        client.predict(api_name="/adapt", **(QUICK | given))


def test_files_of_the_server_cannot_be_named(page: Page, photo: Callable[[str], Path]) -> None:
    """By hand, for gradio_client would upload its own /etc/passwd."""
    calls = page.get("/config").json()["dependencies"]
    classify = next(call["id"] for call in calls if call["api_name"] == "classify")

    def told(path: str) -> str:
        given = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = {"data": [given, None], "fn_index": classify, "session_hash": "forger"}
        httpx.post(f"{page.url}/gradio_api/queue/join", json=body).raise_for_status()
        return page.get("/gradio_api/queue/data?session_hash=forger").text

    with photo("red").open("rb") as file:
        own = httpx.post(f"{page.url}/gradio_api/upload", files={"files": file}).json()[0]
    assert "no model in this session" in told(own)  # an uploaded file gets as far as the model
    for path in ("/etc/passwd", f"{own}/../../../../etc/passwd", "http://127.0.0.1:1/x.png"):
        answer = told(path)
        assert '"success":false' in answer, path
        assert "no model" not in answer, path


def test_files_outside_are_not_served_and_no_address_is_fetched(page: Page) -> None:
    for path in (
        "/etc/passwd",
        str(Path(__file__)),
        f"{page.temporary}/../../etc/passwd",
        "http://127.0.0.1:1/",
        "https://example.com/",
        "http:/example.com/",
    ):
        assert page.get(f"/gradio_api/file={path}").status_code in (400, 403, 404), path


def test_the_browser_is_told_to_ask_nobody_else(page: Page) -> None:
    answer = page.get("/")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    config = page.get("/config").json()
    assert not config["analytics_enabled"]
    public = {d["api_name"] for d in config["dependencies"] if d["api_visibility"] == "public"}
    assert public == {"example", "adapt", "classify", "add_class", "download"}


def test_a_cancelled_call_frees_its_place(page: Page, client: Client, digits_zip: Path) -> None:
    long = {**QUICK, "epochs": 1000}
    job = client.submit(handle_file(digits_zip), api_name="/adapt", **long)
    while not any(update["epoch"] for update in job.outputs()):
        threading.Event().wait(0.1)
    job.cancel()
    # One training at a time: the next one ends only if the first one has ended.
    other = Client(page.url, verbose=False)
    assert other.predict(handle_file(digits_zip), api_name="/adapt", **QUICK)["state"] == "done"
    other.close()


def test_limits_password_and_a_clean_end(digits_zip: Path, tmp_path: Path) -> None:
    with Page(user="me", password="secret", max_bytes=1000, max_files=5) as page:
        assert page.get("/config").status_code == 401
        assert page.get("/gradio_api/info").status_code == 401
        with pytest.raises(Exception, match=r".*"):
            Client(page.url, verbose=False, auth=("me", "wrong"))
        client = Client(page.url, verbose=False, auth=("me", "secret"))
        with pytest.raises(ValueError, match="maximum"):
            client.predict(handle_file(digits_zip), api_name="/adapt", **QUICK)
        with pytest.raises(Exception, match="no images yet"):
            client.predict(api_name="/adapt", **QUICK)
        client.close()
        assert list(page.temporary.rglob("people/*"))
        assert page.stop() == 0
        assert not list(page.temporary.glob("fewclip-app-*"))
        with pytest.raises(httpx.ConnectError):
            page.get("/")
