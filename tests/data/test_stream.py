from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle import Trainer
from treadle.data.convert import as_feed
from treadle.data.stream import StreamFeed
from treadle.errors import RunError, StateError, UsageError


class Numbers(torch.utils.data.IterableDataset):
    """The numbers below n, with noise from the global generators; counts what was read."""

    def __init__(self, n: int) -> None:
        self.n, self.read = n, 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        for k in range(self.n):
            self.read += 1
            yield torch.tensor([k, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


class Resumable:
    """A stream with state, whose random numbers go on from epoch to epoch."""

    def __init__(self, n: int) -> None:
        self.n, self.k, self.draws, self.read = n, 0, 0, 0

    def __iter__(self) -> Iterator[int]:
        while self.k < self.n:
            self.k += 1
            self.draws += 1
            self.read += 1
            yield self.draws
        self.k = 0

    def state_dict(self) -> dict[str, Any]:
        return {"k": self.k, "draws": self.draws}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.k, self.draws = state["k"], state["draws"]


def rows(batches: Any) -> list[Any]:
    return [batch.tolist() for batch in batches]


@given(st.integers(1, 30), st.integers(1, 7), st.booleans(), st.booleans(), st.data())
def test_position_is_exact_however_it_is_driven(
    n: int, size: int, drop: bool, known: bool, data: st.DataObject
) -> None:
    if drop and n < size:
        return
    feed = StreamFeed(Numbers(n), size, drop_last=drop, length=n if known else None, seed=3)
    whole = rows(feed.iterate(1))
    flat = [int(row[0]) for batch in whole for row in batch]
    assert flat == list(range(n - n % size if drop else n))
    # The same batches when `exhausted` is asked at random, and it never errs.
    batches = feed.iterate(1)
    for k, expected in enumerate(whole):
        if data.draw(st.booleans()):
            assert not batches.exhausted
        assert next(batches).tolist() == expected
        if data.draw(st.booleans()):
            assert batches.exhausted == (k == len(whole) - 1)
    assert batches.exhausted
    with pytest.raises(StopIteration):
        next(batches)
    start = data.draw(st.integers(0, len(whole)))
    assert rows(feed.iterate(1, start)) == whole[start:]


def test_noise_depends_on_seed_epoch_and_item() -> None:
    def noise(epoch: int, seed: int = 3) -> list[float]:
        return [
            x for batch in rows(StreamFeed(Numbers(6), 2, seed=seed).iterate(epoch)) for row in batch for x in row[1:]
        ]

    assert noise(0) == noise(0)
    assert len({*noise(0), *noise(1), *noise(0, seed=4)}) == 54


def test_looks_one_item_ahead_and_only_when_asked() -> None:
    source = Numbers(10)
    batches = StreamFeed(source, 3).iterate(0)
    next(batches)
    assert source.read == 3
    assert not batches.exhausted and not batches.exhausted
    assert source.read == 4
    known = Numbers(10)
    batches = StreamFeed(known, 3, length=10).iterate(0)
    next(batches)
    assert not batches.exhausted and known.read == 3


@settings(max_examples=40)
@given(st.integers(1, 14), st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 30))
def test_resumes_from_the_delivered_position(n: int, size: int, drop: bool, ask: bool, stop: int) -> None:
    """Stopped after any number of batches over several epochs, a new source goes on as the old one would have."""
    if drop and n < size:
        return

    def run(source: Resumable, steps: int, state: dict[str, Any] | None, at: tuple[int, int]) -> tuple[Any, ...]:
        feed = StreamFeed(source, size, drop_last=drop)
        if state is not None:
            feed.load_state_dict(state)
        seen: list[Any] = []
        epoch, start = at
        while len(seen) < steps:
            batches = feed.iterate(epoch, start)
            for batch in batches:
                seen.append(batch.tolist())
                start += 1
                ended = batches.exhausted if ask else False
                if ended or len(seen) == steps:
                    break
            else:
                ended = True
            if ended:
                epoch, start = epoch + 1, 0
            if len(seen) == steps:
                break
        return seen, feed.state_dict(), (epoch, start)

    whole, _, _ = run(Resumable(n), 32, None, (0, 0))
    before, state, at = run(Resumable(n), stop, None, (0, 0))
    assert before == whole[:stop]
    if stop:
        source = Resumable(n)
        after, _, _ = run(source, 32 - stop, state, at)
        assert after == whole[stop:]
        dropped = n % size * 34 if drop else 0
        assert source.read <= (32 - stop + 1) * size + dropped  # nothing was read again


def test_state_after_the_last_batch_gives_no_further_one() -> None:
    feed = StreamFeed(Resumable(4), 2)
    for batches in [feed.iterate(0)]:
        assert len(list(batches)) == 2
    again = StreamFeed(Resumable(4), 2)
    again.load_state_dict(feed.state_dict())
    assert again.iterate(0, 2).exhausted
    again.load_state_dict(feed.state_dict())
    assert rows(again.iterate(1)) == rows(feed.iterate(1)) == [[5, 6], [7, 8]]


def test_state_after_a_failure_is_that_of_the_delivered_position() -> None:
    class Fails(Resumable):
        def __iter__(self) -> Iterator[int]:
            for item in super().__iter__():
                if item == 6 and not self.mended:
                    raise OSError("gone")
                yield item

        mended = False

    feed = StreamFeed(Fails(8), 3)
    batches = feed.iterate(0)
    assert next(batches).tolist() == [1, 2, 3] and not batches.exhausted
    with pytest.raises(RunError, match="item 5 of data"):
        next(batches)
    source = Fails(8)
    source.mended = True
    again = StreamFeed(source, 3)
    again.load_state_dict(feed.state_dict())
    assert rows(again.iterate(0, 1)) == [[4, 5, 6], [7, 8]]


def test_state_is_checked() -> None:
    feed = StreamFeed(Resumable(9), 3)
    next(feed.iterate(0))
    state = feed.state_dict()
    again = StreamFeed(Resumable(9), 3)
    again.load_state_dict(state)
    with pytest.raises(StateError, match="epoch 0, batch 1, but epoch 0, batch 2"):
        again.iterate(0, 2)
    with pytest.raises(StateError, match="no state_dict"):
        StreamFeed(Numbers(9), 3).load_state_dict(state)
    with pytest.raises(StateError, match="not a stream's"):
        again.load_state_dict({"position": 3})
    again.load_state_dict({})
    assert StreamFeed(Numbers(3), 1).state_dict() == {}


def test_sources() -> None:
    def count(epoch: int) -> Iterator[int]:
        yield from range(epoch, epoch + 3)

    def total(data: Any, epoch: int) -> list[int]:
        return [x for batch in rows(as_feed(data, batch_size=2).iterate(epoch)) for x in batch]

    assert total(count, 5) == [5, 6, 7]
    assert total(range(3).__iter__(), 0) == [0, 1, 2]
    assert total({1, 2, 3}, 0) == [1, 2, 3]
    batches = StreamFeed([torch.ones(2), torch.ones(5)], None).iterate(0)
    assert [len(batch) for batch in batches] == [2, 5]
    endless = StreamFeed(lambda epoch: iter(int, 1), 4, length=10)
    assert [len(batch) for batch in endless.iterate(0)] == [4, 4, 2] and endless.batches == 3 and endless.samples == 10


def test_set_epoch_is_told() -> None:
    class Told(list[int]):
        def set_epoch(self, epoch: int) -> None:
            self[:] = [epoch]

    assert rows(StreamFeed(Told([0]), 1).iterate(7)) == [[7]]


def test_global_generators_can_be_left_alone() -> None:
    def draws(epoch: int) -> Iterator[float]:
        yield random.random()

    state = random.getstate()
    expected = random.random()
    random.setstate(state)
    assert float(next(StreamFeed(draws, 1, scoped=False).iterate(0))) == expected
    random.setstate(state)
    assert float(next(StreamFeed(draws, 1).iterate(0))) != expected


def failing(epoch: int) -> Iterator[int]:
    yield 1
    raise ValueError("bad\nline")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: list(StreamFeed(failing, 1).iterate(0)),
            "item 1 of data could not be read in epoch 1: ValueError: bad line",
        ),
        (lambda: list(StreamFeed(Numbers(3), 2, length=9).iterate(0)), "ended after 3 items.*length is given as 9"),
        (lambda: StreamFeed(Numbers(3), 2).iterate(0, 3), "does not repeat itself"),
        (lambda: list(StreamFeed([torch.ones(1), torch.ones(2)], 2).iterate(0)), "could not be joined.*pad_collate"),
    ],
)
def test_failures_say_where(make: Callable[[], object], says: str) -> None:
    with pytest.raises((RunError, UsageError), match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_one_shot_iterators_last_one_epoch() -> None:
    feed = StreamFeed(iter([1, 2]), 1)
    assert rows(feed.iterate(0)) == [[1], [2]]
    with pytest.raises(RunError, match="one-shot iterator"):
        feed.iterate(1)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2, "length": 0}, "length"),
        ({"batch_size": None, "drop_last": True}, "needs a batch_size"),
        ({"batch_size": 4, "length": 3, "drop_last": True}, "fewer than one batch"),
    ],
)
def test_bad_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        StreamFeed(Numbers(3), **settings)
    with pytest.raises(UsageError, match="expected an iterable"):
        StreamFeed(3, 1)
    with pytest.raises(UsageError, match="read in the training process: set workers=0"):
        as_feed(Numbers(3), workers=2)


