"""Capture and restore of a trainer's complete state, as tensors and plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from treadle.checkpoint.objects import is_plain, is_stateless, load_entry, order, state_of
from treadle.checkpoint.packing import Packer, Plain, unpack
from treadle.checkpoint.tensorfile import hash_tensors
from treadle.engine.attributes import user_attributes, walk
from treadle.errors import DataChanged, StateError, nearest
from treadle.kernels import streaming

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

FORMAT = 1

SWITCHED = ("EarlyStopping",)
"""Hooks that a setting switches on and off; since a resume may change that setting, their state may be missing."""


@dataclass
class State:
    """A complete training state.

    `values` is plain data (JSON) in which tensors are named; `tensors` holds them by slash-separated path. `clock` is
    what belongs to the run but not to its digest: wall-clock seconds.
    """

    values: dict[str, Plain]
    tensors: dict[str, Tensor]
    clock: dict[str, float]

    @property
    def step(self) -> int:
        """Finished steps."""
        return int(self.values["progress"]["step"])

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return int(self.values["progress"]["epoch"])

    def copy(self, into: State | None = None) -> State:
        """A copy with CPU memory of its own, that of `into` where it has tensors of the same shape and dtype.

        Fresh memory would cost a page fault per 4 KB, six times the copying itself.
        """
        buffers: dict[str, Tensor] = {}
        for path, tensor in self.tensors.items():
            buffer = into.tensors.get(path) if into is not None else None
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            buffers[path] = streaming.copy(buffer, tensor)
        return State(self.values, buffers, self.clock)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over everything but the clock: equal digests mean equal runs."""
        return digest_of(self.values, hash_tensors(self.tensors))


def digest_of(values: Mapping[str, Plain], tensors_sha256: str) -> str:
    """The digest of a state, of its plain data and the SHA-256 of its tensors as a safetensors file."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(f"{text}\n{tensors_sha256}".encode()).hexdigest()


def capture(trainer: Trainer, *, fire: bool = True) -> State:
    """The state of `trainer` between two steps; tensors are references, not copies.

    Without `fire`, nobody is asked for what `on_save` adds: the state is not one to go back to.

    Raises StateError naming an attribute that has state and cannot be saved.
    """
    user: dict[str, Any] = {}
    if fire:
        trainer.fire("on_save", user)
    packer = Packer()
    progress = trainer.progress
    values = {
        "format": FORMAT,
        "progress": {"epoch": progress.epoch, "step": progress.step, "batch": progress.batch},
        "began": trainer._began,
        "validated_step": trainer._validated_step,
        "finish_reason": trainer._finish_reason,
        "random": packer.pack(trainer.random.state_dict(), "random"),
        "minimizer": packer.pack(trainer.minimizer.state_dict(), "minimizer"),
        "meter": packer.pack(trainer.logbook.meter.state_dict(), "meter"),
        "metrics": packer.pack(trainer.metrics, "metrics"),
        "validation_metrics": packer.pack(trainer.validation_metrics, "validation_metrics"),
        "recovery": packer.pack(trainer.recovery.state_dict(), "recovery"),
        "attributes": {name: packer.pack(state_of(item), name) for name, item in _stateful(trainer)},
        "hooks": {name: packer.pack(hook.state_dict(), f"hooks/{name}") for name, hook in _hooks(trainer)},
        "feeds": {name: packer.pack(feed.state_dict(), f"feeds/{name}") for name, feed in trainer.feeds.items()},
        "user": packer.pack(user, "user"),
        "data": {name: feed.recorded_fingerprint() for name, feed in trainer.feeds.items()},
    }
    return State(values, packer.tensors, {"seconds": trainer.seconds})


def restore(trainer: Trainer, state: State) -> None:
    """Put `trainer` (constructed as the saved one was) into `state`; parameters take the saved shapes.

    Raises StateError naming what the trainer has and the state has not, or the other way round.
    """
    # A copy: what is restored lives on and changes, and `state` may be restored again.
    values, tensors = state.values, state.copy().tensors
    if values.get("format") != FORMAT:
        raise StateError(f"the checkpoint has format {values.get('format')!r}; this version reads {FORMAT}")
    for name, feed in trainer.feeds.items():
        fingerprint = values["data"].get(name)
        if fingerprint is not None and not feed.accept_fingerprint(fingerprint):
            raise DataChanged(f"the data of {name!r} is not what it was: restore the files, or start a new run")
    _load_all("attribute", dict(_stateful(trainer)), values["attributes"], tensors, trainer)
    _load_all("hook", dict(_hooks(trainer)), values["hooks"], tensors, trainer)
    _load_all("feed", trainer.feeds, values["feeds"], tensors, trainer)
    trainer.minimizer.load_state_dict(unpack(values["minimizer"], tensors))
    trainer.logbook.meter.load_state_dict(unpack(values["meter"], tensors))
    trainer.recovery.load_state_dict(unpack(values["recovery"], tensors))
    trainer.metrics = unpack(values["metrics"], tensors)
    trainer.validation_metrics = unpack(values["validation_metrics"], tensors)
    trainer._began = values["began"]
    trainer._validated_step = values["validated_step"]
    trainer._finish_reason = values["finish_reason"]
    for name, count in values["progress"].items():
        setattr(trainer.progress, name, count)
    trainer.random.load_state_dict(unpack(values["random"], tensors))
    trainer._seconds = state.clock["seconds"]
    trainer.fire("on_load", unpack(values["user"], tensors))


def _load_all(
    kind: str, items: dict[str, Any], saved: dict[str, Plain], tensors: dict[str, Tensor], owner: Any
) -> None:
    def switched(name: str) -> bool:
        return kind == "hook" and name.partition(".")[0] in SWITCHED

    for name in saved:
        if name not in items and not switched(name):
            raise StateError(f"the checkpoint has {kind} {name!r}, the trainer has not{nearest(name, items)}")
    for name, item in sorted(items.items(), key=lambda pair: order(pair[1])):
        if name not in saved and switched(name):
            continue
        if name not in saved:
            raise StateError(f"the trainer has {kind} {name!r}, the checkpoint has not{nearest(name, saved)}")
        load_entry(owner, name, item, unpack(saved[name], tensors))


def _stateful(trainer: Trainer) -> Iterator[tuple[str, Any]]:
    """The user's attributes that have state, by dotted name; a container of plain data counts as one."""
    seen: set[int] = set()
    for attribute, value in user_attributes(trainer).items():
        if attribute in trainer.transient:
            continue
        for name, item in [(attribute, value)] if is_plain(value) else walk(value, attribute):
            if is_stateless(item) or (not is_plain(item) and id(item) in seen):
                continue
            seen.add(id(item))
            yield name, item


def _hooks(trainer: Trainer) -> Iterator[tuple[str, Any]]:
    counts: dict[str, int] = {}
    for hook in trainer.hooks:
        name = type(hook).__name__
        counts[name] = counts.get(name, 0) + 1
        if hasattr(hook, "state_dict"):
            yield f"{name}.{counts[name]}", hook
