"""The benchmark of what is learnt: its quick run measures every part, and a promise that is not held is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treadle.tracts.scoring.tractometer import score
from treadle.tracts.scoring.truth import TrueBundle, Truth
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # of the benchmark's process, not of the tests'
    import tracts_learning

    return tracts_learning


def test_the_quick_run_measures_the_other_phantom(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["--quick", "--part", "phantom-0", "models", "--keep", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    for name in ("helix", "recipe, seed 0", "true directions", "straight on", "principal axis", *bench.MODELS):
        assert f"| {name} " in told
    kept = json.loads((tmp_path / "phantom-0.json").read_text())
    figures = kept["judged"]["arc"]
    assert figures["step_mm"] == pytest.approx(2, abs=0.05)
    assert figures["copying"] == pytest.approx(0.0088, abs=0.001), "an arc of 14 mm turns by 8 degrees in 2 mm"
    overlap = {name: way["bundles"]["arc"]["OL"] for name, way in kept["tracked"].items()}
    assert overlap["true directions"] > 0.3 > overlap["straight on"]
    run = json.loads((tmp_path / "models.json").read_text())["tracts-autoencoder"]
    assert run["after"]["loss"] < run["before"]["loss"]


def test_the_quick_run_takes_each_getter(bench: Any, tmp_path: Path) -> None:
    assert bench.main(["--quick", "--part", "getters", "--keep", str(tmp_path)]) == 0
    runs = json.loads((tmp_path / "getters.json").read_text())
    assert set(runs) == set(bench.GETTERS)
    assert len({run["before"]["loss"] for run in runs.values()}) == len(bench.GETTERS)


def test_the_quick_run_goes_from_one_scan_to_the_other(bench: Any, tmp_path: Path) -> None:
    if not bench.DATA.is_dir():
        pytest.skip("needs ../shared/data")
    assert bench.main(["--quick", "--part", "real", "--keep", str(tmp_path)]) == 0
    run = json.loads((tmp_path / "real.json").read_text())["as it is, seed 0"]
    assert run["lines"] == pytest.approx(2820, rel=0.05), "as many as dipy makes of this scan"
    assert run["step_mm"] == pytest.approx(2, abs=0.01)


def test_without_the_scans_the_part_is_left_out(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "DATA", tmp_path / "none")
    assert bench.main(["--part", "real", "--keep", str(tmp_path)]) == 0
    assert "is left out" in capsys.readouterr().out


def test_a_promise_that_is_not_held_is_told(bench: Any, tmp_path: Path) -> None:
    good = {"step_mm": 2.0, "angle": 0.007, "copying": 0.015, "principal": 0.011, "cpu": 1.0}
    for angle, held in ((0.007, True), (0.009, False)):
        runs = {f"{bench.AS_IT_IS}, seed 0": good, f"{bench.AS_IT_IS}, seed 1": good | {"angle": angle}}
        gates = bench.real_tables(runs | {bench.OFF: good | {"angle": 1.0}})[1]
        assert [gate.held for gate in gates] == [True, held], "the worst seed counts"
        (tmp_path / "real.json").write_text(json.dumps(runs))
        assert bench.main(["--part", "--keep", str(tmp_path)]) == (0 if held else 1)


def test_lines_through_the_crossing_count_once_they_link_the_ends_of_a_bundle(bench: Any) -> None:
    space = Space(np.eye(4), (6, 6, 1))
    column = np.arange(6)[:, None, None] + np.zeros((6, 6, 1))
    truth = Truth(space, {"a": column == 0, "b": column == 5}, {"row": TrueBundle("a", "b", column < 9)})
    lines = Streamlines.of([
        np.array([[0.5, y, 0.5], [end, y, 0.5]], np.float32)
        for y, end in ((0.5, 5.5), (2.5, 5.5), (2.5, 4.5), (2.6, 5.6), (2.7, 1.5))
    ])  # fmt: skip
    crossing = np.zeros((6, 6, 1), bool)
    crossing[3, 2] = True
    found = bench.through(lines, score(lines, truth, space), crossing)
    assert found == {"entering": 3, "valid": pytest.approx(2 / 3)}
    assert bench.through(lines.select(np.array([0])), score(lines, truth, space), crossing)["valid"] == 0
