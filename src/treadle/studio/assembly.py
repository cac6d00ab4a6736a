"""What a studio of a run that is trained here is made of: one topic for each feature."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.reports.trainer_views import views_of
from treadle.studio.curves.topic import Curves
from treadle.studio.drawing.frames import Frames
from treadle.studio.drawing.sources import Source
from treadle.studio.driving.branches import Branches
from treadle.studio.driving.editing import Editing
from treadle.studio.driving.transport import Transport
from treadle.studio.measures.measuring import Measuring
from treadle.studio.past.others import Others
from treadle.studio.past.states import LookingBack, Timeline, alone
from treadle.studio.runs.catalogue import Catalogue
from treadle.studio.topics import Live, Topic

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

RUNS = "runs"
"""The directory that `treadle train` makes runs in."""


def topics_of(
    live: Live,
    trainer: Trainer,
    catalogue: Catalogue | None = None,
    refuses: Callable[[str], str] = lambda what: "",
) -> list[Topic]:
    """The topics of the run of `trainer`; its `catalogue` is by default that of the runs around it.

    `refuses` says why no edit of a kind can be made, as of a run that is only looked at; empty where one can.
    """
    if live.path is not None and catalogue is None:
        catalogue = Catalogue(root_of(live.path), live)
    branches = Branches(live)
    looking = LookingBack(live, None if catalogue is None else Others(live, catalogue.path))

    def source(run: str | None, state: int | None) -> Source:
        if run is not None and state is None and branches.has(run):
            return branches.source(run)
        return looking.source(state, run)

    found: list[Topic] = [
        Transport(live),
        Editing(live, refuses),
        Timeline(live),
        looking,
        branches,
        Frames(live, partial(views_of, trainer), source),
        Measuring(live),
    ]
    if catalogue is None:
        return [*found, Curves(live, _no_runs)]
    return [*found, catalogue, Curves(live, catalogue.path)]


def root_of(run: Path) -> Path:
    """The directory whose runs are listed beside one: "runs", where it is below that, else where its versions are."""
    return next((place for place in run.parents if place.name == RUNS), run.parent)


def _no_runs(name: str) -> Path:
    raise alone(name)
