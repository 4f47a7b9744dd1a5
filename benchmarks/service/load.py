"""How much of the bare runtime's speed is left over HTTP, and how long a client waits.

    python -m benchmarks.service.load MICRO [--b32 FOLDER] [--seconds 10]
        [--out benchmarks/results/load.md]

MICRO is an exported folder. FOLDER is an export of ViT-B/32 with random weights; it is made there
when it is missing (minutes).

Everything in one table is measured in one run, in repeated turns, so that other load on the machine
affects all of it: the bare runtime (JPEG bytes to predictions, decoding included, batches of 32);
the service at 1, 8 and 32 clients, which are threads of another process; and /livez, a route that
does nothing. CPU is what the runtime's or the worker's process uses.
"""

from __future__ import annotations

import argparse
import dataclasses
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

from benchmarks.service.server import Server
from fewclip.runtime import OnnxClassifier

CLIENTS = (1, 8, 32)
BOUNDARY = "frontier"


def photos(count: int, size: tuple[int, int] = (500, 375)) -> list[bytes]:
    """JPEGs, of 500 x 375 about 50 KB each: clouds of noise, as hard to decode as a photo."""
    rng = np.random.default_rng(0)
    cells = (-(-size[1] // 4), size[0] // 4, 3)
    made = []
    for _ in range(count):
        noise = Image.fromarray(rng.integers(0, 255, cells, np.uint8))
        file = io.BytesIO()
        noise.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        made.append(file.getvalue())
    return made


@dataclasses.dataclass
class Sum:
    """The totals over the turns of one row."""

    seconds: float = 0.0
    cpu: float = 0.0
    images: float = 0.0
    batches: float = 0.0
    latencies: list[float] = dataclasses.field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests, or images, per second."""
        return (len(self.latencies) or self.images) / self.seconds


def bare(classifier: OnnxClassifier, images: list[bytes], seconds: float, into: Sum) -> None:
    """The runtime alone, batches of 32, decoded in its own threads."""
    began, cpu = time.perf_counter(), time.process_time()
    while (spent := time.perf_counter() - began) < seconds:
        classifier.predict(images)
        into.images += len(images)
        into.batches += len(images) / 32
    into.seconds += spent
    into.cpu += time.process_time() - cpu


# ---- the clients: `python -m benchmarks.service.load --client` in a process of their own ---------


def clients(port: int, count: int, seconds: float, path: str) -> tuple[float, list[float]]:
    """Send requests as fast as answers come, over `count` connections: seconds, latencies."""
    bodies = [_body(image) for image in photos(32)]
    latencies: list[float] = []
    start = time.perf_counter()
    ends = start + seconds

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
    return time.perf_counter() - start, latencies


def _body(image: bytes) -> bytes:
    head = 'Content-Disposition: form-data; name="image"; filename="x.jpg"'
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def measure(server: Server, count: int, seconds: float, path: str, into: Sum) -> None:
    """One turn with `count` clients."""
    words = [str(server.port), str(count), str(seconds), path]
    metrics, cpu = server.metrics(), _cpu(server)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.service.load", "--client", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    spent, latencies = json.loads(done.stdout)
    into.seconds += spent
    into.latencies += latencies
    into.cpu += _cpu(server) - cpu
    after = server.metrics()
    into.images += after["fewclip_batch_images_sum"] - metrics.get("fewclip_batch_images_sum", 0)
    into.batches += after["fewclip_batch_images_count"] - metrics.get(
        "fewclip_batch_images_count", 0
    )


def _cpu(server: Server) -> float:
    times = [worker.cpu_times() for worker in server.workers()]
    return sum(float(t.user + t.system) for t in times)


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


def table(name: str, folder: Path, seconds: float, turns: int) -> list[str]:
    """One model's rows."""
    classifier = OnnxClassifier(folder)
    images = photos(64)
    alone = Sum()
    rows = {(count, path): Sum() for path in ("/v1/predict", "/livez") for count in CLIENTS}
    with Server(folder, queue=256, timeout=120) as server:
        bare(classifier, images[:8], 0.1, Sum())
        measure(server, 8, 3.0, "/v1/predict", Sum())  # the batching adapts to the pace
        for _ in range(turns):
            for (count, path), row in rows.items():
                if path == "/v1/predict":
                    bare(classifier, images, seconds / turns, alone)
                    measure(server, count, seconds / turns, path, row)
                else:
                    measure(server, count, min(2.0, seconds / turns), path, row)
    lines = [
        f"| {name} | per s | of bare | p50 ms | p95 ms | p99 ms | images a batch | CPU ms each |",
        "|---|---|---|---|---|---|---|---|",
        f"| bare runtime | {alone.rate:.1f} | | | | | 32 | {1000 * alone.cpu / alone.images:.1f} |",
    ]
    for (count, path), row in rows.items():
        times = " | ".join(f"{t * 1000:.1f}" for t in np.percentile(row.latencies, [50, 95, 99]))
        share = batch = ""
        if row.batches:
            share = f"{100 * row.rate / alone.rate:.0f} %"
            batch = f"{row.images / row.batches:.1f}"
        each = 1000 * row.cpu / len(row.latencies)
        label = f"{path}, {count} " + ("client" if count == 1 else "clients")
        lines.append(f"| {label} | {row.rate:.1f} | {share} | {times} | {batch} | {each:.1f} |")
    return [*lines, ""]


def main() -> int:
    """Print the tables."""
    if sys.argv[1:2] == ["--client"]:
        port, count, seconds, path = sys.argv[2:]
        print(json.dumps(clients(int(port), int(count), float(seconds), path)))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("micro", type=Path)
    parser.add_argument("--b32", type=Path)
    parser.add_argument("--seconds", type=float, default=12.0, help="for each row")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    models: dict[str, Any] = {"micro": arguments.micro}
    if arguments.b32:
        models["ViT-B/32, random weights"] = arguments.b32
        if not arguments.b32.exists():
            make_b32(arguments.b32)
    command = "`python -m benchmarks.service.load MICRO --b32 FOLDER`"
    lines = ["# The service beside the bare runtime", "", command, ""]
    lines += [__doc__.split("\n\n")[-1].strip().replace("\n", " ") if __doc__ else "", ""]
    for name, folder in models.items():
        lines += table(name, folder, arguments.seconds, arguments.turns)
    text = "\n".join(lines)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
