"""The plot of a sweep, as PNG bytes. It computes no numbers; matplotlib loads on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fewclip.plots import new_figure, to_png

if TYPE_CHECKING:
    from fewclip.bench.tables import Row, Summary


def draw(summary: Summary) -> bytes:
    """Curves over shots for few-shot, bars for the rest; one panel per data set."""
    sets = list(dict.fromkeys(row.dataset for row in summary.rows))
    most = max((sum(r.dataset == name for r in summary.rows) for name in sets), default=1)
    curves = summary.protocol == "few-shot"
    width = 7.0 if curves else max(5.0, 0.35 * most * max(1, len(summary.columns)) + 2)
    figure = new_figure(min(width, 24.0), 4.2 * max(1, len(sets)))
    for n, name in enumerate(sets):
        axes = figure.add_subplot(len(sets), 1, n + 1)
        rows = [row for row in summary.rows if row.dataset == name]
        (_curves if curves else _bars)(axes, rows, summary.columns)
        axes.set_title(f"{summary.protocol}: {name}", parse_math=False)
        axes.grid(axis="y", alpha=0.3)
    return to_png(figure)


def _curves(axes: Any, rows: list[Row], columns: list[str]) -> None:
    places = range(len(columns))
    for row in rows:
        stats = [row.scores[name] for name in columns]
        style = {"linestyle": "--", "color": "grey"} if row.method == "zero-shot" else {}
        axes.errorbar(
            places,
            [100 * stat.mean for stat in stats],
            yerr=[100 * (stat.std or 0.0) for stat in stats],
            marker="o",
            markersize=3,
            capsize=2,
            label=row.method,
            **style,
        )
    axes.set_xticks(places, columns)
    axes.set_ylabel("accuracy, %")
    axes.legend(fontsize=7, ncols=2)


def _bars(axes: Any, rows: list[Row], columns: list[str]) -> None:
    shares = [name for name in columns if all(row.scores[name].mean <= 1 for row in rows)]
    seconds = not shares  # the speed protocol has no accuracies: its plot shows the cost
    shown = shares or ["seconds"]
    width = 0.8 / len(shown)
    for n, name in enumerate(shown):
        stats = [row.seconds if seconds else row.scores[name] for row in rows]
        scale = 1.0 if seconds else 100.0
        axes.bar(
            [i + (n - (len(shown) - 1) / 2) * width for i in range(len(rows))],
            [scale * stat.mean if stat else 0.0 for stat in stats],
            width,
            yerr=[scale * (stat.std or 0.0) if stat else 0.0 for stat in stats],
            capsize=2,
            label="H" if name == "h" else name,
        )
    axes.set_xticks(range(len(rows)), [row.method for row in rows], rotation=40, ha="right")
    axes.set_ylabel("training, s" if seconds else "accuracy, %")
    if not seconds:
        axes.legend(fontsize=7, ncols=3)