def test_fingerprint_is_the_sources_own() -> None:
    class Named(Numbers):
        def fingerprint(self) -> str:
            return f"{self.n} numbers"

    prints = [StreamFeed(source, 1).fingerprint() for source in (Named(3), Named(4), Numbers(3))]
    assert len(set(prints)) == 3 and StreamFeed(Named(3), 2).fingerprint() == prints[0]


# As validation data -----------------------------------------------------------------------------------------------


class Follow(Trainer):
    """Learns a mean, and validates on a stream."""

    def setup(self) -> None:
        self.mean = torch.nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD([self.mean], lr=0.1)
        self.fail_at = -1

    def step(self, batch: Any) -> Any:
        loss = (batch - self.mean).square().mean()
        if self.progress.step == self.fail_at:
            self.fail_at = -1
            loss = loss * float("nan")
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: Any) -> Any:
        return {"loss": (batch - self.mean).square().mean()}


VALIDATION: dict[str, Callable[[], Any]] = {
    "function": lambda: StreamFeed(lambda epoch: iter([torch.tensor([float(epoch)])] * 5), 2),
    "iterable": lambda: Numbers(5),
    "length": lambda: StreamFeed(Numbers(5), 2, length=4),
    "stateful": lambda: Resumable(5),
    "loader": lambda: torch.utils.data.DataLoader(Numbers(5), batch_size=2),
}


