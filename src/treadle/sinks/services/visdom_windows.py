"""What a Visdom server is to show of a run: its windows, held in bounded memory until they are sent."""

from __future__ import annotations

import base64
import html
import json
import math
import threading
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from treadle.files import file_name
from treadle.images.display import png

POINTS = 1000
"""Points of a line: a full one gives up every second. metrics.jsonl has them all."""
LINES, WINDOWS = 1000, 200
"""How many of each there are at most; what would be one more is counted instead. All lines together are 16 MB."""
CARD_BYTES = 64 * 2**20
"""Pictures (8 bit) and texts held, in all; the oldest go first."""


class Line:
    """A curve of at most `POINTS` points, evenly spaced, and always its newest one.

    A full one gives up every second point, and from then on takes only every second that comes.
    """

    def __init__(self) -> None:
        self.steps, self.values = array("q"), array("d")
        self.stride = 1
        self._seen = 0
        self._newest: tuple[int, float] | None = None

    def add(self, step: int, value: float) -> None:
        """Add a point; one of the newest step takes its place, and one of an earlier step is left out."""
        if self._newest is not None and step <= self._newest[0]:
            if step == self._newest[0]:
                self._newest = (step, value)
                if self.steps and self.steps[-1] == step:
                    self.values[-1] = value
            return
        self._newest = (step, value)
        if self._seen % self.stride == 0:
            if len(self.steps) == POINTS:
                self.steps, self.values = self.steps[::2], self.values[::2]
                self.stride *= 2
            self.steps.append(step)
            self.values.append(value)
        self._seen += 1

    def cut(self, step: int) -> None:
        """Drop the points after `step`."""
        kept = bisect_right(self.steps, step)
        del self.steps[kept:], self.values[kept:]
        if self._newest is not None and self._newest[0] > step:
            self._newest = (self.steps[-1], self.values[-1]) if self.steps else None

    def points(self) -> tuple[list[int], list[float | None]]:
        """Steps and values; None for what is not finite, which JSON cannot say."""
        steps, values = self.steps.tolist(), self.values.tolist()
        if self._newest is not None and (not steps or self._newest[0] > steps[-1]):
            steps.append(self._newest[0])
            values.append(self._newest[1])
        return steps, [value if math.isfinite(value) else None for value in values]


