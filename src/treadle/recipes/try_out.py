"""Trying a trainer out: a little of everything that its run will do, and nothing of it kept."""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.checkpoint.compare import differences
from treadle.data.limit import iterate
from treadle.errors import UsageError
from treadle.files import make_report_directory
from treadle.recipes.registry import Recipe
from treadle.testing import capture, kill

if TYPE_CHECKING:
    from treadle.data.feed import Feed
    from treadle.engine.trainer import Trainer

LIMIT = 2
"""Batches of everything."""


@dataclass
class TryOut:
    """What a try-out came to.

    `seconds` are by what was tried, in that order: "setup", "training", "resume", "validation", "examples", "end",
    "report" and "test", as far as the trainer has them. `differences` name the entries of the state that a run resumed
    from its checkpoint had otherwise than the one that was never stopped, the first first.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether the resumed run was the same, bit for bit."""
        return not self.differences

    @contextmanager
    def trying(self, what: str, told: Callable[[str, float], None]) -> Iterator[None]:
        """Within the block, `what` is tried: its time counts, and an error in it says so."""
        begin = time.perf_counter()
        try:
            yield
        except Exception as error:
            error.add_note(f"while {what} was tried out")
            raise
        self.seconds[what] = time.perf_counter() - begin
        told(what, self.seconds[what])


def try_recipe(recipe: Recipe, told: Callable[[str, float], None] = lambda what, seconds: None) -> TryOut:
    """Take two steps of everything that a run of `recipe` does; see `treadle.try_out`.

    `told` is called after each thing that was tried, with its name and seconds.
    """
    limits: dict[str, Any] = {"limit_batches": LIMIT, "limit_validation_batches": LIMIT, "limit_test_batches": LIMIT}
    own = {name: getattr(recipe.config, name) for name in limits}
    recipe = recipe.with_settings({name: min(own[name] or LIMIT, limit) for name, limit in limits.items()})
    tried = TryOut()
    with tempfile.TemporaryDirectory(prefix="treadle-try-") as folder:
        begun, resumed = Path(folder) / "begun" / "v001", Path(folder) / "resumed" / "v001"
        with tried.trying("setup", told):
            first = recipe.build(run_dir=begun)
        try:
            with tried.trying("training", told):
                _step(first)
                first.save()
                shutil.copytree(begun, resumed)
                _step(first)
            end = capture(first).copy()
        finally:
            kill(first)
        with ExitStack() as stack:
            with tried.trying("resume", told):
                trainer = stack.enter_context(recipe.build(run_dir=resumed, resume=True))
                _step(trainer)
                tried.differences = list(differences(end, capture(trainer)))
            _rest(trainer, tried, told)
    return tried


def _step(trainer: Trainer) -> None:
    if not trainer.iterate() and not trainer.ended:
        raise UsageError(f"the try-out was stopped: {trainer.reason}")


def _rest(trainer: Trainer, tried: TryOut, told: Callable[[str, float], None]) -> None:
    """What follows from the steps: evaluating, the end of the run, and what is made of it."""
    directory: Path = trainer.run.path
    if trainer.validation_feed is not None:
        with tried.trying("validation", told):
            trainer.validate()
    with tried.trying("examples", told), trainer.evaluating():
        trainer.examples()
    with tried.trying("end", told):
        if not trainer.ended:
            trainer.finish("it was tried out")
            trainer.train()
    with tried.trying("report", told):
        make_report_directory(directory / "report")
        trainer.report(directory / "report")
    feed = trainer.test_feed or trainer.validation_feed
    if feed is not None:
        with tried.trying("test", told):
            trainer.load_best()
            make_report_directory(directory / "test")
            trainer.test_report(directory / "test", _first_batches(feed))


def _first_batches(feed: Feed) -> Feed:
    """The feed, cut after a few batches for whoever iterates it."""
    short = copy.copy(feed)
    setattr(short, "iterate", lambda epoch, start=0: iterate(feed, epoch, start, LIMIT))  # noqa: B010 (a method)
    return short
