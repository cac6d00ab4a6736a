"""Progress on the terminal: a bar that a person watches, plain lines where nobody does."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TextIO

from treadle.errors import UsageError
from treadle.sinks.base import Sink
from treadle.terminal import say, steady

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import ConsoleOptions, RenderResult
    from rich.live import Live

    from treadle.engine.summary import Overview
    from treadle.engine.trainer import Trainer

REFRESHES_PER_SECOND = 4
SHORTEST_BAR, LONGEST_BAR = 10, 40
RATE_WINDOW = 10.0
"""Seconds over which steps per second are averaged."""
SHOWN = 4
"""Metrics shown in a line."""


class Console(Sink):
    """Shows how far the run is: step, epoch, loss, steps per second, time left; a line for each validation.

    On a terminal that is a bar which a thread of its own draws from the trainer's snapshot, so a training step pays
    nothing for it. Anywhere else (a file, a pipe, a batch job) it is one plain line at each log interval. A terminal
    that is closed, a reader that has gone and a full disk lose lines, and nothing else.

    Args:
        file: where to; by default standard error, so that results on standard output can be piped on.

    Example:
        Trainer(..., hooks=[Console()])
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._trainer: Trainer | None = None
        self._rate = Rate()
        self._doing = ""
        self._metrics: Mapping[str, float] = {}
        self._live: Live | None = None
        self._thread = threading.Thread()
        self._closing = threading.Event()

    @classmethod
    def at(cls, where: str | None) -> Self:
        """On standard error, the only place it has at the command line."""
        if where is not None:
            raise UsageError("it writes to standard error and takes no place: 2> FILE keeps that in a file")
        return cls()

    def open(self, trainer: Trainer) -> None:
        """Begin: with a bar on a terminal."""
        self._trainer = trainer
        self._rate = Rate()
        self._rate.add(trainer.progress.step)
        if is_terminal(self._file or sys.stderr) and not trainer.ended:
            self._live = self._make_live()
            self._live.start(refresh=True)
            self._closing.clear()
            self._thread = threading.Thread(target=self._keep_drawing, name="treadle console", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the bar, which stays as it is."""
        if self._live is not None:
            self._closing.set()
            self._thread.join()
            self._live.stop()
            self._live = None

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Count the speed anew from here."""
        self._rate = Rate()

    def on_journal(self, trainer: Trainer, entry: Mapping[str, Any]) -> None:
        """Leave the terminal to others when the run is stopped; what is logged next brings the bar back."""
        if entry.get("event") == "stop":
            self._ensure_closed()

    def pre_validation(self, trainer: Trainer) -> None:
        """Say that it is validating."""
        self._doing = "validating"

    def post_validation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """It is not any more."""
        self._doing = ""

    def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
        """Show training metrics in the bar, or in a line; the others in a line."""
        trainer = self._trainer
        assert trainer is not None
        if split == "train":
            self._metrics = values
            if self._live is None:
                self._rate.add(step)
                self._print("  ".join(self._line(trainer.overview(), step)))
        elif split != "epoch":
            self._print("  ".join([f"{split} at step {step}:", *shown(values)]))

    def text(self, step: int, name: str, text: str) -> None:
        """Show a text."""
        self._print(f"{name} at step {step}: {text}")

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            say(line, self._file)

    def _line(self, snapshot: Overview, step: int) -> list[str]:
        """The parts of a plain line."""
        total = snapshot.total_steps
        parts = [f"step {step}{f'/{total}' if total is not None else ''}", epoch_of(snapshot), *shown(self._metrics)]
        return [part for part in [*parts, *self._speed(total, step)] if part]

    def _speed(self, total: int | None, step: int) -> list[str]:
        rate = self._rate.per_second
        if not rate:
            return []
        left = [] if total is None or total <= step else [f"{duration((total - step) / rate)} left"]
        return [f"{rate:.3g} steps/s" if rate < 100 else f"{rate:.0f} steps/s", *left]

    def _keep_drawing(self) -> None:
        """Draw the bar until it is closed; in a thread of its own."""
        assert self._live is not None
        while not self._closing.wait(1 / REFRESHES_PER_SECOND):
            self._live.refresh()

    def _make_live(self) -> Live:
        from rich.console import Console as RichConsole
        from rich.live import Live

        file = self._file or sys.stderr
        return Live(
            self,
            console=RichConsole(file=steady(file)),
            auto_refresh=False,
            # What the program prints appears above the bar, unless it goes somewhere else.
            redirect_stdout=is_terminal(sys.stdout),
            redirect_stderr=is_terminal(sys.stderr),
        )

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """The bar: one line as wide as the terminal, with what fits of it, the most important first."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        assert self._trainer is not None
        snapshot = self._trainer.overview()
        step, total = snapshot.step, snapshot.total_steps
        self._rate.add(step)
        state = "paused" if snapshot.paused else self._doing
        count = f"{step}/{total}" if total is not None else f"step {step}"
        metrics = [(6 - 2 * min(index, 2), text) for index, text in enumerate(shown(self._metrics))]
        speed = [] if snapshot.paused else list(zip((3, 5), self._speed(total, step), strict=False))
        # (importance, text), in the order of the line: what matters least goes first when there is no room.
        parts = [(1, epoch_of(snapshot)), (8, count), (7, state), *metrics, *speed]
        parts = [part for part in parts if part[1]]
        bar = SHORTEST_BAR if total else 0
        while len(parts) > 1 and _width(parts) + bar > options.max_width:
            least = min(importance for importance, _ in parts)
            del parts[max(index for index, part in enumerate(parts) if part[0] == least)]
        room = options.max_width - _width(parts)
        table = Table.grid(padding=(0, 2, 0, 0))
        cells: list[Any] = [Text(text, no_wrap=True, overflow="ellipsis") for _, text in parts]
        if total and room >= bar:
            cells.insert(0, ProgressBar(total=total, completed=step, width=min(room, LONGEST_BAR)))
        table.add_row(*cells)
        yield table


def _width(parts: Sequence[tuple[int, str]]) -> int:
    return sum(len(text) + 2 for _, text in parts)


class Rate:
    """Steps per second over the last seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def add(self, step: int) -> None:
        """At this moment, `step` steps are finished."""
        now = time.monotonic()
        if self._points and step < self._points[-1][1]:  # the run was rewound
            self._points.clear()
        self._points.append((now, step))
        while len(self._points) > 2 and now - self._points[1][0] > RATE_WINDOW:
            self._points.popleft()

    @property
    def per_second(self) -> float:
        """0 where it is not known yet."""
        if len(self._points) < 2:
            return 0.0
        (start, first), (end, last) = self._points[0], self._points[-1]
        return (last - first) / (end - start) if end > start else 0.0


def shown(metrics: Mapping[str, float], most: int = SHOWN) -> list[str]:
    """The metrics a line has room for, the loss first; the weights of loss terms and learning rates are left out."""
    names = [name for name in metrics if not name.endswith(".weight") and "lr" not in name.split(".")]
    ordered = sorted(names, key=lambda name: name != "loss")
    return [f"{name} {metrics[name]:.4g}" for name in ordered[:most]]


def epoch_of(snapshot: Overview) -> str:
    """The epoch as people count: "epoch 1/20" during the first one; empty for a run that is counted in steps alone."""
    if snapshot.max_epochs is None:
        return f"epoch {snapshot.epoch + 1}" if snapshot.epoch else ""
    return f"epoch {min(snapshot.epoch + 1, snapshot.max_epochs)}/{snapshot.max_epochs}"


def duration(seconds: float) -> str:
    """Seconds as people read them: 0:09, 12:34, 1:02:03, 3 d 04:05."""
    whole = round(seconds)
    days, hours, minutes, rest = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{days} d {hours:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def is_terminal(file: TextIO | None) -> bool:
    """Whether a person is likely to watch `file`, on something that can move its cursor."""
    stream = steady(file)
    return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
