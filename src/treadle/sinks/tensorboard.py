"""TensorBoard event files."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.errors import UsageError
from treadle.images.display import to_uint8
from treadle.sinks.base import Sink

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from treadle.engine.trainer import Trainer

FLUSH_SECONDS = 10
"""A killed run loses at most so many seconds of its events; metrics.jsonl loses none."""


class TensorBoard(Sink):
    """Writes scalars ("train/loss", "validation/psnr"), pictures and text as TensorBoard events.

    After a rewind or a resume the events of steps that are taken again replace the old ones.

    Args:
        directory: where the event files go; by default `tensorboard/` in the run's directory.

    Raises:
        UsageError: the package tensorboard is not installed.

    Example:
        Trainer(..., run_dir="runs/line", hooks=[TensorBoard()])     # then: tensorboard --logdir runs
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UsageError("TensorBoard is not installed: pip install 'treadle[tensorboard]'")
        self.directory = None if directory is None else Path(directory).expanduser().absolute()
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None

    def open(self, trainer: Trainer) -> None:
        """Begin an event file."""
        from torch.utils.tensorboard import SummaryWriter

        if self.directory is None:
            if trainer.run is None:
                raise UsageError("TensorBoard has nowhere to write: give it a directory, or the trainer a run_dir")
            self.directory = trainer.run.path / "tensorboard"
        self._writer = SummaryWriter(str(self.directory), purge_step=self._purge_step, flush_secs=FLUSH_SECONDS)
        self._purge_step = None

    def close(self) -> None:
        """Write out what waits and end the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Let what is logged from here on replace what was logged after this step."""
        self._ensure_closed()
        self._purge_step = trainer.progress.step + 1

    def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
        """Write numbers, tagged "split/name"."""
        assert self._writer is not None
        for name, value in values.items():
            self._writer.add_scalar(f"{split}/{name}", float(value), step)

    def image(self, step: int, name: str, picture: Any) -> None:
        """Write a picture."""
        assert self._writer is not None
        self._writer.add_image(name, to_uint8(picture, name), step, dataformats="HWC")

    def text(self, step: int, name: str, text: str) -> None:
        """Write a text; TensorBoard shows it as Markdown."""
        assert self._writer is not None
        self._writer.add_text(name, text, step)
