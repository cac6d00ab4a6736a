"""Several sets of data under one name each: what is evaluated apart, and logged as "hard/loss"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from treadle.data.batch import Batch
from treadle.data.feed import BatchIterator, Feed
from treadle.data.fingerprint import Fingerprint
from treadle.errors import StateError, UsageError
from treadle.parallel import ALONE, World


class NamedFeeds(Feed):
    """Several feeds, each with a name: data to validate or test on, whose metrics are told apart.

    A trainer makes one of `validation_data={"easy": (x, y), "hard": other}`. Iterated itself it gives the batches of
    one set after the other.

    Raises UsageError for no sets, and for a name that is empty or has a slash in it.
    """

    def __init__(self, sets: Mapping[str, Feed]) -> None:
        super().__init__()
        self.sets = dict(sets)
        if not self.sets:
            raise UsageError("NamedFeeds got no sets: give it at least one, as name -> feed")
        for name, feed in self.sets.items():
            if not isinstance(name, str) or not name or "/" in name:
                raise UsageError(f"a set of data is called {name!r}: expected a name without a slash")
            if not isinstance(feed, Feed):
                raise UsageError(f"the set {name!r} is a {type(feed).__name__}: expected a Feed")

    @property
    def batches(self) -> int | None:
        """Batches of all sets together; None where one does not tell."""
        return _sum([feed.batches for feed in self.sets.values()])

    @property
    def samples(self) -> int | None:
        """Samples of all sets together; None where one does not tell."""
        return _sum([feed.samples for feed in self.sets.values()])

    def iterate(self, epoch: int, start: int = 0) -> BatchIterator:
        """The batches of all sets, one set after the other."""
        chain = _Chain(iter(self.sets.values()), epoch)
        for _ in range(start):
            next(chain)
        return chain

    def bind(self, seed: int, device: torch.device | str, world: World = ALONE) -> None:
        """Take the run's seed and device, for every set."""
        self.device, self._world = torch.device(device), world
        for feed in self.sets.values():
            feed.bind(seed, device, world)

    def fingerprint(self) -> str:
        """SHA-256 over the names and fingerprints of the sets."""
        digest = Fingerprint().add("sets")
        for name, feed in self.sets.items():
            digest.add(name).add(feed.recorded_fingerprint())
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """What the sets have of their own, by name."""
        return {name: state for name, feed in self.sets.items() if (state := feed.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name in state:
            if name not in self.sets:
                raise StateError(f"the checkpoint has a set {name!r}, the data has not: it has {', '.join(self.sets)}")
        for name, feed in self.sets.items():
            feed.load_state_dict(state.get(name, {}))

    def close(self) -> None:
        """End the worker processes of all sets."""
        for feed in self.sets.values():
            feed.close()


def sets_of(feed: Feed) -> dict[str, Feed]:
    """The feeds to evaluate, by name; a feed that is no `NamedFeeds` is the only one, without a name."""
    return feed.sets if isinstance(feed, NamedFeeds) else {"": feed}


class _Chain(BatchIterator):
    """The batches of one feed after the other."""

    def __init__(self, feeds: Iterator[Feed], epoch: int) -> None:
        self._feeds, self._epoch = feeds, epoch
        self._batches: BatchIterator | None = None

    @property
    def exhausted(self) -> bool:
        """Whether no batch of any feed is left; opens the next feed where one is at its end."""
        while self._batches is None or self._batches.exhausted:
            feed = next(self._feeds, None)
            if feed is None:
                return True
            self._batches = feed.iterate(self._epoch)
        return False

    def __next__(self) -> Batch:
        if self.exhausted or self._batches is None:
            raise StopIteration
        return next(self._batches)


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
