from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from data_cases import Broken, Drawn, Noisy, as_list

from treadle.data.convert import as_feed
from treadle.data.dataset import DatasetFeed
from treadle.data.fetch import SampleError
from treadle.data.length import LengthBuckets, pad_collate
from treadle.errors import RunError, UsageError


def by_index(feed: DatasetFeed, epoch: int) -> dict[int, list[float]]:
    """Each sample's noise in an epoch."""
    found = {}
    for batch in feed.iterate(epoch):
        for index, noise in zip(batch["index"].tolist(), batch["noise"].tolist(), strict=True):
            found[index] = noise
    return found


def test_noise_depends_on_seed_epoch_and_index_alone() -> None:
    one, other = DatasetFeed(Noisy(), 4, seed=1), DatasetFeed(Noisy(), 7, shuffle=False, seed=1)
    assert by_index(one, 3) == by_index(other, 3)
    assert len(by_index(one, 3)) == 20
    draws = [tuple(noise) for feed, epoch in ((one, 3), (one, 4)) for noise in by_index(feed, epoch).values()]
    draws += [tuple(noise) for noise in by_index(DatasetFeed(Noisy(), 4, seed=2), 3).values()]
    assert len({value for noise in draws for value in noise}) == 3 * 60


def test_own_generator_is_used_where_the_dataset_takes_one() -> None:
    def draws(seed: int, epoch: int, size: int) -> list[list[float]]:
        feed = DatasetFeed(Drawn(), size, shuffle=False, seed=seed)
        return torch.cat(list(feed.iterate(epoch))).tolist()

    assert draws(1, 0, 4) == draws(1, 0, 9)
    assert (
        len({value for run in (draws(1, 0, 4), draws(1, 1, 4), draws(2, 0, 4)) for row in run for value in row}) == 180
    )


def test_continues_without_making_the_samples_before() -> None:
    class Watched(Noisy):
        asked: list[int] = []

        def __getitem__(self, index: int) -> dict[str, Any]:
            self.asked.append(index)
            return super().__getitem__(index)

    dataset = Watched()
    feed = DatasetFeed(dataset, 6, seed=1)
    whole = list(feed.iterate(2))
    dataset.asked.clear()
    batches = feed.iterate(2, 2)
    rest = list(batches)
    assert len(dataset.asked) == 8 and batches.exhausted
    for got, expected in zip(rest, whole[2:], strict=True):
        assert all(torch.equal(got[key], expected[key]) for key in expected)
    assert [len(b["index"]) for b in whole] == [6, 6, 6, 2]


def test_exhausted_and_drop_last() -> None:
    batches = DatasetFeed(Noisy(), 6, drop_last=True).iterate(0)
    assert [batches.exhausted for _ in batches] == [False, False, True]
    assert DatasetFeed(Noisy(), 6).iterate(0, 4).exhausted


def test_batches_by_length() -> None:
    lengths = np.random.Generator(np.random.PCG64(0)).integers(3, 30, size=50)
    data = [torch.full((int(n), 2), float(k)) for k, n in enumerate(lengths)]
    feed = DatasetFeed(data, batching=LengthBuckets(lengths, max_elements=60), collate=pad_collate, seed=1)
    batches = list(feed.iterate(0))
    assert len(batches) == feed.batches and feed.samples == 50
    assert sum(b.elements for b in batches) == lengths.sum()
    assert all(b.values.shape[0] * b.values.shape[1] <= 60 for b in batches)


def test_errors_name_the_sample_and_the_cause_on_one_line() -> None:
    with pytest.raises(SampleError) as caught:
        list(DatasetFeed(Broken(), 4, shuffle=False).iterate(0))
    assert str(caught.value) == (
        "sample 7 of Broken (file scan_7.nii) could not be made: OSError: [Errno 5] Input/output error: 'scan_7.nii'"
    )
    assert isinstance(caught.value.__cause__, OSError)


def test_a_sample_that_stops_iteration_does_not_end_the_epoch() -> None:
    class Stops(Noisy):
        def __getitem__(self, index: int) -> dict[str, Any]:
            raise StopIteration

    with pytest.raises(SampleError, match="sample 0 of Stops could not be made: StopIteration"):
        list(DatasetFeed(Stops(), 4, shuffle=False).iterate(0))


