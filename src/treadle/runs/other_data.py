"""A checkpoint that goes on with other data: what of a state is of the data, brought to that of others.

Weights, optimizers, averages, counters of updates, random streams and whatever else a trainer holds stay exactly what
they were. The place in the data is that of a run which had the other data from its start, so the step, and with it
every schedule, means what it meant. What was best so far, and what was measured last, was so with the former data, and
is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treadle.checkpoint.state import State
from treadle.errors import UsageError

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

JUDGED = ("BestModel.", "EarlyStopping.")
"""How the hooks' names begin that compare validations with earlier ones."""


@dataclass(frozen=True)
class Redirected:
    """A state that goes on with other data."""

    state: State
    feeds: tuple[str, ...]
    """The feeds that are others, or have epochs of another length: "feed", "validation_feed", "test_feed"."""
    epoch: int
    batch: int
    """Where in the training data it goes on."""

    def entry(self) -> dict[str, Any]:
        """What the journal says."""
        return {"feeds": list(self.feeds), "epoch": self.epoch, "batch": self.batch}

    def __str__(self) -> str:
        """What a person is told."""
        kept = "weights, optimizers and schedules go on as they were"
        if "feed" not in self.feeds:
            return f"other data to evaluate on: {kept}; what was best so far was so with the former, and is forgotten"
        return (
            f"other data: {kept}, from step {self.state.step}; the place is that of a run which had these data from "
            f"its start, epoch {self.epoch + 1}, batch {self.batch + 1}; what was best so far is forgotten"
        )


def redirect(state: State, trainer: Trainer) -> Redirected | None:
    """The state of a checkpoint, brought to the data of `trainer`, which is new; None where its data are the same.

    `trainer` is put into the state, to see that it fits.

    Raises UsageError where the run would be at its end there, StateError where what the trainer holds does not fit.
    """
    saved: Mapping[str, Any] = state.values["data"]
    feeds = trainer.feeds
    others = tuple(
        name for name, feed in feeds.items() if name not in saved or not feed.accept_fingerprint(saved[name])
    )
    progress, batches = state.values["progress"], trainer.progress.batches_per_epoch
    if batches and progress["epoch"] * batches + progress["batch"] != state.step and "feed" not in others:
        others = ("feed", *others)  # the same data, in epochs of another length
    if not others and saved.keys() - {"init"} <= feeds.keys():
        return None
    if trainer.one_scene and "feed" in others:
        raise UsageError(
            f"{type(trainer).__name__} learns one scene, which lies where its data say: other data are another run's "
            "(treadle train)"
        )
    fresh = trainer.loop.state.capture(ask=False)
    values = dict(state.values)
    kept = {name: values["feeds"][name] for name in feeds if name not in others}
    values["feeds"] = {name: kept.get(name, fresh.values["feeds"][name]) for name in feeds}
    values["data"] = {name: feed.recorded_fingerprint() for name, feed in feeds.items()} | {
        name: value for name, value in saved.items() if name == "init"
    }
    known = {path: tensor for path, tensor in state.tensors.items() if not _of_feeds(path, others)}
    tensors = known | {path: tensor for path, tensor in fresh.tensors.items() if _of_feeds(path, others)}
    if "feed" in others:
        values |= {"progress": _place(state, trainer), "finish_reason": None}
    values |= {"validated_step": -1, "validation_metrics": {}}
    values["hooks"] = {
        name: fresh.values["hooks"].get(name, value) if name.startswith(JUDGED) else value
        for name, value in values["hooks"].items()
    }
    found = State(values, tensors, dict(state.clock))
    trainer.loop.state.restore(found)
    if trainer.progress.at_limit:
        progress = trainer.progress
        limits = {"max_epochs": progress.max_epochs, "max_steps": progress.max_steps}
        ends = " and ".join(f"{name}={limit}" for name, limit in limits.items() if limit is not None)
        raise UsageError(
            f"after step {progress.step}, which is epoch {progress.epoch} of the other data, the run is at its end "
            f"with {ends}: raise that, or begin a new run with these weights (treadle train ... --set init=RUN@STEP)"
        )
    return Redirected(found, others, values["progress"]["epoch"], values["progress"]["batch"])


def _place(state: State, trainer: Trainer) -> dict[str, int]:
    """Where a run stands after as many steps that had the trainer's data from its start.

    Data of unknown length begin anew, in the epoch that it was.
    """
    batches = trainer.progress.batches_per_epoch
    epoch, batch = divmod(state.step, batches) if batches else (state.epoch, 0)
    return {"epoch": epoch, "step": state.step, "batch": batch}


def _of_feeds(path: str, feeds: tuple[str, ...]) -> bool:
    return any(path.startswith(f"feeds/{name}/") for name in feeds)
