"""The loop, written once. It reads like its own documentation; `Driver` takes it to its end, or one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from treadle.checkpoint.state import Value
from treadle.data.batch import to_device
from treadle.data.feed import BatchIterator, Feed
from treadle.data.limit import batch_count, iterate
from treadle.data.random import RandomStreams, rank_streams
from treadle.engine.alike import check_alike, traits
from treadle.engine.bad_steps import BadStep, Recovery
from treadle.engine.devices import autocast
from treadle.engine.dispatch import Dispatcher
from treadle.engine.edits import Edits
from treadle.engine.evaluation import Evaluator, scalars
from treadle.engine.fixed_parts import FixedParts
from treadle.engine.history import Archive, Snapshots
from treadle.engine.lifecycle import Lifecycle, Stage
from treadle.engine.logbook import Logbook
from treadle.engine.minimize import Minimizer
from treadle.engine.once import Once
from treadle.engine.parts import Parts
from treadle.engine.progress import Progress
from treadle.engine.ranks import Ranks
from treadle.engine.schedule import NEVER, every
from treadle.engine.state import RunState
from treadle.engine.subject import Subject
from treadle.engine.switches import Switches
from treadle.engine.watches import Newest, Watches
from treadle.errors import RunError, UsageError
from treadle.parallel import ALONE, World

if TYPE_CHECKING:
    import torch

    from treadle.engine.events import Hook
    from treadle.engine.settings import TrainerConfig


class Loop:
    """The training loop of a run, and the parts that it is made of, none of which knows it."""

    def steps(self) -> Iterator[None]:
        """The training loop; it yields between steps. Read it aloud."""
        progress, fire = self.progress, self.events.fire
        if not self.lifecycle.began:
            self.lifecycle.began = True
            self.note("start", **self.told_at_start)
            fire("pre_training")
        self.be_ready()
        while not self.over:
            if progress.batch == 0:
                fire("pre_epoch")
            for batch in self.rest_of_epoch():
                fire("pre_step", batch)
                outputs = self.run_step(batch)
                progress.count_step()
                if self.fixed is None:
                    self.logbook.add(outputs, 0.0 if self.borrowed else self.subject.elements(batch))
                fire("post_step", batch, outputs)
                self.logbook.publish_if_due()
                self.validate_if(self.validation.due_after_step(progress))
                if self.epoch_is_over or self.over:
                    break
                self.finish_step()
                yield
            if self.epoch_is_over:
                progress.count_epoch()
                self.logbook.end_epoch()
                fire("post_epoch")
                self.validate_if(self.validation.due_after_epoch(progress))
            if not self.over or self.is_asked():
                self.finish_step()
                yield
        self.validate_if(self.validated_step != progress.step)
        self.finish_run()
        fire("post_training")
        self.note("finish", reason=self.lifecycle.finish_reason or "")

    def __init__(
        self,
        subject: Subject,
        config: TrainerConfig,
        parts: Parts,
        device: torch.device,
        random: RandomStreams,
        world: World,
    ) -> None:
        """Put the parts together; nothing is trained yet, and no feed or hook has to be there.

        Args:
            subject: whose `step` it is.
            config: the run's settings.
            parts: the subject's attributes.
            device, random, world: where it computes, what it draws from, and with whom.
        """
        self.subject, self.config, self.parts, self.device, self.world = subject, config, parts, device, world
        self.progress = Progress(
            max_epochs=config.max_epochs, max_steps=config.max_steps, min_steps=config.min_steps or 0
        )
        self.lifecycle = Lifecycle()
        self.watches = Watches(
            self.progress, self.lifecycle, self.note, lambda name: config.mode_of(name, None) == "max", world
        )
        """What is waited for."""
        self.events = Dispatcher(subject, self.note, lambda: f"after step {self.progress.step}")
        self.minimizer = Minimizer(
            config,
            parts,
            device,
            self.events,
            self.log,
            self._batch_elements,
            lambda: self._last_step,
            world,
            lambda: self.borrowed,
        )
        # Of fixed parts every process has counted all.
        counting = world if config.parts is None else ALONE
        self.logbook = Logbook(self.progress, parts, self.events.fire, self.minimizer, config.log_every, counting)
        self.fixed: FixedParts | None = None
        """What takes steps part by part, where the settings say so."""
        if config.parts is not None:
            self.fixed = self.minimizer.fixed = FixedParts(
                config.parts,
                world,
                config.seed,
                device,
                self.progress,
                parts,
                self.logbook.meter,
                subject.elements,
                self.minimizer.complete,
            )
        self.evaluator = Evaluator(parts, config.seed, device, config.precision, subject.elements)
        self.recovery = Recovery(
            config.on_bad_step, config.max_recoveries, self.progress, parts, self.note, self._keep_batch
        )
        self.snapshots = Snapshots(config.keep_snapshots)
        self.observed = world.main
        """Whether observers take part: in the main process, where it is made to be trained and not only looked at."""
        self.hooks: list[Hook] = []
        self.switches = Switches(self.hooks, self.takes, self.listen)
        self.edits = Edits(parts, config, self.progress, self.minimizer, self.heed_settings, self.switches)
        """What a person has changed."""
        self.own_streams = rank_streams(config.seed, device, world) if config.parts is None else None
        """What `step` draws from where there are several processes: noise has to differ, all else to be alike."""
        self.once = Once(world, self.fixed, self.own_streams, lambda: self.borrowed)
        self.minimizer.own_streams = self.own_streams
        self.asked_batch_size = config.batch_size
        """What the settings said, where the data makes its batches itself and they now say what it does."""
        self.archive: Archive | None = None
        """The run on disk, where there is one."""
        self.told_at_start: dict[str, Any] = {}
        """What the journal's first entry says besides."""
        self.is_asked: Callable[[], bool] = lambda: False
        """Whether somebody waits for something to be done before the run may end."""
        self.step_replacement: Callable[[Any], Any] | None = None
        self.batch: Any = None
        self.counts = (0, 0, 0)
        """Epochs, steps and batches finished, together: for other threads."""
        self.taken = 0
        """Steps taken in this session, those included that a rollback took back."""
        self.validated_step = -1
        self.validation_metrics: dict[str, float] = {}
        self.best: dict[str, Any] | None = None
        self.loaded: tuple[int, str] | None = None
        """After how many steps here other weights were put into the parts, and of which model they are."""
        self.save_requested = False
        self.outputs: Mapping[str, Any] = {}
        """What the step taken last returned."""
        self._heed_periods()
        self._batches: BatchIterator | None = None
        self._in_parts: Any = None
        self._adopted = 0
        self.ranks = Ranks(
            world,
            self.own_streams,
            config.seed,
            device,
            self.progress,
            parts,
            self.logbook,
            self.minimizer,
        )
        self.state = RunState(
            subject,
            parts,
            self.progress,
            self.lifecycle,
            self.events,
            lambda: self.hooks,
            {
                "validated_step": Value(
                    lambda: self.validated_step, lambda saved: setattr(self, "validated_step", saved)
                ),
                "random": random,
                "minimizer": self.minimizer,
                "meter": self.logbook.meter,
                "metrics": Value(lambda: self.logbook.metrics, lambda saved: setattr(self.logbook, "metrics", saved)),
                "validation_metrics": Value(
                    lambda: self.validation_metrics, lambda saved: setattr(self, "validation_metrics", saved)
                ),
                "recovery": self.recovery,
            },
            self.edits,
            self.adopt,
            self.ranks,
        )

    # Around a step ------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the run has reached its limit, or is to end before it."""
        progress = self.progress
        return progress.at_limit or (self.lifecycle.finish_reason is not None and progress.may_end)

    @property
    def epoch_is_over(self) -> bool:
        """Whether the batch taken last was the epoch's last."""
        return self._batches is not None and self._batches.exhausted

    def rest_of_epoch(self) -> Iterator[Any]:
        """The batches of the current epoch that are not finished yet, on the device."""
        feed = self.subject.feed
        assert feed is not None
        self._batches = batches = iterate(feed, self.progress.epoch, self.progress.batch, self.config.limit_batches)
        on_cpu, skipped = self.device.type == "cpu", self.recovery.skipped
        batch = None
        for batch in batches:
            if skipped and self.recovery.passes_over():
                self.progress.count_step()
                if self.over:
                    return
                continue
            batch = batch if on_cpu else to_device(batch, self.device)
            self._in_parts = batch
            self.batch = batch if self.fixed is None else batch[0]
            yield self.batch
        if batch is None:
            raise RunError(f"the data gave no batch in epoch {self.progress.epoch + 1}: an iterable must start anew")

    def run_step(self, batch: Any) -> Mapping[str, Any]:
        """The user's step, at the scheduled learning rates; its errors say where they happened."""
        self.take_in_late()
        self.minimizer.apply_learning_rates(self.progress)
        if self.recovery.skips:
            self.recovery.remember_buffers()
        if self.world.size > 1 and self._batches is not None:
            for objective in self.parts.objectives.values():
                objective.call_weight = self._batches.share
        step = self.step_replacement or self.subject.step
        if self.own_streams is not None:
            step = self.own_streams.lent_to(step)
        try:
            if self.fixed is not None and self._batches is not None:
                outputs = self.fixed.take(partial(self._call, step), self._in_parts, self._batches.shares)
            elif self.config.precision == "fp32":
                outputs = scalars(step(batch), "step")
            else:
                outputs = self._call(step, batch)
            if self.config.accumulate > 1:
                self.minimizer.end_step()
        except BadStep as error:
            self.recovery.handle(error, batch, self.where())
            self.minimizer.drop_gradients()
            outputs = {}
        except Exception as error:
            error.add_note(f"in step, at {self.where()}")
            raise
        self.taken += 1
        self.outputs = outputs
        return outputs

    def _call(self, step: Callable[[Any], Any], batch: Any) -> Mapping[str, Any]:
        if self.config.precision == "fp32":
            return scalars(step(batch), "step")
        with autocast(self.device, self.config.precision):
            return scalars(step(batch), "step")

    def finish_step(self) -> None:
        """What follows from a step once its events have fired: snapshots, checkpoints, and whether to pause here."""
        self.counts = (self.progress.epoch, self.progress.step, self.progress.batch)
        self.take_in_late()
        if self._snapshot.due_between_steps(self.progress):
            self.snapshots.take(self.state.capture())
        if self.archive is not None:
            self._file_state(self.archive)
        if self.watches.any:
            self._look(may_pause=True)

    def finish_run(self) -> None:
        """The last step is taken and its state validated: log what is left, and save."""
        self.counts = (self.progress.epoch, self.progress.step, self.progress.batch)
        self.logbook.publish()
        if self._snapshot.due_between_steps(self.progress):
            self.snapshots.take(self.state.capture())
        if self.archive is not None:
            self.save(wait=True)
        if self.watches.any:
            self._look(may_pause=False)

    def validate_if(self, due: bool) -> None:
        """Validate, where it is due and there is something to validate on."""
        if due and self.subject.validation_feed is not None:
            self.subject.validate()

    def validate(self, feed: Feed) -> dict[str, float]:
        """Evaluate the validation data now, with its events."""
        self.validated_step = self.progress.step
        with self.lifecycle.occupied("validation"), self.evaluator.evaluating(), self.ranks.alike():
            self.events.fire("pre_validation")
            # What is found in full need not be the same bits on every GPU, and decides about the run.
            self.validation_metrics = metrics = self.world.share(
                self.evaluator.evaluate(
                    feed, self.subject.validation_step, self.config.limit_validation_batches, self.world
                )
            )
            self.events.fire("post_validation", metrics)
            self.logbook.scalars("validation", metrics)
        return metrics

    def save(self, *, wait: bool) -> Any:
        """Write a checkpoint of the state between two steps. Raises UsageError without a run on disk."""
        if self.archive is None:
            raise UsageError("nowhere to save: make the trainer a run on disk with run_dir=")
        self.save_requested = False
        if not self.taken:
            self.state.late.know_hooks()  # before the first step all of them are those that the trainer was made with
        self.state.late.check()
        with self.lifecycle.occupied("checkpoint"):
            return self.archive.save(self.state.capture(), wait=wait)

    def _file_state(self, archive: Archive) -> None:
        if self._save is not NEVER:
            archive.prepare(lambda: self.state.capture(ask=False))
            if self.taken == 1:
                self.state.late.check()  # not only at the first checkpoint, which may be hours from here
        if self.save_requested or self._save.due_between_steps(self.progress):
            self.save(wait=False)
        archive.take_reports()

    def be_ready(self) -> None:
        """Take in what `pre_training` has made, and have a state to go back to where bad steps roll back."""
        self.parts.find()
        self.adopt()
        if self.config.on_bad_step == "rollback" and not self.snapshots.steps:
            self.snapshots.take(self.state.capture())

    def _heed_periods(self) -> None:
        config = self.config
        self.validation, self._snapshot, self._save = map(
            every, (config.validate_every, config.snapshot_every, config.save_every)
        )

    def heed_settings(self) -> None:
        """Live settings are others than before: make anew what was made of them."""
        self._heed_periods()
        self.logbook.publish_every(self.config.log_every)
        self.minimizer.adopt()
        with self.switches.followed(self.config):
            self.events.fire("on_settings")

    # Its parts ----------------------------------------------------------------------------------------------------

    def take_in_late(self) -> None:
        """Take in what became a part since the last time; costs next to nothing while nothing did."""
        if self.parts.stale or self.parts.watched:
            self.parts.refresh()
        if self._adopted != self.parts.version:
            self.adopt()

    def adopt(self) -> None:
        """Take in what the attributes are by now: on the device, updated, listening, counted from this run's start."""
        self.parts.refresh()
        self._adopted = self.parts.version
        self.parts.to(self.device)
        self.minimizer.adopt()
        for objective in self.parts.objectives.values():
            objective.bind(self.progress)
        self.listen()

    def takes(self, hook: Hook) -> bool:
        """Whether it takes part here."""
        return self.observed or not hook.observer

    def listen(self) -> None:
        """Let the hooks react: those that were given, and those that are attributes."""
        given = {id(hook) for hook in self.hooks}
        self.events.listen([*self.hooks, *(hook for hook in self.parts.hooks.values() if id(hook) not in given)])

    def adopt_feeds(self) -> None:
        """Take in the feeds: their seed and device, and how many batches an epoch has."""
        for feed in self.subject.feeds.values():
            feed.bind(self.config.seed, self.device)
        if self.world.size > 1 and self.subject.feed is not None:
            self.subject.feed.bind(self.config.seed, self.device, self.world)
        if self.fixed is not None and self.subject.feed is not None:
            self.subject.feed.in_parts(self.fixed.here)
        self.count_batches()

    def check_alike(self) -> None:
        """Raise UsageError where another process was started with something else. Collective."""
        check_alike(self.world, traits(self.subject, self.config, self.parts, self.subject.feeds))

    def check_feed(self, name: str, feed: Feed | None) -> None:
        """Take in a feed that is set outside setup. Raises UsageError where a resume would be without it."""
        if self.lifecycle.stage is Stage.NEW:
            return
        if self.archive is not None:
            raise UsageError(
                f"self.{name} is set while the run goes on, and a resume would have that of its beginning: give it a "
                "Feed whose plan(epoch) says what comes when"
            )
        if feed is not None:
            feed.bind(self.config.seed, self.device)

    def count_batches(self) -> None:
        """Take in how many batches an epoch has."""
        feed = self.subject.feed
        self.progress.batches_per_epoch = None if feed is None else batch_count(feed, self.config.limit_batches)

    def log(self, name: str, value: Any) -> None:
        """Add a scalar to the training metrics."""
        self.events.refuse_observers("log")
        self.logbook.meter.add({name: value}, 1.0)

    def note(self, event: str, **fields: Any) -> None:
        """Add to the journal."""
        self.logbook.note(event, **fields)
        if self.watches.any:
            self.watches.journal(event)

    def where(self) -> str:
        """The step being taken, for messages: "step 12 (epoch 1, batch 4)", all counted from 1."""
        progress = self.progress
        return f"step {progress.step + 1} (epoch {progress.epoch + 1}, batch {progress.batch + 1})"

    def _look(self, *, may_pause: bool) -> None:
        """See whether something that is waited for is so."""
        newest = Newest(self.outputs, self.logbook.metrics, self.validation_metrics, self.best)
        self.watches.look(newest, may_pause=may_pause)

    @property
    def borrowed(self) -> bool:
        """Whether the batch under way has nothing of this process's own, and counts for nothing."""
        return self.world.size > 1 and self._batches is not None and self._batches.borrowed

    @property
    def _last_step(self) -> bool:
        """Whether no further micro-batch can join the update under way: the epoch or the run ends with this step."""
        limit = self.progress.max_steps
        if self._batches is None or self._batches.exhausted:
            return True
        return limit is not None and self.progress.step + 1 >= limit

    def _batch_elements(self) -> float:
        if self.fixed is not None and self.fixed.current is not None:
            return self.subject.elements(self.fixed.batch)
        return self.subject.elements(self.batch) if self.batch is not None else 1

    def _keep_batch(self, name: str, batch: Any) -> str | None:
        return self.archive.keep(name, batch) if self.archive is not None else None
