"""Progress of a long job on a terminal, or line by line in a log. Always on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable

from fewclip.training.loop import Progress


def to_stderr() -> Callable[[Progress], None]:
    """A callback for `train`: a live bar on a terminal, else one line per epoch."""
    return _bar() if sys.stderr.isatty() else _lines


def stage_to_stderr(stage: str) -> None:
    """One line for the stage that begins, lest a large backbone's first minute be silent."""
    print(f"{stage} ...", file=sys.stderr, flush=True)


def quiet_stage(stage: str) -> None:
    """Report nothing."""


def _lines(at: Progress) -> None:
    if at.step == at.steps:
        print(
            f"epoch {at.epoch}/{at.epochs}  loss {at.loss:.4f}  "
            f"{at.images_per_second:.1f} images/s  {_clock(at.seconds_left)} left",
            file=sys.stderr,
            flush=True,
        )


def _bar() -> Callable[[Progress], None]:
    from tqdm import tqdm

    bar: tqdm | None = None

    def show(at: Progress) -> None:
        nonlocal bar
        total = at.epochs * at.steps
        if bar is None:
            done = (at.epoch - 1) * at.steps + at.step - 1
            bar = tqdm(total=total, initial=done, unit="step", file=sys.stderr, leave=True)
        bar.set_description(f"epoch {at.epoch}/{at.epochs}", refresh=False)
        bar.set_postfix_str(
            f"loss {at.loss:.4f}, {at.images_per_second:.1f} images/s", refresh=False
        )
        bar.update()
        if bar.n >= total:
            bar.close()

    return show


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
