"""Renders that are kept: every channel as a PNG for the eye and as an EXR with the numbers themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from treadle.engine.schedule import Every
from treadle.engine.trainer import Trainer
from treadle.errors import RunError, UsageError, one_line
from treadle.files import write_whole
from treadle.hooks.periodic import Periodic
from treadle.images.display import png

Channels = Mapping[str, Any]
"""Arrays or tensors (H, W, c) by the channel's name, of any range."""

RENDERS = "renders"
"""The folder in a run."""


class OfflineRenders(Periodic):
    """Renders all channels every so many steps or epochs into the run's `renders/step-00000500/`.

    They are made in eval mode, without gradients, with the weights that validation uses: the run is the same with them
    or without. It is an observer: an error in making them is reported and does not end the run. Without a run on disk
    nothing is made.

    Args:
        every: "500 steps", "2 epochs" or "10%".
        render: called with the trainer, returns the channels of each view by its name.
        setting: see `Periodic`.
    """

    observer: ClassVar[bool] = True
    wants_batches: ClassVar[bool] = False

    def __init__(
        self,
        every: str | Every,
        render: Callable[[Trainer], Mapping[str, Channels]],
        *,
        setting: str | None = None,
    ) -> None:
        super().__init__(every, setting=setting)
        self.render = render

    @classmethod
    def of(cls, every: str | None, render: Callable[[Trainer], Mapping[str, Channels]]) -> Self | None:
        """What the setting `render_every` asks for by this value of it; None for none."""
        return None if every is None else cls(every, render, setting="render_every")

    def act(self, trainer: Trainer) -> None:
        """Render and write."""
        if trainer.run is None:
            return
        with trainer.evaluating():
            for view, channels in self.render(trainer).items():
                save_channels(trainer.run.path / RENDERS, trainer.progress.step, channels, view)


def save_channels(directory: Path, step: int, channels: Channels, view: str = "") -> list[Path]:
    """Write channels into `directory/step-00000500/`, each as `NAME.png` and `NAME.exr`, or `VIEW-NAME.png` ...

    The EXR has the values in float32: R, G, B for three of them, Y for one, else c0, c1, ... The PNG is for the eye:
    colours as they are, normals from -1 to 1 as 0 to 1, what is signed in blue (below 0) and red, all else as gray from
    the smallest to the largest finite value, except for opacity; of more than three values the first three.

    Args:
        directory: of all steps; made if need be.
        step: how many steps were finished.
        channels: (H, W, c) or (H, W) by name.
        view: what comes before the names, where there are several views.

    Returns:
        The files.

    Raises:
        UsageError: a channel that is no picture, or OpenEXR is not installed.
        RunError: the disk refuses a file.
    """
    place = directory / f"step-{step:08d}"
    written = []
    for name, values in channels.items():
        array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, np.float32)
        array = array[..., None] if array.ndim == 2 else array
        if array.ndim != 3 or not array.size:
            raise UsageError(f"channel {name!r} has shape {array.shape}: expected (H, W, c), not empty")
        stem = f"{view}-{name}" if view else name
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_whole(place / f"{stem}.png", png(for_the_eye(name, array), stem))
            write_exr(place / f"{stem}.exr", array)
        except OSError as error:
            raise RunError(f"{place / stem}: cannot be written: {error.strerror or error}") from error
        except RuntimeError as error:  # OpenEXR's own
            raise RunError(f"{place / stem}.exr: cannot be written: {one_line(error)}") from error
        written += [place / f"{stem}.png", place / f"{stem}.exr"]
    return written


def for_the_eye(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A channel (H, W, c) as a picture (H, W, 3) from 0 to 1; see `save_channels`."""
    values = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
    if values.shape[2] == 3:
        shown = values / 2 + 0.5 if name in ("normal", "normals") else values
        return np.nan_to_num(shown).clip(0, 1)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    if low < 0:
        share = np.nan_to_num(values / max(-low, high)).clip(-1, 1)
        return np.concatenate([1 + share.clip(-1, 0), 1 - np.abs(share), 1 - share.clip(0, 1)], 2).astype(np.float32)
    if name not in ("opacity", "alpha"):
        values = (values - low) / (high - low or 1.0)
    return np.repeat(np.nan_to_num(values).clip(0, 1), 3, 2)


def write_exr(path: Path, values: NDArray[np.float32]) -> None:
    """Write (H, W, c) as float32, whole or not at all: R, G, B for three channels, Y for one, else c0, c1, ...

    Raises UsageError where OpenEXR is not installed, OSError where the disk refuses.
    """
    try:
        import OpenEXR
    except ImportError:
        raise UsageError(f"writing {path} needs the OpenEXR package: pip install 'treadle[fields]'") from None
    count = values.shape[2]
    names = {1: ["Y"], 3: ["R", "G", "B"]}.get(count, [f"c{number}" for number in range(count)])
    planes = {name: np.ascontiguousarray(values[..., k], np.float32) for k, name in enumerate(names)}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    target = path.with_name(f".{path.name}.new")
    try:
        with OpenEXR.File(header, planes) as file:
            file.write(str(target))
        os.replace(target, path)
    finally:
        target.unlink(missing_ok=True)
