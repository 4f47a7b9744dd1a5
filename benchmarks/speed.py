"""What a step costs: seconds, memory of the whole process, share of the matmul rate. Not accuracy.

Run: python -m benchmarks.speed [--shapes ViT-B-16 micro] [--classes 50 1000] [--steps 3]

Each case is a process of its own on one thread, and its seconds are CPU seconds. Weights of shapes
other than micro are random; class names are ImageNet's. `plain` is the tests' second
implementation on the same case: full-length tokens, every class, every row, nothing kept.

The limit is what the step's own matrix products and attentions take when nothing else is done:
each shape is timed alone, right next to the steps, so that other load on the machine slows both.
An epoch is 16 JPEGs of 500 x 375 a class, each decoded, cropped, passed through the frozen part and
trained on once; it is the sum of those four, not run. `gda` has no steps: it encodes each image in
five views and fits.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import importlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

BATCH = 4
SHOTS = 16
HEADER = (
    "| shape | method | classes | precision | CPU s a step | step / limit | GFLOP a step "
    "| GFLOP/s | frozen s an image | CPU s an epoch | peak MB |\n|" + "---|" * 11
)
PRODUCTS = (
    "mm",
    "addmm",
    "bmm",
    "convolution",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["micro", "ViT-B-16"])
    parser.add_argument("--methods", nargs="+", default=["skip-tuning", "coop+dept", "gda"])
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 50, 100, 1000])
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="the tests' implementation beside it")
    parser.add_argument("--case", help="one case as JSON; prints its figures as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(**json.loads(arguments.case))))
        return
    print(HEADER, flush=True)
    for shape in arguments.shapes:
        for method in arguments.methods:
            for classes in arguments.classes:
                plain = arguments.plain and method == "coop+dept"
                for precision in [*arguments.precisions, *(["plain"] if plain else [])]:
                    case = {"shape": shape, "method": method, "classes": classes}
                    print(
                        _row({**case, "precision": precision, "steps": arguments.steps}), flush=True
                    )


def _row(case: dict[str, Any]) -> str:
    """One process, one line of the table."""
    command = [sys.executable, "-m", "benchmarks.speed", "--case", json.dumps(case)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    f = json.loads(done.stdout.splitlines()[-1])
    named = f"| {case['shape']} | {case['method']} | {case['classes']} | {case['precision']} "
    if "step" not in f:
        step = "| - | - | - | - "
    else:
        rate = f["gflop"] / f["step"]
        step = f"| {f['step']:.3f} | {f['share']:.2f} | {f['gflop']:.1f} | {rate:.0f} "
    return f"{named}{step}| {f['frozen']:.3f} | {f['epoch']:.0f} | {f['peak']:.0f} |"


def measure(shape: str, method: str, classes: int, precision: str, steps: int) -> dict[str, float]:
    """The figures of one case in this process; the step is the median without the first two."""
    import torch

    from fewclip.methods import registry
    from fewclip.system.allocator import return_large_blocks
    from fewclip.training.mixed_precision import autocast

    return_large_blocks()
    backbone, names = _backbone(shape), _names(classes)
    tuned = registry.build(
        method,
        backbone,
        registry.make_options(method, {}),
        template="a photo of a {}.",
        phrases=names,
        generator=torch.Generator().manual_seed(0),
    )
    size = backbone.preprocess.size
    pixels = torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(1))
    images = SHOTS * classes
    reading = _reading(backbone.preprocess)
    if not tuned.trains:
        passed = _gda_pass(tuned, pixels)
        views = 1 + tuned.options.views
        epoch = images * (reading + views * passed) + _seconds(lambda: _gda_fit(tuned, classes))
        return {"frozen": passed, "epoch": epoch, "peak": _peak()}
    tuned.setup(names)

    def freeze() -> tuple[torch.Tensor, ...]:
        with torch.no_grad(), autocast(precision, backbone.device):
            return tuned.frozen_inputs(pixels)

    plain = precision == "plain"
    frozen = 0.0 if plain else min(_seconds(freeze) for _ in range(3)) / BATCH
    found = _steps(tuned, pixels if plain else freeze(), names, method, precision, steps)
    epoch = images * (reading + frozen + found["step"] / BATCH)
    return {**found, "frozen": frozen, "epoch": epoch}


def _steps(
    tuned: Any, inputs: Any, names: list[str], method: str, precision: str, steps: int
) -> dict[str, float]:
    """Seconds and GFLOP of a step, its seconds divided by the limit's, and the peak until then."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from fewclip.training.loop import make_optimizer, train_step
    from fewclip.training.mixed_precision import frozen_text_in_bf16
    from fewclip.training.optimizer import SGDInBackward

    labels = torch.zeros(BATCH, dtype=torch.int64)
    optimizer = make_optimizer(tuned, torch.optim.SGD if precision == "plain" else SGDInBackward)
    plain = _plain(tuned, method) if precision == "plain" else None

    def step() -> None:
        if plain is None:
            train_step(tuned, optimizer, inputs, labels, precision)
            return
        optimizer.zero_grad()
        plain.loss(inputs, labels, names).backward()
        optimizer.step()

    with frozen_text_in_bf16(tuned.backbone, precision):
        step()
        peak = _peak()
        with FlopCounterMode(display=False) as counter, _product_shapes() as shapes:
            step()
        limits, seconds = [], []
        for _ in range(steps):
            limits.append(_limit(shapes))
            seconds.append(_seconds(step))
    return {
        "step": statistics.median(seconds),
        "share": statistics.median(s / limit for s, limit in zip(seconds, limits, strict=True)),
        "gflop": counter.get_total_flops() / 1e9,
        "peak": peak,
    }


