"""What a step costs: seconds, memory of the whole process, share of the matmul rate. Not accuracy.

Run: python -m benchmarks.speed [--shapes ViT-B-16 micro] [--classes 50 1000] [--steps 3]

Each case is a process of its own on one thread, and its seconds are CPU seconds. Weights of shapes
other than micro are random; class names are ImageNet's. `plain` is the tests' second
implementation on the same case: full-length tokens, every class, every row, nothing kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 4
HEADER = (
    "| shape | method | classes | precision | CPU s a step | frozen s an image | GFLOP a step "
    "| share of matmul rate | peak MB |\n|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["micro", "ViT-B-16"])
    parser.add_argument("--methods", nargs="+", default=["skip-tuning", "coop+dept"])
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 50, 100, 1000])
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="the tests' implementation beside it")
    parser.add_argument("--case", help="one case as JSON; prints its figures as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(**json.loads(arguments.case))))
        return
    print(HEADER)
    for shape in arguments.shapes:
        for method in arguments.methods:
            for classes in arguments.classes:
                for precision in [*arguments.precisions, *(["plain"] if arguments.plain else [])]:
                    case = {"shape": shape, "method": method, "classes": classes}
                    print(_row({**case, "precision": precision, "steps": arguments.steps}))


def _row(case: dict[str, Any]) -> str:
    """One process, one line of the table."""
    command = [sys.executable, "-m", "benchmarks.speed", "--case", json.dumps(case)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    f = json.loads(done.stdout.splitlines()[-1])
    rate = f["gflop"] / f["step"] / f["matmul_rate"]
    return (
        f"| {case['shape']} | {case['method']} | {case['classes']} | {case['precision']} "
        f"| {f['step']:.3f} | {f['frozen']:.3f} | {f['gflop']:.1f} | {rate:.2f} | {f['peak']:.0f} |"
    )


def measure(shape: str, method: str, classes: int, precision: str, steps: int) -> dict[str, float]:
    """The figures of one case in this process; the step is the median but for the first."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from fewclip.methods import registry
    from fewclip.training.loop import make_optimizer, train_step
    from fewclip.training.mixed_precision import autocast
    from fewclip.training.optimizer import SGDInBackward

    backbone, names = _backbone(shape), _names(classes)
    tuned = registry.build(
        method,
        backbone,
        registry.make_options(method, {}),
        template="a photo of a {}.",
        phrases=names,
        generator=torch.Generator().manual_seed(0),
    )
    tuned.setup(names)
    size = backbone.preprocess.size
    pixels = torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(BATCH, dtype=torch.int64)
    optimizer = make_optimizer(tuned, torch.optim.SGD if precision == "plain" else SGDInBackward)

    def freeze() -> tuple[torch.Tensor, ...]:
        with torch.no_grad(), autocast(precision, backbone.device):
            return tuned.frozen_inputs(pixels)

    inputs = freeze() if precision != "plain" else ()
    plain = _plain(tuned, method) if precision == "plain" else None

    def step() -> None:
        if plain is None:
            train_step(tuned, optimizer, inputs, labels, precision)
            return
        optimizer.zero_grad()
        plain.loss(pixels, labels, names).backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step()
    return {
        "frozen": min(_seconds(freeze) for _ in range(2)) / BATCH if plain is None else 0.0,
        "step": statistics.median(_seconds(step) for _ in range(steps)),
        "gflop": counter.get_total_flops() / 1e9,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "matmul_rate": _matmul_rate(),
    }


def _seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _matmul_rate() -> float:
    """GFLOP/s of float32 products of a block's size."""
    import torch

    rows, weight = torch.randn(788, 768), torch.randn(3072, 768)
    seconds = min(_seconds(lambda: torch.nn.functional.linear(rows, weight)) for _ in range(10))
    return 2 * 788 * 768 * 3072 / seconds / 1e9


def _backbone(shape: str) -> Any:
    import torch

    from fewclip.backbone import load_backbone

    if shape == "micro":
        return load_backbone("micro")
    from open_clip import get_model_config
    from open_clip.model import CLIP

    from fewclip.backbone.loading import wrap

    torch.manual_seed(0)
    return wrap(CLIP(**get_model_config(shape)), name=shape, preprocess_cfg={})


def _names(count: int) -> list[str]:
    """ImageNet's names, spread evenly; beyond 1000 with a number."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    if count <= 1000:
        return list(IMAGENET_CLASSNAMES[:: 1000 // count][:count])
    return [f"{IMAGENET_CLASSNAMES[i % 1000]} {i // 1000}" for i in range(count)]


def _plain(tuned: Any, method: str) -> Any:
    """The tests' implementation over the same parameters; it knows the prompt methods."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "sdk"))
    plain = importlib.import_module("plain")
    options = {**vars(tuned.options), "dept_weight": getattr(tuned, "dept_weight", None)}
    return plain.Plain(
        method, tuned.backbone.clip, tuned.trained_parameters(), options, "a photo of a {}."
    )


if __name__ == "__main__":
    main()
