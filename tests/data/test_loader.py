from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from data_cases import Broken, Noisy
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Sampler, WeightedRandomSampler

from treadle.checkpoint.packing import Packer, unpack
from treadle.data.convert import as_feed
from treadle.data.fingerprint import Fingerprint
from treadle.data.loader import LoaderFeed
from treadle.data.memory import Memory
from treadle.errors import RunError, StateError, UsageError


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


# What samplers and loaders remember -------------------------------------------------------------------------------


class Passes(Sampler[int]):
    """Goes on where its last pass ended: its order depends on how often it was iterated, not on the seed."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return iter([(k * self.passes) % 20 for k in range(20)])

    def __len__(self) -> int:
        return 20


class Nested(Passes):
    """Remembers in a container; holds what is no state beside it."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {"passes": [], "by": None}
        self.source = Noisy()

    def __iter__(self) -> Iterator[int]:
        self.seen["passes"].append(torch.tensor(len(self.seen["passes"])))
        return iter(range(len(self.seen["passes"]), 20))


class Drawing(Passes):
    """Has generators of its own."""

    def __init__(self) -> None:
        self.numbers, self.tensors = np.random.default_rng(5), torch.Generator().manual_seed(5)
        self.python, self.old = random.Random(5), np.random.RandomState(5)

    def __iter__(self) -> Iterator[int]:
        order = [int(self.numbers.integers(20)) for _ in range(5)] + [self.python.randrange(20) for _ in range(5)]
        order += torch.randint(20, (5,), generator=self.tensors).tolist()
        return iter(order + self.old.randint(20, size=5).tolist())


class Stating(Passes):
    """Says its state itself, and hides it from those who look."""

    __slots__ = ("_hidden",)

    def __init__(self) -> None:
        self._hidden = iter(range(1, 99))
        self.state = 0

    def __iter__(self) -> Iterator[int]:
        self.state = next(self._hidden)
        return iter([(k * self.state) % 20 for k in range(20)])

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state["state"]
        self._hidden = iter(range(self.state + 1, 99))


class Sliced(DataLoader[Any]):
    """Iterates by itself, each time from another offset."""

    offset = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offset = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            yield {**batch, "index": batch["index"] + 100 * self.offset}
        self.offset += 1


