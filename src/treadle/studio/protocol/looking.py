"""What a client asks for that only looks: views, kept states, curves, runs."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from treadle.studio.protocol.base import Command, Id, Message, Name, Pixels, Request, Step, Text

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
    metrics}: see `treadle.studio.runs.rows.Row`. `sort` is one of these or a metric; runs without it come last.
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
