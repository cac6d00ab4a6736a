from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from data_cases import Broken, Noisy
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Sampler, WeightedRandomSampler

from treadle.data.convert import as_feed
from treadle.data.loader import LoaderFeed
from treadle.errors import RunError, UsageError


class Watched(Noisy):
    """Counts what is loaded."""

    loaded = 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.loaded += 1
        return super().__getitem__(index)


class Shuffling(Sampler[int]):
    """Draws from Python's global generator."""

    def __iter__(self) -> Iterator[int]:
        order = list(range(20))
        random.shuffle(order)
        return iter(order)

    def __len__(self) -> int:
        return 20


LOADERS = {
    "shuffle": lambda data: DataLoader(data, batch_size=6, shuffle=True),
    "generator": lambda data: DataLoader(data, batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(9)),
    "weighted": lambda data: DataLoader(data, batch_size=6, sampler=WeightedRandomSampler([1.0] * 20, 20)),
    "batch_sampler": lambda data: DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 6, False)),
    "python": lambda data: DataLoader(data, batch_size=6, sampler=Shuffling()),
    "plain": lambda data: DataLoader(data, batch_size=None, shuffle=True),
}


def rows(batches: Any) -> list[Any]:
    return [(torch.as_tensor(b["index"]).tolist(), b["noise"].tolist()) for b in batches]


@pytest.mark.parametrize("kind", LOADERS)
def test_order_and_noise_are_functions_of_seed_and_epoch(kind: str) -> None:
    data = Watched()
    feed = LoaderFeed(LOADERS[kind](data), seed=3)
    whole = [rows(feed.iterate(epoch)) for epoch in (0, 1)]
    assert whole[0] != whole[1]
    assert [i for i, _ in whole[0]] != [i for i, _ in whole[1]]
    noise = [torch.tensor([x for _, x in epoch]).flatten().tolist() if kind == "plain" else [] for epoch in whole]
    assert not set(noise[0]) & set(noise[1])
    again = LoaderFeed(LOADERS[kind](data), seed=3)
    data.loaded = 0
    start = len(whole[1]) // 2
    batches = again.iterate(1, start)
    assert rows(batches) == whole[1][start:] and batches.exhausted
    assert data.loaded == sum(len(i) if isinstance(i, list) else 1 for i, _ in whole[1][start:])
    assert rows(LoaderFeed(LOADERS[kind](data), seed=4).iterate(1)) != whole[1]


def test_loader_keeps_its_own_settings() -> None:
    feed = as_feed(LOADERS["shuffle"](Noisy()), batch_size=99, seed=3)
    assert isinstance(feed, LoaderFeed) and feed.batches == 4 and feed.samples == 20
    batches = feed.iterate(0)
    assert [batches.exhausted for _ in batches] == [False, False, False, True]


class Count(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        yield from range(7)


def test_iterable_datasets_are_read_up_to_the_position() -> None:
    feed = LoaderFeed(DataLoader(Count(), batch_size=3))
    assert feed.batches is None
    batches = feed.iterate(0, 1)
    assert next(batches).tolist() == [3, 4, 5] and not batches.exhausted
    assert next(batches).tolist() == [6] and batches.exhausted
    assert feed.fingerprint() == LoaderFeed(DataLoader(Count(), batch_size=2)).fingerprint()


def test_errors_are_one_line() -> None:
    with pytest.raises(RunError, match=r"failed at batch 1 of epoch 1: OSError: .*scan_7.nii") as caught:
        list(LoaderFeed(DataLoader(Broken(), batch_size=4)).iterate(0))
    assert "\n" not in str(caught.value)
    # A fork is enough here, and starts at once.
    forked = DataLoader(Broken(), batch_size=4, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(RunError, match=r"failed at batch 1 of epoch 1: error: 'scan_7.nii'$"):
        list(LoaderFeed(forked).iterate(0))
    with pytest.raises(UsageError, match="gives no batch"):
        LoaderFeed(DataLoader(Noisy(3), batch_size=4, drop_last=True))


def test_workers_of_the_loader() -> None:
    def order(workers: int, start: int) -> list[list[int]]:
        context = "fork" if workers else None
        loader = DataLoader(Noisy(8), batch_size=2, shuffle=True, num_workers=workers, multiprocessing_context=context)
        return [indices for indices, _ in rows(LoaderFeed(loader, seed=3).iterate(1, start))]

    assert order(2, 0) == order(0, 0)
    assert order(2, 1) == order(0, 0)[1:]


def test_fingerprint_is_the_datasets() -> None:
    assert as_feed(Noisy(), batch_size=3).fingerprint() == LoaderFeed(LOADERS["shuffle"](Noisy())).fingerprint()
