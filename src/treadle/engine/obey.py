"""What a command does to a trainer, between steps and in the trainer's own thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.engine.attributes import find
from treadle.engine.commands import (
    Command,
    Continue,
    LearningRateMultiplier,
    LossWeight,
    Pause,
    Save,
    Stop,
    Validate,
)
from treadle.engine.objective import Objective
from treadle.errors import UsageError, nearest

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


def obey(trainer: Trainer, command: Command) -> Any:
    """Do what `command` says and journal it. Raises UsageError where it names something the trainer has not."""
    match command:
        case Pause():
            trainer.paused = True
            trainer.note("pause")
        case Continue():
            trainer.paused = False
            trainer.note("continue")
        case Stop(reason):
            trainer._halt(reason)
        case Save():
            trainer.save()
        case Validate():
            return trainer.validate()
        case LearningRateMultiplier(value, optimizer):
            _multiply_learning_rate(trainer, value, optimizer)
        case LossWeight(term, value):
            _set_loss_weight(trainer, term, value)
    return None


def _multiply_learning_rate(trainer: Trainer, value: float, optimizer: str | None) -> None:
    names = list(trainer.minimizer.updaters) if optimizer is None else [optimizer]
    for name in names:
        if name not in trainer.minimizer.updaters:
            raise UsageError(f"no optimizer {name!r}{nearest(name, trainer.minimizer.updaters)}")
    for name in names:
        before = trainer.minimizer.set_multiplier(name, value)
        trainer.note("edit", what="lr_multiplier", optimizer=name, before=before, after=value)


def _set_loss_weight(trainer: Trainer, term: str, value: float) -> None:
    objectives = [o for o in find(trainer, Objective).values() if term in o.terms]
    if not objectives:
        known = [name for o in find(trainer, Objective).values() for name in o.terms]
        raise UsageError(f"no loss term {term!r}{nearest(term, known)}")
    for objective in objectives:
        before = objective.weight(term)
        objective.set_weight(term, value)
        trainer.note("edit", what="loss_weight", term=term, before=before, after=value)
