"""A run's checkpoints: written beside the training, found again, and given up; and the lock that goes with the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from torch import Tensor

from treadle.checkpoint.packing import Packer
from treadle.checkpoint.state import State
from treadle.checkpoint.store import (
    Retention,
    checkpoint_name,
    forget_after,
    list_checkpoints,
    newest_good,
    pin,
    step_of,
)
from treadle.checkpoint.tensorfile import pieces
from treadle.checkpoint.writer import CheckpointWriter
from treadle.errors import RunError, StateError, TreadleError, UsageError
from treadle.files import reason
from treadle.runs.best import Best, forget_best_after, has_best, read_best, write_best
from treadle.runs.keeping import keep_future
from treadle.runs.lock import RunLock
from treadle.runs.models import keep_model, prune_models
from treadle.runs.run import CHECKPOINTS, Run


class Saver:
    """What the engine knows of a run on disk (an `Archive`): it holds the run, writes its checkpoints, reads them.

    Args:
        run: where they go.
        note: adds to the journal.
        retention: says what stays, at each write.
        patience: seconds for which failing writes are put up with.
    """

    def __init__(
        self, run: Run, note: Callable[..., None], retention: Callable[[], Retention], patience: float
    ) -> None:
        self._run, self._note, self._retention, self._patience = run, note, retention, patience
        self._directory = run.path / CHECKPOINTS
        self._writer: CheckpointWriter | None = None
        self._written: SimpleQueue[tuple[int, Path | None, str]] = SimpleQueue()
        self._lock: RunLock | None = RunLock(run.path)
        self.digest: str | None = None

    def save(self, state: State, *, wait: bool) -> Path:
        """Write a checkpoint; with `wait`, return only when it is on the disk. Raises RunError when it cannot be."""
        state.clock["logs"] = self._run.log_sizes()
        self._open().submit(state, self._retention())
        if wait:
            self.finish()
        else:
            self.take_reports()
        return self._directory / checkpoint_name(state.step)

    def prepare(self, capture: Callable[[], State]) -> None:
        """After the first step, when optimizers have their moments: find memory for the checkpoints to come.

        Fresh memory costs six times the copy into it; this way the writer's thread pays, and no step waits.
        """
        if self._writer is None:
            self._open().prepare(capture())

    def take_reports(self) -> None:
        """Journal what the writer's thread has done since the last time; free when there is nothing."""
        while not self._written.empty():
            step, path, text = self._written.get()
            if path is None:
                self._note("checkpoint failed", checkpoint=checkpoint_name(step), error=text)
            else:
                self.digest = text
                self._note("checkpoint", checkpoint=path.name, digest=text)

    def finish(self) -> None:
        """Wait for the write under way. Raises RunError if the newest checkpoint could not be written."""
        if self._writer is not None:
            try:
                self._writer.wait()
            finally:
                self.take_reports()

    def steps(self) -> list[int]:
        """The steps of the checkpoints there are."""
        return [step_of(path) for path in list_checkpoints(self._directory)]

    def states(self, at_or_before: int) -> Iterator[State]:
        """The checkpoints that can be read, the newest first."""
        self.finish()
        limit: int | None = at_or_before
        while limit is not None:
            before, limit = limit, None
            for path, saved in newest_good(self._directory, before=before):
                if isinstance(saved, State):
                    yield saved
                    limit = step_of(path) - 1

    def keep_future(self, step: int) -> Path | None:
        """Make a run of its own of what came after `step`; None where there is no checkpoint. Raises UsageError."""
        self.finish()
        try:
            return keep_future(self._run.path, step)
        except (OSError, TreadleError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise UsageError(f"what came after step {step} cannot be kept: {why}; nothing was changed") from error

    def pin(self, step: int, why: str) -> bool:
        """Keep the checkpoint of `step` for good; returns whether there is one. Raises UsageError where it cannot."""
        path = self._directory / checkpoint_name(step)
        if not path.is_dir():
            return False
        try:
            pin(path, why)
        except OSError as error:
            raise UsageError(f"the checkpoint of step {step} cannot be kept: {reason(error)}") from error
        return True

    def forget_after(self, step: int) -> None:
        """Give up the checkpoints and best models after `step`; what was logged then is put aside before."""
        self.finish()
        self._run.metrics.abandon(step)
        forget_after(self._directory, step)
        forget_best_after(self._run.path, step)

    def keep(self, name: str, value: Any) -> str:
        """Write a batch as `name.safetensors` and `name.json`; returns where, or why not."""
        packer = Packer()
        try:
            values = packer.pack(_listed(value), "batch")
            self._run.write(f"{name}.safetensors", b"".join(pieces(packer.tensors)))
            return str(self._run.write(f"{name}.json", json.dumps(values)))
        except (StateError, RunError) as error:
            return f"not kept: {error}"

    def write_best(self, weights: Mapping[str, Tensor], info: Mapping[str, Any], steps: Sequence[int] = ()) -> None:
        """Put a model among the run's best ones, which are those of these `steps`; by default it is the only one."""
        write_best(self._run, Best(weights, info), steps)

    def read_best(self, rank: int = 1) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """The run's best model and what it is the best of. Raises UsageError where there is none."""
        best = read_best(self._run.path, rank)
        return best.weights, best.info

    def has_best(self) -> bool:
        """Whether the run has a best model."""
        return has_best(self._run.path)

    def keep_model(self, weights: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Keep the weights of a validation beside the best ones. Raises RunError when the disk refuses."""
        keep_model(self._run, Best(weights, info))

    def prune_models(self, steps: Collection[int]) -> None:
        """Give up what `keep_model` kept, but for these steps."""
        prune_models(self._run.path, steps)

    def close(self) -> None:
        """Wait for the write under way and end the writer's thread."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self.take_reports()

    def release(self) -> None:
        """Let other processes have the run."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def reopen(self) -> None:
        """Have the run again, after `release`. Raises UsageError where another process has it."""
        if self._lock is None:
            self._lock = RunLock(self._run.path)

    def _open(self) -> CheckpointWriter:
        if self._writer is None:
            self._writer = CheckpointWriter(self._directory, self._report, self._patience, first=self._run.sync_logs)
        return self._writer

    def _report(self, step: int, path: Path | None, text: str) -> None:
        self._written.put((step, path, text))


def _listed(batch: Any) -> Any:
    """A batch with its named tuples as plain ones."""
    if isinstance(batch, tuple):
        return tuple(_listed(item) for item in batch)
    if isinstance(batch, dict):
        return {key: _listed(item) for key, item in batch.items()}
    return batch
