"""The base of sinks: where scalars, pictures, text and things in space go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from treadle.config.fields import to_dict
from treadle.engine.events import Hook, Order, Record
from treadle.files import settled
from treadle.reports.scene import Scene, checked
from treadle.runs.names import document, label
from treadle.runs.run import BEST, read_config, read_environment

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


class Sink(Hook):
    """Receives what a trainer logs. Override what the place has room for, and `open` and `close` where it holds files.

    A sink is an observer: one that raises is reported, retried, at last switched off, and the run goes on. It gets
    plain numbers and NumPy arrays, never tensors. It is opened before the first thing it receives and closed with the
    run; what comes after that (a test of the final model, say) has an `open` and a `close` of its own. After `open`
    come `config` and `environment`, and before `close`, where the run ends, `artifact` and `summary`.

    In the table of sinks (`treadle.sinks.table`, or an entry point of the group `treadle.sinks`) it has a name, and
    `--log NAME=WHERE` makes one as `at` says. A sink may have `state_dict()` and `load_state_dict()`, to keep the id
    that its server gave the run, say; a run may be resumed with sinks that its checkpoints do not know.

    One that speaks with a service is a `treadle.sinks.remote.RemoteSink`: it never waits.

    Example:
        class Lines(Sink):
            def scalars(self, step, values, split):
                print(split, step, values)

        Trainer(..., hooks=[Lines()])
    """

    order: ClassVar[int] = Order.LATE
    observer: ClassVar[bool] = True
    optional_state: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "scene" in vars(cls) and "hears" not in vars(cls):
            cls.hears = ("scalars", "image", "text", "scene")

    _opened = False
    _ended = False
    _went_to: int | None = None

    @classmethod
    def at(cls, where: str | None) -> Self:
        """The sink that `--log NAME=WHERE` asks for: WHERE is the constructor's first argument, left out where None.

        Override it where WHERE means something else. Raises UsageError for a place that makes no sense.
        """
        make: Callable[..., Self] = cls
        return make() if where is None else make(where)

    def open(self, trainer: Trainer) -> None:
        """Make ready to receive."""

    def close(self) -> None:
        """Release what `open` took; called once for each `open`."""

    def config(self, values: Mapping[str, Any]) -> None:
        """What config.yaml holds: "trainer", "data" and the resolved settings as "config"; plain data."""

    def environment(self, values: Mapping[str, Any]) -> None:
        """What environment.json holds: versions, hardware, threads, commit, command; plain data."""

    def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
        """Named numbers, after `step` steps; `split` is "train", "epoch", "validation" or "test"."""

    def image(self, step: int, name: str, picture: Any) -> None:
        """A picture: an array (H, W) or (H, W, C), uint8, or float in [0, 1]; see `images.display.to_uint8`."""

    def text(self, step: int, name: str, text: str) -> None:
        """A text."""

    def scene(self, step: int, name: str, scene: Scene) -> None:
        """Things in space, of arrays of its own. A class with this method hears scenes, so that they are made."""

    def event(self, entry: Mapping[str, Any]) -> None:
        """An entry of the journal: "event", "step", "epoch", "time" and what belongs to it."""

    def cut(self, step: int) -> None:
        """What was logged after `step` is given up: the run went back there, or was continued from there."""

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """A file or directory of the run: of kind "model" its best model, when it ends; of kind "report" a report."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """What summary.json holds: status, reason, step, epoch, metrics, best, seconds, digest; when the run ends."""

    def pre_training(self, trainer: Trainer) -> None:
        """Open with the run."""
        self._ensure_open(trainer)

    def on_log(self, trainer: Trainer, record: Record) -> None:
        """Hand the record to `scalars`, `image`, `text` or `scene`."""
        self._ensure_open(trainer)
        try:
            if record.kind == "scalars":
                self.scalars(record.step, record.value, record.name)
            elif record.kind == "image":
                self.image(record.step, record.name, record.value)
            elif record.kind == "text":
                self.text(record.step, record.name, record.value)
            elif record.kind == "scene":
                self.scene(record.step, record.name, checked(record.value, record.name))
        finally:
            if self._ended:
                self._ensure_closed()

    def on_journal(self, trainer: Trainer, entry: Mapping[str, Any]) -> None:
        """Hand the entry to `event`."""
        if not trainer.ended:
            self._ended = False  # also that of a run that was rewound or extended after its end
        if self._overrides("event") and not self._ended:
            self._ensure_open(trainer)
            self.event(entry)

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Give up what came after the state that was restored."""
        if self._opened:
            self.cut(trainer.progress.step)
        else:
            self._went_to = trainer.progress.step

    def teardown(self, trainer: Trainer) -> None:
        """Tell what the run came to, and close with it."""
        self._ended = True
        try:
            if self._opened:
                self._conclude(trainer)
        finally:
            self._ensure_closed()

    def _conclude(self, trainer: Trainer) -> None:
        if self._overrides("artifact") and trainer.run is not None:
            best = settled(trainer.run.path / BEST)
            if best.is_dir():
                self.artifact(BEST, "model", best)
        if self._overrides("summary"):
            self.summary(trainer.summary().to_dict())

    def _ensure_open(self, trainer: Trainer) -> None:
        if self._opened:
            return
        self.open(trainer)
        self._opened = True
        if self._overrides("config"):
            self.config(config_of(trainer))
        if self._overrides("environment"):
            self.environment(environment_of(trainer))
        if self._went_to is not None:
            step, self._went_to = self._went_to, None
            self.cut(step)

    def _ensure_closed(self) -> None:
        if self._opened:
            self._opened = False
            self.close()

    def _overrides(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Sink, name)


def config_of(trainer: Trainer) -> dict[str, Any]:
    """What a run's config.yaml holds; for one that is not on disk, what it would."""
    config = {} if trainer.run is None else read_config(trainer.run.path)
    known = document(label(type(trainer)), trainer.config, None) | config
    return known | {"config": to_dict(trainer.config)}


def environment_of(trainer: Trainer) -> dict[str, Any]:
    """What a run's environment.json holds; for one that is not on disk, what it would."""
    from treadle.runs.environment import describe_environment

    return describe_environment() if trainer.run is None else read_environment(trainer.run.path)
