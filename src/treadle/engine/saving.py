"""When a trainer writes checkpoints, and how it goes back to one."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from treadle.checkpoint.state import State, capture
from treadle.checkpoint.store import Retention, checkpoint_name
from treadle.checkpoint.writer import CheckpointWriter
from treadle.engine.schedule import Span
from treadle.errors import UsageError

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

CHECKPOINTS = "checkpoints"


class Saver:
    """Writes a trainer's checkpoints into its run, beside the training.

    `requested` asks for one as soon as the step under way has settled.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._writer: CheckpointWriter | None = None
        self._written: SimpleQueue[tuple[int, Path | None, str]] = SimpleQueue()
        self.requested = False
        self.prepared = False
        self.digest: str | None = None
        """Digest of the newest checkpoint written."""

    def save(self, *, wait: bool) -> Path:
        """Save the state between two steps; with `wait`, return only when it is on the disk.

        Raises UsageError without a run on disk, RunError when it cannot be written.
        """
        run = self._trainer.run
        if run is None:
            raise UsageError("nowhere to save: make the trainer a run on disk with run_dir=")
        self.requested = False
        directory: Path = run.path / CHECKPOINTS
        writer = self._open(directory)
        state = capture(self._trainer)
        writer.submit(state, self._retention())
        try:
            if wait:
                writer.wait()
        finally:
            self.take_reports()
        return directory / checkpoint_name(state.step)

    def prepare(self) -> None:
        """After the first step, when optimizers have their moments: find memory for the checkpoints to come.

        Fresh memory costs six times the copy into it; this way the writer's thread pays, and no step waits.
        """
        self.prepared = True
        run, config = self._trainer.run, self._trainer.config
        if run is not None and config.save_every is not None and self._writer is None:
            self._open(run.path / CHECKPOINTS).prepare(capture(self._trainer, fire=False))

    def _open(self, directory: Path) -> CheckpointWriter:
        if self._writer is None:
            patience, sync = self._trainer.config.save_patience, self._trainer.run.sync_logs
            self._writer = CheckpointWriter(directory, self._report, patience, first=sync)
        return self._writer

    def take_reports(self) -> None:
        """Journal what the writer's thread has done since the last time; free when there is nothing."""
        while not self._written.empty():
            step, path, text = self._written.get()
            if path is None:
                self._trainer.note("checkpoint failed", checkpoint=checkpoint_name(step), error=text)
            else:
                self.digest = text
                self._trainer.note("checkpoint", checkpoint=path.name, digest=text)

    def finish(self) -> None:
        """Wait for the write under way. Raises RunError if the newest checkpoint could not be written."""
        if self._writer is not None:
            try:
                self._writer.wait()
            finally:
                self.take_reports()

    def close(self) -> None:
        """Wait for the write under way and end the writer's thread."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self.take_reports()

    def _report(self, step: int, path: Path | None, text: str) -> None:
        self._written.put((step, path, text))

    def _retention(self) -> Retention:
        config, best = self._trainer.config, self._trainer.best
        every = Span.parse(config.keep_every).steps(self._trainer.progress) if config.keep_every else None
        step = best.get("step") if best else None
        return Retention(config.keep_checkpoints, None if every is None else max(1, round(every)), step)


class Snapshots:
    """A ring of recent states in memory, to go back to without the disk.

    Args:
        keep: how many; the oldest is dropped for a new one, and its memory reused where shapes allow.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._states: list[State] = []

    def take(self, state: State) -> None:
        """Keep a copy of `state`, in place of one of the same step or of the oldest."""
        self._states = [kept for kept in self._states if kept.step < state.step]
        spare = self._states.pop(0) if len(self._states) >= self._keep else None
        self._states.append(state.copy(into=spare))

    def at_or_before(self, step: int) -> State | None:
        """The newest state that is not after `step`."""
        fitting = [state for state in self._states if state.step <= step]
        return fitting[-1] if fitting else None

    def forget_after(self, step: int) -> None:
        """Drop the states after `step`: that future has been given up."""
        self._states = [state for state in self._states if state.step <= step]

    @property
    def steps(self) -> list[int]:
        """The steps at which there is a state, oldest first."""
        return [state.step for state in self._states]
