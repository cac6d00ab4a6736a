"""Iterable streams: data that can only be read from its beginning on, with an exactly counted position."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from treadle.data.batch import Batch, Collate
from treadle.data.batch import collate as default_collate
from treadle.data.feed import BatchIterator, Feed
from treadle.data.fingerprint import Fingerprint, class_name, own_fingerprint
from treadle.data.random import derive_seed, scoped_generators, seed_generators
from treadle.errors import RunError, StateError, UsageError, one_line


class StreamFeed(Feed):
    """Batches from an iterable, a torch `IterableDataset`, or a function of the epoch that returns an iterable.

    The stream starts anew for each epoch: `set_epoch(epoch)` is called where the source has it, then `iter(source)`. A
    one-shot iterator lasts one epoch. Items come in the stream's own order; while one is made the global generators of
    Python, NumPy and torch are seeded by (seed, epoch, item), and restored after it (13 us a batch and 7 us an item; a
    source that draws nothing from them is spared that with `scoped=False`).

    A run continues in mid-epoch through the source's `state_dict()` and `load_state_dict()` where it has both: after
    loading, `iter(source)` must go on behind the last delivered item (after the end of an epoch: with the next epoch).
    Without them the items already delivered are read again and dropped, which is as exact as the stream is repeatable.

    Args:
        source: what to read.
        batch_size: items per batch; None where items are batches already. A ragged last one is kept unless `drop_last`.
        length: items per epoch, where known or chosen (for an endless stream): gives the run its number of steps. A
            longer stream is cut there; a shorter one raises RunError.
        collate: joins a list of items into a batch.
    """

    def __init__(
        self,
        source: Any,
        batch_size: int | None,
        *,
        drop_last: bool = False,
        length: int | None = None,
        collate: Collate = default_collate,
        scoped: bool = True,
        seed: int | None = None,
        name: str = "data",
    ) -> None:
        super().__init__(seed)
        if not (isinstance(source, Iterable) or callable(source) or hasattr(source, "__iter__")):
            raise UsageError(f"{name} is a {type(source).__name__}: expected an iterable, or a function of the epoch")
        for setting, value in (("batch_size", batch_size), ("length", length)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{setting} is {value!r}: expected a whole number of at least 1, or None")
        if drop_last and batch_size is None:
            raise UsageError("drop_last=True needs a batch_size: a stream of whole batches has no short one")
        if length is not None and drop_last and length < (batch_size or 1):
            raise UsageError(f"{name} has length {length}, fewer than one batch of {batch_size}, and drop_last is set")
        self.source, self.batch_size, self.drop_last, self.length = source, batch_size, drop_last, length
        self.collate, self.scoped, self.name = collate, scoped, name
        self._stateful = all(callable(getattr(source, m, None)) for m in ("state_dict", "load_state_dict"))
        self._spent = False
        self._latest: _Reader | None = None
        self._restored: dict[str, Any] | None = None

    @property
    def batches(self) -> int | None:
        """Batches per epoch where `length` is given, else None."""
        if self.length is None:
            return None
        size = self.batch_size or 1
        return self.length // size if self.drop_last else -(-self.length // size)

    @property
    def samples(self) -> int | None:
        """Items delivered per epoch where `length` is given, else None."""
        if self.length is None or not self.drop_last or self.batch_size is None:
            return self.length
        return self.length // self.batch_size * self.batch_size

    def iterate(self, epoch: int, start: int = 0) -> BatchIterator:
        """The batches of `epoch` from batch `start` on: by the source's restored state, or else by reading up to it."""
        restored, self._restored = self._restored, None
        skip = start
        if restored is not None:
            self._check(restored, epoch, start)
            if restored["source"] is not None:
                self.source.load_state_dict(copy.deepcopy(restored["source"]))
                skip = 0
        over = restored is not None and restored["ended"] and restored["epoch"] == epoch
        self._latest = _Reader(self, None if over else self._open(epoch), epoch, start, skip)
        return self._latest

    def fingerprint(self) -> str:
        """SHA-256: the source's own `fingerprint()`, else its class alone. Only the former notices changed contents."""
        return own_fingerprint(self.source) or Fingerprint().add(class_name(self.source)).hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """The position delivered so far (never what was read ahead) and the source's state there, as plain data."""
        if self._latest is None:
            return dict(self._restored) if self._restored is not None else {}
        return {
            "epoch": self._latest.epoch,
            "batch": self._latest.batch,
            "ended": self._latest.ended,
            "source": self._latest.source_state() if self._stateful else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave, at the next `iterate`."""
        if state and set(state) != {"epoch", "batch", "ended", "source"}:
            raise StateError(f"the state of {self.name} has the entries {sorted(state)}: it is not a stream's")
        if state and state["source"] is not None and not self._stateful:
            raise StateError(
                f"the state of {self.name} holds a source's own state, but {type(self.source).__name__} has no "
                "state_dict and load_state_dict"
            )
        self._restored, self._latest = dict(state) or None, None

    def _check(self, state: Mapping[str, Any], epoch: int, start: int) -> None:
        at = (state["epoch"], state["batch"])
        if at != (epoch, start) and not (state["ended"] and (epoch, start) == (at[0] + 1, 0)):
            raise StateError(
                f"the state of {self.name} is of epoch {at[0]}, batch {at[1]}, but epoch {epoch}, batch {start} is "
                "asked for"
            )

    def _open(self, epoch: int) -> Iterator[Any]:
        source: Any = self.source
        if callable(getattr(source, "set_epoch", None)):
            source.set_epoch(epoch)
        if not hasattr(source, "__iter__"):
            source = source(epoch)
            if not hasattr(source, "__iter__"):
                raise UsageError(f"{self.name} is a function that returned {type(source).__name__}, not an iterable")
        items: Iterator[Any] = iter(source)
        if items is self.source and not self._stateful:
            if self._spent:
                raise RunError(
                    f"{self.name} is a one-shot iterator and was read before: give an iterable that starts anew, or a "
                    "function of the epoch that returns one"
                )
            self._spent = True
        return items


class _Reader(BatchIterator):
    """Reads one epoch of a stream. What is read ahead waits here, and is not part of the position."""

    def __init__(self, feed: StreamFeed, items: Iterator[Any] | None, epoch: int, start: int, skip: int) -> None:
        self._feed, self._items = feed, iter(()) if items is None else items
        self._size = feed.batch_size or 1
        self._ahead: deque[Any] = deque()
        # The source's state at the delivered position, kept while it is read beyond that.
        self._held: Any = None
        self._dry = items is None
        if self._dry:
            skip = 0
        self.epoch, self.batch = epoch, start - skip
        self._read = self.batch * self._size
        for _ in range(skip):
            if not self._fill(self._size) and not self._fill(self._needed):
                raise RunError(
                    f"{feed.name} ended before batch {start} of epoch {epoch + 1}, where the run had been: it does not "
                    "repeat itself"
                )
            self._take()

    @property
    def _needed(self) -> int:
        """Items without which there is no further batch."""
        return self._size if self._feed.drop_last else 1

    @property
    def exhausted(self) -> bool:
        """Whether no batch is left; where the length is unknown this reads ahead, one item (or, dropping, a batch)."""
        if self._feed.batches is not None:
            return self.batch >= self._feed.batches
        return not self._fill(self._needed)

    @property
    def ended(self) -> bool:
        """Whether the epoch is known to be over, without reading further."""
        if self._feed.batches is not None:
            return self.batch >= self._feed.batches
        return self._dry and len(self._ahead) < self._needed

    def __next__(self) -> Batch:
        known = self._feed.batches
        if known is not None and self.batch >= known:
            raise StopIteration
        if not self._fill(self._size) and not self._fill(self._needed):
            if known is not None:
                raise RunError(
                    f"{self._feed.name} ended after {self._read} items in epoch {self.epoch + 1}, but its length is "
                    f"given as {self._feed.length}"
                )
            raise StopIteration
        return self._join(self._take())

    def source_state(self) -> Any:
        """The source's state at the delivered position."""
        return self._held if self._ahead and not self.ended else _state_of(self._feed.source)

    def _take(self) -> list[Any]:
        count = min(self._size, len(self._ahead))
        taken = [self._ahead.popleft() for _ in range(count)]
        self.batch += 1
        return taken

    def _join(self, items: list[Any]) -> Batch:
        if self._feed.batch_size is None:
            return items[0]
        try:
            return self._feed.collate(items)
        except Exception as error:
            kind = UsageError if isinstance(error, UsageError) else RunError
            raise kind(
                f"the items of batch {self.batch - 1} of {self._feed.name} could not be joined: {one_line(error)}"
            ) from error

    def _fill(self, count: int) -> bool:
        """Read until `count` items wait; returns whether they do."""
        if len(self._ahead) < count and not self._dry:
            if not self._ahead and self._feed._stateful:
                self._held = _state_of(self._feed.source)
            if self._feed.scoped:
                with scoped_generators():
                    self._pull(count, seeded=True)
            else:
                self._pull(count, seeded=False)
        return len(self._ahead) >= count

    def _pull(self, count: int, seeded: bool) -> None:
        while len(self._ahead) < count:
            if self._feed.length is not None and self._read >= self._feed.length:
                return
            if seeded:
                seed_generators(derive_seed(self._feed.seed, "item", self.epoch, self._read))
            try:
                item = next(self._items)
            except StopIteration:
                self._dry = True
                return
            except Exception as error:
                raise RunError(
                    f"item {self._read} of {self._feed.name} could not be read in epoch {self.epoch + 1}: "
                    f"{one_line(error)}"
                ) from error
            self._ahead.append(item)
            self._read += 1


def _state_of(source: Any) -> Any:
    return copy.deepcopy(source.state_dict())
