"""Going back to an earlier state of the same run, because somebody asked or because a step went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treadle.checkpoint.state import State, restore
from treadle.checkpoint.store import forget_after, list_checkpoints, newest_good, step_of
from treadle.engine.saving import CHECKPOINTS
from treadle.errors import RunError

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


def state_at_or_before(trainer: Trainer, step: int) -> State:
    """The newest state not after `step`, in memory or on disk. Raises RunError where there is none."""
    state = trainer.snapshots.at_or_before(step)
    known = set(trainer.snapshots.steps)
    if trainer.run is not None:
        trainer.saver.finish()
        directory = trainer.run.path / CHECKPOINTS
        known |= {step_of(path) for path in list_checkpoints(directory)}
        for path, saved in newest_good(directory, before=step):
            if isinstance(saved, State) and (state is None or step_of(path) > state.step):
                state = saved
    if state is None:
        there = f"there are states at steps {', '.join(map(str, sorted(known)))}" if known else "there is none"
        raise RunError(
            f"no snapshot or checkpoint at or before step {step}, {there}: set snapshot_every, or save_every"
        )
    return state


def go_back_to(trainer: Trainer, state: State) -> None:
    """Restore `state` and give up the future that came after it, in memory and on disk."""
    if trainer.run is not None:
        # Before the metrics are cut: a kill in between resumes from where the lines end, or earlier.
        forget_after(trainer.run.path / CHECKPOINTS, state.step)
    restore(trainer, state)
    trainer.snapshots.forget_after(state.step)


def roll_back(trainer: Trainer) -> None:
    """After a bad step: go back to the last good state, keeping the count of recoveries and the batches left out."""
    bad, step = trainer.recovery.state_dict(), trainer.progress.step
    state = state_at_or_before(trainer, step)
    go_back_to(trainer, state)
    trainer.recovery.load_state_dict(bad)
    trainer.note("rollback", from_step=step, restored=state.step)
