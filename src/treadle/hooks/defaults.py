"""The hooks that a trainer's settings ask for."""

from __future__ import annotations

from treadle.engine.events import Hook
from treadle.engine.settings import TrainerConfig


def default_hooks(config: TrainerConfig, on_disk: bool) -> list[Hook]:
    """Best model, early stopping, time limit and checkpoints, as far as `config` asks for them.

    `on_disk` says whether the run has a directory for checkpoints. Each is imported when it is needed.
    """
    from treadle.hooks.best_model import BestModel

    hooks: list[Hook] = [BestModel(config.monitor, config.monitor_mode)]
    if config.patience is not None:
        from treadle.hooks.early_stopping import EarlyStopping

        hooks.append(
            EarlyStopping(
                config.patience,
                monitor=config.monitor,
                mode=config.monitor_mode,
                min_improvement=config.min_improvement,
                warm_up=config.patience_warm_up,
            )
        )
    if config.max_time is not None:
        from treadle.hooks.time_limit import TimeLimit

        hooks.append(TimeLimit(config.max_time))
    if config.save_every is not None and on_disk:
        from treadle.hooks.checkpointing import Checkpointing

        hooks.append(Checkpointing(config.save_every))
    return hooks