class Plot:
    """A window of lines over steps, by the name in its legend."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.lines: dict[str, Line] = {}

    def data(self) -> Iterator[str]:
        """Its lines, each as JSON: none takes long, and the training thread may have its turn between them."""
        for name, line in self.lines.items():
            if name.endswith(" (epoch)") and name.removesuffix(" (epoch)") in self.lines:
                continue  # the same means, only rarer: where many lines share a window they would be too many
            steps, values = line.points()
            mode = "lines" if len(steps) > 30 else "lines+markers"  # a lone point has no line
            yield json.dumps({"type": "scatter", "mode": mode, "name": name, "x": steps, "y": values})

    def frame(self) -> dict[str, Any]:
        """What surrounds them."""
        stride = max(line.stride for line in self.lines.values())
        label = "step" if stride == 1 else f"step (one point of {stride} is shown)"
        layout = {
            "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top"},
            "margin": {"l": 60, "r": 20, "t": 40, "b": 60},
            "xaxis": {"title": {"text": label, "standoff": 5}},
        }
        return {"layout": layout, "opts": {"title": self.title}}


@dataclass(frozen=True)
class Card:
    """A window of one picture, uint8 (H, W, C), or one text."""

    step: int
    name: str
    content: NDArray[Any] | str

    @property
    def nbytes(self) -> int:
        """Its size in memory, roughly."""
        return 4 * len(self.content) if isinstance(self.content, str) else self.content.nbytes

    def data(self) -> Iterator[str]:
        """Its content, as JSON; Visdom takes texts as HTML."""
        if isinstance(self.content, str):
            text = f'<pre style="white-space: pre-wrap">{html.escape(self.content)}</pre>'
            yield json.dumps({"type": "text", "content": text})
        else:
            source = f"data:image/png;base64,{base64.b64encode(png(self.content)).decode()}"
            yield json.dumps({"type": "image", "content": {"src": source, "caption": ""}})

    def frame(self) -> dict[str, Any]:
        """What surrounds it: a title, and for a picture a size that can be seen."""
        opts: dict[str, Any] = {"title": f"{self.name}, step {self.step}"}
        if not isinstance(self.content, str):
            height, width = self.content.shape[:2]
            side = max(height, width)
            scale = min(max(side, 256), 1024) / side
            opts |= {"width": round(width * scale), "height": round(height * scale)}
        return {"opts": opts}


Window = Plot | Card


class Board:
    """All windows of a run, and which of them the server has yet to be told of. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[str, Window] = {}
        self._changed: dict[str, int] = {}  # by window, which of all changes its last one is
        self._changes = 0
        self._terms: set[str] = set()
        self._dropped: Counter[str] = Counter()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see yet."""
        return not self._windows

    def add_scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
        """Add a point to the line of each name. Loss terms (they come with a weight) share a window, as others do."""
        with self._lock:
            self._terms.update(name for name in values if f"{name}.weight" in values)
            for name, value in values.items():
                title, label = place_for(name, split, self._terms)
                line = self._line(title, label)
                if line is None:
                    self._dropped["points of too many lines"] += 1
                else:
                    line.add(step, float(value))
                    self._mark(f"plot {title}")

    def adopt(self, title: str, name: str, steps: Sequence[int], values: Sequence[float]) -> None:
        """Put these points in front of those that the line of that name has."""
        with self._lock:
            line = self._line(title, name)
            plot = self._windows.get(f"plot {title}")
            if line is not None and isinstance(plot, Plot):
                own = list(zip(line.steps, line.values, strict=True))
                whole = plot.lines[name] = Line()
                for step, value in zip(steps, values, strict=True):
                    if not own or step < own[0][0]:
                        whole.add(step, value)
                for step, value in own:
                    whole.add(step, value)
                self._mark(f"plot {title}")

    def add_card(self, kind: str, card: Card) -> None:
        """Put a picture or a text where the last one of its kind and name is."""
        key = f"{kind} {file_name(card.name)}"  # as files have it: a run that goes on reads it from there
        with self._lock:
            self._forget(key, f"{kind}s replaced before they were sent")
            if card.nbytes > CARD_BYTES or len(self._windows) >= WINDOWS:
                self._dropped[f"{kind}s too many or too large"] += 1
                return
            self._windows[key] = card
            self._mark(key)
            cards = {key: held.nbytes for key, held in self._windows.items() if isinstance(held, Card)}
            excess = sum(cards.values()) - CARD_BYTES
            for oldest, size in cards.items():
                if excess <= 0:
                    break
                self._forget(oldest, "pictures and texts given up for newer ones")
                excess -= size

    def cut(self, step: int) -> None:
        """Drop the points after `step`: those steps are taken again."""
        with self._lock:
            for key, window in self._windows.items():
                if isinstance(window, Plot):
                    for line in window.lines.values():
                        line.cut(step)
                    self._mark(key)

    def mark_all(self) -> None:
        """The server may know of none of them."""
        with self._lock:
            for key in self._windows:
                self._mark(key)

    def changed(self) -> list[str]:
        """The windows that the server has yet to be told of, the one that waits longest first."""
        with self._lock:
            return list(self._changed)

    def take(self, key: str) -> tuple[Window, int] | None:
        """A changed window as it is now, with what `sent` wants to know; None where it has been given up."""
        with self._lock:
            if key not in self._changed:
                return None
            window = self._windows[key]
            return window if isinstance(window, Card) else deepcopy(window), self._changed[key]

    def sent(self, key: str, change: int) -> None:
        """The server has that state of the window."""
        with self._lock:
            if self._changed.get(key) == change:
                del self._changed[key]

    def take_counts(self) -> tuple[int, dict[str, int]]:
        """How many windows the server has yet to be told of; and what it will never show, counted anew from here."""
        with self._lock:
            dropped, self._dropped = dict(self._dropped), Counter()
            return len(self._changed), dropped

    def _line(self, title: str, name: str) -> Line | None:
        """The line of that name, a new one where there is none; None where there are too many."""
        key = f"plot {title}"
        plot = self._windows.get(key)
        if isinstance(plot, Plot) and name in plot.lines:
            return plot.lines[name]
        lines = sum(len(other.lines) for other in self._windows.values() if isinstance(other, Plot))
        if lines >= LINES or (plot is None and len(self._windows) >= WINDOWS):
            return None
        if not isinstance(plot, Plot):
            plot = self._windows[key] = Plot(title)
        return plot.lines.setdefault(name, Line())

    def _mark(self, key: str) -> None:
        self._changes += 1
        self._changed[key] = self._changes

    def _forget(self, key: str, reason: str) -> None:
        if key in self._changed:
            del self._changed[key]
            self._dropped[reason] += 1
        self._windows.pop(key, None)


def place_for(name: str, split: str, terms: set[str]) -> tuple[str, str]:
    """The title of the window that a metric's line is in, and its name in the legend there."""
    if name.endswith(".weight"):
        title = "weights"
    elif "lr" in name.split("."):
        title = "learning rates"
    elif name == "loss" or name in terms:
        title = "losses"
    else:
        return name, split
    name = name.removesuffix(".weight")
    return title, name if split == "train" else f"{name} ({split})"
