"""Pictures and texts of a run as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from treadle.engine.events import Record
from treadle.runs.aside import create_run
from treadle.runs.pictures import ExampleFiles


def test_examples_are_named_by_step_and_stay_inside(tmp_path: Path) -> None:
    run = create_run(tmp_path / "line")
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
