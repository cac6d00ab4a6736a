"""The feed: batches in an order that is a function of (seed, epoch), with an exactly known position.

A feed is a plan (which samples form the batches of an epoch) and a way to gather one of them. What is left is the same
for all and is done here once: the position, the countdown to the epoch's end, and a process's part of each batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch

from treadle.data.batch import Batch, cut, sample_count
from treadle.errors import RunError, StateError, UsageError
from treadle.parallel import ALONE, World


class BatchIterator(ABC):
    """The batches of one epoch, from `Feed.iterate`.

    `exhausted` is True as soon as the batch delivered last was the epoch's last one (and before the first, where there
    is none at all). Feeds of known length just count; a stream looks one item ahead when it is asked.
    """

    @property
    @abstractmethod
    def exhausted(self) -> bool:
        """Whether no batch of the epoch is left."""

    @abstractmethod
    def __next__(self) -> Batch:
        """The next batch; raises StopIteration after the last."""

    def __iter__(self) -> BatchIterator:
        return self

    @property
    def borrowed(self) -> bool:
        """Whether the batch delivered last has no sample of this process's own, but one of another's: it weighs 0."""
        return False

    @property
    def share(self) -> float:
        """Which part of the batch delivered last is this process's: those of all processes together are 1."""
        return 1.0

    @property
    def shares(self) -> list[float]:
        """The same for each part of it, where it is a list of parts; 0 for one that is borrowed."""
        return [self.share]

    def pass_over(self) -> None:
        """Go past the next batch, unmade where that can be; raises StopIteration after the last."""
        next(self)


class Reader(ABC):
    """Makes the batches of one epoch, each when its turn has come."""

    count: int | None
    """Batches of the epoch; None where only reading tells."""

    @abstractmethod
    def take(self, position: int) -> Batch:
        """Batch `position`. Where it raises, the next call is for the same one; StopIteration says there is none."""

    def pass_over(self, position: int) -> None:
        """Be asked for batch `position` no more; what is read in order is read all the same."""
        self.take(position)

    def more(self) -> bool:
        """Whether a further batch is left; asked only where `count` is None."""
        raise NotImplementedError

    @abstractmethod
    def share(self, position: int) -> float:
        """This process's share of batch `position`, taken last: 0 where it was given a sample of another's."""


class Batches(BatchIterator):
    """Position and countdown of every feed: the batches of a reader, from batch `start` on."""

    exhausted = False  # a plain attribute over the abstract property: reading it costs no call

    def __init__(self, reader: Reader, start: int, count: int) -> None:
        self.reader, self.position, self._count = reader, start, count
        self._take = reader.take
        self.exhausted = start >= count

    def __next__(self) -> Batch:
        if self.exhausted:
            raise StopIteration
        batch = self._take(self.position)
        self.position = position = self.position + 1
        if position >= self._count:
            self.exhausted = True
        return batch

    def pass_over(self) -> None:
        """Go past the next batch, unmade where that can be; raises StopIteration after the last."""
        if self.exhausted:
            raise StopIteration
        self.reader.pass_over(self.position)
        self.position += 1
        if self.position >= self._count:
            self.exhausted = True

    @property
    def borrowed(self) -> bool:
        """Whether the batch delivered last has no sample of this process's own, but one of another's: it weighs 0.

        So it is where a batch has fewer samples than there are processes.
        """
        return not self.share

    @property
    def share(self) -> float:
        """Which part of the batch delivered last is this process's: those of all processes together are 1."""
        return self.reader.share(self.position - 1) if self.position else 1.0


class _Unbounded(Batches):
    """The batches of a reader that does not know how many there are."""

    exhausted = property(lambda self: not self.reader.more(), doc=BatchIterator.exhausted.__doc__)

    def __init__(self, reader: Reader, start: int) -> None:
        self.reader, self.position = reader, start

    def __next__(self) -> Batch:
        batch = self.reader.take(self.position)
        self.position += 1
        return batch

    def pass_over(self) -> None:
        """Go past the next batch; raises StopIteration after the last."""
        next(self)


