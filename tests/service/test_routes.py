"""Every route of the service, over HTTP: what goes in, what comes out, what is refused how."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_parts import native_client

from benchmarks.service.server import Server
from fewclip.runtime import OnnxClassifier

pytestmark = pytest.mark.slow

ANSWER = {"label", "score", "known", "top", "model", "ms"}


def error(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"type", "message"}
    assert "Traceback" not in response.text
    return response.status_code, body["error"]["type"]


def files(*images: bytes) -> list[tuple[str, bytes]]:
    return [("images", image) for image in images]


# ---- answers -------------------------------------------------------------------------------


def test_predict_answers_as_the_runtime_does(
    client: httpx.Client, exported: Path, photo: bytes
) -> None:
    body = client.post("/v1/predict", files={"image": photo}).json()
    expected = OnnxClassifier(exported).predict(photo)[0].to_dict()
    assert set(body) == ANSWER
    assert body["model"] == exported.name
    assert body["ms"] > 0
    assert body["label"] == expected["label"]
    assert body["known"] == expected["known"]
    assert [e["label"] for e in body["top"]] == [e["label"] for e in expected["top"]]
    assert [e["score"] for e in body["top"]] == pytest.approx(
        [e["score"] for e in expected["top"]], abs=1e-5
    )


@pytest.mark.parametrize("top_k", [1, 2, 999])
def test_top_k(client: httpx.Client, photo: bytes, top_k: int) -> None:
    body = client.post("/v1/predict", files={"image": photo}, data={"top_k": str(top_k)}).json()
    assert len(body["top"]) == min(top_k, 3)
    assert body["top"][0] == {"label": body["label"], "score": body["score"]}


def test_ways_to_send_the_same(client: httpx.Client, exported: Path, photo: bytes) -> None:
    """The bare image or a form; what else is asked for in the form or in the query."""
    form = {"files": {"image": photo}}
    bare = {"content": photo, "headers": {"content-type": "image/jpeg"}}
    asked = {"top_k": "2", "model": exported.name}
    answers = [
        client.post("/v1/predict", **form, data=asked),  # type: ignore[arg-type]
        client.post("/v1/predict", **form, params=asked),  # type: ignore[arg-type]
        client.post("/v1/predict", **bare, params=asked),  # type: ignore[arg-type]
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    bodies = [answer.json() | {"ms": 0} for answer in answers]
    assert bodies[0] == bodies[1] == bodies[2]
    assert len(bodies[0]["top"]) == 2


def test_a_file_of_another_name_is_told_which_one(client: httpx.Client, photo: bytes) -> None:
    for route, name in (("predict", "'image'"), ("predict_batch", "'images'")):
        answer = client.post(f"/v1/{route}", files={"file": photo})
        assert error(answer) == (422, "bad_field")
        assert name in answer.json()["error"]["message"]


def test_predict_batch_keeps_the_order_and_refuses_items_alone(
    client: httpx.Client, photo: bytes, plain: Callable[[str], bytes]
) -> None:
    images = [plain("red"), b"not an image", plain("blue"), photo, b""]
    body = client.post("/v1/predict_batch", files=files(*images)).json()
    assert [set(item) for item in body] == [ANSWER, {"error"}, ANSWER, ANSWER, {"error"}]
    assert body[1]["error"]["type"] == body[4]["error"]["type"] == "not_an_image"
    singles = [
        client.post("/v1/predict", files={"image": image}).json()["score"]
        for image in (images[0], images[2], images[3])
    ]
    assert [body[i]["score"] for i in (0, 2, 3)] == pytest.approx(singles, abs=1e-5)


def test_predict_classes(client: httpx.Client, exported: Path, photo: bytes) -> None:
    names = ["a zebra", "ein Löwe", "red"]
    body = client.post(
        "/v1/predict_classes", files={"image": photo}, data={"classes": json.dumps(names)}
    ).json()
    expected = OnnxClassifier(exported).with_classes(names).predict(photo)[0]
    assert body["label"] == expected.label
    assert body["score"] == pytest.approx(expected.score, abs=1e-5)
    assert {entry["label"] for entry in body["top"]} == set(names)


def test_models_are_listed(client: httpx.Client, exported: Path) -> None:
    version = client.get("/v1/model").json()["version"]
    listed = client.get("/v1/models").json()
    assert listed == {"models": [{"name": exported.name, "version": version}]}
    assert error(client.get("/v1/models", params={"model": "x"})) == (422, "bad_field")


def test_model_tells_the_card(client: httpx.Client, exported: Path) -> None:
    body = client.get("/v1/model").json()
    classifier = OnnxClassifier(exported)
    assert body["name"] == exported.name
    assert body["classes"] == list(classifier.classes)
    assert body["method"] == "zero-shot"
    assert body["precision"] == "fp32"
    assert body["provider"] == classifier.provider
    assert re.fullmatch("[0-9a-f]{12}", body["version"])
    assert body["error"] is None
    assert client.get("/v1/model", params={"model": exported.name}).json() == body


def test_bentoml_client(server: Server, exported: Path, photo: bytes, tmp_path: Path) -> None:
    path, broken = tmp_path / "photo.jpg", tmp_path / "broken.jpg"
    path.write_bytes(photo)
    broken.write_bytes(b"no photo")
    asked: list[dict[str, Any]] = [
        {"image": path},
        {"image": path, "top_k": 2},
        {"image": path, "model": exported.name},
        {"image": path, "model": "another"},
        {"image": broken},
        {"image": "http://127.0.0.1:1/x.png"},
    ]
    answers = native_client(server.url, asked)
    assert [set(answer) for answer in answers[:3]] == [ANSWER] * 3
    assert len(answers[1]["top"]) == 2
    assert answers[3:5] == [404, 400]
    assert 400 <= answers[5] < 500


@pytest.mark.parametrize("route", ["/livez", "/readyz", "/healthz", "/metrics", "/schema.json"])
def test_bentomls_own_routes(client: httpx.Client, route: str) -> None:
    assert client.get(route).status_code == 200


# ---- refusals ------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no image": ({"files": {"image": b"GIF89a nonsense"}}, 400, "not_an_image"),
    "no bytes": ({"files": {"image": b""}}, 400, "not_an_image"),
    "JSON": ({"json": {"image": "x"}}, 415, "unsupported_media_type"),
    "bare": ({"content": b"x", "headers": {"content-type": "image/png"}}, 400, "not_an_image"),
    "bare, no type": ({"content": b"x"}, 415, "unsupported_media_type"),
    "bare, curl's type": (
        {"content": b"x", "headers": {"content-type": "application/x-www-form-urlencoded"}},
        415,
        "unsupported_media_type",
    ),
    "query and form": (
        {"files": {"image": b"x", "top_k": (None, "1")}, "params": {"top_k": 1}},
        422,
        "bad_field",
    ),
    "unknown query": ({"files": {"image": b"x"}, "params": {"topk": 1}}, 422, "bad_field"),
    "query twice": ({"files": {"image": b"x"}, "params": {"top_k": [1, 1]}}, 422, "bad_field"),
    "query top_k 0": ({"files": {"image": b"x"}, "params": {"top_k": 0}}, 422, "bad_field"),
    "no body": ({}, 415, ""),
    "form": ({"data": {"image": "x"}}, 415, ""),
    "text for a file": ({"files": {"image": (None, "http://127.0.0.1:1/x")}}, 422, "bad_field"),
    "no field": ({"files": {"other": b"x"}}, 422, "bad_field"),
    "two images": ({"files": [("image", b"x"), ("image", b"y")]}, 422, "bad_field"),
    "top_k 0": ({"files": {"image": b"x", "top_k": (None, "0")}}, 422, "bad_field"),
    "top_k text": ({"files": {"image": b"x", "top_k": (None, "many")}}, 422, "bad_field"),
    "top_k file": ({"files": {"image": b"x", "top_k": b"3"}}, 422, "bad_field"),
    "unknown field": ({"files": {"image": b"x", "topk": (None, "3")}}, 422, "bad_field"),
    "doubled field": (
        {"files": [("image", b"x"), ("top_k", (None, "1")), ("top_k", (None, "2"))]},
        422,
        "bad_field",
    ),
    "unknown model": ({"files": {"image": b"x"}, "params": {"model": "no"}}, 404, "unknown_model"),
    "long model": ({"files": {"image": b"x"}, "params": {"model": "n" * 300}}, 422, "bad_field"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("route", ["/v1/predict", "/predict"])
def test_refusals(client: httpx.Client, route: str, case: str) -> None:
    request, status, kind = BAD[case]
    response = client.post(route, **request)
    assert error(response)[0] == status
    assert kind in error(response)[1]


@pytest.mark.parametrize(
    "classes",
    [
        "",
        "cat",
        "{}",
        "[]",
        "[1]",
        '["cat", "cat"]',
        '["  "]',
        '["\\ud800"]',
        json.dumps(["word " * 200]),
        "[" * 100_000,
        json.dumps([str(n) for n in range(21)]),
    ],
)
def test_bad_classes(client: httpx.Client, photo: bytes, classes: str) -> None:
    response = client.post("/v1/predict_classes", files={"image": photo}, data={"classes": classes})
    assert error(response) == (422, "bad_field")


def test_broken_multipart(client: httpx.Client, photo: bytes) -> None:
    kind = "multipart/form-data; boundary=b"
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    for body in (b"", b"--", b"--b--\r\n", head, head + photo, b"--c\r\n" + head, b"\xff" * 99):
        response = client.post("/v1/predict", content=body, headers={"content-type": kind})
        assert error(response)[0] in (400, 422)
    no_boundary = {"content-type": "multipart/form-data"}
    response = client.post("/v1/predict", content=head, headers=no_boundary)
    assert error(response) == (400, "bad_request")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/predict", 405),
        ("GET", "/predict", 405),
        ("POST", "/v1/model", 405),
        ("DELETE", "/v1/predict_batch", 405),
        ("POST", "/infer", 404),  # what BentoML batches is no route
        ("GET", "/docs.json", 404),
        ("GET", "/static_content/swagger-ui.css", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/ui/", 404),
        ("GET", "/v1/../../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
    ],
)
def test_no_such_route(client: httpx.Client, method: str, path: str, status: int) -> None:
    assert error(client.request(method, path))[0] == status


# ---- pages, ids, logs, metrics ----------------------------------------------------------------


def test_the_pages_need_nobody_else(client: httpx.Client) -> None:
    assert client.get("/").headers["location"] == "/v1/docs"
    page = client.get("/v1/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    own = str(client.base_url).rstrip("/")
    assert not re.search(r"https?://|src=|@import", page.text.replace(own, ""))
    for route in ("/v1/predict", "/v1/predict_batch", "/v1/predict_classes", "/v1/model"):
        assert route in page.text


def test_openapi_names_every_route(client: httpx.Client) -> None:
    document = client.get("/v1/openapi.json").json()
    assert set(document["paths"]) == {
        "/predict", "/predict_batch", "/predict_classes", "/models", "/model",
    }  # fmt: skip
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert body["schema"]["required"] == ["image"]


def test_request_ids(server: Server, client: httpx.Client, photo: bytes) -> None:
    made = client.get("/v1/model").headers["x-request-id"]
    kept = client.get("/v1/model", headers={"x-request-id": "my-id.1"}).headers["x-request-id"]
    forged = client.get("/v1/model", headers={"x-request-id": 'a"b {}'}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert kept == "my-id.1"
    assert re.fullmatch("[0-9a-f]{32}", forged)
    for request_id in (made, kept, forged):
        assert server.event(request_id)["path"] == "/v1/model"


def test_logs_are_json_and_say_what_happened(server: Server, client: httpx.Client) -> None:
    request_id = client.post("/v1/predict", files={"image": b"x"}).headers["x-request-id"]
    event = server.event(request_id)
    assert event["event"] == "request"
    assert event["path"] == "/v1/predict"
    assert event["status"] == 400
    assert event["outcome"] == "not_an_image"
    assert event["ms"] >= 0
    assert all(line.startswith("{") for line in server.log().splitlines())


def test_metrics(server: Server, client: httpx.Client, exported: Path, photo: bytes) -> None:
    ok = 'fewclip_requests_total{outcome="ok",route="/v1/predict"}'
    bad = 'fewclip_requests_total{outcome="not_an_image",route="/v1/predict"}'
    before = server.metrics()
    for image in (photo, b"x"):  # counted when the log line is written
        response = client.post("/v1/predict", files={"image": image})
        server.event(response.headers["x-request-id"])
    after = server.metrics()
    assert after[ok] - before.get(ok, 0) == 1
    assert after[bad] - before.get(bad, 0) == 1
    for name in ("decode", "inference"):
        assert after[f"fewclip_{name}_seconds_count"] > before.get(
            f"fewclip_{name}_seconds_count", 0
        )
    assert after["fewclip_queue_images"] == 0
    version = client.get("/v1/model").json()["version"]
    info = next(name for name in after if name.startswith("fewclip_model_info"))
    assert f'version="{version}"' in info
    assert f'provider="{OnnxClassifier(exported).provider}"' in info
    assert after[info] == 1


def test_batching_is_at_work(server: Server, client: httpx.Client, photo: bytes) -> None:
    before = server.metrics()
    client.post("/v1/predict_batch", files=files(*[photo] * 8))
    after = server.metrics()
    images = after["fewclip_batch_images_sum"] - before.get("fewclip_batch_images_sum", 0)
    batches = after["fewclip_batch_images_count"] - before.get("fewclip_batch_images_count", 0)
    assert images == 8
    assert batches < 8


def test_a_coverage_that_the_model_cannot_promise_is_refused(
    client: httpx.Client, photo: bytes
) -> None:
    for coverage in ("0.9", "90", "x", "1.0"):
        response = client.post("/v1/predict", files={"image": photo}, data={"coverage": coverage})
        assert error(response) == (422, "bad_field")
        assert "coverage" in response.json()["error"]["message"]
