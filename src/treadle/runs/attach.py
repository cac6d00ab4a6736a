"""The one door from the engine to what stands above it: the hooks that settings ask for, and the run on disk.

A trainer imports this file when it is made. Nothing else of `runs` or `hooks` is known to the engine.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from treadle.engine.build import check_patience, check_ready
from treadle.engine.settings import StartSettings, TrainerConfig
from treadle.errors import UsageError
from treadle.hooks.best_model import BestModel
from treadle.hooks.best_model import load_best as load_best
from treadle.hooks.early_stopping import EarlyStopping
from treadle.hooks.time_limit import TimeLimit
from treadle.parallel.launcher import LAUNCH, restarts
from treadle.parallel.world import World

if TYPE_CHECKING:
    from treadle.engine.history import Archive
    from treadle.engine.trainer import Trainer
    from treadle.runs.run import Run

# What a run on disk needs (YAML, safetensors) is imported with the first one: most trainers write nothing.


def add_default_hooks(trainer: Trainer) -> None:
    """Best model, early stopping and time limit, as far as the trainer's settings ask for them."""
    config: TrainerConfig = trainer.config
    trainer.add_hook(BestModel(config.monitor, config.mode_of(config.monitor, config.monitor_mode), config.keep_best))
    trainer.add_hook_of("patience", partial(_early_stopping, trainer))
    if config.max_time is not None:
        trainer.add_hook(TimeLimit(config.max_time))


def _early_stopping(trainer: Trainer, config: TrainerConfig) -> EarlyStopping | None:
    """What `patience` asks for. Raises UsageError where nothing says what is to improve."""
    if config.patience is None:
        return None
    if config.monitor is None:
        raise UsageError(f"patience is {config.patience}, and monitor is null: name the metric that is to improve")
    if trainer.config.patience is None:  # it is to be switched on; else what is validated is looked at after setup
        check_patience(trainer, config)
    return EarlyStopping(
        config.patience,
        monitor=config.monitor,
        mode=config.mode_of(config.monitor, config.monitor_mode),
        min_improvement=config.min_improvement,
        warm_up=config.patience_warm_up,
        of_settings=True,
    )


def begin(trainer: Trainer) -> None:
    """Let the trainer's networks begin with the weights that its settings name, where they name some.

    Raises UsageError where there are none such, or they do not fit.
    """
    config, loop = trainer.config, trainer.loop
    if not isinstance(config, StartSettings) or config.init is None:
        return
    from treadle.runs.init import left_anew, pinned, put_initial_weights
    from treadle.terminal import say

    begun = put_initial_weights(config, loop.parts, trainer.preferred_model)
    config.init = pinned(config.init)
    loop.state.begun_with = begun.fingerprint
    loop.told_at_start |= {"init": {"tensors": len(begun.given), "anew": begun.anew, "sha256": begun.fingerprint}}
    if begun.anew:
        say(f"treadle: {left_anew(begun.anew)}")


def begin_run(trainer: Trainer, run_dir: str | Path, resume: bool | Literal["auto"]) -> None:
    """Make the trainer a run on disk: a new one, or, as `resume` asks for it, one that is there.

    With "auto" that is the version that `run_dir` names, or the newest in it, unless that one has finished: then, and
    where there is none, a new one begins. Raises what `open_run` and `resume_run` do, and UsageError for another
    `resume`.
    """
    from treadle.runs.run import newest_run, read_summary

    if resume not in (True, False, "auto"):
        raise UsageError(f"resume is {resume!r}: expected True, False or 'auto'")
    wanted = Path(run_dir).expanduser()
    if not resume:
        begun = _begun_before(trainer.loop.world, wanted)
        return open_run(trainer, run_dir) if begun is None else resume_run(trainer, begun)
    from treadle.runs.shared import as_one

    def look() -> tuple[str | None, bool]:
        """The newest run there, and whether it has finished: once for all processes, before one of them writes."""
        found = newest_run(wanted)
        if found is None:
            return None, False
        return str(found), read_summary(found).get("status") == "finished"

    name, finished = as_one(trainer.loop.world, look)
    found = None if name is None else Path(name)
    if resume != "auto":
        return resume_run(trainer, wanted if found is None else found)
    if found is None or (found != wanted and finished):
        return open_run(trainer, run_dir)
    try:
        resume_run(trainer, found)
    except UsageError as error:
        raise type(error)(f"{error} (resume='auto' found {found}; resume=False begins a new run)") from error