@contextlib.contextmanager
def _product_shapes() -> Iterator[collections.Counter[Any]]:
    """Count each product that runs inside: operator and arguments, tensors by shape and strides."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    found: collections.Counter[Any] = collections.Counter()

    def described(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return _Described(tuple(value.shape), value.stride(), value.dtype)
        return tuple(value) if isinstance(value, list) else value

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if func.__name__.split(".")[0] in PRODUCTS:
                named = tuple((name, described(value)) for name, value in kwargs.items())
                found[func, tuple(map(described, args)), named] += 1
            return func(*args, **kwargs)

    with Recorder():  # type: ignore[no-untyped-call]
        yield found


class _Described(NamedTuple):
    """A tensor without its values."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any

    def tensor(self) -> Any:
        import torch

        reach = (stride * (n - 1) for n, stride in zip(self.shape, self.strides, strict=True))
        numbers = torch.randn(1 + sum(reach)).to(self.dtype)
        return numbers.as_strided(self.shape, self.strides)


def _limit(shapes: collections.Counter[Any]) -> float:
    """Seconds of these products alone, each shape at the best of three runs."""

    def made(value: Any) -> Any:
        return value.tensor() if isinstance(value, _Described) else value

    total = 0.0
    for (func, args, kwargs), count in shapes.items():
        inputs, named = [made(a) for a in args], {name: made(value) for name, value in kwargs}
        call = functools.partial(func, *inputs, **named)
        total += count * min(_seconds(call) for _ in range(3))
    return total


def _gda_pass(tuned: Any, pixels: Any) -> float:
    """Seconds per image."""
    import torch

    with torch.inference_mode():
        return min(_seconds(lambda: tuned.features_and_intermediate(pixels)) for _ in range(3)) / 4


def _gda_fit(tuned: Any, classes: int) -> None:
    """Fit on random features: the arithmetic does not depend on their values."""
    import numpy as np

    from fewclip.heads import SampleBuilder

    rng, backbone, views = np.random.default_rng(0), tuned.backbone, tuned.options.views
    builder = SampleBuilder(np.repeat(np.arange(classes), SHOTS))
    for _ in range(classes):
        shape = (SHOTS, 1 + views)
        builder.add(
            rng.standard_normal((*shape, backbone.embed_dim), np.float32),
            rng.standard_normal((*shape, 5 * backbone.intermediate_width), np.float32),
            rng.standard_normal((SHOTS, classes), np.float32),
        )
    tuned.fit(builder.sample(), 0)


def _reading(preprocess: Any) -> float:
    """Seconds to decode and crop one JPEG file of 500 x 375."""
    import numpy as np
    from PIL import Image

    from fewclip.preprocess import augment, load_image, reduce_for_training

    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    file = io.BytesIO()
    small.resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)

    def read() -> None:
        pixels = reduce_for_training(load_image(file.getvalue()), preprocess)
        augment(pixels, preprocess, rng)

    return min(_seconds(read) for _ in range(5))


def _peak() -> float:
    """MB of the whole process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


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
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
    plain = importlib.import_module("plain")
    options = {**vars(tuned.options), "dept_weight": getattr(tuned, "dept_weight", None)}
    return plain.Plain(
        method, tuned.backbone.clip, tuned.trained_parameters(), options, "a photo of a {}."
    )


if __name__ == "__main__":
    main()
