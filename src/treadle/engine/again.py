"""A second trainer like one that is there, to be looked at beside it: made of the same arguments, and of nothing else.

It has no run on disk, no hook that was given, and takes no step. So it writes nothing, and holds nothing of the first
but the data that both were given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from treadle.data.reading import SequentialFeed
from treadle.errors import TreadleError, UsageError, one_line

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

T = TypeVar("T", bound="Trainer")

_making: ContextVar[bool] = ContextVar("treadle_making_again", default=False)


def is_made_to_look() -> bool:
    """Whether the trainer under construction is only to be looked at: it has no run, and none of the hooks given."""
    return _making.get()


@contextmanager
def made_to_look() -> Iterator[None]:
    """Within the block, trainers that are constructed are only to be looked at."""
    token = _making.set(True)
    try:
        with torch.enable_grad():  # as setup is used to, though this is called where nothing is trained
            yield
    finally:
        _making.reset(token)


def made_again(trainer: T) -> T:
    """A second trainer of the class of `trainer`, constructed from the same arguments and thus the same data.

    To be called between two steps, on the thread that trains: setup draws random numbers, from streams of its own.

    Raises UsageError, in one line, where there can be none: its data are read once, or the constructor fails.
    """
    kind = type(trainer)
    refuse_streams(trainer)
    positional, keywords = trainer.init_args
    try:
        with made_to_look():
            return kind(*positional, **keywords)
    except TreadleError:
        raise
    except Exception as error:
        raise UsageError(
            f"{kind.__name__} cannot be made a second time from the arguments that it was given ({one_line(error)}): "
            "none of its states can be looked at beside it"
        ) from error


def refuse_streams(trainer: Trainer) -> None:
    """Raise UsageError where a second reader of the data would take from the run what it has not read yet."""
    positional, keywords = trainer.init_args
    given = [*positional, *keywords.values()]
    read_once: list[Any] = [value for value in given if isinstance(value, Iterator)]
    for feed in trainer.feeds.values():
        state: Mapping[str, Any] = feed.state_dict() if isinstance(feed, SequentialFeed) else {}
        if state.get("source") is not None:
            read_once.append(feed)
    if read_once:
        raise UsageError(
            f"its data ({type(read_once[0]).__name__}) remember how far they were read, so a second trainer beside "
            f"{type(trainer).__name__} would take from them: no kept state can be looked at while it is here"
        )
