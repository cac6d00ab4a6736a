"""What a run on disk has logged, as a service is told it: its id, its opening, and what a service lacks."""

from __future__ import annotations

import heapq
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from treadle.errors import TreadleError
from treadle.files import raw_lines, read_regular
from treadle.images.display import to_uint8
from treadle.images.reading import Pixels
from treadle.runs.metrics import METRICS, parse_line
from treadle.runs.pictures import EXAMPLES
from treadle.runs.run import JOURNAL, Run, kin_of, read_config, read_environment, read_journal, run_id
from treadle.sinks.outbox import Message
from treadle.sinks.services.marks import Mark, identity, read_mark
from treadle.sinks.services.wire import pack_picture

EVERYTHING = sys.maxsize
"""The step up to which everything is meant."""
EXAMPLE = re.compile(r"step-(\d{8,})-(.+)\.(png|txt)")
OWN = ("log failed", "not sent")
"""Journal entries about services, which are no news to them."""
GONE_BACK = ("rewind", "rollback")
"""Journal entries that say to which state a run went back, as "restored"."""


def id_of(run: Path) -> str | None:
    """The id of the run at `run`; None where its journal has not begun."""
    first = next(raw_lines(run / JOURNAL), None)
    return None if first is None else run_id(first)


def parent_of(run: Path) -> dict[str, Any] | None:
    """For a fork, the run, id ("" where nobody knows it) and step where it branched off; None for any other."""
    first = next(iter(read_journal(run)), {})
    if first.get("event") != "fork" or not isinstance(first.get("parent"), str):
        return None
    parent = Path(first["parent"])
    try:
        id = first.get("parent_id") or id_of(parent) or ""
    except TreadleError:
        id = ""
    return {"run": f"{parent.parent.name}/{parent.name}", "id": id, "step": first["step"]}


def mark_of(run: Path, name: str) -> Path:
    """The file that says what of the run has been sent to the sink of that name."""
    return run / "logs" / f"sent.{name}.json"


def sent_mark(run: Path, name: str) -> Mark | None:
    """The mark of what has been sent; None where nothing has."""
    try:
        return read_mark(read_regular(mark_of(run, name)))
    except OSError:
        return None


def opening_of(run: Path, step: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a service is told of the run at `run`, as plain data; its id is the caller's to add."""
    config = read_config(run)
    return {
        "run": Run(run).name,
        "project": kin_of(run).name,
        "trainer": str(config.get("trainer") or ""),
        "directory": str(run),
        "step": step,
        "parent": parent_of(run),
        "config": config.get("config") or {},
        "environment": read_environment(run),
        "options": dict(options),
    }


@dataclass(frozen=True)
class Files:
    """What a run's files hold up to now, for `lacking`.

    Attributes:
        run: its directory.
        step: what was logged after it is left out.
        metrics, journal: bytes of the logs.
        examples: whether pictures and texts of `step` itself are meant too.
    """

    run: Path
    step: int
    metrics: int
    journal: int
    examples: bool = True

    @classmethod
    def now(cls, run: Path, step: int, *, examples: bool = True) -> Files:
        """The files as they are."""
        sizes = Run(run).log_sizes()
        return cls(run, step, sizes[METRICS], sizes[JOURNAL], examples)

    def lacking(self, mark: Mark | None) -> Iterator[Message]:
        """What a service lacks that has got what the mark says, in the order of steps."""
        mark = mark or Mark("")
        events = [
            entry
            for entry in self._journal()
            if mark.judge("event", *identity("event", {"entry": entry}), source="files") == "new"
        ]
        back = [int(entry["restored"]) for entry in events if entry["event"] in GONE_BACK and "restored" in entry]
        if back and mark.known:  # while this service was not told of the run
            mark.cut(min(back))
            yield Message("cut", min(back), {"step": min(back)})
        sources = self._scalars(mark), self._examples(mark), self._events(events)
        for _, message in heapq.merge(*sources, key=lambda found: found[0]):
            yield message

    def unsent(self, mark: Mark) -> Iterator[Message]:
        """What has surely not been sent: of what `lacking` gives the service's process leaves out the rest."""
        known = Mark.from_dict(mark.to_dict())
        known.begin()
        for message in self.lacking(known):
            if message.kind == "cut" or known.judge(
                message.kind, *identity(message.kind, json.loads(message.fields), message.body), source="files"
            ) != "same":  # fmt: skip
                yield message

    def _journal(self) -> Iterator[dict[str, Any]]:
        for line in _lines(self.run / JOURNAL, self.journal):
            entry = json.loads(line)
            known = isinstance(entry, dict) and "event" in entry and type(entry.get("step")) is int
            if known and entry["event"] not in OWN:
                yield entry

    def _events(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Message]]:
        step = 0
        for entry in entries:
            step = max(step, entry["step"])  # a run that went back has lower ones later
            yield step, event_message(entry, files=True)

    def _scalars(self, mark: Mark) -> Iterator[tuple[int, Message]]:
        path = self.run / METRICS
        for count, raw in enumerate(_lines(path, self.metrics), 1):
            line = parse_line(path, count, raw)
            step = line["step"]
            if step <= self.step and mark.may_lack("scalars", step):
                fields = {name: line[name] for name in ("step", "epoch", "split", "values")}
                yield step, Message("scalars", step, fields | {"time": line.get("time", 0.0), "from": "files"})

    def _examples(self, mark: Mark) -> Iterator[tuple[int, Message]]:
        folder = self.run / EXAMPLES
        found = [(path, EXAMPLE.fullmatch(path.name)) for path in (folder.iterdir() if folder.is_dir() else ())]
        for step, name, path in sorted((int(match[1]), match[2], path) for path, match in found if match):
            kind = "picture" if path.suffix == ".png" else "text"
            if step > self.step or (step == self.step and not self.examples) or not mark.may_lack(kind, step):
                continue
            if kind == "picture":
                said, body = pack_picture(_read_picture(path))
                yield step, Message(kind, step, {"step": step, "name": name, **said, "from": "files"}, body, name=name)
            else:
                text = read_regular(path).decode(errors="replace").rstrip("\n")
                fields = {"step": step, "name": name, "text": text, "from": "files"}
                yield step, Message(kind, step, fields, name=name)


def event_message(entry: Mapping[str, Any], *, files: bool = False) -> Message:
    """A journal entry, as it is sent."""
    fields: dict[str, Any] = {"entry": entry} | ({"from": "files"} if files else {})
    return Message("event", int(entry["step"]), fields, at=float(entry.get("time", 0.0)))


def _lines(path: Path, end: int) -> Iterator[bytes]:
    """The whole lines within the first `end` bytes."""
    for line in raw_lines(path):
        end -= len(line)
        if end < 0:
            return
        yield line


def _read_picture(path: Path) -> Pixels:
    from PIL import Image

    with Image.open(path) as image:
        kind = {"L": "L", "RGBA": "RGBA"}.get(image.mode, "RGB")
        return to_uint8(np.asarray(image.convert(kind)))
