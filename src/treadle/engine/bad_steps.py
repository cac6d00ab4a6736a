"""After a bad step: stop, skip its batch, or go back to the last good state and pass over the batch."""

from __future__ import annotations

import json
import math
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.checkpoint.packing import Packer
from treadle.checkpoint.tensorfile import pieces
from treadle.errors import RunError, StateError

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

WINDOW, LEAST = 100, 20
"""A loss is compared with those of the last 100 updates, once there are 20."""


class BadStep(RunError):
    """A step that must not count: `what` says what is wrong with it. No parameter has been touched by it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class NonFiniteError(BadStep):
    """A loss or gradient is NaN or Inf."""


class LossSpike(BadStep):
    """A loss is far above those before it."""


class SpikeDetector:
    """Tells a loss that is more than `deviations` standard deviations above the mean of the losses before it."""

    def __init__(self, deviations: float) -> None:
        self._deviations = deviations
        self._losses: deque[float] = deque(maxlen=WINDOW)

    def check(self, loss: float) -> None:
        """Raise LossSpike for a spike; any other loss joins those that the next is compared with."""
        count = len(self._losses)
        if count >= LEAST:
            mean = math.fsum(self._losses) / count
            spread = math.sqrt(math.fsum((value - mean) ** 2 for value in self._losses) / count)
            if loss > mean + self._deviations * spread and loss > mean:
                raise LossSpike(f"the loss is {loss:.4g}, a spike over {mean:.4g} +- {spread:.2g} before it")
        self._losses.append(loss)

    def state_dict(self) -> list[float]:
        """The losses that the next one is compared with."""
        return list(self._losses)

    def load_state_dict(self, losses: list[float]) -> None:
        """Restore what `state_dict` gave."""
        self._losses = deque(losses, maxlen=WINDOW)


class RollBack(Exception):
    """Unwinds the loop, which then begins again from the last good state."""


class Recovery:
    """What a trainer does about bad steps, how often it has, and which batches it passes over.

    The policy is the config's `on_bad_step`, at most `max_recoveries` times.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.count = 0
        self.skipped: set[tuple[int, int]] = set()

    def handle(self, error: BadStep) -> None:
        """Note the bad step and keep its batch; returns for "skip", raises RollBack, or the error for "stop"."""
        trainer, policy = self._trainer, self._trainer.config.on_bad_step
        where = trainer.where()
        located = type(error)(
            f"{error.what}, at {where}; no parameter was touched by it: look at that batch, lower the learning rate, "
            "set clip_norm, or let on_bad_step be 'skip' or 'rollback'"
        )
        saved = self._keep_batch()
        trainer.note("bad step", what=error.what, where=where, policy=policy, batch=saved)
        if policy == "stop":
            raise located from None
        if self.count >= trainer.config.max_recoveries:
            raise type(error)(f"{located.what} (given up after {self.count} recoveries)") from None
        self.count += 1
        trainer.minimizer.drop_gradients()
        if policy == "rollback":
            self.skipped.add((trainer.progress.epoch, trainer.progress.batch))
            raise RollBack

    def passes_over(self) -> bool:
        """Whether the coming batch is one that a rollback left out; free while there was none."""
        if not self.skipped:
            return False
        return (self._trainer.progress.epoch, self._trainer.progress.batch) in self.skipped

    def _keep_batch(self) -> str | None:
        """Write the batch where it can be looked at: `bad_batches/step-00000012.{safetensors,json}` of the run."""
        trainer = self._trainer
        if trainer.run is None:
            return None
        packer = Packer()
        name = f"bad_batches/step-{trainer.progress.step + 1:08d}"
        try:
            values = packer.pack(_listed(trainer.batch), "batch")
            trainer.run.write(f"{name}.safetensors", b"".join(bytes(piece) for piece in pieces(packer.tensors)))
            path: Path = trainer.run.write(f"{name}.json", json.dumps(values))
        except (StateError, RunError) as error:
            return f"not kept: {error}"
        return str(path)

    def state_dict(self) -> dict[str, Any]:
        """How many recoveries there were, and the batches that are passed over."""
        return {"count": self.count, "skipped": sorted(self.skipped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.count = state["count"]
        self.skipped = {(int(epoch), int(batch)) for epoch, batch in state["skipped"]}


def _listed(batch: Any) -> Any:
    """A batch with its named tuples as plain ones."""
    if isinstance(batch, tuple):
        return tuple(_listed(item) for item in batch)
    if isinstance(batch, dict):
        return {key: _listed(item) for key, item in batch.items()}
    return batch
