"""Which photographs of a scene a training takes: the settings that packs share, and reading them as these say."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from treadle.cameras.capture import Capture
from treadle.config.settings import Settings, require, setting


@dataclass(kw_only=True)
class CaptureSettings(Settings):
    """The photographs."""

    factor: float = setting(1.0, least=1, common=True)
    """Photographs are made smaller by this factor; 2 halves width and height."""
    every: int = setting(8, least=0, common=True)
    """Every so many photographs, by name, one is held out where the data does not say which; 0 holds out none."""
    lists: dict[str, str] = setting(default_factory=dict)
    """Files with a photograph's name on each line, by what for: {train: FILE, test: FILE}; in place of `every`."""
    format: Literal["auto", "blender", "transforms", "colmap"] = setting("auto")
    """What to read, where a folder holds several."""
    images: str | None = setting(None)
    """The folder of COLMAP's photographs; null looks for it."""
    missing: Literal["skip", "refuse"] | None = setting(None)
    """Views whose photograph is not there: left out with a note, or an error; null skips COLMAP's alone."""

    def __post_init__(self) -> None:
        """Check types and ranges; raises UsageError naming the field."""
        super().__post_init__()
        require(
            self, "lists", set(self.lists) <= {"train", "validation", "test"}, "the keys train, validation and test"
        )


def load_capture(config: Any, path: Path | None) -> Capture:
    """The photographs at `path`: COLMAP's, Blender's or nerfstudio's; None takes a scene of our own.

    Args:
        config: `CaptureSettings` with a `memory_mb`.
        path: a file or folder, as `treadle.cameras.reading.read_capture` takes it; what that notes is warned of.
    """
    if path is None:
        from treadle.cameras.procedural import procedural_capture

        return procedural_capture()
    from treadle.cameras.reading import read_capture

    capture = read_capture(
        path,
        factor=config.factor,
        every=config.every,
        lists=config.lists or None,
        memory=config.memory_mb << 20,
        format=config.format,
        images=config.images,
        missing=config.missing,
    )
    for note in capture.notes:
        warnings.warn(note, stacklevel=3)
    return capture
