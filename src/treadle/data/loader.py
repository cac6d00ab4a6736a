"""An adapter for torch's DataLoader, and what can be exact about it."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

from treadle.data.batch import Batch
from treadle.data.dataset import dataset_fingerprint
from treadle.data.feed import BatchIterator, Feed
from treadle.data.fingerprint import Fingerprint, class_name, own_fingerprint
from treadle.data.random import derive_seed, scoped_generators, seed_generators
from treadle.errors import RunError, UsageError, one_line


class LoaderFeed(Feed):
    """The batches of a torch `DataLoader`, with the loader's own batch size, sampler, workers and collate function.

    Exact: the order. The loader's sampler is run once at the start of each epoch, with the global generators, the
    loader's `generator` and the sampler's seeded from (seed, epoch) (`set_epoch` is called where it exists); a run
    continues in mid-epoch from that list, and does not load the batches before. With `num_workers=0` also what the
    dataset draws from global generators: it is seeded by (seed, epoch, batch).

    Not exact: random numbers that a dataset draws in the loader's workers, after a stop in mid-epoch (they depend on
    what each worker did before); a sampler that keeps state of its own between epochs; an `IterableDataset`, which is
    read again and dropped up to the position. Where that matters give the trainer the dataset itself (`DatasetFeed`).

    Raises UsageError for an empty loader.
    """

    def __init__(self, loader: DataLoader[Any], *, seed: int | None = None) -> None:
        super().__init__(seed)
        self.loader = loader
        self._map_style = not isinstance(loader.dataset, IterableDataset)
        self._sampler: Any = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
        self._generator = torch.Generator()
        self._plan = _Plan()
        self._planned = _with_plan(loader, self._plan, self._generator) if self._map_style else loader
        self._fingerprint: str | None = None
        if self._map_style and self.batches == 0:
            raise UsageError("the DataLoader gives no batch: its dataset is empty, or shorter than a batch it drops")

    @property
    def batches(self) -> int | None:
        """Batches per epoch; None for an `IterableDataset` or a sampler without a length."""
        return len(self._sampler) if self._map_style and isinstance(self._sampler, Sized) else None

    @property
    def samples(self) -> int | None:
        """Samples the loader's sampler gives per epoch (with `drop_last`, the dropped ones count); None if unknown."""
        sampler = self.loader.sampler
        return len(sampler) if self._map_style and isinstance(sampler, Sized) else None

    def iterate(self, epoch: int, start: int = 0) -> BatchIterator:
        """The batches of `epoch` from batch `start` on."""
        self._generator.manual_seed(derive_seed(self.seed, "workers", epoch))
        if not self._map_style:
            batches = _Loaded(self, iter(self._scoped_iterator(epoch)), epoch, 0, None)
            for _ in range(start):
                next(batches, None)
            return batches
        order = self._order(epoch)
        self._plan.entries = order[start:]
        return _Loaded(self, self._scoped_iterator(epoch), epoch, start, len(order))

    def fingerprint(self) -> str:
        """SHA-256: as for `DatasetFeed`; of an `IterableDataset`, as for `StreamFeed`. Computed once."""
        if self._fingerprint is None:
            data = self.loader.dataset
            if self._map_style:
                self._fingerprint = dataset_fingerprint(data)
            else:
                self._fingerprint = own_fingerprint(data) or Fingerprint().add(class_name(data)).hexdigest()
        return self._fingerprint

    def _scoped_iterator(self, epoch: int) -> Iterator[Batch]:
        with scoped_generators():
            seed_generators(derive_seed(self.seed, "loader", epoch))
            return iter(self._planned)

    def _order(self, epoch: int) -> list[Any]:
        """What the sampler gives in `epoch`: a function of (seed, epoch), as far as the sampler has no other state."""
        inner = getattr(self._sampler, "sampler", None)
        order_seed = derive_seed(self.seed, "order", epoch)
        for holder in (self.loader, self._sampler, inner):
            generator = getattr(holder, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(order_seed)
            if callable(getattr(holder, "set_epoch", None)):
                holder.set_epoch(epoch)  # type: ignore[union-attr]  # just seen to be callable
        with scoped_generators():
            seed_generators(order_seed)
            return list(self._sampler)


class _Plan(Sampler[Any]):
    """A sampler that gives what it was told, so that one loader (and its workers) serves every epoch and position."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def _with_plan(loader: DataLoader[Any], plan: _Plan, generator: torch.Generator) -> DataLoader[Any]:
    """A loader like `loader`, with `plan` in the place of its sampler; the user's own stays untouched."""
    batched = loader.batch_sampler is not None
    settings: dict[str, Any] = {"batch_sampler": plan} if batched else {"batch_size": None, "sampler": plan}
    return DataLoader(
        loader.dataset,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        **settings,
    )


class _Loaded(BatchIterator):
    """One epoch of a loader; where its length is unknown, `exhausted` reads one batch ahead."""

    def __init__(self, feed: LoaderFeed, batches: Iterator[Batch], epoch: int, start: int, count: int | None) -> None:
        self._feed, self._batches, self._epoch = feed, batches, epoch
        self._position, self._count = start, count
        self._ahead: list[Batch] = []

    @property
    def exhausted(self) -> bool:
        """Whether no batch of the epoch is left."""
        if self._count is not None:
            return self._position >= self._count
        if not self._ahead:
            try:
                self._ahead.append(self._read())
            except StopIteration:
                return True
        return False

    def __next__(self) -> Batch:
        batch = self._ahead.pop() if self._ahead else self._read()
        self._position += 1
        return batch

    def _read(self) -> Batch:
        with scoped_generators():
            seed_generators(derive_seed(self._feed.seed, "batch", self._epoch, self._position))
            try:
                return next(self._batches)
            except StopIteration:
                raise
            except Exception as error:
                lines = str(error).strip().splitlines()
                # What a worker raised comes wrapped in its traceback, with the error itself at the end.
                what = lines[-1] if "Original Traceback" in str(error) else one_line(error)
                raise RunError(
                    f"the DataLoader failed at batch {self._position} of epoch {self._epoch + 1}: {what}"
                ) from error
