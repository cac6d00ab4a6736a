"""Rerun: a run's curves, pictures and what it has in space, to be looked at together, step by step."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from treadle.engine.events import Record
from treadle.errors import UsageError
from treadle.hooks.examples import Examples, log_scenes
from treadle.reports.scene import Scene, checked, thinned
from treadle.sinks.remote import RemoteSink
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

_VIEWER = re.compile(r"rerun(\+https?)?://[^/\s@]+/proxy")


class Rerun(RemoteSink):
    """Writes Rerun recordings (`.rrd`), or shows the run in a viewer that listens.

    On the timelines "step" and "time": each metric ("train/loss", "validation/psnr"), pictures, texts, the journal, and
    what the trainer has in space (its `scenes()`): splats, cameras, occupied cells, meshes, streamlines. Config,
    environment and summary are documents and properties. A recording opens with curves beside pictures and 3D views.

    The run's recording keeps its id. Each session of it (a resume begins one) has a file, and viewers show all of them
    as one: `rerun RUN/rerun/*.rrd`; `rerun rrd merge` joins them. A rewind takes what came after out of the files; a
    viewer gets another recording for what follows.

    Scenes are made with the trainer's examples (its setting `examples_every`), or, where it makes none, at each
    validation: what that costs depends on the trainer, some milliseconds for splats, what an example costs for tracked
    lines and surfaces. No more is sent than 100,000 points or Gaussians, 10,000 lines, 500,000 faces, 20,000 boxes and
    300 cameras, which is said where it is less than there are.

    Args:
        where: a file that ends in `.rrd`, a directory, or the address of a viewer, "rerun+http://HOST:PORT/proxy"; by
            default `rerun/` in the run's directory.

    Raises:
        UsageError: the package rerun-sdk is not installed, or `where` is an address, and none of a viewer.

    Example:
        Trainer(..., run_dir="runs/line", hooks=[Rerun()])     # then: rerun runs/line/v001/rerun/*.rrd
    """

    name, title, package = "rerun", "Rerun", "rerun"
    service = "treadle.sinks.services.rerun:RerunService"
    hears: ClassVar[Collection[str]] = ("scalars", "image", "text", "scene")
    takes_files: ClassVar[bool] = False

    def __init__(self, where: str | Path | None = None) -> None:
        if where is not None and "://" not in str(where):
            where = str(Path(where).expanduser().absolute())
        elif where is not None and not _VIEWER.fullmatch(str(where)):
            raise UsageError(
                f"{str(where)!r} is no address of a Rerun viewer: expected one such as rerun+http://127.0.0.1:9876/proxy"
            )
        super().__init__(where=where)
        self._told: set[str] = set()
        self._asks = True

    def open(self, trainer: Trainer) -> None:
        """Begin; a run that is not on disk needs a place."""
        if trainer.run is None and "where" not in self.options:
            raise UsageError("Rerun has nowhere to write: give it a FILE.rrd or a viewer, or the trainer a run_dir")
        super().open(trainer)

    def on_log(self, trainer: Trainer, record: Record) -> None:
        """Put the record into the outbox; of a scene as much as can be looked at."""
        if record.kind == "scene":
            record = replace(record, value=self._thin(record.name, checked(record.value, record.name)))
        super().on_log(trainer, record)

    def post_validation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Have scenes made, where no hook makes them with examples."""
        hooks = trainer.hooks
        first = next(hook for hook in hooks if isinstance(hook, Rerun))
        if self._asks and self is first and not any(isinstance(hook, Examples) for hook in hooks):
            with trainer.evaluating():
                self._asks = log_scenes(trainer)

    def _thin(self, name: str, scene: Scene) -> Scene:
        found, told = thinned(scene)
        if told and name not in self._told:
            self._told.add(name)
            parts = ", ".join(f"{kept:,} of {there:,} {what}" for what, (kept, there) in told.items())
            say(f"treadle: Rerun: the scene {name!r} is sent with {parts}")
        return found
