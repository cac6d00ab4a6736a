"""Kept states of other runs, open beside the one that is shown: read only, trained by whomever or by nobody.

A trainer of theirs is made anew, by the recipe that their config.yaml is, where all is made that is looked at: between
two steps of the run here, which waits while their data are read, and is bit for bit the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from treadle.config.files import load
from treadle.engine.again import made_to_look, refuse_streams
from treadle.engine.devices import choose_device
from treadle.engine.lifecycle import Stage
from treadle.engine.subject import Subject
from treadle.errors import RunError, TreadleError, UsageError, one_line
from treadle.recipes.registry import Recipe, load_recipe
from treadle.runs.run import CONFIG
from treadle.studio.past.lent import Looked
from treadle.studio.past.looking import Looking
from treadle.studio.past.memory import bytes_of, bytes_on_disk, free_memory, shown_bytes
from treadle.studio.past.shelf import Shelf, Stored
from treadle.studio.topics import Live, later

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

DATA = ("data", "validation_data", "test_data")
"""The keywords by which a program gives a trainer its data."""


class Others:
    """Finds what is open, or is to be opened, of other runs.

    Args:
        live: the run that is shown.
        find: gives a run's directory by its name; raises UsageError for none.
    """

    def __init__(self, live: Live, find: Callable[[str], Path]) -> None:
        self._live, self._find = live, find
        self._lookings: dict[str, Looking] = {}

    def looking(self, name: str) -> Looking:
        """The kept states of the run of that name. Raises UsageError where there is none, and for the one shown."""
        path = self._find(name)
        if self._live.path is not None and path.resolve() == self._live.path.resolve():
            raise UsageError(f"{name!r} is the run that is shown here: its states are looked at without naming it")
        if name not in self._lookings:
            self._lookings = {each: looking for each, looking in self._lookings.items() if looking.in_use}
            self._lookings[name] = self._of(path)
        return self._lookings[name]

    def source(self, name: str, step: int | None) -> Looked:
        """The state of `step` of a run; None is the newest that is open. Raises UsageError where it is not open."""
        looking = self._lookings.get(name)
        if looking is None or not looking.steps:
            self._find(name)
            raise UsageError(f"{name!r} is not open beside this run: look at one of its kept states first")
        return looking.source(looking.steps[-1] if step is None else step)

    def close(self) -> None:
        """Let go of all."""
        for looking in self._lookings.values():
            looking.let_go(looking.steps)

    def _of(self, path: Path) -> Looking:
        live, here = self._live, cast("Trainer", self._live.subject)
        recipe = recipe_beside(path, here)
        shelf = Shelf(path)
        return Looking(
            shelf,
            lambda: _made(recipe, path),
            lambda: size_beside(shelf, recipe, here, live.path),
            live.commands.call,
            later,
            choose_device(recipe.config.device),
            trains=lambda: live.loop.lifecycle.stage is Stage.RUNNING,
            hurries=lambda: bool(live.commands),
            foreign=True,
        )


def recipe_beside(run: Path, here: Trainer) -> Recipe:
    """How the run in a directory is made again beside the one of `here`, in the same process.

    The class of a run that a program of one's own has trained is known where it is that of `here`; so are data that
    this program has given as objects. Raises UsageError, in one line, where it cannot be made.
    """
    kind = type(here)
    named = load(run / CONFIG).get("trainer")
    own = isinstance(named, str) and ":" in named and named.rpartition(":")[2] == kind.__qualname__
    recipe = load_recipe(run / CONFIG, kind if own else None)
    loads = cast(Any, kind.load_data).__func__ is not cast(Any, Subject.load_data).__func__
    if not own or loads or recipe.data is not None:
        return recipe
    refuse_streams(here)
    return replace(recipe, feeds={name: here.init_args[1][name] for name in DATA if name in here.init_args[1]})


def size_beside(shelf: Shelf, recipe: Recipe, here: Trainer, own: Path | None) -> int:
    """Bytes that a trainer of another run takes, as far as is known before its data are read.

    That is what its newest state has, and its data: those of the run here, in the directory `own`, where they are the
    same, else what their files have. Data that a trainer finds on its own are not known.
    """
    steps = shelf.steps()
    size = shelf.find(steps[-1]).bytes if steps else 0
    if recipe.feeds:
        return size  # both have them
    if recipe.trainer_class is type(here) and recipe.data == _data_of(own):
        return size + bytes_of(here.feeds.values())
    return size + (0 if recipe.data is None else bytes_on_disk(recipe.data))


def kept_of(run: Path) -> list[dict[str, Any]]:
    """What is kept of a run that can be looked at, by step: `step`, `kind` and `bytes` of each; what can be read."""
    kept: list[dict[str, Any]] = []
    with suppress(TreadleError):  # damaged, or deleted meanwhile
        for stored in _stored(Shelf(run)):
            kept.append({"step": stored.step, "kind": stored.kind, "bytes": stored.bytes})
    return kept


def _stored(shelf: Shelf) -> Iterator[Stored]:
    for step in shelf.steps():
        yield shelf.find(step)


def _made(recipe: Recipe, run: Path) -> Trainer:
    """A trainer of another run, with data of its own. Raises RunError where these leave no room for it."""
    try:
        with made_to_look():
            if not recipe.feeds:
                data: Mapping[str, Any] = recipe.trainer_class.load_data(recipe.config, recipe.data)
                _check_room(recipe, run, data)
                recipe = replace(recipe, feeds=data)
            return recipe.build()
    except TreadleError:
        raise
    except Exception as error:  # somebody's own code, and data that may be anywhere
        raise UsageError(f"{run.parent.name}/{run.name} cannot be made again here: {one_line(error)}") from error


def _check_room(recipe: Recipe, run: Path, data: Mapping[str, Any]) -> None:
    free, shelf = free_memory(choose_device(recipe.config.device)), Shelf(run)
    needed = max((stored.bytes for stored in _stored(shelf)), default=0)
    if free is not None and needed > free:
        raise RunError(
            f"the data of {run.parent.name}/{run.name} take {shown_bytes(bytes_of([data]))} of memory, and the "
            f"{shown_bytes(free)} that they leave are too few for its {shown_bytes(needed)}"
        )


def _data_of(run: Path | None) -> Path | None:
    """Where the config of a run says that its data are; one that has not begun has none yet."""
    with suppress(UsageError):
        data = None if run is None else load(run / CONFIG).get("data")
        return None if data is None else Path(data)
    return None
