"""Who hears of a run, and how: a bar on a terminal, or line by line in a log. Always on stderr."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

from fewclip.system.reporting import ReportProgress, report_nothing
from fewclip.training.loop import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Callbacks:
    """What a run calls while it works.

    Attributes:
        progress: after every step of a training.
        stop: before every step; True ends the run with StoppedError.
        report_progress: with a few words before each part that may take long.
    """

    progress: Callable[[Progress], None] | None = None
    stop: Callable[[], bool] | None = None
    report_progress: ReportProgress = report_nothing


SILENT = Callbacks()


# tqdm's own estimate of the time left is that of one training.
_BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


def to_stderr() -> Callable[[Progress], None]:
    """A callback for `train`: a live bar on a terminal, else one line per epoch."""
    return _bar() if sys.stderr.isatty() else _lines


def report_to_stderr(line: str) -> None:
    """A `ReportProgress`, lest a large backbone's first minute be silent."""
    print(f"{line} ...", file=sys.stderr, flush=True)


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
            bar = tqdm(
                total=total, initial=done, bar_format=_BAR, unit="step", file=sys.stderr, leave=True
            )
        bar.set_description(f"epoch {at.epoch}/{at.epochs}", refresh=False)
        bar.set_postfix_str(
            f"loss {at.loss:.4f}, {at.images_per_second:.1f} images/s, "
            f"{_clock(at.seconds_left)} left",
            refresh=False,
        )
        bar.update()
        if bar.n >= total:
            bar.close()
            bar = None  # another training of the same run may follow

    return show


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