def _begun_before(world: World, directory: Path) -> Path | None:
    """The run that these processes began before torchrun started them again (`--max-restarts`), where there is one."""
    if LAUNCH not in os.environ or not any(world.gather(restarts())):  # on several machines some may not have counted
        return None
    from treadle.runs.run import newest_run, read_journal
    from treadle.runs.shared import as_one

    def look() -> str | None:
        found = newest_run(directory)
        starts = [] if found is None else [entry for entry in read_journal(found) if entry["event"] == "start"]
        return str(found) if starts and starts[-1].get("launch") == os.environ[LAUNCH] else None

    name = as_one(world, look)
    return None if name is None else Path(name)


def open_run(trainer: Trainer, run_dir: str | Path) -> None:
    """Make the trainer a run on disk, in a new directory, once all that can be checked has been."""
    from treadle.runs.aside import create_run
    from treadle.runs.run import Run
    from treadle.runs.shared import as_one

    check_ready(trainer.loop)
    begin(trainer)
    made: list[Run] = []

    def create() -> str:
        made.append(create_run(run_dir))
        return str(made[0].path)

    path = Path(as_one(trainer.loop.world, create))
    _attach(trainer, made[0] if made else Run(path))


def resume_run(trainer: Trainer, path: str | Path) -> None:
    """Let `trainer`, constructed as the run's was, go on where the run at `path` was when its last checkpoint was made.

    Raises UsageError for changed settings or data, or a run that another process is training.
    """
    from treadle.runs.resume import follow, go_on_together
    from treadle.runs.run import Run

    check_ready(trainer.loop)
    archive = _attach(trainer, Run.open(path) if trainer.loop.world.main else Run(Path(path)))
    try:
        go_on_together(trainer) if trainer.loop.world.main else follow(trainer)
    except BaseException:
        archive.release()
        raise
    progress = trainer.progress
    trainer.loop.counts = (progress.epoch, progress.step, progress.batch)


def _attach(trainer: Trainer, run: Run) -> Archive:
    """Let the engine write into `run`, which is this process's from here on; of several, the main one's."""
    from treadle.checkpoint.store import Retention
    from treadle.config.fields import to_dict
    from treadle.engine.schedule import Span
    from treadle.runs.pictures import ExampleFiles
    from treadle.runs.recorder import RunRecorder
    from treadle.runs.saving import Saver
    from treadle.runs.shared import SharedArchive, as_one

    loop, config = trainer.loop, trainer.config

    def retention() -> Retention:
        every = Span.parse(config.keep_every).steps(loop.progress) if config.keep_every else None
        best = {info["step"] for hook in trainer.hooks if isinstance(hook, BestModel) for info in hook.ranked}
        return Retention(config.keep_checkpoints, None if every is None else max(1, round(every)), best)

    trainer.run = run
    loop.told_at_start |= {"settings": to_dict(config)}
    if LAUNCH in os.environ and loop.world.size > 1:
        loop.told_at_start |= {"launch": os.environ[LAUNCH]}
    saver: list[Saver] = []
    as_one(loop.world, lambda: saver.append(Saver(run, loop.note, retention, config.save_patience)))
    writer = saver[0] if saver else None
    loop.archive = archive = writer if writer and loop.world.size == 1 else SharedArchive(loop.world, writer)
    for hook in (RunRecorder(run), ExampleFiles(run)) if loop.world.main else ():
        trainer.add_hook(hook)
    return archive
