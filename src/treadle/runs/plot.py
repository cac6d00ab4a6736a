"""Curves of several runs, laid over one another as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError, nearest
from treadle.files import text_cell, write_whole
from treadle.runs.compare import distinct_names
from treadle.runs.expressions import Name, evaluate, names, parse
from treadle.runs.glance import glance_series
from treadle.runs.metrics import Points, all_series
from treadle.runs.run import read_config

COLORS = (12, 9, 10, 13, 11, 14)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Curves:
    """One metric of several runs: by the run's name its steps and values, both of shape (n,)."""

    metric: str
    points: Mapping[str, Points]


def curves(
    runs: Sequence[str | Path], metric: str | None = None, read: Callable[[Path], Mapping[str, Points]] = all_series
) -> Curves:
    """The curves of a metric, "split/name" ("validation/psnr"; "psnr" alone takes the first split that has it).

    By default it is what the runs monitor, else their training loss. `read` gives what a run has logged: all of it, or
    with `glance_series` enough for a picture. Raises UsageError where no run has it.
    """
    paths = [Path(run) for run in runs]
    found = [read(path) for path in paths]
    known = list(dict.fromkeys(name for series in found for name in series))
    chosen = _choose(metric, known, paths)
    labelled = zip(distinct_names(paths), found, strict=True)
    return Curves(chosen, {label: series[chosen] for label, series in labelled if chosen in series})


def combined(runs: Sequence[str | Path], expression: str, metric: str | None = None) -> Curves | dict[str, float]:
    """What an expression (see `runs.expressions`) over the curves of runs comes to, by the runs' names.

    Returns:
        Curves; or, for a correlation, a number for each run. One that names runs itself has a single result.

    Raises:
        UsageError: the expression cannot be read, or a run has not logged what it names.
    """
    paths = [Path(run) for run in runs]
    labels = distinct_names(paths)
    logs = dict(zip(labels, map(all_series, paths), strict=True))
    node = parse(expression)
    known = list(dict.fromkeys(name for series in logs.values() for name in series))
    bare = _choose(metric, known, paths).partition("/")[2]

    def curve(name: Name, label: str) -> Points:
        label = name.run or label
        if label not in logs:
            raise UsageError(f"the expression names the run {label!r}, which is none of these{nearest(label, logs)}")
        wanted = f"{name.split}/{name.metric or bare}"
        if wanted not in logs[label]:
            raise UsageError(f"{label} has not logged {wanted!r}{nearest(wanted, logs[label])}")
        return logs[label][wanted]

    itself = any(name.run for name in names(node))
    if itself and any(not name.run for name in names(node)) and len(paths) > 1:
        raise UsageError(f"{expression!r} names a run for some of its curves: name one for each, or for none")
    results = {label: evaluate(node, partial(curve, label=label)) for label in (labels[:1] if itself else labels)}
    if itself:
        results = {expression: next(iter(results.values()))}
    numbers = {label: value for label, value in results.items() if isinstance(value, float)}
    return numbers or Curves(
        expression, {label: points for label, points in results.items() if isinstance(points, tuple)}
    )


def write_table(path: Path, curves: Curves) -> None:
    """The curves as CSV: a column of steps and one for each run, empty where it has no point."""
    steps = np.unique(np.concatenate([at for at, _ in curves.points.values()]))
    columns = [_at(steps, *points) for points in curves.points.values()]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["step", *map(text_cell, curves.points)])
    for step, row in zip(steps, zip(*columns, strict=True), strict=True):
        writer.writerow([step, *(value if there else "" for value, there in row)])
    write_whole(path, buffer.getvalue())


def _at(steps: NDArray[np.int64], at: NDArray[np.int64], values: NDArray[np.float64]) -> Iterator[tuple[float, bool]]:
    """For each of `steps` the value that a curve has there, the last of several, and whether it has one."""
    order = np.argsort(at, kind="stable")
    place = order[np.maximum(np.searchsorted(at[order], steps, side="right") - 1, 0)]
    return zip(map(float, values[place]), at[place] == steps, strict=True)


