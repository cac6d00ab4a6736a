"""What the browser and the studio tell one another: every message, with the ranges that its fields must keep to.

One WebSocket carries all of it. A text message is JSON with a `type`; a binary one is a header line of JSON, a newline
and raw bytes (`Frame`, `Series`). A client begins with `Hello`; everything else that it sends is a `Request` and is
answered by exactly one `Answer` or `Refusal` with the same `id`. Requests that change something are obeyed once for
each (client, id), however often they are sent: a client that was cut off sends again what was not answered.

Messages that are not of these types, or hold a field that they have not, are refused and never reach the run.
"""

from __future__ import annotations

from treadle.studio.protocol.base import VERSION, Command, Hello, Id, Message, Name, Pixels, Request, Step, Text
from treadle.studio.protocol.driving import (
    Advance,
    Apply,
    Branch,
    Break,
    Change,
    Drive,
    Extend,
    Note,
    Pause,
    Play,
    Propose,
    Release,
    Rewind,
    RunUntil,
    Save,
    Stop,
    TakeControl,
    Unbreak,
    Undo,
    Validate,
)
from treadle.studio.protocol.looking import (
    Compare,
    Curves,
    Details,
    Difference,
    Drawn,
    Histograms,
    Inspect,
    Look,
    Open,
    Overlay,
    PictureOf,
    Runs,
    Share,
    Table,
    Timing,
    Unwatch,
    Watch,
)
from treadle.studio.protocol.told import (
    Answer,
    Branches,
    Event,
    Failed,
    Frame,
    InForce,
    Journal,
    Notice,
    Picture,
    Refusal,
    Series,
    Shapes,
    State,
    States,
    Views,
    Welcome,
)

__all__ = [
    "VERSION",
    "Advance",
    "Answer",
    "Apply",
    "Binary",
    "Branch",
    "Branches",
    "Break",
    "Change",
    "Command",
    "Compare",
    "Curves",
    "Details",
    "Difference",
    "Drawn",
    "Drive",
    "Event",
    "Extend",
    "Failed",
    "Frame",
    "FromClient",
    "FromStudio",
    "Hello",
    "Histograms",
    "Id",
    "InForce",
    "Inspect",
    "Journal",
    "Look",
    "Message",
    "Name",
    "Note",
    "Notice",
    "Open",
    "Overlay",
    "Pause",
    "Picture",
    "PictureOf",
    "Pixels",
    "Play",
    "Propose",
    "Refusal",
    "Release",
    "Request",
    "Requests",
    "Rewind",
    "RunUntil",
    "Runs",
    "Save",
    "Series",
    "Shapes",
    "Share",
    "State",
    "States",
    "Step",
    "Stop",
    "Table",
    "TakeControl",
    "Text",
    "Timing",
    "Unbreak",
    "Undo",
    "Unwatch",
    "Validate",
    "Views",
    "Watch",
    "Welcome",
]

Requests = (
    Pause | Play | Advance | RunUntil | Save | Validate | Stop | Rewind | Extend | Break | Unbreak | Note
    | TakeControl | Release | Propose | Apply | Undo | Branch | Drive | Look | Watch | Unwatch | Share | Overlay
    | Inspect | Compare | Curves | Table | Histograms | Timing | Runs | Open | Difference | Details | PictureOf
)  # fmt: skip
FromClient = Hello | Drawn | Requests
"""All that a client may send."""
FromStudio = Welcome | Answer | Refusal | State | Journal | States | Branches | Views | InForce | Failed | Notice
Binary = Frame | Shapes | Series | Picture