class Feed(ABC):
    """Gives the batches of a run.

    The order of an epoch is a pure function of (seed, epoch) and per-sample randomness one of (seed, epoch, sample),
    so a position is two numbers, and `iterate(epoch, start)` continues exactly where a run was stopped. Feeds leave
    the global generators of Python, NumPy and torch as they found them.

    Subclasses give `batches`, `plan`, `gather` and `fingerprint`; `seed` holds the seed in force, `device` the device
    bound. One that overrides `iterate` instead serves a single process only.

    Example:
        class Windows(Feed):
            batches = 100

            def plan(self, epoch):
                return epoch_order(6400, self.seed, epoch).reshape(100, 64)

            def gather(self, epoch, indices):
                return torch.stack([text[i : i + 32] for i in indices])

            def fingerprint(self):
                return Fingerprint().add(text).hexdigest()
    """

    _world = ALONE
    _cut = 0
    _begun_with: str | None = None

    def __init__(self, seed: int | None = None) -> None:
        self._own_seed = seed is not None
        self.seed = 0 if seed is None else seed
        self.device = torch.device("cpu")

    @property
    @abstractmethod
    def batches(self) -> int | None:
        """Batches per epoch, the same in every epoch; None where epochs differ, or only reading tells."""

    @property
    def samples(self) -> int | None:
        """Samples per epoch, or None where unknown."""
        return None

    def plan(self, epoch: int) -> Sequence[Any]:
        """The batches of `epoch`, as what `gather` makes each of: sample indices that can be sliced.

        A pure function of (seed, epoch), of the same length in every epoch unless `batches` is None.
        """
        raise NotImplementedError(f"{type(self).__name__} gives neither plan() and gather() nor iterate()")

    def gather(self, epoch: int, indices: Any) -> Batch:
        """The batch of `indices`, an entry of the plan of `epoch` or, in one of several processes, a part of it."""
        raise NotImplementedError(f"{type(self).__name__} gives neither plan() and gather() nor iterate()")

    def iterate(self, epoch: int, start: int = 0) -> BatchIterator:
        """The batches of `epoch` (from 0) from batch `start` on, without touching the samples before it."""
        if self._cut:
            first = start * self._cut
            reader = self._open(epoch, first)
            assert reader.count is not None, "a plan has a length"
            return InParts(Batches(reader, first, reader.count), self._cut)
        reader = self._open(epoch, start)
        return _Unbounded(reader, start) if reader.count is None else Batches(reader, start, reader.count)

    def epoch(self, number: int, start: int = 0) -> BatchIterator:
        """The batches of epoch `number`, for a loop of one's own: `for batch in feed.epoch(3)`.

        Args:
            number: of the epoch, from 0; each has its own order and its own augmentation.
            start: how many of its batches are done already, where a loop goes on in the middle of it.

        Raises:
            UsageError: a number below 0, or more batches done than the epoch has.
        """
        for name, value in (("epoch", number), ("start", start)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UsageError(f"{type(self).__name__}.epoch: {name} is {value!r}, expected a whole number from 0 on")
        if self.batches is not None and start > self.batches:
            raise UsageError(
                f"{type(self).__name__} has {self.batches} batches an epoch, but {start} of epoch {number} are said to "
                "be done: give it the data and batch size that it had"
            )
        return self.iterate(number, start)

    def __iter__(self) -> NoReturn:
        """Refused: which epoch is meant has to be said, with `epoch`."""
        raise UsageError(
            f"{type(self).__name__} has another order in each epoch: write `for batch in feed.epoch(n)`, with n from 0"
        )

    def _open(self, epoch: int, start: int) -> Reader:
        """What `iterate` reads from: here the plan, gathered when asked for. Feeds without a plan give their own."""
        return Gathered(self, epoch)

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, in hex, over what identifies the data: equal for equal data, whatever the order and batch size."""

    def fingerprints(self) -> Iterator[str]:
        """`fingerprint()`, then the ones that older versions gave the same data."""
        yield self.fingerprint()

    def recorded_fingerprint(self) -> str:
        """What a run records of its data: the fingerprint that it was begun with, for a new run `fingerprint()`."""
        return self._begun_with or self.fingerprint()

    def accept_fingerprint(self, fingerprint: str) -> bool:
        """Go on with the `fingerprint` that a run was begun with; returns whether it is one of this data's."""
        if fingerprint not in self.fingerprints():
            return False
        self._begun_with = fingerprint
        return True

    def bind(self, seed: int, device: torch.device | str, world: World = ALONE) -> None:
        """Take the run's seed (unless this feed was given its own) and its device. Called by the trainer.

        In a `world` of several processes each takes its part of every batch: entries n*rank//size to n*(rank+1)//size
        of n. Where a batch has none for it, it is given the first (see `Batches.borrowed`). Raises UsageError for a
        feed that overrides `iterate`, which would give all of them the same.
        """
        if world.size > 1 and type(self).iterate is not Feed.iterate:
            raise UsageError(
                f"{type(self).__name__} overrides iterate(), which would give each of {world.size} processes whole "
                "batches: give it plan() and gather() instead, or train in one process"
            )
        if not self._own_seed:
            self.seed = seed
        self.device, self._world = torch.device(device), world

    def in_parts(self, count: int) -> None:
        """Give of each batch a list of parts from now on: `count` of them are this process's. Called by the trainer.

        Raises UsageError for a feed whose batches are not made from a plan.
        """
        if type(self).iterate is not Feed.iterate or type(self).gather is Feed.gather:
            raise UsageError(
                f"{type(self).__name__} makes whole batches, which parts cannot be gathered of: give it plan() and "
                "gather(), or train without parts"
            )
        self._cut = count

    def state_dict(self) -> dict[str, Any]:
        """State beyond (seed, epoch, batch): none, except for streams and loaders that have some."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, before `iterate`. Raises StateError for state this feed cannot have."""
        if state:
            raise StateError(f"{type(self).__name__} has no state of its own, but was given {sorted(state)}")

    def close(self) -> None:  # noqa: B027 (most feeds have nothing to close)
        """End worker processes, where there are any. The feed can be iterated again; it would start them anew."""


class InParts(BatchIterator):
    """Batches as lists of the parts of each that are this process's, which come from `parts` one after the other."""

    def __init__(self, parts: Batches, count: int) -> None:
        self._parts, self._count = parts, count
        self._shares: list[float] = []

    @property
    def shares(self) -> list[float]:
        """Of each part of the batch delivered last, which part of the batch it is: 0 where it is borrowed."""
        return self._shares

    @property
    def exhausted(self) -> bool:
        """Whether no batch of the epoch is left."""
        return self._parts.exhausted

    def __next__(self) -> Batch:
        batch, self._shares = [], []
        for _ in range(self._count):
            batch.append(next(self._parts))
            self._shares.append(self._parts.share)
        return batch


class Gathered(Reader):
    """The reader of a feed with a plan: gathers each batch when it is asked for, in this process."""

    def __init__(self, feed: Feed, epoch: int) -> None:
        self._gather, self._epoch = feed.gather, epoch
        whole = feed.plan(epoch)
        if feed.batches is not None and len(whole) != feed.batches:
            maker = getattr(feed, "batching", feed)
            raise RunError(
                f"{type(maker).__name__} gave {len(whole)} batches in epoch {epoch + 1}, but says it has "
                f"{feed.batches} in every epoch"
            )
        self._parts = _Parts(whole, feed._world, feed._cut or 1)
        self.count = len(self._parts)
        self.plan = whole if feed._world.size == 1 and feed._cut < 2 else self._parts

    def take(self, position: int) -> Batch:
        """Batch `position`."""
        return self._gather(self._epoch, self.plan[position])

    def pass_over(self, position: int) -> None:
        """Nothing: a batch that is not asked for is not made."""

    def share(self, position: int) -> float:
        """This process's share of it."""
        return self._parts.share(position)


class _Parts(Sequence[Any]):
    """A plan of which each batch is cut down to this process's part, or to several that come one after the other."""

    def __init__(self, plan: Sequence[Any], world: World, count: int = 1) -> None:
        self._plan, self._world, self._count = plan, world, count

    def __len__(self) -> int:
        return len(self._plan) * self._count

    def __getitem__(self, key: Any) -> Any:
        entries, part = self._of(key)
        return entries[part if part.start < part.stop else slice(0, 1)]

    def share(self, key: int) -> float:
        """Which part of the batch's entries it is: 0 where these are fewer than the parts, and it has none of them."""
        entries, part = self._of(key)
        return float(max(part.stop - part.start, 0) / len(entries))

    def _of(self, key: int) -> tuple[Any, slice]:
        entries = self._plan[key // self._count]
        number, of = self._world.rank * self._count + key % self._count, self._world.size * self._count
        return entries, slice(len(entries) * number // of, len(entries) * (number + 1) // of)


def has_part(count: int, world: World) -> bool:
    """Whether any of `count` things is this process's."""
    part = world.part(count)
    return bool(part.start < part.stop)


def part_of(count: int, world: World) -> slice:
    """This process's part of `count` things, or the first of them where it has none."""
    return world.part(count) if has_part(count, world) else slice(0, 1)


def own_part(batch: Batch, world: World) -> Batch:
    """This process's part of a ready batch: of every tensor in it, along the first dimension."""
    count = sample_count(batch)
    return cut(batch, count, part_of(count, world))
