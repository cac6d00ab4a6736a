"""What the browser and the studio tell one another: every message, with the ranges that its fields must keep to.

One WebSocket carries all of it. A text message is JSON with a `type`; a binary one is a header line of JSON, a newline
and raw bytes (`Frame`, `Series`). A client begins with `Hello`; everything else that it sends is a `Request` and is
answered by exactly one `Answer` or `Refusal` with the same `id`. Requests that change something are obeyed once for
each (client, id), however often they are sent: a client that was cut off sends again what was not answered.

Messages that are not of these types, or hold a field that they have not, are refused and never reach the run.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

VERSION = 1
"""Of the protocol. A client of another version is told so and sent away."""

Id = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""Chosen by the client, rising; numbers that JavaScript can count to."""
Step = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Name = Annotated[str, Meta(max_length=200)]
"""Of a metric, view, run or setting: compared with those there are, never used as a path or an attribute."""
Text = Annotated[str, Meta(max_length=2000)]
Pixels = Annotated[int, Meta(ge=1, le=4096)]


class Message(Struct, forbid_unknown_fields=True, tag_field="type", tag=lambda name: name.lower(), kw_only=True):
    """Anything that is said in either direction; `type` is the class's name in lower case."""


class Hello(Message, kw_only=True):
    """The first thing that a client says."""

    version: int
    client: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    """Random, kept by the browser's tab over reloads: requests are counted by it."""
    seen: Id = 0
    """The sequence number of the last event it has, to be told what it missed."""
    label: Annotated[str, Meta(max_length=60)] = ""
    """How others see it: "Firefox on tower"."""


class Request(Message, kw_only=True):
    """Something asked for; see the module's text. `control` says which requests need the control of the run."""

    id: Id


# Transport: between steps, in the order they come -----------------------------------------------------------------


class Command(Request, kw_only=True):
    """A request that changes the run, or what it does next: only the client that holds control may send it."""


class Pause(Command, kw_only=True):
    """Take no further step until `Play`."""


class Play(Command, kw_only=True):
    """Go on."""


class Advance(Command, kw_only=True):
    """Take `steps` steps (or go to the end of the epoch), then pause."""

    steps: Annotated[int, Meta(ge=1, le=10**9)] = 1
    unit: Literal["steps", "epochs"] = "steps"


class RunUntil(Command, kw_only=True):
    """Go on until a condition holds, then pause: `treadle.engine.until.Until` has the notation."""

    until: Text


class Save(Command, kw_only=True):
    """Write a checkpoint now."""


class Validate(Command, kw_only=True):
    """Evaluate the validation data now; the answer is the metrics."""


class Stop(Command, kw_only=True):
    """End the training here, resumable, as Ctrl-C does."""


class Rewind(Command, kw_only=True):
    """Continue from `step`: later steps are given up or, with `keep`, kept as a fork of the run."""

    step: Step
    keep: bool = True


class Extend(Command, kw_only=True):
    """Raise the run's limits."""

    max_steps: Step | None = None
    max_epochs: Step | None = None


class Break(Command, kw_only=True):
    """Watch for a condition until it is removed: pause there, or only mark it."""

    until: Text
    act: Literal["pause", "mark"] = "pause"


class Unbreak(Command, kw_only=True):
    """Watch for a breakpoint no longer; `number` is that of `States.breakpoints`."""

    number: Id


class Note(Command, kw_only=True):
    """A bookmark: the state of `step` is kept for good where there is one, and the journal has the text."""

    step: Step
    text: Text


# Control ---------------------------------------------------------------------------------------------------------


class TakeControl(Request, kw_only=True):
    """Hold the run's control from now on; whoever had it sees that. Refused to those who may only view."""


class Release(Request, kw_only=True):
    """Give control back."""


# Edits, first as proposals ---------------------------------------------------------------------------------------


class Change(Struct, forbid_unknown_fields=True):
    """One thing to set: `what` and `target` as `Editable` lists them."""

    what: Literal["lr_multiplier", "loss_weight", "frozen", "setting", "limit"]
    target: Name
    value: float | bool | int | Text | None
    """Text is for settings such as "500 steps"."""