class Stateful(DataLoader[Any]):
    """As torchdata's StatefulDataLoader: goes on behind the batch at which it was asked for its state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.passes, self.given, self.loads = 0, 0, 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        order = random.Random(self.passes).sample(range(20), 20)
        while self.given < 4:
            self.given += 1
            self.loads += 1
            yield self.collate_fn([self.dataset[k] for k in order[self.given * 5 - 5 : self.given * 5]])
        self.passes, self.given = self.passes + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"passes": self.passes, "given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.passes, self.given = state["passes"], state["given"]


class Early(DataLoader[Any]):
    """As torchdata's too: it takes its state when it is iterated, and begins an epoch when it is asked for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.generator = torch.Generator()
        self.now: Any = None
        self.state: Any = None
        self.begun = False

    def __iter__(self) -> Any:  # type: ignore[override]
        if not self.begun:
            self.now, self.state = Pass(self, self.state), None
        self.begun = False
        if self.now.given == 4:
            self.now = Pass(self, None)
        return self.now

    def state_dict(self) -> dict[str, Any]:
        if self.now is None:
            self.now, self.begun = Pass(self, None), True
        return {"given": self.now.given, "generator": self.now.generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.now, self.begun, self.state = None, False, state


class Pass(Iterator[Any]):
    """One epoch of `Early`."""

    def __init__(self, loader: Early, state: dict[str, Any] | None) -> None:
        if state is not None:
            loader.generator.set_state(state["generator"])
        self.loader, self.generator = loader, loader.generator.get_state()
        self.order = torch.randperm(20, generator=loader.generator).tolist()
        self.given = 0 if state is None else state["given"]

    def __next__(self) -> Any:
        if self.given == 4:
            raise StopIteration
        self.given += 1
        chosen = self.order[self.given * 5 - 5 : self.given * 5]
        return self.loader.collate_fn([self.loader.dataset[k] for k in chosen])


REMEMBERING: dict[str, Callable[[], DataLoader[Any]]] = {
    "sampler": lambda: DataLoader(Noisy(), batch_size=5, sampler=Passes()),
    "container": lambda: DataLoader(Noisy(), batch_size=5, sampler=Nested()),
    "generators": lambda: DataLoader(Noisy(), batch_size=5, sampler=Drawing()),
    "batch sampler": lambda: DataLoader(Noisy(), batch_sampler=BatchSampler(Passes(), 5, False)),
    "its own state": lambda: DataLoader(Noisy(), batch_size=5, sampler=Stating()),
    "loader": lambda: Sliced(Noisy(), batch_size=5, shuffle=True),
    "loader and sampler": lambda: Sliced(Noisy(), batch_size=5, sampler=Passes()),
    "stateful loader": lambda: Stateful(Noisy(), batch_size=5),
    "early": lambda: Early(Noisy(), batch_size=5),
}


def through_a_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    """`state` as it comes back from disk."""
    packer = Packer()
    return unpack(json.loads(json.dumps(packer.pack(state, "feed"))), packer.tensors)


def drive(
    feed: LoaderFeed, steps: int, at: tuple[int, int] = (0, 0), save: int | None = None
) -> tuple[list[Any], dict[str, Any], tuple[int, int]]:
    """`steps` batches from a position on, as the training loop takes them: with them the state and the position after
    `save` of them (by default, after all)."""
    epoch, start = at
    seen: list[Any] = []
    saved: tuple[dict[str, Any], tuple[int, int]] = feed.state_dict(), at
    while len(seen) < steps:
        batches = feed.iterate(epoch, start)
        for batch in batches:
            seen += rows([batch])
            epoch, start = (epoch + 1, 0) if batches.exhausted else (epoch, start + 1)
            if len(seen) == (steps if save is None else save):
                saved = through_a_checkpoint(feed.state_dict()), (epoch, start)
            if start == 0 or len(seen) == steps:
                break
    return seen, *saved


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 6, 8, 10])
@pytest.mark.parametrize("kind", REMEMBERING)
def test_what_is_remembered_between_epochs_is_restored(kind: str, stop: int) -> None:
    make = REMEMBERING[kind]
    whole, *_ = drive(LoaderFeed(make(), seed=3), 14)
    assert whole[:4] != whole[4:8]
    begun = LoaderFeed(make(), seed=3)
    before, state, at = drive(begun, stop + 3, save=stop)
    again = LoaderFeed(make(), seed=3)
    again.load_state_dict(state)
    assert Fingerprint().add(again.state_dict()).hexdigest() == Fingerprint().add(state).hexdigest()
    assert before[:stop] + drive(again, 14 - stop, at)[0] == whole
    begun.load_state_dict(state)  # rewound in the same process
    assert before[:stop] + drive(begun, 14 - stop, at)[0] == whole


def test_a_stateful_loader_reads_nothing_again() -> None:
    begun = LoaderFeed(Stateful(Noisy(), batch_size=5))
    _, state, at = drive(begun, 7)
    loader = Stateful(Noisy(), batch_size=5)
    again = LoaderFeed(loader)
    again.load_state_dict(state)
    drive(again, 1, at)
    assert loader.loads == 1


@pytest.mark.parametrize("kind", LOADERS)
def test_what_remembers_nothing_has_no_state(kind: str) -> None:
    feed = LoaderFeed(LOADERS[kind](Noisy()))
    drive(feed, 1)
    assert feed.state_dict() == {}
    told = Told()
    feed = LoaderFeed(DataLoader(Noisy(), batch_size=5, sampler=told))
    drive(feed, 5)
    assert told.epoch == 1 and feed.state_dict() == {}
    told.set_epoch(2)  # as a hook may do at an epoch's end
    assert feed.state_dict() == {}


class Told(Passes):
    """Is told the epoch, which is no memory of its own."""

    epoch = -1

    def __init__(self) -> None:
        self.generator, self.weights = torch.Generator(), [1.0] * 20

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(20, generator=self.generator).tolist())


def test_a_loader_with_its_own_iter_is_read_as_it_is() -> None:
    feed = LoaderFeed(Sliced(Noisy(), batch_size=6, shuffle=True), seed=3)
    whole = rows(feed.iterate(0))
    assert sorted(index for batch, _ in whole for index in batch) == list(range(20)) and feed.batches == 4
    second = rows(feed.iterate(1))
    assert sorted(index for batch, _ in second for index in batch) == list(range(100, 120))
    fresh = LoaderFeed(Sliced(Noisy(), batch_size=6, shuffle=True), seed=3)
    assert rows(fresh.iterate(0, 2)) == whole[2:]


