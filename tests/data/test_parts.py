"""Processes share each batch: their parts together are what one process alone is given, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from data_cases import Noisy
from torch.utils.data import DataLoader, IterableDataset

from treadle.data.batch import Padded, cut
from treadle.data.dataset import DatasetFeed
from treadle.data.feed import Batches, BatchIterator, Feed
from treadle.data.fingerprint import Fingerprint
from treadle.data.length import LengthBuckets, pad_collate
from treadle.data.loader import LoaderFeed
from treadle.data.sampler import Indices, epoch_order, fixed_batches
from treadle.data.stream import StreamFeed
from treadle.data.tensors import TensorFeed
from treadle.errors import RunError, UsageError
from treadle.parallel import World

ROWS = torch.arange(46.0).reshape(23, 2)
LENGTHS = [3, 9, 4, 4, 8, 3, 7, 5, 5, 6, 2]
RAGGED = [torch.full((n, 2), float(k)) for k, n in enumerate(LENGTHS)]


class One(World):
    """Process `rank` of `size`."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


class Count(IterableDataset[int]):
    """Seventeen numbers."""

    def __iter__(self) -> Iterator[int]:
        yield from range(17)


class Doubled(DataLoader[Any]):
    """A loader that iterates by itself."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            yield {"twice": batch["index"] * 2, "noise": batch["noise"]}


class Own(Feed):
    """A user's: a plan, and a way to gather."""

    batches = 4  # type: ignore[assignment]  # an attribute will do

    def plan(self, epoch: int) -> Sequence[Indices]:
        return fixed_batches(epoch_order(23, self.seed, epoch), 6)

    def gather(self, epoch: int, indices: Indices) -> Any:
        return ROWS[indices]

    def fingerprint(self) -> str:
        return Fingerprint().add(ROWS).hexdigest()


def ready(epoch: int) -> Iterator[Any]:
    for k in range(4):
        yield {"x": torch.arange(7) + k, "names": [f"{k}.{n}" for n in range(7)], "k": k}


FEEDS: dict[str, Callable[[], Feed]] = {
    "tensors": lambda: TensorFeed((ROWS, ROWS[:, 0]), 5),
    "in order": lambda: TensorFeed(ROWS, 5, shuffle=False, drop_last=True),
    "dataset": lambda: DatasetFeed(Noisy(), 6),
    "buckets": lambda: DatasetFeed(RAGGED, batching=LengthBuckets(LENGTHS, max_elements=30), collate=pad_collate),
    "stream": lambda: StreamFeed(range(22), 5),
    "batches": lambda: StreamFeed(ready, None),
    "loader": lambda: LoaderFeed(DataLoader(range(20), batch_size=6, shuffle=True)),  # type: ignore[arg-type]
    "plain loader": lambda: LoaderFeed(DataLoader([ROWS[:4], ROWS[4:8]], batch_size=None, shuffle=True)),
    "stream loader": lambda: LoaderFeed(DataLoader(Count(), batch_size=5)),
    "own loader": lambda: LoaderFeed(Doubled(Noisy(), batch_size=6, shuffle=True)),
    "own": Own,
}


def flat(batch: Any) -> list[Any]:
    """The samples of a batch, one by one."""
    if isinstance(batch, Padded):
        return [row[:n].tolist() for row, n in zip(batch.values, batch.lengths.tolist(), strict=True)]
    columns = batch if isinstance(batch, tuple) else list(batch.values()) if isinstance(batch, dict) else [batch]
    columns = [c.tolist() if isinstance(c, torch.Tensor | np.ndarray) else c for c in columns if not isinstance(c, int)]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("kind", FEEDS)
