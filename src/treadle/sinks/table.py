"""The table of sinks: by which NAME `--log NAME[=WHERE]` asks for which class.

Other packages add to it with entry points of the group `treadle.sinks`: `name = "package.module:SinkClass"`. The names
below cannot be taken over.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from treadle.errors import TreadleError, UsageError, nearest, one_line

if TYPE_CHECKING:
    from treadle.sinks.base import Sink

GROUP = "treadle.sinks"
"""The entry point group of third-party sinks."""

SINKS = {
    "console": ("treadle.sinks.console:Console", "progress on the terminal; on without being asked for"),
    "tensorboard": ("treadle.sinks.tensorboard:TensorBoard", "TensorBoard events, in RUN/tensorboard or =DIR"),
    "csv": ("treadle.sinks.csv:CSV", "CSV tables, in RUN/csv or =DIR/NAME/VERSION"),
    "wandb": ("treadle.sinks.wandb:Wandb", "W&B, by its own login and variables, in =[ENTITY/]PROJECT"),
    "trackio": ("treadle.sinks.trackio:Trackio", "trackio, in TRACKIO_DIR or on its host, in =PROJECT"),
    "mlflow": ("treadle.sinks.mlflow:MLflow", "MLflow, =EXPERIMENT or =URI, else as its variables say"),
    "comet": ("treadle.sinks.comet:Comet", "Comet, without a key its archives; =[WORKSPACE/]PROJECT"),
    "rerun": ("treadle.sinks.rerun:Rerun", "Rerun, in RUN/rerun, =FILE.rrd, or a viewer at =URL"),
    "visdom": ("treadle.sinks.visdom:Visdom", "a Visdom server, at http://localhost:8097 or =URL"),
}
"""The sinks that come with Treadle: "module:Class", imported when it is asked for, and a line about it."""


def descriptions() -> dict[str, str]:
    """A line about each sink there is, by name; of a third party's, where it comes from. Imports none of them."""
    own = {name: text for name, (_, text) in SINKS.items()}
    return own | {name: f"from {point.dist.name if point.dist else '?'}" for name, point in _third_parties().items()}


def make(name: str, where: str | None = None) -> Sink:
    """The sink of that name, at `where` (see `Sink.at`).

    Raises UsageError in one line for an unknown name, for a place that is none, and where a package is missing.

    Example:
        Trainer(..., hooks=[make("tensorboard"), make("visdom", "http://gpu-box:8097")])
    """
    kind = sink_class(name)
    try:
        made = kind.at(where)
        if where is not None and hasattr(made, "asked"):  # a service, which may be told of a run later, too
            made.asked = f"{name}={where}"
        return made
    except TreadleError as error:
        raise UsageError(f"--log {name}{f'={where}' if where is not None else ''}: {error}") from None
    except Exception as error:  # a third party's may fail in any way: it is named, in one line
        place = "without a place" if where is None else f"at {where!r}"
        raise UsageError(f"the sink {name!r} cannot be made {place}: {one_line(error)}") from error


def sink_class(name: str) -> type[Sink]:
    """The class of that name. Raises UsageError for an unknown one, or one that cannot be imported."""
    from treadle.sinks.base import Sink

    points = {} if name in SINKS else _third_parties()
    if name not in SINKS and name not in points:
        raise UsageError(f"unknown sink {name!r}{nearest(name, [*SINKS, *points])}")
    target = SINKS[name][0] if name in SINKS else points[name].value
    module, _, attribute = target.replace(" ", "").partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise UsageError(f"the sink {name!r} ({target}) cannot be imported: {one_line(error)}") from error
    if not (isinstance(found, type) and issubclass(found, Sink)):
        raise UsageError(f"the sink {name!r} ({target}) is not a subclass of {Sink.__module__}.Sink")
    return found


def _third_parties() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in SINKS}