def test_a_loader_that_gives_more_or_less_than_it_says() -> None:
    class Repeated(Sliced):
        times = 2

        def __iter__(self) -> Iterator[Any]:
            for _ in range(self.times):
                yield from super().__iter__()

    with pytest.raises(RunError, match="Repeated gives more than the 4 batches that its length says: give it a __len"):
        list(LoaderFeed(Repeated(Noisy(), batch_size=6)).iterate(0))
    Repeated.times = 0
    with pytest.raises(RunError, match="ended after 0 items in epoch 1, but its length is given as 4"):
        list(LoaderFeed(Repeated(Noisy(), batch_size=6)).iterate(0))


def test_memory_that_cannot_be_saved_is_refused_by_name() -> None:
    class Cycling(Passes):
        def __init__(self) -> None:
            self.offsets = itertools.cycle(range(3))

    says = r"sampler \(Cycling\) keeps an iterator in its attribute 'offsets'.*give it state_dict\(\) and load_state_"
    with pytest.raises(UsageError, match=says) as caught:
        LoaderFeed(DataLoader(Noisy(), batch_size=5, sampler=Cycling()))
    assert "\n" not in str(caught.value)

    class Late(Passes):
        offsets: Any = None

        def __iter__(self) -> Iterator[int]:
            self.offsets = self.offsets or itertools.cycle(range(3))
            return super().__iter__()

    feed = LoaderFeed(DataLoader(Noisy(), batch_size=5, sampler=Late()))
    with pytest.raises(UsageError, match="keeps an iterator in its attribute 'offsets'"):
        drive(feed, 14)

    class Queue(Passes):
        def __init__(self) -> None:
            self.passes, self.seen = 0, {1, 2}

        def __iter__(self) -> Iterator[int]:
            self.seen.add(self.passes + 5)
            return super().__iter__()

    feed = LoaderFeed(DataLoader(Noisy(), batch_size=5, sampler=Queue()))
    next(feed.iterate(0))
    with pytest.raises(
        StateError, match=r"sampler \(Queue\) changes its attribute 'seen' \(set\), which cannot be sav"
    ):
        feed.state_dict()


def test_a_checkpoint_without_the_memory_says_so() -> None:
    for kind in ("its own state", "stateful loader"):
        feed = LoaderFeed(REMEMBERING[kind]())
        feed.load_state_dict({})
        with pytest.warns(UserWarning, match="begun by a version that did not save the state of .*Stat"):
            feed.iterate(1)


def test_a_wrapper_that_cannot_keep_its_word_is_stateless() -> None:
    class Wrapper(Sliced):
        def state_dict(self) -> Any:
            return self.wrapped

        def load_state_dict(self, state: Any) -> None: ...

    feed = LoaderFeed(Wrapper(Noisy(), batch_size=5))
    assert len(drive(feed, 5)[0]) == 5 and feed.state_dict() == {}


def test_a_loader_that_went_on_cannot_go_back_to_its_beginning() -> None:
    begun, again = (LoaderFeed(Stateful(Noisy(), batch_size=5)) for _ in range(2))
    _, state, _ = drive(begun, 2)
    again.load_state_dict(state)
    drive(again, 1, (0, 2))
    with pytest.raises(StateError, match="Stateful went on from a saved state"):
        again.load_state_dict({})


def test_an_iterable_dataset_with_state() -> None:
    class Growing(IterableDataset[int]):
        first = 0

        def __iter__(self) -> Iterator[int]:
            yield from range(self.first, self.first + 6)
            self.first += 10

        def state_dict(self) -> dict[str, Any]:
            return {"first": self.first}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.first = state["first"]

    feed = LoaderFeed(DataLoader(Growing(), batch_size=3))
    assert [batch.tolist() for batch in feed.iterate(0)] == [[0, 1, 2], [3, 4, 5]]
    batches = feed.iterate(1)
    assert next(batches).tolist() == [10, 11, 12]
    again = LoaderFeed(DataLoader(Growing(), batch_size=3))
    again.load_state_dict(feed.state_dict())
    assert [batch.tolist() for batch in again.iterate(1, 1)] == [[13, 14, 15]]
    with pytest.raises(RunError, match="does not repeat itself"):
        again.iterate(1, 5)


def test_what_changed_only_later_goes_back_to_what_it_was() -> None:
    holder = Passes()
    holder.later = "never"  # type: ignore[attr-defined]
    memory = Memory({"sampler": holder})
    memory.begin()
    holder.passes = 1
    memory.end()
    state = memory.state()
    assert state == {"before": {"sampler": {"passes": 0}}, "now": {"sampler": {"passes": 1}}}
    memory.begin()
    holder.later, holder.new = "now", 1  # type: ignore[attr-defined]
    memory.end()
    memory.load(state["now"])
    assert vars(holder) == {"passes": 1, "later": "never"}
