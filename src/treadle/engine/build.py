"""Putting a trainer together: its feeds, its setup, and the checks on what came of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from treadle.data.convert import as_feed
from treadle.data.feed import Feed
from treadle.data.named import NamedFeeds
from treadle.data.random import RandomStreams
from treadle.engine.limits import check_schedules
from treadle.engine.loop import Loop
from treadle.engine.parts import Parts
from treadle.engine.settings import TrainerConfig
from treadle.engine.subject import Subject
from treadle.errors import UsageError, nearest


def feed_for(config: TrainerConfig, data: Any, name: str, *, training: bool = False) -> Feed | None:
    """A feed of `data` as the config asks for it; evaluation data is neither shuffled nor cut, and may be several sets.

    A mapping of tensors is one set of named columns; one of other data (tuples, datasets, feeds) is sets by name.
    """
    if data is None:
        return None
    if isinstance(data, Mapping) and data and not training and not any(map(_is_column, data.values())):
        return NamedFeeds({key: _set(config, value, f"{name}[{key!r}]") for key, value in data.items()})
    return as_feed(
        data,
        batch_size=config.batch_size,
        shuffle=config.shuffle and training,
        drop_last=config.drop_last and training,
        workers=config.workers,
        seed=config.seed,
        name=name,
    )


def own_batch_size(data: Any) -> int | None:
    """Samples per batch of data that makes its batches itself, a `Feed` or a `DataLoader`; None where nothing says."""
    if not isinstance(data, Feed | DataLoader):
        return None
    for maker in (data, getattr(data, "batching", None)):
        size = getattr(maker, "batch_size", None)
        if isinstance(size, int):
            return size
    return None


def check_settings(subject: Subject, config: TrainerConfig, data: Any, given: Mapping[str, Any]) -> None:
    """Raise UsageError where a new run would not heed a setting, of which some were `given` by keyword."""
    check_patience(subject, config)
    _check_stream(config, data)
    if not isinstance(data, Feed | DataLoader):
        return
    for name in ("batch_size", "shuffle", "drop_last"):
        has = own_batch_size(data) if name == "batch_size" else getattr(data, name, None)
        if name in given and has != getattr(config, name) and (has is not None or name == "batch_size"):
            raise UsageError(
                f"{name}={given[name]!r} beside data that is a {type(data).__name__}, which makes its batches itself"
                f"{'' if has is None else f' ({name}={has!r})'}: leave it out, or say it there"
            )


def check_patience(subject: Subject, config: TrainerConfig) -> None:
    """Raise UsageError for patience with what nobody looks at."""
    if config.patience is not None and subject.validation_feed is None:
        raise UsageError(
            f"patience is {config.patience}, but nothing is validated: give validation_data, or no patience"
        )


def _check_stream(config: TrainerConfig, data: Any) -> None:
    """Raise UsageError for an iterator that can be read once, where the run has to read it again."""
    if not isinstance(data, Iterator) or hasattr(data, "load_state_dict"):
        return
    remedy = "give an iterable that starts anew, or a function of the epoch that returns one"
    if config.max_steps is None and config.max_epochs is not None and config.max_epochs > 1:
        raise UsageError(f"data is a {type(data).__name__}, which lasts one of {config.max_epochs} epochs: {remedy}")
    if config.on_bad_step == "rollback":
        raise UsageError(f"data is a {type(data).__name__}, which a rollback cannot read again: {remedy}")


def feed_to_evaluate(subject: Subject, config: TrainerConfig, data: Any) -> Feed | None:
    """A feed of `data` to evaluate beside the training. Raises UsageError for the stream that is trained on."""
    feed = feed_for(config, data, "data")
    if feed is not None and feed is subject.feed and feed.state_dict():
        raise UsageError("data is the stream that the run trains on, which would lose its place: give data of its own")
    return feed


def _is_column(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray | list | str | int | float) or value is None


def _set(config: TrainerConfig, data: Any, name: str) -> Feed:
    feed = feed_for(config, data, name)
    assert feed is not None
    return feed


def run_setup(subject: Subject, random: RandomStreams) -> None:
    """Call `setup` in the run's own random streams. Raises UsageError for an optimizer without parameters."""
    with random:
        try:
            subject.setup()
        except ValueError as error:
            if "empty parameter list" in str(error):
                raise UsageError("setup builds an optimizer without parameters: has the model any to train?") from error
            raise