class Propose(Request, kw_only=True):
    """Ask what these changes would do; the answer is a list of before and after, or a refusal that names one."""

    changes: Annotated[list[Change], Meta(min_length=1, max_length=50)]


class Apply(Command, kw_only=True):
    """Make these changes, together, before the next step. The first edit of a run saves a checkpoint before."""

    changes: Annotated[list[Change], Meta(min_length=1, max_length=50)]


class Undo(Command, kw_only=True):
    """Set back what the last edit that is still in force has changed."""


class Branch(Command, kw_only=True):
    """Fork the run at `step` into a child process under other settings; `pause` lets the parent wait."""

    step: Step
    settings: Annotated[dict[Name, Any], Meta(max_length=50)] = {}
    pause: bool = True


class Drive(Command, kw_only=True):
    """Tell a branch to pause or play; to end, resumable; or to go on when this studio is closed."""

    run: Name
    act: Literal["pause", "play", "end", "go on"]


# Looking ---------------------------------------------------------------------------------------------------------


class Look(Request, kw_only=True):
    """Load the kept state of `step` beside the run, read only; None lets go of it. Without `sure` the answer is what
    it would cost in memory.

    Of another run (`details` says what is kept of it) the answer has its `views`, as in `welcome`, and what is to be
    `said` of it: lines such as that its data are others by now.
    """

    step: Step | None
    sure: bool = False
    run: Name | None = None
    """Another run of the directory, whose state it is; None is this one."""


class Watch(Request, kw_only=True):
    """Show a view: frames come until `Unwatch`, as often as the share of time allows and the client acknowledges."""

    pane: Annotated[int, Meta(ge=0, le=3)] = 0
    """Which of the client's panes it is for: a split screen has two."""
    view: Name
    state: Step | None = None
    """A state that was loaded by `Look`; None is the live one."""
    run: Name | None = None
    """Another run that is open beside this one; None is this one. Without `state` a branch as it is now, and of any
    other run the newest of the states that `Look` has loaded."""
    width: Pixels = 512
    height: Pixels = 512
    camera: Annotated[list[float], Meta(min_length=18, max_length=18)] | None = None
    """fx, fy as a share of the height, then the 16 numbers of `world_to_camera`, row by row; None is the view's own."""
    options: Annotated[dict[Name, str | float | bool], Meta(max_length=50)] = {}
    """Values of the view's options by name; those left out keep their default."""
    moving: bool = False
    """Whether the picture is being dragged: a coarse one now is better than a fine one late."""


class Unwatch(Request, kw_only=True):
    """Show nothing in a pane any more."""

    pane: Annotated[int, Meta(ge=0, le=3)] = 0


class Share(Request, kw_only=True):
    """How much of the time drawing may take while training goes on, and how many frames a second (0: no bar)."""

    share: Annotated[float, Meta(ge=0.0, le=0.95)]
    frames: Annotated[float, Meta(ge=0.0, le=1000.0)] = 0.0


class Drawn(Message, kw_only=True):
    """Credit: the client has drawn frame `frame`. At most two are under way to it; a hidden tab sends none."""

    frame: Id


class Overlay(Request, kw_only=True):
    """The points, lines and boxes of a view, in world coordinates: answered by a binary `Shapes`."""

    view: Name
    state: Step | None = None
    run: Name | None = None
    options: Annotated[dict[Name, str | float | bool], Meta(max_length=50)] = {}
    """As in `Watch`: how many lines, and which."""


class Inspect(Request, kw_only=True):
    """The numbers under a pixel of the frame that a pane shows."""

    pane: Annotated[int, Meta(ge=0, le=3)] = 0
    x: Annotated[int, Meta(ge=0, le=4095)]
    y: Annotated[int, Meta(ge=0, le=4095)]


class Compare(Request, kw_only=True):
    """Held-out samples of a view with their figures, the worst first: predictions, truths and errors by `Watch`."""

    view: Name
    state: Step | None = None
    run: Name | None = None
    most: Annotated[int, Meta(ge=1, le=500)] = 50


