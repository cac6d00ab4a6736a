"""A pane: what a client wants to see in it, and what it was shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

from treadle.reports.views import LiveView, Window
from treadle.studio.drawing.painting import Pace, Painting
from treadle.studio.drawing.sources import Source
from treadle.studio.protocol import Watch
from treadle.studio.topics import Client


@dataclass(eq=False)
class Pane:
    """What a client wants to see in one of its panes, and what it was shown."""

    client: Client
    watch: Watch
    source: Source
    view: LiveView
    window: Window
    pace: Pace
    painting: Painting | None = None
    shown: tuple[Source, LiveView, Window] | None = None
    """What the frame shows that the client has, which may be of a `Watch` before; None where it has none."""
    shown_size: tuple[int, int] = (1, 1)
    """Its width and height in pixels."""
    shown_step: int | None = None
    """What the run had come to in it; None where nothing of this `Watch` was shown."""
    fine: bool = False
    """Whether that is as good as it gets."""
    drawn: float = -math.inf
    """When something was last done for it."""
    begun: float = -math.inf
    """When its last picture was begun."""
    retry: float = -math.inf
    failures: int = 0