def check_ready(loop: Loop) -> None:
    """Raise UsageError where training cannot begin."""
    subject, config = loop.subject, loop.config
    kind = type(subject)
    if subject.feed is None:
        raise UsageError(
            "nothing to train on: give the trainer data= (Steps(n) where step makes its own; load_data for commands), "
            "or set self.feed in setup"
        )
    if config.max_epochs is None and config.max_steps is None and config.max_time is None:
        raise UsageError("nothing says when to end: give max_epochs, max_steps or max_time")
    if kind.step is Subject.step and loop.step_replacement is None:
        raise UsageError(f"{kind.__name__} has no step(self, batch): write one that calls self.minimize(loss)")
    if subject.validation_feed is not None and kind.validation_step is Subject.validation_step:
        raise UsageError(f"{kind.__name__} has validation data but no validation_step(self, batch): write one")
    check_schedules(config, loop.progress)
    check_whole(loop.parts, loop.world.size)


def check_whole(parts: Parts, processes: int) -> None:
    """Raise UsageError for networks that are wrapped or sharded to be trained by several processes in other ways.

    A wrapper adds gradients up once more than here, and does not see the parameters that a row edit makes anew; of a
    sharded parameter each process has a part only, which no checkpoint of a run is made of.
    """
    for name, root in parts.modules.items():
        for path, module in root.named_modules():
            kinds = {kind.__name__ for kind in type(module).__mro__}
            where = f"{name}.{path}" if path else name
            if "DistributedDataParallel" in kinds and processes > 1:
                raise UsageError(
                    f"{where!r} is wrapped in DistributedDataParallel, and its gradients are added up here "
                    "already: give the trainer the module itself"
                )
            if kinds & {"FullyShardedDataParallel", "FSDPModule"}:
                raise UsageError(_sharded(where, "module"))
        for path, parameter in root.named_parameters():
            if any(kind.__name__ == "DTensor" for kind in type(parameter).__mro__):
                raise UsageError(_sharded(f"{name}.{path}", "parameter"))
    for name, parameter in parts.parameters.items():
        if any(kind.__name__ == "DTensor" for kind in type(parameter).__mro__):
            raise UsageError(_sharded(name, "parameter"))


def _sharded(name: str, what: str) -> str:
    return (
        f"{what} {name!r} is sharded over processes (fully_shard, FSDP, DTensor), which a trainer does not train: each "
        "process has the whole of all parameters, that rows can be edited and a checkpoint holds all; leave it whole"
    )


def check_replacement(name: str, function: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise UsageError where `function(trainer, [batch], **kwargs)` could not be called."""
    if not callable(function):
        raise UsageError(f"the replacement for {name!r} is a {type(function).__name__}: expected a function")
    positional = (None, None) if name == "step" else (None,)
    try:
        signature = inspect.signature(function)
        takes = [each.name for each in list(signature.parameters.values())[len(positional) :]]
        for keyword in kwargs:
            if keyword not in takes and not any(
                each.kind is each.VAR_KEYWORD for each in signature.parameters.values()
            ):
                raise UsageError(f"the replacement for {name!r} takes no {keyword!r}{nearest(keyword, takes)}")
        signature.bind(*positional, **kwargs)
    except TypeError as error:
        called = "function(trainer, batch, ...)" if name == "step" else "function(trainer, ...)"
        raise UsageError(f"the replacement for {name!r} cannot be called as {called}: {error}") from None
