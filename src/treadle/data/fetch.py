"""From sample indices to a batch: the same code in the training process and in workers, so the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Subset, TensorDataset

from treadle.data.batch import Batch, Collate
from treadle.data.random import sample_rng, sample_seed, scoped_generators, seed_generators
from treadle.errors import RunError, UsageError, one_line

_SHOWN = 8
"""Indices of a batch named in a message."""


class SampleError(RunError):
    """A sample could not be made: the message names its index and the original error, in one line."""


@dataclass(frozen=True)
class Fetch:
    """Makes batches of `dataset`. What is random about a sample depends on (seed, epoch, index) alone.

    `dataset.sample(index, rng)` gets a generator of its own where the dataset has that method; else `dataset[index]`
    runs with the global generators of Python, NumPy and torch seeded for that sample, and restored after the batch.
    """

    dataset: Any
    collate: Collate

    def __call__(self, seed: int, epoch: int, indices: Sequence[int]) -> Batch:
        """The batch of `indices`. Raises SampleError or, where samples cannot be joined, UsageError."""
        samples = self.samples(seed, epoch, indices)
        try:
            return self.collate(samples)
        except Exception as error:
            shown = ", ".join(map(str, indices[:_SHOWN])) + (", ..." if len(indices) > _SHOWN else "")
            kind = UsageError if isinstance(error, UsageError) else RunError
            raise kind(f"the samples {shown} could not be joined into a batch: {one_line(error)}") from error

    def samples(self, seed: int, epoch: int, indices: Sequence[int]) -> list[Any]:
        """The samples of `indices`, not joined."""
        if callable(getattr(self.dataset, "sample", None)):
            return [self._sample(index, seed, epoch) for index in indices]
        if _draws_nothing(self.dataset):
            return [self._item(index) for index in indices]
        with scoped_generators():
            samples = []
            for index in indices:
                seed_generators(sample_seed(seed, epoch, index))
                samples.append(self._item(index))
            return samples

    def _sample(self, index: int, seed: int, epoch: int) -> Any:
        try:
            return self.dataset.sample(index, sample_rng(seed, epoch, index))
        except Exception as error:
            raise self._error(index, error) from error

    def _item(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:
            raise self._error(index, error) from error

    def _error(self, index: int, error: Exception) -> SampleError:
        where = f"sample {index} of {type(self.dataset).__name__}"
        describe = getattr(self.dataset, "describe", None)
        if callable(describe):
            try:
                where += f" ({describe(index)})"
            except Exception as second:
                where += f" (describe failed: {one_line(second)})"
        return SampleError(f"{where} could not be made: {one_line(error)}")


def _draws_nothing(dataset: Any) -> bool:
    """Whether indexing certainly draws no random number, so that seeding can be saved (7 us a sample)."""
    if type(dataset) is Subset:
        return _draws_nothing(dataset.dataset)
    return type(dataset) in (list, tuple, TensorDataset)