def test_samples_that_cannot_be_joined() -> None:
    ragged = [torch.ones(n) for n in (1, 2, 3)]
    with pytest.raises(UsageError, match=r"samples 0, 1, 2 could not be joined.*pad_collate"):
        list(DatasetFeed(ragged, 3, shuffle=False).iterate(0))

    def fails(samples: list[Any]) -> None:
        raise KeyError("label")

    with pytest.raises(RunError, match="KeyError: 'label'"):
        list(DatasetFeed(ragged, 3, collate=fails).iterate(0))


def test_fingerprint() -> None:
    class Known(Noisy):
        def fingerprint(self) -> str:
            return "version 1"

    prints = [DatasetFeed(d, 4).fingerprint() for d in (Noisy(), Noisy(21), Drawn(), Known(), [1, 2], [1, 3])]
    assert len(set(prints)) == 6
    assert DatasetFeed(Noisy(), 9, seed=5, shuffle=False).fingerprint() == prints[0]
    assert DatasetFeed(Known(4), 2).fingerprint() == prints[3]  # its own word counts, not its samples
    with pytest.raises(SampleError, match="sample 7"):
        DatasetFeed(Broken(8), 4).fingerprint()


@pytest.mark.parametrize(
    ("dataset", "settings", "says"),
    [
        (Noisy(0), {"batch_size": 2}, "data is empty"),
        (Noisy(), {}, "needs a batch_size"),
        (Noisy(), {"batch_size": 0}, "batch_size"),
        (Noisy(3), {"batch_size": 4, "drop_last": True}, "fewer than one batch"),
        (Noisy(), {"batch_size": 2, "workers": -1}, "workers"),
        (Noisy(), {"batch_size": 2, "prefetch": 0}, "prefetch"),
        (Noisy(), {"batch_size": 2, "worker_threads": 0}, "worker_threads"),
        (Noisy(), {"batch_size": 2, "batching": LengthBuckets([1], 1)}, "leave out batch_size"),
        (iter([]), {"batch_size": 2}, "__len__ and __getitem__"),
    ],
)
def test_bad_settings(dataset: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        DatasetFeed(dataset, **settings)


def test_batching_must_keep_its_word() -> None:
    class Liar:
        samples = 4

        def __len__(self) -> int:
            return 2

        def epoch(self, seed: int, epoch: int) -> list[np.ndarray]:
            return [np.arange(4)]

    with pytest.raises(RunError, match="gave 1 batches in epoch 3"):
        DatasetFeed(Noisy(), batching=Liar()).iterate(2)


def test_what_workers_cannot_be_sent_is_said_before_any_starts() -> None:
    class Local(Noisy):
        pass

    with pytest.raises(UsageError, match=r"the dataset \(Local\) cannot be sent.*or set workers=0"):
        as_feed(Local(), batch_size=2, workers=1).iterate(0)
    with pytest.raises(UsageError, match="the collate function cannot be sent"):
        DatasetFeed(Noisy(), 2, workers=1, collate=lambda samples: samples).iterate(0)


def test_samples_stay_as_collate_leaves_them() -> None:
    batch = next(DatasetFeed(Noisy(), 3, shuffle=False, collate=as_list).iterate(0))
    assert [sample["index"] for sample in batch] == [0, 1, 2]


def test_scopes_nest() -> None:
    """A dataset that iterates a feed of its own does not lose its place."""

    class Nested(Noisy):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index % 2:
                list(DatasetFeed(Noisy(3), 2).iterate(index))
            return super().__getitem__(index)

    assert by_index(DatasetFeed(Nested(), 4), 0) == by_index(DatasetFeed(Noisy(), 4), 0)


def test_a_dataset_that_draws_leaves_numpy_s_second_gaussian_to_the_program():
    class Gaussians:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.tensor(np.random.randn())

    before = np.random.get_state()
    try:
        np.random.seed(3)
        expected = np.random.randn(4).tolist()
        np.random.seed(3)
        first = [np.random.randn()]
        list(DatasetFeed(Gaussians(), 2, seed=0).iterate(0))
        assert first + np.random.randn(3).tolist() == expected
    finally:
        np.random.set_state(before)