@pytest.mark.parametrize("kind", VALIDATION)
def test_a_stream_can_be_validated_on_again_and_again(kind: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 4, "max_steps": 11, "seed": 0, "save_every": "1 step"}
    settings |= {"validate_every": "2 steps", "snapshot_every": "1 step"}

    def build(**where: Any) -> Follow:
        return Follow(data=torch.arange(12.0)[:, None], validation_data=VALIDATION[kind](), **settings, **where)

    whole = build(run_dir=tmp_path / "whole").train().digest
    for stop in (1, 2, 3, 4):  # before and after the first validation, and the second
        run = tmp_path / str(stop)
        begun = build(run_dir=run)
        for _ in range(stop):
            begun.iterate()
        begun.close()
        assert build(run_dir=begun.run.path, resume=True).train().digest == whole
    rewound = build(run_dir=tmp_path / "rewound")
    for _ in range(7):
        rewound.iterate()
    for step in (4, 2):
        rewound.rewind(step)
    assert rewound.train().digest == whole
    rolled = build(on_bad_step="rollback")
    for _ in range(3):
        rolled.iterate()
    rolled.fail_at = 4
    assert rolled.train().status == "finished"


def test_a_rewind_to_the_beginning_puts_the_source_back() -> None:
    feed = StreamFeed(Resumable(6), 2)
    state = feed.state_dict()
    first = rows(feed.iterate(0))
    assert rows(feed.iterate(1)) != first
    feed.load_state_dict(state)
    assert rows(feed.iterate(0)) == first
