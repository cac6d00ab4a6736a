"""Pictures and texts made during a run, as files in its `examples/`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from treadle.engine.events import Hook, Order, Record
from treadle.files import file_name
from treadle.images.display import png
from treadle.runs.run import Run

EXAMPLES = "examples"


class ExampleFiles(Hook):
    """Writes what is logged with `log_image` and `log_text` to `examples/step-00000500-name.png` (or `.txt`).

    An observer: a picture that cannot be written is reported and never ends the run.
    """

    order: ClassVar[int] = Order.LATE
    observer: ClassVar[bool] = True
    hears: ClassVar[Collection[str]] = ("image", "text")

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_log(self, trainer: Any, record: Record) -> None:
        """Write a picture or a text."""
        stem = f"{EXAMPLES}/step-{record.step:08d}-{file_name(record.name)}"
        if record.kind == "image":
            self.run.write(f"{stem}.png", png(record.value, record.name))
        elif record.kind == "text":
            self.run.write(f"{stem}.txt", str(record.value).rstrip("\n") + "\n")
