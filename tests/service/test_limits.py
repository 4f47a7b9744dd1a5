"""What bounds a request: bytes, pixels, counts, time, room in the queue, and the token."""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from service_parts import LIMITS, encoded, native_client

from benchmarks.service.server import Server
from benchmarks.service.web_process import free_port

pytestmark = pytest.mark.slow

TOKEN = "a-secret-token"
ORIGIN = "https://app.example"
HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"
MULTIPART = {"content-type": "multipart/form-data; boundary=b"}


@pytest.fixture(scope="module")
def strict(exported: Path) -> Iterator[Server]:
    """Little room, little time, a token, one origin."""
    room: dict[str, Any] = {"queue": 2, "max_images": 2, "timeout": 0.7, "max_pixels": 50_000_000}
    with Server(exported, token=TOKEN, cors=ORIGIN, **room) as running:
        yield running


@pytest.fixture(scope="module")
def huge() -> bytes:
    """A small file of 49 megapixels: decoding takes longer than the strict server waits."""
    return encoded(Image.new("RGB", (7000, 7000), "teal"))


def kind(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["type"]


# ---- bytes, pixels, counts -----------------------------------------------------------------


def test_too_many_bytes(client: httpx.Client, plain: Callable[[str], bytes]) -> None:
    image = plain("red") + bytes(LIMITS["max_bytes"])
    response = client.post("/v1/predict", files={"image": image})
    assert kind(response) == (413, "too_large")
    images = [("images", image), ("images", plain("red"))]
    answers = client.post("/v1/predict_batch", files=images).json()
    assert answers[0]["error"]["type"] == "too_large"
    assert "label" in answers[1]


def test_a_chunked_body_is_counted(client: httpx.Client) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield HEAD
        while sent < 200 * LIMITS["max_bytes"]:
            sent += 65536
            yield bytes(65536)

    response = client.post("/v1/predict", content=endless(), headers=MULTIPART)
    assert kind(response) == (413, "too_large")


def test_a_good_chunked_body_is_read(client: httpx.Client, photo: bytes) -> None:
    body = HEAD + photo + TAIL
    pieces = (body[n : n + 7] for n in range(0, len(body), 7))
    assert client.post("/v1/predict", content=pieces, headers=MULTIPART).status_code == 200


def test_an_announced_length_is_refused_unread(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_too_many_pixels(client: httpx.Client) -> None:
    image = encoded(Image.new("L", (1200, 1000)))
    assert kind(client.post("/v1/predict", files={"image": image})) == (413, "too_large")


def test_too_many_images(client: httpx.Client, plain: Callable[[str], bytes]) -> None:
    images = [("images", plain("red"))] * (LIMITS["max_images"] + 1)
    assert kind(client.post("/v1/predict_batch", files=images)) == (413, "too_large")
    assert kind(client.post("/v1/predict_batch", files=images * 10)) == (413, "too_large")


def test_no_address_is_fetched(client: httpx.Client) -> None:
    port, asked = free_port(), []
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(0.2)
        url = f"http://127.0.0.1:{port}/x.png"
        for route in ("/predict", "/v1/predict"):
            for request in (
                {"files": {"image": (None, url)}},
                {"data": {"image": url}},
                {"json": {"image": url}},
                {"json": {"image": {"url": url}}},
                {"content": url.encode(), "headers": {"content-type": "text/plain"}},
                {"files": {"image": (url, url.encode())}},
            ):
                assert 400 <= client.post(route, **request).status_code < 500
        with contextlib.suppress(TimeoutError):
            asked.append(listener.accept())
    assert asked == []


# ---- time and room -------------------------------------------------------------------------


def authorised(server: Server) -> httpx.Client:
    headers = {"authorization": f"Bearer {TOKEN}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60)


def until_answered(client: httpx.Client, image: bytes) -> None:
    """The server is well again: a good request is answered, at the latest after a while."""
    ends = time.monotonic() + 30
    while (status := client.post("/v1/predict", files={"image": image}).status_code) != 200:
        assert status in (503, 504)
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_out_of_time(strict: Server, huge: bytes, photo: bytes) -> None:
    with authorised(strict) as client:
        images = [("images", huge)] * 2
        assert kind(client.post("/v1/predict_batch", files=images)) == (504, "timed_out")
        until_answered(client, photo)


def test_a_full_queue_says_when_to_come_back(strict: Server, huge: bytes, photo: bytes) -> None:
    def ask(_: int) -> httpx.Response:
        with authorised(strict) as client:
            return client.post("/v1/predict", files={"image": huge})

    with ThreadPoolExecutor(12) as pool:
        responses = list(pool.map(ask, range(12)))
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) <= {200, 503, 504}
    assert statuses[503] >= 1
    for response in responses:
        if response.status_code == 503:
            assert kind(response) == (503, "busy")
            assert int(response.headers["retry-after"]) >= 1
    with authorised(strict) as client:
        until_answered(client, photo)


def test_slow_bodies_are_given_up_and_block_nobody(strict: Server, photo: bytes) -> None:
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        f"Authorization: Bearer {TOKEN}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    ).encode()
    slow = [socket.create_connection(("127.0.0.1", strict.port), timeout=30) for _ in range(20)]
    for connection in slow:
        connection.sendall(head + HEAD)
    with authorised(strict) as client:
        until_answered(client, photo)
    for connection in slow:
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
        connection.close()


# ---- token and origins ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("POST", "/v1/predict"),
        ("POST", "/v1/predict_batch"),
        ("POST", "/v1/predict_classes"),
        ("POST", "/predict"),
        ("GET", "/v1/model"),
        ("GET", "/v1/docs"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/schema.json"),
    ],
)
def test_the_token_is_asked_for(strict: Server, method: str, route: str) -> None:
    basic = base64.b64encode(b"me:wrong").decode()
    for value in (None, "", "Bearer", "Bearer wrong", f"bearer {TOKEN}x", TOKEN, f"Basic {basic}",
                  "Basic !!", "Bearer \xff".encode("latin-1")):  # fmt: skip
        headers: Any = {} if value is None else {"authorization": value}
        response = httpx.request(method, strict.url + route, headers=headers, timeout=30)
        assert kind(response) == (401, "unauthorized")
        assert "www-authenticate" in response.headers


def test_the_token_opens(strict: Server, photo: bytes, tmp_path: Path) -> None:
    with authorised(strict) as client:
        until_answered(client, photo)
        assert client.get("/v1/model").status_code == 200
    basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
    headers = {"authorization": f"Basic {basic}"}
    assert httpx.get(f"{strict.url}/v1/docs", headers=headers).status_code == 200
    assert TOKEN not in strict.log()


def test_bentomls_client_with_the_token(strict: Server, photo: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo)
    with authorised(strict) as client:
        until_answered(client, photo)
    assert "label" in native_client(strict.url, [{"image": path}], token=TOKEN)[0]


@pytest.mark.parametrize("route", ["/livez", "/readyz", "/healthz", "/metrics"])
def test_health_and_metrics_are_open(strict: Server, route: str) -> None:
    assert httpx.get(strict.url + route).status_code == 200


def test_origins(strict: Server, client: httpx.Client) -> None:
    asking = {"origin": ORIGIN, "access-control-request-method": "POST"}
    allowed = httpx.options(f"{strict.url}/v1/predict", headers=asking)
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    other = httpx.options(f"{strict.url}/v1/predict", headers=asking | {"origin": "https://evil"})
    assert "access-control-allow-origin" not in other.headers
    off = client.options("/v1/predict", headers=asking)
    assert off.status_code == 405
    assert "access-control-allow-origin" not in off.headers


def test_it_listens_on_loopback_only(server: Server) -> None:
    outside = [
        info[4][0]
        for info in socket.getaddrinfo(socket.gethostname(), server.port, socket.AF_INET)
        if not str(info[4][0]).startswith("127.")
    ]
    if not outside:
        pytest.skip("this machine has loopback alone")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((str(outside[0]), server.port), timeout=5)
