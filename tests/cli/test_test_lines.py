"""`treadle test RUN --lines FILE`: judging streamlines in place of the test subject's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treadle.tracts.files import read_streamlines, write_streamlines
from treadle.tracts.prepared_writer import write_prepared
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject, TractData

SPACE = Space(np.diag([2.0, 1.0, 1.0, 1.0]), (10, 10, 4))


def subject(name: str, seed: int) -> MemorySubject:
    """Lines that turn a little, in a volume that says nothing."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, 8)[:, None]
    lines = [rng.uniform(2, 4, 3) + t * rng.uniform(2, 4, 3) * [1, 1, 0.1] + t**2 for _ in range(6)]
    volume = np.ones((10, 10, 4, 6), np.float32)
    return MemorySubject(name, SPACE, {"input": (volume, "tensor")}, {"fibres": Streamlines.of(lines)})


@pytest.fixture
def trained(treadle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in an empty working directory, made by the command line."""
    monkeypatch.chdir(tmp_path)
    write_prepared(Path("a.h5"), TractData((subject("one", 0),), (subject("two", 1),), (subject("three", 2),)))
    small = ["device=cpu", "max_steps=2", "sizes=[8]", "track_seeds=0", "step_size=null", "generate_every=null"]
    assert treadle("train", "tracts", "--data", "a.h5", "--set", *small) == 0
    return Path("runs/tracts/v001")


@pytest.mark.parametrize("ending", ["trk", "tck"])
def test_the_lines_of_a_file_are_judged_in_the_test_subject(treadle: Any, trained: Path, ending: str) -> None:
    corner = np.float32([[1, 1, 1], [2, 1, 1], [3, 1, 1], [3, 3, 1]])
    straight = np.float32([[1, 2, 1], [2, 2, 1], [3, 2, 1], [4, 2, 1]])
    write_streamlines(Path(f"given.{ending}"), Streamlines.of([corner, straight]), SPACE)
    assert treadle("test", str(trained), "--lines", f"given.{ending}") == 0
    results = json.loads((trained / "test" / "metrics.json").read_text())
    assert results["lines"] == 2 and results["step"] == 2
    assert results["copying"] == pytest.approx(1 / 4, abs=1e-5)  # of two steps each that follow another, one turns
    judged, space = read_streamlines(trained / "test" / "three.trk")
    assert (
        space.same(SPACE) and np.allclose(judged[0], corner, atol=1e-4) and np.allclose(judged[1], straight, atol=1e-4)
    )
    assert judged.per_point["copying"][:, 0].tolist() == pytest.approx([0, 0, 1, 1, 0, 0, 0, 0], abs=1e-5)
    assert f"report:    {trained / 'test'}" in treadle.out

    assert treadle("test", str(trained)) == 0
    own = json.loads((trained / "test" / "metrics.json").read_text())
    assert own["lines"] == 6 and own["copying"] != results["copying"]


def test_what_cannot_be_judged_is_told(treadle: Any, trained: Path) -> None:
    write_streamlines(Path("none.trk"), Streamlines.of([]), SPACE)
    write_streamlines(Path("moved.trk"), Streamlines.of([np.ones((3, 3))]), Space(np.eye(4), (10, 10, 4)))
    Path("broken.trk").write_bytes(b"TRACK")
    for name, said in (
        ("nowhere.trk", "--lines nowhere.trk: no such file"),
        ("none.trk", "none.trk has no streamlines of two points or more"),
        ("moved.trk", "moved.trk has another grid than its volume"),
        ("broken.trk", "broken.trk cannot be read as TRK"),
    ):
        assert treadle("test", str(trained), "--lines", name) == 2
        assert said in treadle.err and len(treadle.err.strip().splitlines()) == 1, treadle.err


def test_a_run_that_is_not_about_lines_judges_none(treadle: Any, line: None) -> None:
    assert treadle("train", "line") == 0
    Path("given.trk").write_bytes(b"")
    assert treadle("test", "runs/line", "--lines", "given.trk") == 2
    assert "--lines: LineTrainer does not learn where streamlines go on" in treadle.err
