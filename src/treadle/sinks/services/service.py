"""The base of services: what a process of its own does with what a run logs, through some SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.reports.scene import Scene as Scene


@dataclass(frozen=True)
class Opening:
    """What a service is told of a run before anything else.

    Attributes:
        run: its name, such as "line/v001"; for a run that is not on disk, its trainer's class.
        id: 16 hexadecimal digits that stay the same for as long as the run does, through every kill and resume.
        project: what runs like it are kept under where `options` says nothing else: "line".
        trainer: the name by which recipes know its trainer, or its class.
        directory: the run's directory, absolute; None for a run that is not on disk.
        step: the step that it is at: 0, or where it goes on from.
        goes_on: whether this service has been sent something of this run before.
        parent: for a fork, `run`, `id` and `step` of where it branched off; else None.
        config: its resolved settings: plain data, nested, numbers and texts.
        environment: versions, hardware, commit, as in environment.json.
        options: what the hook was made with (a project, a place), by name; plain data.
    """

    run: str
    id: str
    project: str
    trainer: str
    directory: Path | None
    step: int
    goes_on: bool
    parent: Mapping[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


class Service:
    """Gives what a run logs to an SDK. Lives in a process of its own; override what the service has a place for.

    Methods are called one after the other, in the order in which things were logged. What one raises is told to the
    run in one line (`treadle: W&B: ...`) and counted, and the next is called. The process may print, be slow, hang,
    start threads and processes, draw random numbers or exit: the run hears of it, and goes on without it. It ends some
    time after its run, however that ended: `close` is then called, with status "killed" where the run was.
    """

    def open(self, opening: Opening) -> str:
        """Begin the run, or go on with it (`opening.goes_on`); returns where people find it: an address, a directory.

        It may be called again after it has raised; then nothing has been sent.
        """
        return ""

    def scalars(self, step: int, epoch: int, split: str, values: Mapping[str, float], time: float) -> None:
        """Named numbers after `step` steps, at `time` (seconds since 1970).

        `split` is "train", "epoch", "validation" or "test"; values may be NaN or infinite.
        """

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """A picture: (H, W, 1), (H, W, 3) or (H, W, 4)."""

    def text(self, step: int, name: str, text: str) -> None:
        """A text."""

    def scene(self, step: int, name: str, scene: Scene) -> None:
        """Things in space, which fit together (`treadle.reports.scene.checked`). Called where the sink hears scenes."""

    def event(self, entry: Mapping[str, Any]) -> None:
        """An entry of the journal: "event", "step", "epoch", "time" and what belongs to it."""

    def cut(self, step: int) -> None:
        """The run went back to `step`: what was logged after it is given up, and other things follow in its place."""

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """A file or directory of the run: kind "model" (its best model) or "report"."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """What summary.json holds: status, step, epoch, metrics, best, seconds, digest."""

    def flush(self) -> None:
        """Send what was gathered: only after this has returned does what was given so far count as sent.

        It is called before that is written down, some times a second at most. What it raises counts as nothing sent
        since the last time; it is called again, and has to have kept what it had.
        """

    def close(self, status: str) -> None:
        """End the run at the service, with everything sent. `status`: "finished", "stopped", "failed" or "killed"."""

    def trouble(self) -> str:
        """What goes wrong by now though nothing is lost by it yet, each thing once; empty where nothing does."""
        return ""

    def lost(self) -> Mapping[str, int]:
        """What the SDK itself has dropped by now, counted by what it is: {"scalars": 3}."""
        return {}


ServiceClass = Callable[[], Service]
