"""The states of a run that can be looked at: checkpoints, models and snapshots, by their steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.checkpoint.state import State
from treadle.checkpoint.store import checkpoint_name, list_checkpoints, read_checkpoint, step_of
from treadle.engine.history import Snapshots
from treadle.errors import UsageError
from treadle.runs.models import Model, find_model, kept_models
from treadle.runs.run import CHECKPOINTS

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


class Stored(ABC):
    """A state that is kept somewhere."""

    kind: ClassVar[str]
    step: int

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes that it has where it is kept."""

    @abstractmethod
    def read(self) -> None:
        """Read it, in any thread. Raises StateError where it is damaged."""

    @abstractmethod
    def put_into(self, trainer: Trainer) -> None:
        """Put it into a trainer that was made to look, on the thread where that may be asked, once it has been read."""

    def other_data(self, trainer: Trainer) -> list[str]:
        """What of the trainer's data is not what the state was trained on, in lines; nothing where that is not kept."""
        return []


@dataclass
class StoredCheckpoint(Stored):
    """A checkpoint on disk."""

    path: Path
    kind = "checkpoint"
    state: State | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    """What it says of the data, once it has been put into a trainer."""

    @property
    def step(self) -> int:  # type: ignore[override]  # said by its name
        """Finished steps."""
        return step_of(self.path)

    @property
    def bytes(self) -> int:
        """Of its files."""
        return _bytes(self.path)

    def read(self) -> None:
        """Read and check it."""
        self.state = read_checkpoint(self.path)

    def put_into(self, trainer: Trainer) -> None:
        """All of it but what nobody sees."""
        state, self.state = self.state, None
        assert state is not None
        trainer.loop.state.show(state)
        self.data = state.values["data"]

    def other_data(self, trainer: Trainer) -> list[str]:
        """By the fingerprints that are kept in it."""
        return other_data(self.data, trainer)


@dataclass
class StoredModel(Stored):
    """The weights of a best model, or of one that was kept at a validation."""

    model: Model
    kind = "best"

    @property
    def step(self) -> int:  # type: ignore[override]
        """Finished steps."""
        return self.model.step

    @property
    def bytes(self) -> int:
        """Of its files."""
        return _bytes(self.model.directory)

    def read(self) -> None:
        """Read the weights."""
        _ = self.model.weights

    def put_into(self, trainer: Trainer) -> None:
        """Its weights, and the step and epoch that they are of."""
        self.model.put_into(trainer.parts)
        progress, info = trainer.progress, self.model.info
        progress.load_state_dict({"epoch": int(info["epoch"]), "step": self.model.step, "batch": 0})
        trainer.loop.loaded = trainer.loop.taken, str(self.model)


@dataclass
class StoredSnapshot(Stored):
    """A state in memory, to which the run itself could be rewound."""

    snapshots: Snapshots
    step: int
    kind = "snapshot"

    @property
    def bytes(self) -> int:
        """Of its tensors."""
        state = self._find()
        return 0 if state is None else sum(tensor.nbytes for tensor in state.tensors.values())

    def read(self) -> None:
        """Nothing: it is in memory, where only the thread that trains may read it."""

    def put_into(self, trainer: Trainer) -> None:
        """As of a checkpoint. Raises UsageError where a newer snapshot has taken its place meanwhile."""
        state = self._find()
        if state is None:
            raise UsageError(f"the snapshot of step {self.step} is gone: a newer one has taken its memory")
        trainer.loop.state.show(state)

    def _find(self) -> State | None:
        return next((state for state in self.snapshots.states(self.step) if state.step == self.step), None)


class Shelf:
    """Finds the states of a run.

    Args:
        run: its directory, where it is on disk.
        snapshots: those in memory, where it is trained here.
    """

    def __init__(self, run: Path | None, snapshots: Snapshots | None = None) -> None:
        self._run, self._snapshots = run, snapshots

    def steps(self) -> list[int]:
        """The steps of which there is a state."""
        found = set() if self._snapshots is None else set(self._snapshots.steps)
        if self._run is not None:
            found |= kept_models(self._run).keys()
        return sorted(found)

    def find(self, step: int) -> Stored:
        """The state of `step`: the fullest there is. Raises UsageError where there is none, naming those there are."""
        if self._snapshots is not None and step in self._snapshots.steps:
            return StoredSnapshot(self._snapshots, step)
        if self._run is not None:
            path = self._run / CHECKPOINTS / checkpoint_name(step)
            if path in list_checkpoints(self._run / CHECKPOINTS):
                return StoredCheckpoint(path)
            if step in kept_models(self._run):
                return StoredModel(find_model(self._run, step))
        steps = self.steps()
        there = f"there are {_listed(steps)}" if steps else "none is kept yet"
        raise UsageError(f"no state of step {step} is kept: {there}")


def other_data(saved: Mapping[str, Any], trainer: Trainer) -> list[str]:
    """Which of a trainer's data are not those whose fingerprints a checkpoint has `saved`, a line each."""
    return [
        f"the data of {name!r} are not what they were: truths and errors are those of now"
        for name, feed in trainer.feeds.items()
        if saved.get(name) is not None and not feed.accept_fingerprint(saved[name])
    ]


def _listed(steps: list[int], most: int = 12) -> str:
    shown = steps if len(steps) <= most else [*steps[: most // 2], *steps[-most // 2 :]]
    texts = [str(step) for step in shown]
    if len(steps) > most:
        texts.insert(most // 2, "...")
    return ", ".join(texts)


def _bytes(directory: Path) -> int:
    return sum(_sizes(directory))


def _sizes(directory: Path) -> Iterator[int]:
    with suppress(OSError):
        for path in directory.iterdir():
            with suppress(OSError):
                yield path.lstat().st_size
