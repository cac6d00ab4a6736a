"""Data: what may be given, which batches come of it, in which order, and what is drawn for them."""

from __future__ import annotations

import collections
import itertools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from relied_on import DATA, At, Fit, X, after, asserted_by, end, fit, trained
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from treadle import DatasetFeed, Feed, RunError, StreamFeed, UsageError
from treadle.data import pad_collate
from treadle.data.fingerprint import Fingerprint


class Looks(Fit):
    """Trains nothing, and keeps what it is given."""

    def setup(self) -> None:
        super().setup()
        self.seen: list[Any] = []

    transient = ("seen",)

    def step(self, batch: Any) -> Any:
        self.seen.append(batch)
        return {}

    def elements(self, batch: Any) -> float:
        return 1


def batches(data: Any, **settings: Any) -> list[Any]:
    """The batches that a run is given."""
    seen: list[Any] = trained(Looks, data=data, **({"max_epochs": 1} | settings)).seen
    return seen


def values(given: list[Any]) -> list[list[int]]:
    """Batches of one column, as lists of whole numbers."""
    return [[int(value) for value in batch.flatten()] for batch in given]


NUMBERS = torch.arange(10.0)


class Numbers(Dataset[Any]):
    """A map-style dataset of 10 numbers."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(float(index))


@asserted_by("Keras test_basic_flow", "Lightning test_train_dataloader_passed_to_fit")
def test_a_tuple_of_tensors_gives_tuples() -> None:
    """A tuple of tensors gives tuples of their rows, which stay together when they are shuffled."""
    for x, y in batches(DATA):
        assert torch.allclose(y, 3 * x + 1, atol=1e-6)


@asserted_by("Keras test_dict_batch_preserves_structure", "Keras test_nested_data")
def test_a_dict_of_tensors_gives_dicts() -> None:
    """A dict of tensors gives dicts with the same keys."""
    assert [set(batch) for batch in batches({"x": X, "y": X})] == [{"x", "y"}] * 3


@asserted_by("Keras test_single_tensor_batch_preserves_structure")
def test_numpy_arrays_become_tensors_of_the_same_dtype() -> None:
    """NumPy arrays give tensors, with their dtype."""
    (batch,) = batches((np.arange(4, dtype=np.int32), np.ones(4)), batch_size=4)
    assert (batch[0].dtype, batch[1].dtype) == (torch.int32, torch.float64)


@asserted_by("torchtnt test_train", "Composer test_train_dataloader")
def test_datasets_of_torch_are_taken_as_they_are() -> None:
    """`TensorDataset`, `Subset` and `ConcatDataset` are trained on as torch's loader would batch them."""
    for dataset in (TensorDataset(X), Subset(TensorDataset(X), range(12)), ConcatDataset([TensorDataset(X)])):
        assert torch.equal(torch.cat([batch[0] for batch in batches(dataset, shuffle=False)]), X)


@asserted_by("Accelerate test_reproducibility", "Ignite test_reproducible_batch_sampler")
def test_the_order_follows_from_seed_and_epoch() -> None:
    """Each epoch has another order, the same in every run with that seed, and another with another seed."""
    first, second = values(batches(NUMBERS, max_epochs=2))[:3], values(batches(NUMBERS, max_epochs=2))[3:]
    assert first != second and values(batches(NUMBERS, max_epochs=2)) == first + second
    assert values(batches(NUMBERS, seed=1)) != first


@asserted_by("Composer test_determinism")
def test_each_sample_comes_once_an_epoch() -> None:
    """Shuffled or not, each sample comes exactly once an epoch."""
    for order in (True, False):
        seen = list(itertools.chain(*values(batches(NUMBERS, shuffle=order))))
        assert sorted(seen) == list(range(10)) and (seen == sorted(seen)) != order


@asserted_by("Accelerate test_can_pickle_dataloader")
def test_refuses_workers_for_what_cannot_be_sent_to_them() -> None:
    """A dataset that worker processes cannot be sent is refused at the first step, naming it and the remedy."""

    class Local(Numbers): ...

    with pytest.raises(UsageError, match=r"the dataset \(Local\) cannot be sent to worker processes: .*workers=0"):
        batches(Local(), workers=1)


