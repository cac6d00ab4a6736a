"""Writes a checkpoint every so often."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treadle.hooks.periodic import Periodic

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


class Checkpointing(Periodic):
    """Asks for a checkpoint every so many steps, epochs, or percent of the run; the trainer writes it between steps.

    A trainer with `run_dir` makes one from its `save_every`; more may be added. How many are kept is the trainer's
    `keep_checkpoints`.

    Example:
        Trainer(..., run_dir="runs/line", save_every="1 epoch", hooks=[Checkpointing("1000 steps")])
    """

    def act(self, trainer: Trainer) -> None:
        """Ask for a checkpoint; without a run on disk there is nowhere to write it."""
        if trainer.run is not None:
            trainer.request_save()
