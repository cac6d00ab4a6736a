"""The timeline of a run: what of its past is kept, what happened when, and what was given up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from treadle.checkpoint.store import LATEST, PINS, latest_step, list_checkpoints, pins, step_of
from treadle.files import to_json
from treadle.runs.best import ranks
from treadle.runs.models import kept_at_validations
from treadle.runs.run import CHECKPOINTS, MODELS, OTHERS, is_run

QUIET = frozenset({"pause", "continue", "run until", "refused", "timing", "data", "volume cache", "stop"})
"""Events of the journal that are no marks: they come often, or say nothing about a step."""
MARKS = 1000
"""The most marks that are told; of checkpoints, whose states are shown anyway, fewer."""
CHECKPOINT_MARKS = 100
TEXT = 200
"""Characters of a mark's text."""
_COMMON = frozenset({"event", "step", "epoch", "time", "settings", "digest"})


class History:
    """What a journal tells, entry by entry: marks, bookmarks, and the stretches that were given up."""

    def __init__(self, entries: Iterable[Mapping[str, Any]] = ()) -> None:
        self._marks: list[dict[str, Any]] = []
        self._lost: list[list[int]] = []
        self.notes: dict[int, str] = {}
        """The newest bookmark's text by its step."""
        self._kept: list[tuple[int, Path]] = []
        self.reached = 0
        """The furthest step that is known of, given up or not."""
        for entry in entries:
            self.add(entry)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take in the journal's next entry."""
        event, step = str(entry.get("event", "")), int(entry.get("step", 0))
        match event:
            case "note":
                step = int(entry.get("at", step))
                self.notes[step] = str(entry.get("text", ""))
            case "rewind" | "rollback":
                # The steps from the state that was restored up to where it went back to are the same ones again.
                kept = entry.get("to", entry.get("restored", step))
                if isinstance(entry.get("kept"), str):
                    self._kept.append((int(kept), Path(entry["kept"])))
                self._lose(int(kept), int(entry.get("from_step", self.reached)))
        self.reached = max(self.reached, step)
        if event and event not in QUIET:
            self._marks.append({"step": step, "kind": event, "text": _text(entry)})
            if len(self._marks) > 4 * MARKS:
                self._marks = self.marks()

    def marks(self) -> list[dict[str, Any]]:
        """step, kind and text of each mark, in the order of the journal; of a long one the newest."""
        saved = [mark for mark in self._marks if mark["kind"] == "checkpoint"][-CHECKPOINT_MARKS:]
        told = {id(mark) for mark in saved}
        others = [mark for mark in self._marks if mark["kind"] != "checkpoint"][-(MARKS - CHECKPOINT_MARKS) :]
        told |= {id(mark) for mark in others}
        return [mark for mark in self._marks if id(mark) in told]

    def lost(self) -> list[list[int]]:
        """The stretches [from, to] in steps that rewinds and rollbacks gave up, the earliest first."""
        return [list(stretch) for stretch in self._lost[-MARKS:]]

    def kept_futures(self) -> list[dict[str, Any]]:
        """step and run (its name) of what a rewind has given up here and kept as a run of its own that is still there.

        Where it is comes from the journal, and is only looked at for whether it is a run.
        """
        there = [(step, place) for step, place in self._kept[-MARKS:] if place.is_absolute() and is_run(place)]
        return [{"step": step, "run": f"{place.parent.name}/{place.name}"} for step, place in there]

    def _lose(self, start: int, end: int) -> None:
        if end > start:
            self._lost.append([start, end])


def _text(entry: Mapping[str, Any]) -> str:
    """What an entry says besides when it was, on a line."""
    if entry.get("event") == "note":
        return str(entry.get("text", ""))[:TEXT]
    parts = (f"{name} {value if isinstance(value, str) else to_json(value)}" for name, value in entry.items()
             if name not in _COMMON)  # fmt: skip
    return ", ".join(parts)[:TEXT]


class KeptOnDisk:
    """The states, models and forks of a run's directory, looked at again only where the directory has changed."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._seen: tuple[int, ...] = ()
        self._sizes: dict[tuple[str, int], int] = {}
        self.states: list[dict[str, Any]] = []
        """step, kind ("checkpoint" or "best"), bytes, and whether the future that it is of was given up."""
        self.forks: list[dict[str, Any]] = []
        """step and run (its name) of each that was forked from here and is still there."""

    def changed(self) -> bool:
        """Look whether anything has come or gone; takes a few system calls."""
        seen = tuple(_changed_at(path) for path in self._watched())
        if seen == self._seen:
            return False
        self._seen = seen
        self.states, self.forks = list(self._find_states()), list(self._find_forks())
        return True

    def _watched(self) -> Iterator[Path]:
        yield self._run
        yield from (self._run / name for name in (CHECKPOINTS, OTHERS, MODELS))
        yield from (self._run / CHECKPOINTS / name for name in (PINS, LATEST))

    def _find_states(self) -> Iterator[dict[str, Any]]:
        latest = latest_step(self._run / CHECKPOINTS)
        known: set[int] = set()
        for path in list_checkpoints(self._run / CHECKPOINTS):
            step = step_of(path)
            known.add(step)
            given_up = latest is not None and step > latest
            yield {"step": step, "kind": "checkpoint", "bytes": self._size(path), "given_up": given_up}
        best = [(rank.info["step"], rank.directory) for rank in ranks(self._run)]
        for number, (step, path) in enumerate(best):
            yield {"step": step, "kind": "best", "bytes": self._size(path), "given_up": False, "rank": number + 1}
        known |= {step for step, _ in best}
        for path in kept_at_validations(self._run):
            if step_of(path) not in known:
                yield {"step": step_of(path), "kind": "model", "bytes": self._size(path), "given_up": False}

    def _find_forks(self) -> Iterator[dict[str, Any]]:
        for name, why in pins(self._run / CHECKPOINTS).items():
            for place in map(Path, why):
                if name.startswith("step-") and place.is_absolute() and is_run(place):
                    step = int(name.removeprefix("step-"))
                    yield {"step": step, "run": f"{place.parent.name}/{place.name}"}

    def _size(self, path: Path) -> int:
        key = str(path), _changed_at(path)
        if key not in self._sizes:
            if len(self._sizes) > 10_000:
                self._sizes.clear()
            self._sizes[key] = sum(_bytes(child) for child in _children(path))
        return self._sizes[key]


def _children(path: Path) -> Sequence[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(path) as found:
        return list(found)
    return ()


def _bytes(child: os.DirEntry[str]) -> int:
    with suppress(OSError):
        return child.stat(follow_symlinks=False).st_size
    return 0


def _changed_at(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return -1
