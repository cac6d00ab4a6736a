"""The base of sinks: where scalars, pictures and text go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from treadle.engine.events import Hook, Order, Record

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


class Sink(Hook):
    """Receives what a trainer logs. Override `scalars`, `image` or `text`, and `open` and `close` where it holds files.

    A sink is an observer: one that raises is reported, retried, at last switched off, and the run goes on. It gets
    plain numbers and NumPy arrays, never tensors. It is opened before the first thing it receives and closed with the
    run; what comes after that (a test of the final model, say) has an `open` and a `close` of its own.

    In the table of sinks (`treadle.sinks.table`, or an entry point of the group `treadle.sinks`) it has a name, and
    `--log NAME=WHERE` makes one as `at` says. A sink may have `state_dict()` and `load_state_dict()`, to keep the id
    that its server gave the run, say; a run may be resumed with sinks that its checkpoints do not know.

    Example:
        class Lines(Sink):
            def scalars(self, step, values, split):
                print(split, step, values)

        Trainer(..., hooks=[Lines()])
    """

    order: ClassVar[int] = Order.LATE
    observer: ClassVar[bool] = True
    optional_state: ClassVar[bool] = True

    _opened = False
    _ended = False

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

    def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
        """Named numbers, after `step` steps; `split` is "train", "epoch", "validation" or "test"."""

    def image(self, step: int, name: str, picture: Any) -> None:
        """A picture: array (H, W) or (H, W, C), C = 1, 3 or 4; uint8, or float in [0, 1]."""

    def text(self, step: int, name: str, text: str) -> None:
        """A text."""

    def pre_training(self, trainer: Trainer) -> None:
        """Open with the run."""
        self._ensure_open(trainer)

    def on_log(self, trainer: Trainer, record: Record) -> None:
        """Hand the record to `scalars`, `image` or `text`."""
        self._ensure_open(trainer)
        try:
            if record.kind == "scalars":
                self.scalars(record.step, record.value, record.name)
            elif record.kind == "image":
                self.image(record.step, record.name, record.value)
            elif record.kind == "text":
                self.text(record.step, record.name, record.value)
        finally:
            if self._ended:
                self._ensure_closed()

    def teardown(self, trainer: Trainer) -> None:
        """Close with the run."""
        self._ended = True
        self._ensure_closed()

    def _ensure_open(self, trainer: Trainer) -> None:
        if not self._opened:
            self.open(trainer)
            self._opened = True

    def _ensure_closed(self) -> None:
        if self._opened:
            self._opened = False
            self.close()
