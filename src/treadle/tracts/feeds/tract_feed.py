"""The feed of tractography: batches of lines, with what a volume holds along them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from treadle.data.dataset import DatasetFeed
from treadle.data.feed import Gathered, Reader
from treadle.data.fetch import Fetch
from treadle.data.fingerprint import Fingerprint
from treadle.data.sampler import Indices
from treadle.tracts.batch import LineBatch
from treadle.tracts.feeds.loader import LineLoader
from treadle.tracts.feeds.sampler import LineBatches
from treadle.tracts.feeds.settings import LinesSettings
from treadle.tracts.subject import Subject


class TractFeed(DatasetFeed):
    """Batches (`LineBatch`) of the streamlines of some subjects.

    An epoch has every line of at least two points once, in batches within the settings' budget (see `LineBatches`),
    unless `max_batches` cuts it. In training the order is a function of (seed, epoch) and what is done to a line one
    of (seed, epoch, line); in validation both are always the same, and lines are as they are in the data but for
    their resampling. The same bits come with any number of workers, lazily and in memory.

    Without workers a thread makes the next batch while one is trained on.

    Args:
        subjects: whose lines; numbered one after the other.
        settings: what is said about lines.
        training: augment, and draw the order.
        ends: whether ends are learnt: see `LineBatch`.
        workers: processes that make batches; 0: a thread here.
        features: read the volume; False where a model sees lines alone.
        shuffle: False has the same batches in every epoch of a training, too; what is done to lines differs.
        seed: instead of the run's.

    Raises:
        UsageError: no subjects, no lines, groups that are not there, subjects whose volumes differ in kind.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        settings: LinesSettings,
        *,
        training: bool,
        ends: bool,
        workers: int = 0,
        features: bool = True,
        shuffle: bool = True,
        seed: int | None = None,
    ) -> None:
        given = tuple(subjects)
        self.loader = LineLoader(given, settings, training, ends, features)
        self.settings, self.training, self.ends = settings, training, ends
        loader = self.loader
        usable = np.flatnonzero(loader.lengths >= 2)
        self.left_out = len(loader) - len(usable)
        self.order = LineBatches(
            loader.subject_of(np.arange(len(loader), dtype=np.int64)),
            loader.millimetres if settings.batch_units == "length_mm" else None,
            settings.budget(training),
            subjects_per_batch=settings.subjects_per_batch,
            cycles=settings.cycles,
            most=settings.max_batches if training else settings.max_validation_batches,
            shuffle=training and shuffle,
            lines=usable,
        )
        super().__init__(loader, batching=self.order, workers=workers, seed=seed, name="the streamlines")
        self._fetch = _LineFetch(loader, list)
        self.subjects = given
        self._hits, self._misses = 0, 0
        self._thread: ThreadPoolExecutor | None = None

    @property
    def batches(self) -> int | None:  # type: ignore[override]
        """Batches per epoch; None where epochs differ, by a few: see `LineBatches`."""
        return self.order.count

    @property
    def inputs(self) -> int:
        """Features per point."""
        return self.loader.inputs

    @property
    def hits(self) -> float | None:
        """The share, 0 to 1, of the volumes asked for that were in a cache; None where none was asked for."""
        asked = self._hits + self._misses
        return self._hits / asked if asked else None

    def gather(self, epoch: int, indices: Indices) -> LineBatch:
        """The batch of the lines `indices`, made in this process."""
        return self._counted(self._fetch(self.seed, epoch, indices.tolist()))

    def fingerprint(self) -> str:
        """SHA-256 over all that the subjects hold."""
        if self._fingerprint is None:
            found = Fingerprint().add("streamlines")
            for subject in self.subjects:
                found.add(subject.fingerprint())
            self._fingerprint = found.hexdigest()
        return self._fingerprint

    def fingerprints(self) -> Iterator[str]:
        """`fingerprint()`: there are no older ones."""
        yield self.fingerprint()

    def close(self) -> None:
        """End the workers, or the thread."""
        super().close()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None

    def ask(self, epoch: int, indices: Indices) -> Future[LineBatch]:
        """A batch that the thread makes."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="treadle-lines")
        return self._thread.submit(self.gather, epoch, indices)

    def _open(self, epoch: int, start: int) -> Reader:
        return _Unpacking(self, super()._open(epoch, start)) if self.workers else _Ahead(self, epoch)

    def _counted(self, made: _Made) -> LineBatch:
        self._hits += made.hits
        self._misses += made.misses
        return made.batch


class _Made(NamedTuple):
    """A batch, and what it asked of the cache where it was made."""

    batch: LineBatch
    hits: int
    misses: int


class _LineFetch(Fetch):
    """Makes batches of a loader, here or in a worker."""

    def __call__(self, seed: int, epoch: int, indices: Sequence[int]) -> _Made:
        """The batch of the lines `indices`."""
        cache = self.dataset.cache
        hits, misses = cache.hits, cache.misses
        batch = self.dataset.batch(seed, epoch, indices)
        return _Made(batch, cache.hits - hits, cache.misses - misses)


class _Unpacking(Reader):
    """What a pool's reader gives, without what is told beside it."""

    def __init__(self, feed: TractFeed, inner: Reader) -> None:
        self._feed, self._inner, self.count = feed, inner, inner.count

    def take(self, position: int) -> LineBatch:
        """Batch `position`."""
        return self._feed._counted(self._inner.take(position))

    def share(self, position: int) -> float:
        """This process's share of it."""
        return self._inner.share(position)


class _Ahead(Gathered):
    """Has a thread make the next batches while one is trained on."""

    def __init__(self, feed: TractFeed, epoch: int) -> None:
        super().__init__(feed, epoch)
        self._feed, self._at = feed, epoch
        self._waiting: dict[int, Future[LineBatch]] = {}

    def take(self, position: int) -> LineBatch:
        """Batch `position`."""
        waiting = self._waiting.pop(position, None)
        if waiting is None:
            waiting = self._feed.ask(self._at, self.plan[position])
        for ahead in range(position + 1, min(position + 1 + self._feed.prefetch, len(self.plan))):
            if ahead not in self._waiting:
                self._waiting[ahead] = self._feed.ask(self._at, self.plan[ahead])
        return waiting.result()