def write_plot(path: Path, curves: Curves) -> None:
    """The curves as a picture (PNG, SVG, PDF: by the name's ending). Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(f"{path} needs matplotlib: pip install 'treadle[plots]'") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, (steps, values) in curves.points.items():
        axes.plot(steps, values, label=label, linewidth=1.5, marker="o" if len(steps) < 20 else None, markersize=3)
    axes.set(xlabel="step", ylabel=curves.metric)
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format=path.suffix.lstrip(".").lower() or "png", dpi=120)
    except ValueError:
        raise UsageError(f"{path}: pictures are written as .png, .svg or .pdf") from None
    write_whole(path, buffer.getvalue())


def losses(run: str | Path) -> list[Curves]:
    """Each loss and metric that a run has logged in training and validation, without weights and rates, to be drawn."""
    label = distinct_names([Path(run)])[0]
    return [
        Curves(name, {label: points})
        for name, points in glance_series(run).items()
        if name.startswith(("train/", "validation/")) and not name.endswith((".weight", ".lr", "/lr"))
    ]


def draw(curves: Curves, width: int = 80, height: int = 18, *, color: bool = False) -> str:
    """The curves as lines of text, at most `width` columns wide, with a legend below.

    The value axis is logarithmic where the values are positive and span more than two decades. With `color` each curve
    has its own, else its own letter. Where no curve has a finite value the text says so.
    """
    import plotext

    drawn = {}
    for label, (steps, values) in curves.points.items():
        finite = np.isfinite(values)
        if finite.any():
            drawn[label] = _thin(steps[finite], values[finite], 4 * width)
    if not drawn:
        return f"{curves.metric}: no finite value to draw"
    low = min(values.min() for _, values in drawn.values())
    high = max(values.max() for _, values in drawn.values())
    logarithmic = bool(low > 0 and high / low > 100)
    height_of: Any = np.log10 if logarithmic else np.float64
    figure = plotext.figure
    figure.clear()
    try:
        figure.theme("simple")
        figure.plot_size(max(width, 20), max(height, 8))
        figure.title(curves.metric)
        figure.label("step", "x")
        first = min(int(steps[0]) for steps, _ in drawn.values())
        last = max(int(steps[-1]) for steps, _ in drawn.values())
        marks = np.unique(np.linspace(first, last, max(2, width // 12)).astype(np.int64)).tolist()
        figure.ruler("x").ticks(marks, [str(mark) for mark in marks])
        bottom, top = float(height_of(low)), float(height_of(high))
        figure.ruler("y").lim(bottom, top if top > bottom else bottom + 1.0)
        ticks = _ticks(float(low), float(high), logarithmic, max(2, height // 4))
        figure.ruler("y").ticks([float(height_of(tick)) for tick in ticks], [f"{tick:.4g}" for tick in ticks])
        legend = []
        for index, (label, (steps, values)) in enumerate(drawn.items()):
            code, letter = COLORS[index % len(COLORS)], LETTERS[index % len(LETTERS)]
            marker = plotext.marker("braille", code) if color else letter
            signal = figure.signal(steps.tolist(), height_of(values).tolist(), marker=marker)
            signal.lines()
            figure.draw(signal)
            legend.append(f"\x1b[38;5;{code}m━━\x1b[0m {label}" if color else f"{letter} {label}")
        text: str = figure.build().string()
    finally:
        figure.clear()
    lines = (text if color else plotext.uncolorize(text)).splitlines()
    return "\n".join([*(line.rstrip() for line in lines), "  ".join(legend)])


def _choose(metric: str | None, known: Sequence[str], runs: Sequence[Path]) -> str:
    if metric is not None:
        if metric in known:
            return metric
        for name in known:
            if name.partition("/")[2] == metric:
                return name
        raise UsageError(f"no run has logged {metric!r}{nearest(metric, known)}")
    monitors = [(read_config(run).get("config") or {}).get("monitor") for run in runs]
    for wanted in [*(f"validation/{monitor}" for monitor in monitors if monitor), "train/loss", *known]:
        if wanted in known:
            return wanted
    raise UsageError(f"nothing has been logged in {', '.join(str(run) for run in runs)}")


def _ticks(low: float, high: float, logarithmic: bool, most: int) -> list[float]:
    """Values to be marked on the axis from `low` to `high`: whole decades on a logarithmic one."""
    if not logarithmic:
        return [float(tick) for tick in np.linspace(low, high, most)] if high > low else [low]
    decades = np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)
    return [float(10.0**decade) for decade in decades[:: -(-len(decades) // most)]]


def _thin(steps: NDArray[np.int64], values: NDArray[np.float64], most: int) -> Points:
    """At most `most` points: means over equal stretches."""
    if len(steps) <= most:
        return steps, values
    edges = np.linspace(0, len(steps), most + 1).astype(np.int64)
    counts = np.diff(edges)
    return (
        (np.add.reduceat(steps, edges[:-1]) // counts).astype(np.int64),
        np.add.reduceat(values, edges[:-1]) / counts,
    )
