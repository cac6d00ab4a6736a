"""Options that the exporters of several packs share, and what their values mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from treadle.cameras.similarity import UPS, Matrix, scaling, upright
from treadle.export.exporter import Option
from treadle.export.video import DEPTHS


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _up(text: str) -> str:
    upright(text)
    return text


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate <= 1000:
        raise ValueError
    return rate


CROP = Option("crop", "keep what lies in a box, given by two corners in the coordinates of the file",
              "X,Y,Z,X,Y,Z", _numbers)  # fmt: skip
UP = Option("up", f"the axis of the input that points up, turned to y: {', '.join(UPS)}", "AXIS", _up)
SCALE = Option("scale", "how many units of the file one unit of the input is", "F", float)

AT = Option("at", "which model: best, final or the step of one that is kept", "STEP|best|final")
RESOLUTION = Option("resolution", "voxels along the longest side, 8 to 1024 (default: 256)", "N", _count, 256)
LARGEST = Option("largest", "keep the largest part alone")
FRAMES = Option("frames", "how many frames (default: 120)", "N", _count, 120)
FPS = Option("fps", "frames per second (default: 30)", "N", _rate, 30.0)
WIDTH = Option("width", "of a picture in pixels (default: the training cameras')", "N", _count)
DEPTH = Option("depth", f"where depth goes: {', '.join(DEPTHS)} (default: beside)", "WHERE", str, "beside")


def chosen(load: Callable[..., Any], run: Path, values: Mapping[str, Any]) -> Any:
    """What `load(run)` gives, or `load(run, at=...)` where --at says which model of the run."""
    at = values.get("at")
    return load(run, at=at) if isinstance(at, str) else load(run)


def similarity(to_input: Matrix, values: Mapping[str, Any]) -> Matrix:
    """From the coordinates of training to those of the file: the input's, turned and scaled as --up and --scale say."""
    matrix = np.asarray(to_input, np.float64)
    if values["up"] is not None:
        matrix = upright(values["up"]) @ matrix
    if values["scale"] is not None:
        matrix = scaling(values["scale"]) @ matrix
    return matrix
