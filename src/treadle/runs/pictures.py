"""Pictures and texts made during a run, as files in its `examples/`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from treadle.engine.events import Hook, Order, Record
from treadle.errors import UsageError
from treadle.files import file_name

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer
    from treadle.runs.run import Run

EXAMPLES = "examples"


class ExampleFiles(Hook):
    """Writes what is logged with `log_image` and `log_text` to `examples/step-00000500-name.png` (or `.txt`).

    An observer: a picture that cannot be written is reported and never ends the run.
    """

    order: ClassVar[int] = Order.LATE
    observer: ClassVar[bool] = True

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_log(self, trainer: Trainer, record: Record) -> None:
        """Write a picture or a text."""
        stem = f"{EXAMPLES}/step-{record.step:08d}-{file_name(record.name)}"
        if record.kind == "image":
            self.run.write(f"{stem}.png", png(record.value, record.name))
        elif record.kind == "text":
            self.run.write(f"{stem}.txt", str(record.value).rstrip("\n") + "\n")


def to_bytes(picture: Any, name: str = "picture") -> NDArray[np.uint8]:
    """A picture as uint8 of shape (H, W, C), C = 1, 3 or 4.

    Takes (H, W) or (H, W, C); uint8, bool, or floats in [0, 1], which are clipped, rounded to nearest, NaN shown as 0.
    Raises UsageError naming `name` for anything else.
    """
    array = np.asarray(picture)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise UsageError(
            f"picture {name!r} has shape {np.shape(picture)}: expected (H, W) or (H, W, C), not empty, C = 1, 3 or 4"
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise UsageError(f"picture {name!r} has dtype {array.dtype}: expected uint8, or floats between 0 and 1")
    clipped = np.clip(np.nan_to_num(array.astype(np.float32), nan=0.0), 0.0, 1.0)
    return (clipped * 255.0 + 0.5).astype(np.uint8)


def png(picture: Any, name: str = "picture") -> bytes:
    """A picture as the content of a PNG file; see `to_bytes` for what it may be."""
    from PIL import Image

    array = to_bytes(picture, name)
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, "PNG")
    return buffer.getvalue()
