"""Reading a source from its beginning on: items seeded one by one, look-ahead, and an exactly known position."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from treadle.data.batch import Batch
from treadle.data.feed import Feed, Reader
from treadle.data.random import scoped_generators, seed_generators
from treadle.errors import RunError, StateError, UsageError


@dataclass
class _Place:
    """Where the reading of an epoch is. The feed keeps it, and not the reader: so a loader's workers end with that."""

    epoch: int
    position: int
    count: int | None
    dry: bool = False
    """Whether the source gives no more."""
    ahead: deque[Any] = field(default_factory=deque)
    """Items that were read and not delivered: no part of the position."""
    held: Any = None
    """What the source remembered at the delivered position, kept while it is read beyond that."""


class SequentialFeed(Feed):
    """A feed that is read item after item; its state is the position, and what its source remembers.

    Subclasses open an epoch, and say how an item is seeded and a batch is joined.
    """

    name = "data"
    size = 1
    """Items per batch."""
    needed = 1
    """Items without which there is no further batch."""
    limit: int | None = None
    """Items after which an epoch is cut."""
    scoped = True
    """Whether the global generators are seeded for each item, and restored after it."""
    stateful = False
    """Whether the source goes on at any batch from its own state, so that nothing is read again."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed)
        self._place: _Place | None = None
        self._restored: dict[str, Any] | None = None
        self._pristine: Any = None
        self._opened = False

    def in_parts(self, count: int) -> None:
        """Refused: parts of a batch are made each by itself, and what is read in order comes once."""
        raise UsageError(
            f"{self.name} is read in order, and the parts of a batch cannot be made each by itself: give a dataset "
            "with __len__ and __getitem__, or train without parts"
        )

    @abstractmethod
    def _begin(self, epoch: int, start: int, recalled: bool) -> SequentialReader:
        """A reader at batch `start` of `epoch`; `recalled`: the source is back in the state that it had there."""

    @abstractmethod
    def _item_seed(self, epoch: int, item: int) -> int:
        """The seed of everything random about an item."""

    @abstractmethod
    def _whole(self, items: list[Any], position: int) -> int:
        """How many samples `items` are, all processes' parts together."""

    @abstractmethod
    def _join(self, items: list[Any], position: int) -> Batch:
        """Batch `position`: of its `items`, this process's part."""

    @abstractmethod
    def _failure(self, epoch: int, item: int, error: Exception) -> RunError:
        """What to raise where an item could not be read."""

    def _remembered(self) -> Any:
        """What the source remembers now, as plain data and tensors; None where that is nothing."""
        return None

    def _recall(self, state: Any, start: int) -> None:
        """Put the source back into a remembered `state`, to go on at batch `start`."""

    def _forget(self) -> None:
        """Put the source back to where it was before it was first read."""
        if self._pristine is not None:
            self._recall(copy.deepcopy(self._pristine), 0)

    def _open(self, epoch: int, start: int) -> SequentialReader:
        """Reads on from the restored state, or else up to batch `start`. Batch 0 begins the source anew, wherever it
        was: so it is in every validation."""
        self._look()
        restored, self._restored = self._restored, None
        recalled = restored is not None and restored["source"] is not None
        if restored is not None:
            at = restored["epoch"], restored["batch"]
            if start and (epoch, start) != at:
                raise StateError(
                    f"the state of {self.name} is of epoch {at[0]}, batch {at[1]}, but epoch {epoch}, batch {start} is "
                    "asked for"
                )
            if recalled:
                self._recall(copy.deepcopy(restored["source"]), start)
        if start and restored is not None and restored["ended"]:
            reader = SequentialReader(self, None, epoch, start, self.batches)
        else:
            reader = self._begin(epoch, start, recalled)
        self._place = reader.place
        return reader

    def state_dict(self) -> dict[str, Any]:
        """The position delivered so far (never what was read ahead) and the source's state there, as plain data."""
        place = self._place
        if place is None:
            return dict(self._restored) if self._restored is not None else {}
        over = place.dry and len(place.ahead) < self.needed
        if place.count is not None:
            over = place.position >= place.count
        source = place.held if self.stateful and place.ahead and not over else self._remembered()
        return {"epoch": place.epoch, "batch": place.position, "ended": over, "source": source}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave, at the next `iterate`."""
        if state and set(state) != {"epoch", "batch", "ended", "source"}:
            raise StateError(f"the state of {self.name} has the entries {sorted(state)}: it is not a stream's")
        self._look()
        if not state:
            self._forget()
        self._restored, self._place = dict(state) or None, None

    def _look(self) -> None:
        """Keep what the source remembers before it is touched, for `_forget`."""
        if not self._opened:
            self._opened, self._pristine = True, self._remembered()


class SequentialReader(Reader):
    """Reads one epoch from `items` (None: it is over) on, the first of which is of batch `position`."""

    def __init__(
        self, feed: SequentialFeed, items: Iterator[Any] | None, epoch: int, position: int, count: int | None
    ) -> None:
        self._feed, self._items = feed, iter(()) if items is None else items
        self.place, self.count = _Place(epoch, position, count, dry=items is None), count
        self._read = position * feed.size
        self._share = 1.0

    def take(self, position: int) -> Batch:
        """Batch `position`."""
        feed = self._feed
        if not self._ready():
            if self.count is None:
                raise StopIteration
            raise RunError(
                f"{feed.name} ended after {self._read} items in epoch {self.place.epoch + 1}, but its length is given "
                f"as {feed.limit or self.count}"
            )
        items = self._next_items()
        if feed._world.size > 1:
            count = feed._whole(items, position)
            part = feed._world.part(count)
            self._share = max(part.stop - part.start, 0) / max(count, 1)
        batch = feed._join(items, position)
        self._pass(items)
        return batch

    def skip(self, count: int) -> None:
        """Read `count` batches and drop them. Raises RunError where there are not so many."""
        for _ in range(count):
            if not self._ready():
                raise RunError(
                    f"{self._feed.name} ended before batch {count} of epoch {self.place.epoch + 1}, where the run had "
                    "been: it does not repeat itself"
                )
            self._pass(self._next_items())

    def more(self) -> bool:
        """Whether a further batch is left; reads ahead, one item (or, where a short batch is dropped, a whole one)."""
        return self._fill(self._feed.needed)

    def share(self, position: int) -> float:
        """This process's share of it."""
        return self._share

    def _ready(self) -> bool:
        return self._fill(self._feed.size) or self._fill(self._feed.needed)

    def _next_items(self) -> list[Any]:
        return [self.place.ahead[k] for k in range(min(self._feed.size, len(self.place.ahead)))]

    def _pass(self, items: list[Any]) -> None:
        for _ in items:
            self.place.ahead.popleft()
        self.place.position += 1

    def _fill(self, count: int) -> bool:
        """Read until `count` items wait; returns whether they do."""
        if len(self.place.ahead) < count and not self.place.dry:
            # One item that is a batch is delivered at once.
            if not self.place.ahead and self._feed.stateful and (self.count is None or self._feed.size > 1):
                self.place.held = self._feed._remembered()
            if self._feed.scoped:
                with scoped_generators():
                    self._pull(count, seeded=True)
            else:
                self._pull(count, seeded=False)
        return len(self.place.ahead) >= count

    def _pull(self, count: int, seeded: bool) -> None:
        feed = self._feed
        while len(self.place.ahead) < count:
            if feed.limit is not None and self._read >= feed.limit:
                return
            if seeded:
                seed_generators(feed._item_seed(self.place.epoch, self._read))
            try:
                item = next(self._items)
            except StopIteration:
                self.place.dry = True
                return
            except Exception as error:
                raise feed._failure(self.place.epoch, self._read, error) from error
            self.place.ahead.append(item)
            self._read += 1
