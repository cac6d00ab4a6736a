"""Pictures as PNG files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from treadle.engine.events import Record
from treadle.errors import UsageError
from treadle.runs.pictures import ExampleFiles, png, to_bytes
from treadle.runs.run import Run


@pytest.mark.parametrize(("shape", "mode"), [((4, 6), "L"), ((4, 6, 1), "L"), ((4, 6, 3), "RGB"), ((4, 6, 4), "RGBA")])
def test_png_keeps_every_pixel(shape: tuple[int, ...], mode: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(png(picture))) as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image).reshape(to_bytes(picture).shape), to_bytes(picture))


def test_floats_are_clipped_and_rounded() -> None:
    values = np.array([[0.0, 1.0, -3.0, 7.0, np.nan, 0.5, 254.6 / 255, np.inf]])
    assert to_bytes(values)[0, :, 0].tolist() == [0, 255, 0, 255, 0, 128, 255, 255]
    assert to_bytes(np.array([[True, False]]))[0, :, 0].tolist() == [255, 0]


BAD = [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 4, 3)), np.zeros((2, 2), dtype=np.int64), "x"]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_picture_is_refused(bad: object) -> None:
    with pytest.raises(UsageError, match="picture 'probe' has"):
        to_bytes(bad, "probe")


def test_examples_are_named_by_step_and_stay_inside(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "line")
    files = ExampleFiles(run)
    for name in ("fit", "../../x/y"):
        files.on_log(None, Record("image", name, np.zeros((2, 2)), 500, 1))  # type: ignore[arg-type]
    files.on_log(None, Record("text", "note", "hello", 7, 0))  # type: ignore[arg-type]
    files.on_log(None, Record("scalars", "train", {"loss": 1.0}, 7, 0))  # type: ignore[arg-type]
    assert sorted(p.name for p in (run.path / "examples").iterdir()) == [
        "step-00000007-note.txt",
        "step-00000500-fit.png",
        "step-00000500-x-y.png",
    ]
    assert (run.path / "examples" / "step-00000007-note.txt").read_text() == "hello\n"
