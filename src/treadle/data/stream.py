"""Iterable streams: data that can only be read from its beginning on, with an exactly counted position."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from treadle.data.batch import Batch, Collate, sample_count
from treadle.data.batch import collate as default_collate
from treadle.data.feed import own_part, part_of
from treadle.data.fingerprint import identify, older_fingerprints
from treadle.data.memory import has_state
from treadle.data.random import derive_seed
from treadle.data.reading import SequentialFeed, SequentialReader
from treadle.errors import RunError, StateError, UsageError, one_line


class StreamFeed(SequentialFeed):
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
        self.size, self.needed, self.limit = batch_size or 1, (batch_size or 1) if drop_last else 1, length
        self.stateful = has_state(source)
        self._spent = False

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

    def _begin(self, epoch: int, start: int, recalled: bool) -> SequentialReader:
        at = start if recalled else 0
        reader = SequentialReader(self, self._items(epoch), epoch, at, self.batches)
        reader.skip(start - at)
        return reader

    def _item_seed(self, epoch: int, item: int) -> int:
        return derive_seed(self.seed, "item", epoch, item)

    def _whole(self, items: list[Any], position: int) -> int:
        return len(items) if self.batch_size is not None else sample_count(items[0])

    def _join(self, items: list[Any], position: int) -> Batch:
        if self.batch_size is None:
            return items[0] if self._world.size == 1 else own_part(items[0], self._world)
        try:
            return self.collate(items if self._world.size == 1 else items[part_of(len(items), self._world)])
        except Exception as error:
            kind = UsageError if isinstance(error, UsageError) else RunError
            raise kind(
                f"the items of batch {position} of {self.name} could not be joined: {one_line(error)}"
            ) from error

    def _failure(self, epoch: int, item: int, error: Exception) -> RunError:
        return RunError(f"item {item} of {self.name} could not be read in epoch {epoch + 1}: {one_line(error)}")

    def _remembered(self) -> Any:
        return copy.deepcopy(self.source.state_dict()) if self.stateful else None

    def _recall(self, state: Any, start: int) -> None:
        self.source.load_state_dict(state)

    def fingerprint(self) -> str:
        """SHA-256: the source's own `fingerprint()`, else its class alone. Only the former notices changed contents."""
        return identify(self.source)

    def fingerprints(self) -> Iterator[str]:
        """`fingerprint()`, then those of version 0.1.0, which named the module of the class too."""
        yield self.fingerprint()
        yield from older_fingerprints(self.source, partial(identify, self.source))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave, at the next `iterate`."""
        if state.get("source") is not None and not self.stateful:
            raise StateError(
                f"the state of {self.name} holds a source's own state, but {type(self.source).__name__} has no "
                "state_dict and load_state_dict"
            )
        super().load_state_dict(state)

    def _items(self, epoch: int) -> Iterator[Any]:
        source: Any = self.source
        if callable(getattr(source, "set_epoch", None)):
            source.set_epoch(epoch)
        if not hasattr(source, "__iter__"):
            source = source(epoch)
            if not hasattr(source, "__iter__"):
                raise UsageError(f"{self.name} is a function that returned {type(source).__name__}, not an iterable")
        items: Iterator[Any] = iter(source)
        if items is self.source and not self.stateful:
            if self._spent:
                raise RunError(
                    f"{self.name} is a one-shot iterator and was read before: give an iterable that starts anew, or a "
                    "function of the epoch that returns one"
                )
            self._spent = True
        return items