# Curves ----------------------------------------------------------------------------------------------------------


class Curves(Request, kw_only=True):
    """Points of one series; the answer is a binary `Series`."""

    key: Name
    """split/name: "train/loss", "epoch/loss", "validation/psnr"; "lost/train/loss" is what the newest rewind gave up,
    "lost/1/train/loss" what the first one did."""
    run: Name | None = None
    x: Literal["step", "epoch", "time"] = "step"
    """Time is in seconds since the run logged its first value; epochs count parts of the one under way."""
    low: float | None = None
    high: float | None = None
    """What overlaps low to high is sent as a whole, with a point on either side where there is room."""
    points: Annotated[int, Meta(ge=2, le=4000)] = 1000
    log_x: bool = False
    smoothing: Annotated[float, Meta(ge=0.0, le=0.9999)] = 0.0
    minus: Name | None = None
    """A run whose series of the same key is subtracted."""


class Table(Request, kw_only=True):
    """Every value of some series as CSV text, at most the newest `rows`."""

    keys: Annotated[list[Name], Meta(min_length=1, max_length=50)]
    run: Name | None = None
    rows: Annotated[int, Meta(ge=1, le=100_000)] = 10_000


class Histograms(Request, kw_only=True):
    """Histograms of the trained parameters as they are; or of their gradients, once a step has been taken that updates.

    The answer: {of, step, histograms, left_out, averaged}, each histogram {name, shape, entries, nan, infinite, low,
    high, mean, std, counts}: bins of equal width from low to high, which are null where no entry is finite. `averaged`
    says that they are of averaged weights (EMA), `left_out` how many parameters there are besides.
    """

    of: Literal["parameters", "gradients"] = "parameters"
    bins: Annotated[int, Meta(ge=4, le=256)] = 64


class Timing(Request, kw_only=True):
    """Where the time goes. It is measured from the first question to ten seconds after the last, and at no other time.

    The answer: {measured, steps, phases, hooks}: seconds and steps since then; {name, what, seconds} of each phase,
    which add up to the time up to the last step; {name, seconds} of each hook, which are within the phases.
    """


# Runs ------------------------------------------------------------------------------------------------------------


class Runs(Request, kw_only=True):
    """The runs there are, filtered and sorted; `where` is a grammar of comparisons: `psnr > 30 and recipe = image`.

    The answer is a list of {name, recipe, trainer, status, step, epoch, best, seconds, started, parent, fork_step,
    metrics}: see `treadle.studio.listing.Row`. `sort` is one of these or a metric; runs without it come last.
    """

    where: Text = ""
    sort: Name = "started"
    down: bool = True


class Open(Command, kw_only=True):
    """Show another run in place of this one, where none is trained here; None goes back to the table of runs."""

    run: Name | None


class Difference(Request, kw_only=True):
    """The settings in which runs differ: a list of {key, values}, values by the run's name where it has the setting."""

    runs: Annotated[list[Name], Meta(min_length=2, max_length=20)]


class Details(Request, kw_only=True):
    """A run in full: {config, environment, journal, notes, report, pictures, kept}; config is text, pictures are names,
    and kept is a list of {step, kind, bytes}: the states that `Look` can load."""

    run: Name


class PictureOf(Request, kw_only=True):
    """One of the pictures that `Details` lists: answered by a binary `Picture`."""

    run: Name
    picture: Name


Requests = (
    Pause | Play | Advance | RunUntil | Save | Validate | Stop | Rewind | Extend | Break | Unbreak | Note
    | TakeControl | Release | Propose | Apply | Undo | Branch | Drive | Look | Watch | Unwatch | Share | Overlay
    | Inspect | Compare | Curves | Table | Histograms | Timing | Runs | Open | Difference | Details | PictureOf
)  # fmt: skip
FromClient = Hello | Drawn | Requests
"""All that a client may send."""


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


FromStudio = Welcome | Answer | Refusal | State | Journal | States | Branches | Views | InForce | Failed | Notice
Binary = Frame | Shapes | Series | Picture