def test_the_parts_of_all_processes_are_the_batch_of_one(kind: str, size: int) -> None:
    alone = FEEDS[kind]()
    alone.bind(3, "cpu")
    whole = [flat(batch) for batch in alone.iterate(1)]
    for start in (0, len(whole) // 2):
        shared: list[list[Any]] = [[] for _ in whole[start:]]
        for rank in range(size):
            feed = FEEDS[kind]()
            feed.bind(3, "cpu", One(rank, size))
            batches = feed.iterate(1, start)
            assert isinstance(batches, Batches)
            for k, batch in enumerate(batches):
                samples = flat(batch)
                if batches.borrowed:
                    assert len(samples) == 1 and samples[0] == whole[start + k][0]
                else:
                    count = len(whole[start + k])
                    assert len(samples) == count * (rank + 1) // size - count * rank // size > 0
                    shared[k] += samples
            assert batches.exhausted
        assert shared == whole[start:]


def test_samples_that_are_not_enough_for_all_are_borrowed() -> None:
    feed = TensorFeed(ROWS[:9], 4, shuffle=False)  # the last batch is one sample
    seen = []
    for rank in range(3):
        feed.bind(0, "cpu", One(rank, 3))
        batches = feed.iterate(0)
        assert isinstance(batches, Batches) and not batches.borrowed
        seen.append([(batch.tolist(), batches.borrowed) for batch in batches][-1])
    assert seen == [([[16.0, 17.0]], True), ([[16.0, 17.0]], True), ([[16.0, 17.0]], False)]


def test_only_the_own_part_is_made() -> None:
    class Watched(Noisy):
        made: list[int] = []

        def __getitem__(self, index: int) -> dict[str, Any]:
            self.made.append(index)
            return super().__getitem__(index)

    for feed in (DatasetFeed(Watched(), 6), LoaderFeed(DataLoader(Watched(), batch_size=6))):
        feed.bind(0, "cpu", One(1, 2))
        Watched.made.clear()
        list(feed.iterate(0))
        assert len(Watched.made) == 10


def test_workers_make_parts() -> None:
    seen = []
    for workers in (0, 1):
        feed = DatasetFeed(Noisy(), 6, workers=workers)
        feed.bind(3, "cpu", One(0, 4))
        batches = feed.iterate(0)
        assert isinstance(batches, Batches)
        seen.append([(flat(batch), batches.borrowed) for batch in batches])
        feed.close()
    assert seen[0] == seen[1] and [borrowed for _, borrowed in seen[1]] == [False, False, False, True]


def test_the_parts_of_a_loader_s_batch_draw_noise_of_their_own() -> None:
    noise = []
    for rank in (0, 1):
        feed = LoaderFeed(DataLoader(Noisy(), batch_size=6, shuffle=True))
        feed.bind(3, "cpu", One(rank, 2))
        noise.append({x for batch in feed.iterate(0) for x in batch["noise"].flatten().tolist()})
    assert not noise[0] & noise[1]


def test_padded_batches_know_their_own_elements() -> None:
    batch = pad_collate(RAGGED[:4])
    parts = [cut(batch, 4, slice(0, 3)), cut(batch, 4, slice(3, 4))]
    assert [part.elements for part in parts] == [16, 4] and parts[1].mask.shape == (1, 9)


def test_a_feed_with_its_own_iterate_serves_one_process() -> None:
    class Everything(Own):
        def iterate(self, epoch: int, start: int = 0) -> BatchIterator:
            return super().iterate(epoch, start)

    feed = Everything()
    feed.bind(0, "cpu")
    with pytest.raises(UsageError, match=r"Everything overrides iterate\(\).*plan\(\) and gather\(\)"):
        feed.bind(0, "cpu", One(0, 2))


def test_a_plan_must_keep_its_word() -> None:
    feed = Own()
    feed.batches = 5
    with pytest.raises(RunError, match="Own gave 4 batches in epoch 3, but says it has 5"):
        feed.iterate(2)


def test_plans_are_sequences() -> None:
    plan = TensorFeed(ROWS, 5, drop_last=True).plan(0)
    assert [len(indices) for indices in plan] == [5, 5, 5, 5]
    assert torch.equal(torch.cat(list(plan)), torch.cat([plan[k] for k in (0, 1, 2, 3)]))
    with pytest.raises(IndexError):
        plan[4]