def test_what_a_sample_draws_follows_from_seed_epoch_and_index() -> None:
    """What a dataset draws for a sample depends on seed, epoch and index, not on order or batch size."""

    class Draws(Numbers):
        def __getitem__(self, index: int) -> Tensor:
            return torch.tensor([index, random.random(), np.random.rand(), float(torch.rand(()))])

    def table(**settings: Any) -> dict[int, list[float]]:
        rows = torch.cat(batches(Draws(), **settings)).tolist()
        return {int(row[0]): row[1:] for row in rows}

    assert table(batch_size=3, shuffle=True) == table(batch_size=10, shuffle=False) != table(seed=1)


@asserted_by("Lightning test_dataloader_distributed_sampler", "Accelerate test_dataloader_inheritance")
def test_a_loader_keeps_its_own_batch_size_and_collate() -> None:
    """A torch `DataLoader` keeps its own batch size, `collate_fn` and `drop_last`."""
    loader = DataLoader(Numbers(), batch_size=4, drop_last=True, collate_fn=lambda rows: torch.stack(rows) + 100)
    assert values(batches(loader)) == [[100, 101, 102, 103], [104, 105, 106, 107]]


@asserted_by("Ignite test_resume_random_dataloader_from_epoch", "Accelerate test_sampler_epoch")
def test_a_loaders_random_sampler_follows_the_seed() -> None:
    """A loader with `shuffle=True` or a weighted sampler has an order that follows from seed and epoch."""
    for make in (
        lambda: DataLoader(Numbers(), batch_size=4, shuffle=True),
        lambda: DataLoader(Numbers(), batch_size=4, sampler=WeightedRandomSampler([1.0] * 10, 10)),
    ):
        torch.manual_seed(random.randrange(99))
        first = values(batches(make(), max_epochs=2))
        assert first == values(batches(make(), max_epochs=2)) and first[:3] != first[3:]


@asserted_by(
    "Lightning test_index_batch_sampler_wrapper_with_iterable_dataset",
    "Accelerate test_batch_sampler_with_varying_batch_size",
)
def test_a_batch_sampler_of_ones_own_says_which_batches() -> None:
    """A batch sampler of one's own decides what is in each batch, of any size."""

    class Growing(Sampler[list[int]]):
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            return iter([[0], [1, 2], [3, 4, 5]])

    assert values(batches(DataLoader(Numbers(), batch_sampler=Growing()))) == [[0], [1, 2], [3, 4, 5]]


@asserted_by(
    "Lightning test_evaluation_loop_sampler_set_epoch_called", "torchtnt test_maybe_set_distributed_sampler_epoch"
)
def test_set_epoch_is_called_with_each_epoch() -> None:
    """A sampler's `set_epoch` is called with the epoch before its order is asked for."""

    class Turns(Sampler[int]):
        epoch = -1

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return 10

        def __iter__(self) -> Any:
            return iter([(self.epoch + index) % 10 for index in range(10)])

    seen = values(batches(DataLoader(Numbers(), batch_size=10, sampler=Turns()), max_epochs=2))
    assert [order[0] for order in seen] == [0, 1]


@asserted_by("Lightning test_fit_loop_save_and_restore_dataloaders", "Accelerate test_dataloader_state_dict")
def test_a_sampler_that_remembers_goes_on(tmp_path: Path) -> None:
    """A sampler that remembers something from one epoch to the next goes on with it after a kill."""

    class Counts(Sampler[int]):
        passes = 0

        def __len__(self) -> int:
            return 12

        def __iter__(self) -> Any:
            self.passes += 1
            return iter([(self.passes * 5 + index) % 12 for index in range(12)])

    trainer = after(4, fit(data=_loader(Counts()), run_dir=tmp_path / "run"))
    trainer.save(), trainer.close()
    other = fit(data=_loader(Counts()), run_dir=trainer.run.path, resume=True)
    assert end(other) == end(fit(data=_loader(Counts())))


def _loader(sampler: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*DATA), batch_size=4, sampler=sampler)


