"""Which lines form the batches of an epoch: every line once, within a budget, from few subjects at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from treadle.data.random import derive_seed
from treadle.data.sampler import Indices
from treadle.errors import UsageError

_FIXED = derive_seed(0, "validation")
"""The seed of an order that is always the same."""


class LineBatches:
    """Batches of lines for `DatasetFeed(batching=...)`: a pure function of (seed, epoch).

    For `cycles` batches at a time subjects are drawn, each as likely as it has lines left; the batches take lines of
    these at random, as many as the budget allows. A line that costs more than the budget is a batch of its own.

    The number of batches may differ between epochs, by a few, where lines have a cost or batches few subjects: then
    `count` is None.

    Args:
        subjects: (n,) int64, rising: the subject of each line.
        costs: (n,) what each line takes of the budget, 0 or more; None: 1 each.
        budget: what a batch holds at most.
        subjects_per_batch, cycles: see above; None takes all subjects.
        most: batches after which an epoch is cut; None: none.
        shuffle: False: the same batches in every epoch, whatever the seed.
        lines: (m,) int64, rising: those that come at all; None: all.

    Raises:
        UsageError: there are no lines.
    """

    def __init__(
        self,
        subjects: np.ndarray,
        costs: np.ndarray | None,
        budget: float,
        *,
        subjects_per_batch: int | None = None,
        cycles: int = 1,
        most: int | None = None,
        shuffle: bool = True,
        lines: np.ndarray | None = None,
    ) -> None:
        every = np.arange(len(subjects), dtype=np.int64) if lines is None else np.asarray(lines, np.int64)
        if len(every) == 0:
            raise UsageError("there are no streamlines to train on: look at the subjects of the split, and the group")
        self._costs = None if costs is None else np.asarray(costs, np.float64)
        self._budget, self._cycles, self._most, self._shuffle = float(budget), cycles, most, shuffle
        over = np.zeros(len(every), bool) if self._costs is None else self._costs[every] > self._budget
        self._alone, self._lines = every[over], every[~over]
        whole = 0.0 if self._costs is None else float(self._costs[self._lines].sum())
        self._mean = max(whole / max(len(self._lines), 1), 1e-9)
        self._groups = [group for group in self._by_subject(subjects) if len(group)]
        self._subjects_per_batch = min(subjects_per_batch or len(self._groups), len(self._groups))
        self._always: list[Indices] | None = None
        if not shuffle:
            self._always = self._drawn(_FIXED)
        self._least = self._fewest()

    def _by_subject(self, subjects: np.ndarray) -> list[Indices]:
        own = np.asarray(subjects)[self._lines]
        return np.split(self._lines, np.flatnonzero(np.diff(own)) + 1)

    def _fewest(self) -> int:
        """So many batches an epoch has at least, before it is cut."""
        if self._costs is None:
            return math.ceil(len(self._lines) / self._budget)
        # A hair less than the sum says: rounding must not promise a batch that is not there.
        needed = float(self._costs[self._lines].sum()) / self._budget * (1 - 1e-9)
        return len(self._alone) + max(math.ceil(needed), 1 if len(self._lines) else 0)

    @property
    def count(self) -> int | None:
        """Batches of every epoch; None where that differs."""
        if self._always is not None:
            return len(self._always)
        if self._most is not None and self._most <= self._least:
            return self._most
        whole = self._costs is None and self._subjects_per_batch == len(self._groups)
        return self._least if whole else None

    def __len__(self) -> int:
        """`count`, or the fewest batches that an epoch can have."""
        return self.count or (self._least if self._most is None else min(self._least, self._most))

    @property
    def samples(self) -> int:
        """The lines of an epoch that is not cut."""
        return len(self._lines) + len(self._alone)

    def epoch(self, seed: int, epoch: int) -> Sequence[Indices]:
        """The batches, each as rising numbers of lines."""
        return self._drawn(derive_seed(seed, "lines", epoch)) if self._always is None else self._always

    def _drawn(self, seed: int) -> list[Indices]:
        rng = np.random.Generator(np.random.PCG64(seed))
        queues = [rng.permutation(group) for group in self._groups]
        alone = rng.permutation(self._alone)
        left = np.array([len(queue) for queue in queues], np.int64)
        batches: list[Indices] = []
        while left.any():
            chosen = self._chosen(rng, left)
            for _ in range(self._cycles):
                if not left[chosen].any():
                    break
                batches.append(self._batch(rng, queues, left, chosen))
        for place, line in zip(rng.integers(0, len(batches) + 1, len(alone)), alone, strict=True):
            batches.insert(int(place), np.array([line]))
        return batches[: self._most]

    def _chosen(self, rng: np.random.Generator, left: np.ndarray) -> np.ndarray:
        """Subjects that have lines left, as likely as they have many."""
        there = np.flatnonzero(left)
        if len(there) <= self._subjects_per_batch:
            return there
        return np.sort(rng.choice(there, self._subjects_per_batch, replace=False, p=left[there] / left[there].sum()))

    def _batch(self, rng: np.random.Generator, queues: list[Indices], left: np.ndarray, chosen: np.ndarray) -> Indices:
        """One batch from the ends of the chosen subjects' queues; what it took is no more `left`."""
        if self._costs is None:
            counts = _shares(rng, left[chosen], int(self._budget))
            taken = [queues[s][left[s] - n : left[s]] for s, n in zip(chosen, counts, strict=True)]
            left[chosen] -= counts
            return np.sort(np.concatenate(taken))
        found: list[Indices] = []
        room = self._budget
        while left[chosen].any():
            counts = _shares(rng, left[chosen], min(int(2 * room / self._mean) + 8, len(self._lines)))
            candidates = [queues[s][left[s] - n : left[s]][::-1] for s, n in zip(chosen, counts, strict=True)]
            # Whose turn it is, at random; of each subject's lines the last of its queue come first.
            turns = rng.permutation(np.repeat(np.arange(len(chosen)), counts))
            order = np.concatenate(candidates)[np.argsort(np.argsort(turns, kind="stable"), kind="stable")]
            spent = np.cumsum(self._costs[order])
            fit = int(np.searchsorted(spent, room, side="right"))
            found.append(order[:fit])
            left[chosen] -= np.bincount(turns[:fit], minlength=len(chosen))
            if fit < len(order):
                break
            room -= float(spent[-1])
        return np.sort(np.concatenate(found))


def _shares(rng: np.random.Generator, left: np.ndarray, count: int) -> np.ndarray:
    """How many of `count` lines drawn at random, without putting back, are of each subject."""
    if count >= left.sum():
        return left.copy()
    return np.asarray(rng.multivariate_hypergeometric(left, count, method="marginals"))
