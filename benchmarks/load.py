"""How much of the bare runtime's speed is left over HTTP, and how long a client waits.

    python -m benchmarks.load MICRO [--b32 FOLDER] [--seconds 10] [--out benchmarks/results/load.md]

MICRO is an exported folder. FOLDER is an export of ViT-B/32 with random weights; it is made there
when it is missing (minutes). Everything of one table is measured in one run: the bare runtime
(JPEG bytes to predictions, decoding included) before, between and after the service; the service
at 1, 8 and 32 clients, which are threads of another process; and /livez, a route that does nothing.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.server import Server
from fewclip.runtime import OnnxClassifier

CLIENTS = (1, 8, 32)
BOUNDARY = "frontier"


def photos(count: int) -> list[bytes]:
    """JPEGs of 500 x 375, about 50 KB each: clouds of noise, as hard to decode as a photo."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        noise = Image.fromarray(rng.integers(0, 255, (94, 125, 3), np.uint8))
        file = io.BytesIO()
        noise.resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        made.append(file.getvalue())
    return made


def bare(classifier: OnnxClassifier, images: list[bytes], seconds: float) -> float:
    """Images per second of the runtime alone, batches of 32, decoded in its own threads."""
    classifier.predict(images[:8])
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        done += len(classifier.predict(images))
    return done / spent


# ---- the clients: `python -m benchmarks.load --client` in a process of their own -----------------


def clients(port: int, count: int, seconds: float, path: str) -> list[float]:
    """Ask as fast as answers come, over `count` kept connections; the latencies in seconds."""
    bodies = [_body(image) for image in photos(32)]
    latencies: list[float] = []
    ends = time.perf_counter() + seconds

    def run(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        turn = first
        while (began := time.perf_counter()) < ends:
            if path == "/livez":
                connection.request("GET", path)
            else:
                connection.request("POST", path, bodies[turn % len(bodies)], kind)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            latencies.append(time.perf_counter() - began)
            turn += 1

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies


def _body(image: bytes) -> bytes:
    head = 'Content-Disposition: form-data; name="image"; filename="x.jpg"'
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def measure(server: Server, count: int, seconds: float, path: str) -> dict[str, float]:
    """Requests per second, percentiles in ms, and images per batch."""
    words = [str(server.port), str(count), str(seconds), path]
    before = server.metrics()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", "--client", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    after = server.metrics()
    latencies = np.array(json.loads(done.stdout))
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]) * 1000
    images, batches = (
        after[name] - before.get(name, 0.0)
        for name in ("fewclip_batch_images_sum", "fewclip_batch_images_count")
    )
    rate = len(latencies) / seconds
    batch = images / batches if batches else 0.0
    return {"rate": rate, "p50": p50, "p95": p95, "p99": p99, "batch": batch}


# ---- the models ------------------------------------------------------------------------------


def make_b32(target: Path) -> None:
    """Export ViT-B/32 with random weights through the product's own gate."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    import fewclip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32")
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {}}
    with tempfile.TemporaryDirectory() as folder:
        save_file(
            {k: v.contiguous() for k, v in model.state_dict().items()},
            str(Path(folder) / "open_clip_model.safetensors"),
        )
        (Path(folder) / "open_clip_config.json").write_text(json.dumps(config))
        names = [f"thing {n}" for n in range(20)]
        fewclip.zero_shot(names, backbone=folder).export_onnx(target)


def table(name: str, folder: Path, seconds: float) -> list[str]:
    """One model's rows, ratios to the bare runtime."""
    classifier = OnnxClassifier(folder)
    images = photos(64)
    rows, speeds = [], [bare(classifier, images, seconds)]
    with Server(folder, queue=256) as server:
        measure(server, 8, 2.0, "/v1/predict")  # the batching learns its pace
        for count in CLIENTS:
            found = measure(server, count, seconds, "/v1/predict")
            speeds.append(bare(classifier, images, seconds))
            rows.append((f"service, {count} clients", found, sum(speeds[-2:]) / 2))
        idle = [(count, measure(server, count, seconds, "/livez")) for count in CLIENTS]
    mean = sum(speeds) / len(speeds)
    spread = f"{min(speeds):.1f} to {max(speeds):.1f}"
    lines = [
        f"| {name} | | images/s | of bare | p50 ms | p95 ms | p99 ms | images per batch |",
        "|---|---|---|---|---|---|---|---|",
        f"| | bare runtime ({spread}) | {mean:.1f} | 100 % | | | | 32 |",
    ]
    for label, found, beside in rows:
        share = f"{100 * found['rate'] / beside:.0f} %"
        lines.append(_row(label, found, share, f"{found['batch']:.1f}"))
    lines += [_row(f"/livez, {count} clients", found, "", "") for count, found in idle]
    return [*lines, ""]


def _row(label: str, found: dict[str, float], share: str, batch: str) -> str:
    times = " | ".join(f"{found[name]:.1f}" for name in ("p50", "p95", "p99"))
    return f"| | {label} | {found['rate']:.1f} | {share} | {times} | {batch} |"


def main() -> int:
    """Print the tables."""
    if sys.argv[1:2] == ["--client"]:
        port, count, seconds, path = sys.argv[2:]
        print(json.dumps(clients(int(port), int(count), float(seconds), path)))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("micro", type=Path)
    parser.add_argument("--b32", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    models: dict[str, Any] = {"micro": arguments.micro}
    if arguments.b32:
        models["ViT-B/32, random weights"] = arguments.b32
        if not arguments.b32.exists():
            make_b32(arguments.b32)
    lines = ["# The service beside the bare runtime", ""]
    lines += [__doc__.split("\n\n")[-1].strip().replace("\n", " ") if __doc__ else "", ""]
    for name, folder in models.items():
        lines += table(name, folder, arguments.seconds)
    text = "\n".join(lines)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