@asserted_by("Ignite test_run_with_data_whose_len_raises_type_error", "Keras test_dataloader_iterable_dataset")
def test_an_iterable_dataset_is_read_in_its_order() -> None:
    """An `IterableDataset` is read in its own order, begun anew with each epoch, and batched."""

    class Counting(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(torch.arange(5.0))

    assert values(batches(Counting(), batch_size=2, max_epochs=2)) == [[0, 1], [2, 3], [4]] * 2


@asserted_by(
    "Keras test_empty_generator_raises_clear_error", "Lightning test_iterable_dataset_stop_iteration_at_epoch_beginning"
)
def test_refuses_a_generator_that_is_used_up() -> None:
    """A generator, which can be read once, is refused for several epochs when the trainer is made, with the remedy."""
    with pytest.raises(UsageError, match="data is a generator, which lasts one of 2 epochs: give an iterable that"):
        batches((row for row in X), max_epochs=2)


@asserted_by("Ignite test_run_once_finite_iterator_no_epoch_length", "Keras test_multiple_calling_on_iterators")
def test_refuses_to_begin_a_spent_iterator_again() -> None:
    """A generator that ends before `max_steps` fails the run there, by name, and is not taken for an empty epoch."""
    with pytest.raises(RunError, match="data is a one-shot iterator and was read before: give an iterable that"):
        batches((row for row in X), max_epochs=None, max_steps=5)


@asserted_by("Ignite test_faq_inf_iterator_no_epoch_length")
def test_a_function_of_the_epoch_may_give_the_data() -> None:
    """A function of the epoch may return what that epoch is trained on: a curriculum, another file."""
    feed = StreamFeed(lambda epoch: [torch.full((2,), float(epoch))] * (epoch + 1), None)
    assert values(batches(feed, max_epochs=2)) == [[0, 0], [1, 1], [1, 1]]


@asserted_by("Lightning test_fit_multiple_train_loaders")
def test_several_sources_are_zipped_by_a_function() -> None:
    """Batches of several sources at once (two domains, say) are a zip in a function of the epoch."""
    two = StreamFeed(lambda epoch: zip(NUMBERS.split(5), (NUMBERS + 100).split(5), strict=True), None)
    assert [(int(a[0]), int(b[0])) for a, b in batches(two)] == [(0, 100), (5, 105)]


class Windows(Feed):
    """A feed of one's own: windows of a text."""

    batches = 4

    def plan(self, epoch: int) -> list[list[int]]:
        return [[batch, batch + 1] for batch in range(4)]

    def gather(self, epoch: int, indices: Any) -> Any:
        return torch.tensor([[index, index + 1, epoch] for index in indices])

    def fingerprint(self) -> str:
        return Fingerprint().add(NUMBERS).hexdigest()


def test_a_feed_of_ones_own_needs_a_plan_and_a_gather() -> None:
    """A feed of one's own gives a plan of each epoch and gathers its batches; the rest is done for it."""
    seen = batches(Windows(), max_epochs=2)
    assert len(seen) == 8 and seen[5].tolist() == [[1, 2, 1], [2, 3, 1]]


@asserted_by("Lightning test_dataloader_config_errors_runtime")
def test_refuses_samples_that_cannot_be_stacked() -> None:
    """Samples of different lengths are refused with what to give instead: a collate function that pads."""

    class Ragged(Numbers):
        def __getitem__(self, index: int) -> Tensor:
            return torch.zeros(index + 1)

    with pytest.raises(
        (UsageError, RunError), match=r"samples of different shapes cannot be stacked: .*collate=pad_collate"
    ):
        batches(Ragged())


@asserted_by("Keras test_ragged_tensors", "Accelerate test_pad_across_processes")
def test_ragged_samples_are_padded_with_a_mask() -> None:
    """`pad_collate` pads samples to the longest of their batch, with lengths and a mask."""
    lines = [torch.ones(length, 2) for length in (3, 1, 2)]
    (batch,) = batches(DatasetFeed(lines, 3, collate=pad_collate, shuffle=False))
    assert batch.values.shape == (3, 3, 2) and batch.lengths.tolist() == [3, 1, 2]
    assert batch.mask.sum() == batch.elements == 6


@asserted_by("Keras test_errors")
def test_refuses_columns_of_different_lengths() -> None:
    """Tensors that differ in their number of rows are refused when the trainer is made, naming both."""
    with pytest.raises(UsageError, match=r"data\[1\] has 7 rows but data\[0\] has 12"):
        fit(data=(X, X[:7]))


def test_refuses_a_list_of_tensors() -> None:
    """A list of tensors, which may mean columns or samples, is refused when the trainer is made, with both remedies."""
    with pytest.raises(UsageError, match="a list of tensors, which can mean columns or samples"):
        fit(data=[X, X])


@asserted_by("Ignite test_invalid_input_data", "Keras test_invalid_dataset_type")
def test_refuses_what_is_no_data() -> None:
    """A path, a class or a number as data is refused when the trainer is made, with what is expected."""
    with pytest.raises(UsageError, match=r"data is 'train.csv': expected tensors, a dataset, an iterable"):
        fit(data="train.csv")


@asserted_by("Keras test_exception_reported", "torchtnt test_error_message")
def test_an_error_of_a_dataset_names_the_sample() -> None:
    """An error in a dataset's `__getitem__` fails the run, naming the sample and the error."""

    class Broken(Numbers):
        def __getitem__(self, index: int) -> Tensor:
            if index == 7:
                raise OSError("truncated file")
            return super().__getitem__(index)

    with pytest.raises(RunError, match=r"7.*truncated file"):
        batches(Broken())


class Example(NamedTuple):
    picture: Tensor
    label: Tensor


@asserted_by("torchtnt test_copy_data_to_device_named_tuple", "Accelerate test_named_tuples")
def test_named_tuples_stay_named() -> None:
    """A dataset of named tuples gives batches that are such."""

    class Named(Numbers):
        def __getitem__(self, index: int) -> Any:
            return Example(torch.zeros(2), torch.tensor(index))

    (batch, *_) = batches(Named(), shuffle=False)
    assert type(batch) is Example and batch.label.tolist() == [0, 1, 2, 3]


@dataclass
class Labelled:
    picture: Tensor
    label: Tensor
    name: str = "one"


@asserted_by("torchtnt test_copy_data_to_device_dataclass")
def test_batches_that_are_dataclasses_arrive_as_such() -> None:
    """Batches that are dataclasses, of tensors and other things, arrive as such in training and validation."""
    kinds: set[type] = set()

    class Checks(Looks):
        def validation_step(self, batch: Any) -> Any:
            kinds.add(type(batch))
            return {"loss": batch.label.float().mean()}

    feed = lambda: StreamFeed(lambda epoch: [Labelled(X, torch.arange(12))] * 2, None)  # noqa: E731
    trainer = trained(Checks, data=feed(), validation_data=feed(), max_epochs=1)
    assert kinds == {Labelled} and type(trainer.seen[0]) is Labelled


class Encoding(collections.UserDict[str, Any]):
    """A mapping with a class of its own, such as Hugging Face's `BatchEncoding`."""

    def to(self, device: Any) -> Encoding:
        self.data = {key: value.to(device) for key, value in self.data.items()}
        return self


@asserted_by("Accelerate test_honor_type", "torchtnt test_copy_data_to_device_mapping")
def test_mappings_with_a_class_of_their_own_arrive_as_such() -> None:
    """A batch that is a mapping with a class of its own, as tokenizers give, keeps its class and methods."""
    kinds: list[type] = []

    class Checks(Looks):
        def validation_step(self, batch: Any) -> Any:
            kinds.append(type(batch))
            return {"loss": batch["ids"].float().mean()}

    feed = lambda: StreamFeed(lambda epoch: [Encoding(ids=torch.arange(3))], None)  # noqa: E731
    trainer = trained(Checks, data=feed(), validation_data=feed(), max_epochs=1)
    assert {type(batch) for batch in trainer.seen} | set(kinds) == {Encoding}


def test_loops_that_make_their_own_data_need_no_data_set() -> None:
    """A trainer that makes its own data (samples of a simulation, of an agent) needs none to be given."""

    class Makes(Fit):
        def setup(self) -> None:
            super().setup()
            self.feed = StreamFeed(lambda epoch: itertools.repeat(None), None)

        def step(self, batch: Any) -> Any:
            x = torch.rand(4, 1)
            return super().step((x, 3 * x + 1))

        def elements(self, batch: Any) -> float:
            return 4

    first, second = (
        fit(Makes, data=None, max_epochs=None, max_steps=5),
        fit(Makes, data=None, max_epochs=None, max_steps=5),
    )
    assert end(first) == end(second) and first.updates() == 5


def test_batches_may_be_changed_without_changing_the_data() -> None:
    """A step that changes its batch in place finds the data as they were in the next epoch."""
    data = X.clone()
    trained(Looks, data=data, hooks=[At("post_step", lambda trainer, batch, out: batch.zero_())])
    assert torch.equal(data, X)


@asserted_by("Composer test_infinite_train_loader")
def test_nothing_is_read_ahead_of_a_stop() -> None:
    """A run that is stopped and goes on reads no sample twice, and skips none."""
    read: list[int] = []

    class Reads(Numbers):
        def __getitem__(self, index: int) -> Tensor:
            read.append(index)
            return super().__getitem__(index)

    trainer = fit(Looks, data=DatasetFeed(Reads(), 2, shuffle=False), max_epochs=1)
    after(3, trainer)
    trainer.stop()
    trainer.train(), trainer.train()
    assert sorted(set(read)) == list(range(10)) and len(read) - len(set(read)) <= 4  # a few are read to identify it
