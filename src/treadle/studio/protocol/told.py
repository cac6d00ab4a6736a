"""What the studio says: answers, events, and the headers of binary messages."""

from __future__ import annotations

from typing import Any, Literal

from treadle.studio.protocol.base import VERSION, Id, Message, Step

# From the studio -------------------------------------------------------------------------------------------------


class Welcome(Message, kw_only=True):
    """The answer to `Hello`."""

    version: int = VERSION
    role: Literal["view", "control"]
    run: str
    """The run's name, to be shown as text and never as markup."""
    instance: str
    """Another one means that the studio was started anew: what was seen before says nothing."""
    fresh: bool = True
    """Whether what follows is how all stands: the client has missed more than is kept. Else it is what it missed."""
    seq: Id = 0
    """The sequence number of the newest event that has been told."""
    views: list[dict[str, Any]]
    """name, title, kind ("flat", "space", "triples"), options, cameras: see `treadle.reports.views`."""
    editable: list[dict[str, Any]]
    """what, target, label, value, low, high, unit: what `Propose` takes; and where it cannot be made now, why it is
    `refused`."""
    features: list[str]
    """What this studio can do: "train", "branch", "look", ... A page hides what is not there."""


class Answer(Message, kw_only=True):
    """What was asked for, or that it is done."""

    id: Id
    value: Any = None


class Refusal(Message, kw_only=True):
    """A request that was not carried out; `error` is one line that says why and what to do."""

    id: Id
    error: str


class Event(Message, kw_only=True):
    """Something that has happened; numbered, kept for clients that come back, told in order."""

    seq: Id = 0


class State(Event, kw_only=True):
    """Where the run stands: sent when it changes, at most 20 times a second, only the newest to a slow client."""

    stage: str
    reason: str = ""
    busy: str = ""
    """What is under way that ends first: "validation", "checkpoint", "tile"."""
    step: Step
    epoch: Step
    batch: Step = 0
    batches: Step | None = None
    max_steps: Step | None = None
    max_epochs: Step | None = None
    rate: float = 0.0
    """Steps per second of late."""
    seconds: float = 0.0
    seconds_left: float | None = None
    drawing: float = 0.0
    """The measured share of time that went into drawing, of late."""
    controller: str = ""
    """The label of the client that holds control."""
    in_control: bool = False
    """Whether that is you."""
    metrics: dict[str, float | None] = {}
    """The newest value of each series; None for what is no finite number."""


class Journal(Event, kw_only=True):
    """A new entry of the run's journal."""

    entry: dict[str, Any]


class States(Event, kw_only=True):
    """The timeline: states that are kept, bookmarks, forks, breakpoints, stretches that were given up."""

    kept: list[dict[str, Any]]
    """step, kind ("checkpoint", "snapshot", "best"), bytes, note."""
    marks: list[dict[str, Any]]
    """step, kind (the journal's event, "note", "breakpoint"), text."""
    forks: list[dict[str, Any]]
    lost: list[list[int]]
    """[from, to] in steps."""
    breakpoints: list[dict[str, Any]]


class Branches(Event, kw_only=True):
    """The branches of this session, each trained in a process of its own."""

    runs: list[dict[str, Any]]
    """run (its name, empty until it is there), step (where it left its parent), settings, stage, alive; error and the
    last lines that it said, where it failed; and of a living one at (its step), max_steps, rate and metrics."""


class Views(Event, kw_only=True):
    """The views there are, as in `Welcome`: what can be chosen of one is another now, say the names of examples."""

    views: list[dict[str, Any]]


class InForce(Event, kw_only=True):
    """The edits in force, and what can be edited with its present value."""

    edits: list[dict[str, Any]]
    editable: list[dict[str, Any]]


class Failed(Event, kw_only=True):
    """The run has failed: its message and traceback, as text."""

    error: str
    traceback: str


class Notice(Event, kw_only=True):
    """A line for people: a breakpoint was reached, control was taken, a client was dropped."""

    text: str
    level: Literal["info", "warning"] = "info"


# The headers of binary messages ----------------------------------------------------------------------------------


class Frame(Message, kw_only=True):
    """A picture of a view, followed by its bytes."""

    frame: Id
    pane: int
    view: str
    step: Step
    since: Step = 0
    """After which step its first tile was drawn, where the run went on meanwhile; `step` is that of the last."""
    width: int
    height: int
    format: Literal["jpeg", "png"]
    still: bool
    """Whether it is at full resolution: nothing better follows unless the run goes on."""
    seconds: float
    state: Step | None = None
    figures: dict[str, float] = {}
    """Of the picture shown: {"psnr": 31.2}."""


class Shapes(Message, kw_only=True):
    """The answer to `Overlay`: arrays one after the other, as `parts` lists them."""

    id: Id
    parts: list[dict[str, Any]]
    """name, kind ("points", "lines", "frusta", "box"), dtype, shape, and for lines the offsets' part."""


class Series(Message, kw_only=True):
    """The answer to `Curves`: float64 little-endian rows x, low, high, last; one after the other."""

    id: Id
    points: int
    total: int
    """How many values there are behind them."""
    exact: bool
    """Whether every value is a point of its own."""
    start: float | None = None
    """Where the axis of time begins, by the clock in seconds: journal entries have the clock's time."""
    marks: list[list[float]] = []
    """[x, kind] of values that are no finite number: kind 0 is NaN, 1 infinity, -1 minus infinity."""


class Picture(Message, kw_only=True):
    """The answer to `PictureOf`, followed by its bytes."""

    id: Id
    format: Literal["jpeg", "png", "gif"]
