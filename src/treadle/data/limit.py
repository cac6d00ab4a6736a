"""The first batches of an epoch: all that some runs, and all that a quick look, take of their data."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from treadle.data.batch import Batch
from treadle.data.feed import BatchIterator, Feed
from treadle.parallel import World


def iterate(feed: Feed, epoch: int, start: int = 0, limit: int | None = None) -> BatchIterator:
    """The batches of `epoch` from batch `start` on, as `feed.iterate` gives them, but none after the first `limit`."""
    batches = feed.iterate(epoch, start)
    return batches if limit is None else FirstBatches(batches, start, limit)


def batch_count(feed: Feed, limit: int | None = None) -> int | None:
    """Batches per epoch, of which no more than `limit` are taken; None where only reading tells."""
    return feed.batches if limit is None or feed.batches is None else min(feed.batches, limit)


class FirstBatches(BatchIterator):
    """The batches that `batches`, which begins at batch `start`, gives before batch `limit` of the epoch.

    What comes after that is not asked for, not even whether there is any.
    """

    def __init__(self, batches: BatchIterator, start: int, limit: int) -> None:
        self._batches, self._left = batches, limit - start

    @property
    def exhausted(self) -> bool:
        """Whether no batch is left."""
        return self._left <= 0 or self._batches.exhausted

    @property
    def borrowed(self) -> bool:
        """Whether the batch delivered last has no sample of this process's own."""
        return self._batches.borrowed

    @property
    def share(self) -> float:
        """Which part of the batch delivered last is this process's."""
        return self._batches.share

    @property
    def shares(self) -> list[float]:
        """The same for each part of it."""
        return self._batches.shares

    def __next__(self) -> Batch:
        if self._left <= 0:
            raise StopIteration
        batch = next(self._batches)
        self._left -= 1
        return batch

    def pass_over(self) -> None:
        """Go past the next batch, unmade where that can be; raises StopIteration after the last."""
        if self._left <= 0:
            raise StopIteration
        self._batches.pass_over()
        self._left -= 1


def dealt(batches: BatchIterator, world: World) -> Iterator[tuple[int, Batch]]:
    """Of `batches` those that are this process's turn, each with its number: batch i is that of process i mod size."""
    for index in count():
        try:
            if index % world.size == world.rank:
                yield index, next(batches)
            else:
                batches.pass_over()
        except StopIteration:
            return
