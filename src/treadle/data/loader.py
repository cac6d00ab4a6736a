"""An adapter for torch's DataLoader, and what can be exact about it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

from treadle.data.batch import Batch, sample_count
from treadle.data.dataset import dataset_fingerprint
from treadle.data.feed import own_part, part_of
from treadle.data.fingerprint import Naming, identify, older_fingerprints, stable_name
from treadle.data.memory import Memory, has_state
from treadle.data.random import derive_seed, scoped_generators, seed_generators
from treadle.data.reading import SequentialFeed, SequentialReader
from treadle.errors import RunError, StateError, UsageError, one_line

_END = object()
_OF_A_LOADER = frozenset(vars(DataLoader[Any]([0])))  # type: ignore[arg-type]  # a list is a dataset
"""What every DataLoader has: none of it is memory."""


class LoaderFeed(SequentialFeed):
    """The batches of a torch `DataLoader`, with the loader's own batch size, sampler, workers and collate function.

    Exact: the order. The loader's sampler is run once at the start of each epoch, with the global generators, the
    loader's `generator` and the sampler's seeded from (seed, epoch) (`set_epoch` is called where it exists); a run
    continues in mid-epoch from that list, and does not load the batches before. With `num_workers=0` also what the
    dataset draws from global generators: it is seeded by (seed, epoch, batch).

    A loader with an `__iter__` of its own, or with an `IterableDataset`, is read as it is, and on resume again from
    the epoch's beginning up to the position; one with `state_dict()` and `load_state_dict()` goes on from its state.
    What a sampler remembers from one epoch to the next is saved: its `state_dict()` where it can be loaded again, else
    those of its attributes that have changed. So are attributes of a loader with its own `__iter__`, and the
    `state_dict()` of an `IterableDataset`.

    Not exact: random numbers that a dataset draws in the loader's workers, after a stop in mid-epoch (they depend on
    what each worker did before), or in one of several processes (where samples and order are those of one process,
    but each draws numbers of its own). Where that matters give the trainer the dataset itself (`DatasetFeed`).

    Raises UsageError for an empty loader, and for a sampler or loader whose memory cannot be saved.
    """

    name = "the DataLoader"

    def __init__(self, loader: DataLoader[Any], *, seed: int | None = None) -> None:
        super().__init__(seed)
        self.loader = loader
        self.stateful = has_state(loader)
        self._map_style = not isinstance(loader.dataset, IterableDataset)
        self._sampler: Any = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
        own_iter = any(getattr(type(loader), m) is not getattr(DataLoader, m) for m in ("__iter__", "_get_iterator"))
        self._read_as_it_is = own_iter or self.stateful or not self._map_style
        self._generator = torch.Generator()
        self._plan = _Plan()
        self._planned = loader if self._read_as_it_is else _with_plan(loader, self._plan, self._generator)
        self._memory = Memory({} if self.stateful else _holders(loader, own_iter), _OF_A_LOADER)
        self._blank = False
        self._fingerprint: str | None = None
        if self._map_style and self.batches == 0:
            raise UsageError("the DataLoader gives no batch: its dataset is empty, or shorter than a batch it drops")

    @property
    def batches(self) -> int | None:
        """Batches per epoch; None for an `IterableDataset` or a sampler without a length."""
        if not self._map_style or not isinstance(self._sampler, Sized):
            return None
        return len(self.loader) if self._read_as_it_is else len(self._sampler)

    @property
    def samples(self) -> int | None:
        """Samples the loader's sampler gives per epoch (with `drop_last`, the dropped ones count); None if unknown."""
        sampler = self.loader.sampler
        return len(sampler) if self._map_style and isinstance(sampler, Sized) else None

    def _note(self) -> None:
        """What a loader that is read as it is has changed so far; a sampler's passes end when they begin."""
        if self._read_as_it_is:
            self._memory.end()

    def _begin(self, epoch: int, start: int, recalled: bool) -> SequentialReader:
        self._note()
        self._generator.manual_seed(derive_seed(self.seed, "workers", epoch, *self._who_draws))
        if self.stateful and recalled and not start:
            # A loader that takes its state only when it is iterated: it is seeded for the new epoch behind that.
            with scoped_generators():
                iter(self.loader)
        order_seed = self._seed_order(epoch)
        self._memory.begin()
        if not self._read_as_it_is:
            with scoped_generators():
                seed_generators(order_seed)
                order = list(self._sampler)
            self._memory.end()
            self._warn(epoch, start)
            self._plan.entries = self._parts(order)[start:]
            return SequentialReader(self, self._batches(epoch, start, len(order)), epoch, start, len(order))
        at, count = start if recalled and self.stateful else 0, self.batches
        reader = SequentialReader(self, self._batches(epoch, at, count), epoch, at, count)
        if self.stateful and not self._opened:
            self._opened = True
            try:
                self._pristine = self._remembered()
            except (AttributeError, NotImplementedError):
                self.stateful = False  # a wrapper has the methods, but what it wraps has not
        self._warn(epoch, start)
        reader.skip(start - at)
        return reader

    def _warn(self, epoch: int, start: int) -> None:
        """Say so where a run of version 0.1.0 has no state of what has one."""
        blank, self._blank = self._blank, False
        names = [type(self.loader).__name__] if self.stateful else self._memory.titles()
        if blank and names and (epoch or start):
            warnings.warn(
                f"the run was begun by a version that did not save the state of {', '.join(names)}: it goes on from "
                "that of a new one",
                stacklevel=2,
            )

    def _item_seed(self, epoch: int, item: int) -> int:
        return derive_seed(self.seed, "batch", epoch, item, *self._who_draws)

    def _whole(self, items: list[Any], position: int) -> int:
        return self._plan.sizes[position] if self._in_parts else sample_count(items[0])

    def _join(self, items: list[Any], position: int) -> Batch:
        return items[0] if self._world.size == 1 or self._in_parts else own_part(items[0], self._world)

    def _failure(self, epoch: int, item: int, error: Exception) -> RunError:
        lines = str(error).strip().splitlines()
        # What a worker raised comes wrapped in its traceback, with the error itself at the end.
        what = lines[-1] if "Original Traceback" in str(error) else one_line(error)
        return RunError(f"the DataLoader failed at batch {item} of epoch {epoch + 1}: {what}")

    def _remembered(self) -> Any:
        own: Any = self.loader
        if self.stateful:
            return copy.deepcopy(own.state_dict())
        self._note()
        return self._memory.state()

    def _recall(self, state: Any, start: int) -> None:
        if self.stateful:
            own: Any = self.loader
            own.load_state_dict(state)
            self._opened = True
        else:
            # An epoch that goes on is begun again from what was before it, and read up to the position.
            self._note()
            self._memory.load(state["before" if start else "now"])

    def _forget(self) -> None:
        if not self.stateful:
            self._note()
            self._memory.reset()
        elif self._opened and self._pristine is None:
            raise StateError(
                f"{type(self.loader).__name__} went on from a saved state, and cannot be put back to its beginning: "
                "start the run in a new process"
            )
        else:
            super()._forget()

    def _look(self) -> None:
        """Nothing: a stateful loader that is asked for its state too early begins an epoch, before it is seeded."""

    def state_dict(self) -> dict[str, Any]:
        """Empty where neither the loader nor its sampler remembers anything; else as of `StreamFeed`."""
        state = super().state_dict()
        return state if state.get("source") is not None else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave, at the next `iterate`."""
        self._blank = not state
        super().load_state_dict(state)

    def fingerprint(self) -> str:
        """SHA-256: as for `DatasetFeed`; of an `IterableDataset`, as for `StreamFeed`. Computed once."""
        if self._fingerprint is None:
            self._fingerprint = self._identify()
        return self._fingerprint

    def fingerprints(self) -> Iterator[str]:
        """`fingerprint()`, then those of version 0.1.0, which named the module of the class too."""
        yield self.fingerprint()
        yield from older_fingerprints(self.loader.dataset, self._identify)

    def _identify(self, naming: Naming = stable_name) -> str:
        return (dataset_fingerprint if self._map_style else identify)(self.loader.dataset, naming)

    def _batches(self, epoch: int, at: int, count: int | None) -> Iterator[Batch]:
        with scoped_generators():
            seed_generators(derive_seed(self.seed, "loader", epoch))
            batches = iter(self._planned)
        return batches if count is None else self._counted(batches, at, count)

    def _counted(self, batches: Iterator[Batch], at: int, count: int) -> Iterator[Batch]:
        """Batch `at` and those behind it, `count` in all. After the last the loader comes to its end, with workers."""
        for position, batch in enumerate(batches, at + 1):
            if position == count and next(batches, _END) is not _END:
                raise UsageError(
                    f"{type(self.loader).__name__} gives more than the {count} batches that its length says: give it a "
                    "__len__ that tells how many its __iter__ gives"
                )
            yield batch

    def _seed_order(self, epoch: int) -> int:
        """Make what the sampler gives in `epoch` a function of (seed, epoch), as far as it has no other state."""
        inner = getattr(self._sampler, "sampler", None)
        seed = derive_seed(self.seed, "order", epoch)
        for holder in (self.loader, self._sampler, inner):
            generator = getattr(holder, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(seed)
            if callable(getattr(holder, "set_epoch", None)):
                holder.set_epoch(epoch)  # type: ignore[union-attr]  # just seen to be callable
        return seed

    @property
    def _in_parts(self) -> bool:
        """Whether only this process's part of a batch is loaded, and not the whole and then cut."""
        return not self._read_as_it_is and self.loader.batch_sampler is not None

    @property
    def _who_draws(self) -> tuple[str | int, ...]:
        """Parts that were made with the same random numbers would all be augmented alike."""
        return ("rank", self._world.rank) if self._world.size > 1 and self._in_parts else ()

    def _parts(self, order: list[Any]) -> list[Any]:
        if self._world.size == 1 or not self._in_parts:
            return order
        self._plan.sizes = [len(entry) for entry in order]
        return [entry[part_of(len(entry), self._world)] for entry in order]


def _holders(loader: DataLoader[Any], own_iter: bool) -> dict[str, Any]:
    """What may remember something: samplers that are not torch's own, a loader that iterates by itself, a stream."""
    found: dict[str, Any] = {"loader": loader} if own_iter else {}
    if isinstance(loader.dataset, IterableDataset) and has_state(loader.dataset):
        found["dataset"] = loader.dataset
    waiting = [(name, vars(loader).get(name)) for name in ("batch_sampler", "sampler")]
    seen: set[int] = set()
    for name, holder in waiting:
        if holder is None or id(holder) in seen:
            continue
        seen.add(id(holder))
        if has_state(holder) or not type(holder).__module__.startswith("torch.utils.data"):
            found[name] = holder
        for key, value in getattr(holder, "__dict__", {}).items():
            if isinstance(value, Sampler) or key == "sampler":
                waiting.append((f"{name}.{key}", value))
    return found


class _Plan(Sampler[Any]):
    """A sampler that gives what it was told, so that one loader (and its workers) serves every epoch and position."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.sizes: list[int] = []

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
