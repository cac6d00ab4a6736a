"""Map-style datasets: samples made one by one, here or in worker processes, with the same bits either way."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from treadle.data.batch import Batch, Collate
from treadle.data.batch import collate as default_collate
from treadle.data.feed import Feed, Gathered, Reader
from treadle.data.fetch import Fetch
from treadle.data.fingerprint import Fingerprint, Naming, identify, older_fingerprints, probes, stable_name
from treadle.data.sampler import Batching, FixedBatches, Indices
from treadle.data.workers import WorkerPool
from treadle.errors import UsageError


class DatasetFeed(Feed):
    """Batches from a dataset with `__len__` and `__getitem__`.

    What is random about a sample (crops, noise) depends on (seed, epoch, index) alone: the same for any number of
    workers, another in every epoch. A dataset with `sample(index, rng)`, `rng` a `numpy.random.Generator`, draws from
    `rng`; for one with `__getitem__` only, the global generators of Python, NumPy and torch are seeded for each sample,
    and restored after the batch. A dataset with `describe(index)` (say, its file) has that quoted in errors.

    Args:
        dataset: the dataset. Its `fingerprint()`, where it has one, identifies it.
        batch_size: samples per batch; a ragged last batch is kept unless `drop_last`. Not together with `batching`.
        batching: other batches than of one size, such as `LengthBuckets`.
        workers: processes that make batches, spawned at the first use and kept over epochs; 0 makes them here.
            The dataset is sent to each; its tensors above 1 MB are shared between them.
        collate: joins a list of samples into a batch.
        prefetch: batches each worker makes ahead.
        worker_threads: torch threads of a worker. Samples computed by torch reductions over more than some 30,000
            numbers round differently on another number of threads: set it to torch.get_num_threads() where those
            must equal workers=0 bit for bit.

    Raises UsageError for empty data, a batch size that gives no batch, or a dataset that workers cannot be sent.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = None,
        *,
        batching: Batching | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        workers: int = 0,
        collate: Collate = default_collate,
        prefetch: int = 2,
        worker_threads: int = 1,
        seed: int | None = None,
        name: str = "data",
    ) -> None:
        super().__init__(seed)
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise UsageError(f"{name} is a {type(dataset).__name__}: expected a dataset with __len__ and __getitem__")
        for setting, value, least in (
            ("workers", workers, 0),
            ("prefetch", prefetch, 1),
            ("worker_threads", worker_threads, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{setting} is {value!r}: expected a whole number of at least {least}")
        if batching is None:
            if batch_size is None:
                raise UsageError(f"{name} needs a batch_size, or batching")
            batching = FixedBatches(len(dataset), batch_size, shuffle=shuffle, drop_last=drop_last, name=name)
        elif batch_size is not None:
            raise UsageError(f"{name} has batching, which says how large batches are: leave out batch_size")
        elif len(batching) < 1:
            raise UsageError(f"{name} is empty: its batching gives no batch")
        self.dataset, self.batching = dataset, batching
        self.workers, self.prefetch, self.worker_threads = workers, prefetch, worker_threads
        self._fetch = Fetch(dataset, collate)
        self._pool: WorkerPool | None = None
        self._fingerprint: str | None = None

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        return len(self.batching)

    @property
    def samples(self) -> int:
        """Samples delivered per epoch."""
        return self.batching.samples

    def plan(self, epoch: int) -> Sequence[Indices]:
        """The samples of each batch, as `batching` says."""
        return self.batching.epoch(self.seed, epoch)

    def gather(self, epoch: int, indices: Indices) -> Batch:
        """The batch of `indices`, made in this process."""
        return self._fetch(self.seed, epoch, indices.tolist())

    def _open(self, epoch: int, start: int) -> Reader:
        """Makes batches here, or has workers make them ahead; samples before `start` are not made."""
        return _Pooled(self, self.pool(), epoch, start) if self.workers else Gathered(self, epoch)

    def pool(self) -> WorkerPool:
        """The worker processes, started if need be; new ones where one had died."""
        if self._pool is not None and self._pool.broken:
            self.close()
        if self._pool is None:
            self._pool = WorkerPool(self._fetch, self.workers, self.worker_threads)
        return self._pool

    def fingerprint(self) -> str:
        """SHA-256: the dataset's own `fingerprint()`, else its length and a few fixed samples; computed once.

        The name of its class counts, too. Samples are made with a fixed seed, so augmentation does not change it. A
        change in a sample that is not among the few goes unnoticed: a dataset of files does better to hash their names,
        sizes and times itself.
        """
        if self._fingerprint is None:
            self._fingerprint = dataset_fingerprint(self.dataset)
        return self._fingerprint

    def fingerprints(self) -> Iterator[str]:
        """`fingerprint()`, then those of version 0.1.0, which named the module of the class too."""
        yield self.fingerprint()
        yield from older_fingerprints(self.dataset, partial(dataset_fingerprint, self.dataset))

    def close(self) -> None:
        """End the worker processes, where there are any."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def dataset_fingerprint(dataset: Any, naming: Naming = stable_name) -> str:
    """See `DatasetFeed.fingerprint`."""
    if callable(getattr(dataset, "fingerprint", None)):
        return identify(dataset, naming)
    digest = Fingerprint(naming).add(naming(dataset)).add(len(dataset))
    for sample in Fetch(dataset, default_collate).samples(0, 0, probes(len(dataset))):
        digest.add(sample)
    return digest.hexdigest()


class _Pooled(Gathered):
    """Keeps workers some batches ahead; batch k of the epoch comes from worker k modulo their number."""

    def __init__(self, feed: DatasetFeed, pool: WorkerPool, epoch: int, start: int) -> None:
        super().__init__(feed, epoch)
        self._pool, self._seed = pool, feed.seed
        self._ahead = feed.prefetch * len(pool)
        self._asked = start
        self._tickets: deque[int] = deque()
        self._ask()

    def take(self, position: int) -> Batch:
        """Batch `position`."""
        self._ask()
        try:
            batch = self._pool.take(position % len(self._pool), self._tickets.popleft())
        except BaseException:
            # As without workers: the next call tries the same batch again.
            self._forget()
            self._asked = position
            raise
        self._ask()
        return batch

    def pass_over(self, position: int) -> None:
        """Take it all the same: workers make the batches in their order, ahead."""
        self.take(position)

    def _ask(self) -> None:
        while self._asked < len(self.plan) and len(self._tickets) < self._ahead:
            indices = self.plan[self._asked].tolist()
            self._tickets.append(self._pool.submit(self._asked % len(self._pool), self._seed, self._epoch, indices))
            self._asked += 1

    def _forget(self) -> None:
        self._pool.abandon(self._tickets)
        self._tickets.clear()

    def __del__(self) -> None:
        if getattr(self, "_tickets", None):
            self._forget()
