"""The trainer: what a person subclasses, and calls in their own step."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from treadle.checkpoint.state import capture
from treadle.data.batch import batch_elements
from treadle.data.feed import Feed
from treadle.data.random import RandomStreams
from treadle.engine.assembly import adopt, check_replacement, feed_for, hooks_for, open_run, run_setup
from treadle.engine.attributes import find
from treadle.engine.bad_steps import Recovery
from treadle.engine.commands import CommandQueue
from treadle.engine.devices import choose_device, choose_precision
from treadle.engine.ema import EMA
from treadle.engine.evaluation import evaluate, evaluating
from treadle.engine.events import Hook
from treadle.engine.logbook import Logbook
from treadle.engine.loop import Loop
from treadle.engine.memory import keep_freed_memory
from treadle.engine.minimize import Minimizer
from treadle.engine.progress import Progress
from treadle.engine.resume import resume_run
from treadle.engine.rows import RowEdit
from treadle.engine.saving import Saver, Snapshots
from treadle.engine.settings import TrainerConfig, settings_from
from treadle.engine.summary import Snapshot, Summary
from treadle.errors import UsageError, nearest
from treadle.runs.lock import RunLock

REPLACEABLE = ("pre_epoch", "step", "post_epoch")


class Trainer(Loop):
    """Owns a training loop. Subclass it: build models and optimizers in `setup`, train on a batch in `step`.

    Modules, parameters, optimizers, schedules, objectives, averages (EMA) and hooks that are attributes belong to the
    run without being registered: they are moved to the device, updated, saved and restored with it. An attribute that
    is only a handle, without state of its own, is named in `transient`.

    Args:
        config: a `TrainerConfig` (or the subclass's own `Config`); None takes the defaults.
        data: what to train on: a tensor, a tuple or dict of tensors, a map-style dataset, an iterable, or a `Feed`.
        validation_data, test_data: the same, never shuffled.
        hooks: `Hook` objects, called in their declared order.
        run_dir: makes it a run on disk: `runs/line` creates `runs/line/v001`, and so on. None writes nothing.
        resume: go on with the run at `run_dir` (`runs/line/v001`) from its newest good checkpoint.
        settings: any field of the config, by name; they win over `config`.

    Raises:
        UsageError: for an unknown or impossible setting, unusable data, or an optimizer that is not tied to a module.

    Example:
        trainer = Line(data=(x, y), batch_size=32, max_epochs=20, seed=0)
        summary = trainer.train()            # or: while trainer.iterate(): ...
    """

    Config: ClassVar[type[TrainerConfig]] = TrainerConfig
    transient: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        config: TrainerConfig | None = None,
        *,
        data: Any = None,
        validation_data: Any = None,
        test_data: Any = None,
        hooks: Sequence[Hook] = (),
        run_dir: str | Path | None = None,
        resume: bool = False,
        **settings: Any,
    ) -> None:
        own = set(vars(self))
        self._engine_names: frozenset[str] = frozenset()
        self.config: Any = settings_from(self.Config, config, settings)
        self.progress = Progress(max_epochs=self.config.max_epochs, max_steps=self.config.max_steps)
        self.device = choose_device(self.config.device)
        self.config.precision = choose_precision(self.config.precision, self.device)
        if self.config.keep_memory and self.device.type == "cpu":
            keep_freed_memory()
        self.random = RandomStreams(self.config.seed, self.device)
        self.feed: Feed | None = feed_for(self, data, "data", training=True)
        self.validation_feed: Feed | None = feed_for(self, validation_data, "validation_data")
        self.test_feed: Feed | None = feed_for(self, test_data, "test_data")
        self.metrics: dict[str, float] = {}
        self.validation_metrics: dict[str, float] = {}
        self.best: dict[str, Any] | None = None
        self.commands = CommandQueue()
        self.minimizer = Minimizer(self)
        self.logbook = Logbook(self, self.config.log_every)
        self.saver = Saver(self)
        self.snapshots = Snapshots(self.config.keep_snapshots)
        self.recovery = Recovery(self)
        self.hooks: list[Hook] = hooks_for(self, hooks, on_disk=run_dir is not None)
        self.run: Any = None
        self.lock: RunLock | None = None
        self.batch: Any = None
        self.status, self.reason = "new", ""
        self.paused = False
        super().__init__()
        self._engine_names = frozenset(set(vars(self)) - own)
        run_setup(self)
        adopt(self)
        if resume:
            if run_dir is None:
                raise UsageError("resume needs the run to go on with: give run_dir='runs/line/v001'")
            resume_run(self, run_dir)
        elif run_dir is not None:
            open_run(self, run_dir)
        self._open()

    # What a subclass writes -------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Build modules, optimizers and whatever else the run needs, as attributes. Random draws follow the seed."""

    def step(self, batch: Any) -> Mapping[str, Any] | Tensor:
        """Train on one batch: compute a loss, call `minimize`, return the scalars to log (or the loss itself)."""
        raise UsageError(f"{type(self).__name__} has no step(self, batch): write one that calls self.minimize(loss)")

    def validation_step(self, batch: Any) -> Mapping[str, Any] | Tensor:
        """Return the scalars of one validation batch; they are averaged over the whole set, weighted by elements."""
        raise UsageError(f"{type(self).__name__} has data to evaluate but no validation_step(self, batch): write one")

    def test_step(self, batch: Any) -> Mapping[str, Any] | Tensor:
        """Return the scalars of one test batch; by default what `validation_step` returns."""
        return self.validation_step(batch)

    @classmethod
    def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """Load what a recipe trains on: `data`, and where there are some `validation_data` and `test_data`.

        `path` is what the recipe or `--data` names; None asks for the trainer's own choice. Raises UsageError for
        data that cannot be used.
        """
        if path is not None:
            raise UsageError(
                f"{cls.__name__} takes no data path (given: {path}): leave data out, or override load_data"
            )
        return {}

    def elements(self, batch: Any) -> int:
        """How many elements a batch counts for in means and accumulation; by default its first dimension."""
        return batch_elements(batch)

    def replace(self, name: str, function: Any = None, **kwargs: Any) -> None:
        """Let `function(trainer, ..., **kwargs)` stand for one of the loop's inner calls, in this trainer only.

        `name` is "pre_epoch", "step" (called with the batch too) or "post_epoch"; hooks still run. `function=None`
        goes back to the method. Raises UsageError where the keyword arguments do not fit the function.
        """
        if name not in REPLACEABLE:
            raise UsageError(f"{name!r} cannot be replaced{nearest(name, REPLACEABLE)}")
        self.__dict__.pop(name, None)
        if function is not None:
            check_replacement(name, function, kwargs)
            self.__dict__[name] = partial(function, self, **kwargs)
        self._engine_names |= {name}
        self._dispatcher = None

    # Updating parameters ----------------------------------------------------------------------------------------

    def minimize(
        self,
        loss: Any,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
        *,
        elements: float | None = None,
    ) -> bool:
        """Let `optimizer` (or several, from one backward pass) reduce `loss`; returns whether it updated.

        The one way gradients change parameters: scale, accumulate, backward, `pre_update`, clip, finite check, update,
        EMA, count. Only parameters of the given optimizers receive gradients, so opponents need no freezing.

        Args:
            loss: a scalar tensor, an Objective's `Losses`, or a dict of scalar terms, which are summed.
            optimizer: may be left out when the trainer has exactly one.
            elements: what the loss is a mean over, its weight under accumulation; by default `self.elements(batch)`.

        Raises:
            UsageError: for a loss that is not scalar or has no gradients, or an optimizer that is no attribute.
            NonFiniteError: for a NaN or Inf loss or gradient, before it reaches a parameter.
        """
        return self.minimizer.minimize(loss, optimizer, elements)

    def updates(self, optimizer: torch.optim.Optimizer | None = None) -> int:
        """How many updates `optimizer` (or the only one) has made."""
        return self.minimizer.of(optimizer)[0].updates

    @property
    def _last_of_window(self) -> bool:
        """Whether no further micro-batch can join the update under way: the epoch or the run ends with this step."""
        limit = self.progress.max_steps
        if self._batches is None or self._batches.exhausted:
            return True
        return limit is not None and self.progress.step + 1 >= limit

    def edit_rows(self, tensors: Mapping[str, Tensor] | Sequence[Tensor]) -> RowEdit:
        """Begin a transaction that adds, removes or replaces rows of `tensors` (all with the same first dimension).

        Every optimizer and average of the trainer that holds one of them follows. Use it as a context manager:
        `with trainer.edit_rows({"xy": self.xy}) as edit: edit.keep(alive)`. See `RowEdit`.
        """
        return RowEdit(tensors, list(find(self, torch.optim.Optimizer).values()), list(find(self, EMA).values()))

    # Evaluating -------------------------------------------------------------------------------------------------

    def validate(self) -> dict[str, float]:
        """Evaluate the validation data now: eval mode, no gradients, random streams of its own. Returns the means."""
        if self.validation_feed is None:
            raise UsageError("nothing to validate on: give the trainer validation_data")
        self._validation_requested = False
        self._validated_step = self.progress.step
        with self._active(), evaluating(self):
            self.fire("pre_validation")
            self.validation_metrics = metrics = evaluate(self, self.validation_feed, self.validation_step)
            self.fire("post_validation", metrics)
            self.logbook.scalars("validation", metrics)
        return metrics

    def test(self, data: Any = None) -> dict[str, float]:
        """Evaluate `data` (by default the test data) with `test_step`, as the weights are. Returns the means."""
        feed = self.test_feed if data is None else feed_for(self, data, "data")
        if feed is None:
            raise UsageError("nothing to test on: give the trainer test_data, or call test(data)")
        feed.bind(self.config.seed, self.device)
        with self._active(), evaluating(self):
            metrics = evaluate(self, feed, self.test_step)
            self.logbook.scalars("test", metrics)
        return metrics

    def request_validation(self) -> None:
        """Ask for a validation as soon as the current step has settled."""
        self._validation_requested = True

    # Logging ----------------------------------------------------------------------------------------------------

    @property
    def journal(self) -> deque[dict[str, Any]]:
        """What happened to the run and what a person changed in it: the latest entries, oldest first."""
        return self.logbook.journal

    def log(self, name: str, value: Any) -> None:
        """Add a scalar to the training metrics; like what `step` returns, it is averaged over the log interval."""
        self.logbook.meter.add({name: value}, 1.0)

    def log_image(self, name: str, image: Any) -> None:
        """Log a picture: array or tensor (H, W), (H, W, C) with C = 1, 3 or 4; uint8, or float in [0, 1]."""
        self.logbook.image(name, image)

    def log_text(self, name: str, text: str) -> None:
        """Log a piece of text."""
        self.logbook.text(name, text)

    def note(self, event: str, **fields: Any) -> None:
        """Add to the journal, with step, epoch and time."""
        self.logbook.note(event, fields)

    # What others may look at ------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.progress.epoch

    @property
    def feeds(self) -> dict[str, Feed]:
        """The feeds there are, by attribute name."""
        feeds = {"feed": self.feed, "validation_feed": self.validation_feed, "test_feed": self.test_feed}
        return {name: feed for name, feed in feeds.items() if feed is not None}

    def snapshot(self) -> Snapshot:
        """How far the run is; may be called from any thread at any time, and never waits."""
        epoch, step, batch = self._counts
        progress = self.progress
        return Snapshot(
            status=self.status,
            paused=self.paused,
            epoch=epoch,
            step=step,
            batch=batch,
            max_epochs=progress.max_epochs,
            max_steps=progress.max_steps,
            total_steps=progress.total_steps,
            seconds=self.seconds,
            metrics=dict(self.metrics),
            validation_metrics=dict(self.validation_metrics),
            learning_rates=self.minimizer.learning_rates(),
        )

    def summary(self) -> Summary:
        """What the run came to so far."""
        return Summary(
            status=self.status,
            reason=self.reason,
            step=self.progress.step,
            epoch=self.progress.epoch,
            metrics=dict(self.metrics),
            validation_metrics=dict(self.validation_metrics),
            best=self.best,
            seconds=self.seconds,
            digest=self.saver.digest,
        )

    @property
    def hook_seconds(self) -> dict[str, float]:
        """Seconds spent in each hook so far, by class name (those of the same class are added up)."""
        seconds: dict[str, float] = {}
        for handler in self._dispatcher.handlers if self._dispatcher is not None else []:
            seconds[handler.name] = seconds.get(handler.name, 0.0) + handler.seconds
        return seconds

    # Saving -----------------------------------------------------------------------------------------------------

    def request_save(self) -> None:
        """Ask for a checkpoint as soon as the current step has settled; it is written beside the training."""
        self.saver.requested = True

    def save(self) -> Path:
        """Write a checkpoint now, between steps; returns its directory. Raises UsageError without a run on disk."""
        with self._active():
            return self.saver.save(wait=True)

    def digest(self) -> str:
        """SHA-256 over the complete training state, in hex; equal digests mean equal runs."""
        with self._active():
            return capture(self).digest
