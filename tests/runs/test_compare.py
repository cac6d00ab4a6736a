"""The table of runs, what differs between them, and their curves."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.runs.aside import create_run
from treadle.runs.compare import MISSING, compare, describe, find_runs, table
from treadle.runs.plot import Curves, curves, draw


def make(root: Path, name: str, config: dict[str, Any], losses: list[float], status: str | None = "finished") -> Path:
    run = create_run(root / name)
    run.write_config({"trainer": "image", "data": None, "config": {"monitor": "loss", **config}})
    for epoch, loss in enumerate(losses, 1):
        run.metrics.append("train", {"loss": loss * 2, "lr": 0.1}, step=10 * epoch, epoch=epoch)
        run.metrics.append("validation", {"loss": loss}, step=10 * epoch, epoch=epoch)
    run.close()
    if status is not None:
        best = {"monitor": "loss", "value": min(losses), "step": 10 * (1 + int(np.argmin(losses)))}
        run.write_summary(
            {"status": status, "step": 10 * len(losses), "epoch": len(losses), "best": best, "seconds": 1.5}
        )
    return run.path


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    first = make(tmp_path, "image", {"seed": 0, "model": {"width": 64}}, [3.0, 2.0, 1.0])
    return [first, make(tmp_path, "image", {"seed": 1, "model": {"width": 64, "depth": 2}}, [3.0, 2.5])]


def test_runs_are_found_at_any_depth_in_the_order_of_numbers(tmp_path: Path) -> None:
    for name in ("b/v10", "b/v9", "b/v100", "a/deep/v001"):
        create_run(tmp_path / name)
    (tmp_path / "b" / "v11").mkdir()
    (tmp_path / "b" / "v9" / "checkpoints" / "v001").mkdir(parents=True)
    names = [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)]
    assert names == ["a/deep/v001", "b/v9", "b/v10", "b/v100"]
    assert find_runs(tmp_path / "b" / "v9") == [tmp_path / "b" / "v9"]
    (tmp_path / "empty").mkdir()
    assert find_runs(tmp_path / "empty") == []
    with pytest.raises(UsageError, match="is no directory"):
        find_runs(tmp_path / "none")


def test_table(two: list[Path], tmp_path: Path) -> None:
    killed = make(tmp_path, "image", {}, [3.0, float("nan")], status=None)
    header, rows = table([describe(path) for path in [*two, killed]])
    started = describe(killed).started[:16].replace("T", " ")
    assert header == ["run", "trainer", "status", "step", "epoch", "best", "at step", "time", "started"]
    assert rows[0] == ["image/v001", "image", "finished", "30", "3", "loss 1", "30", "1.5 s", started]
    assert rows[2] == ["image/v003", "image", "unfinished", "20", "2", "", "", "", started]


def test_a_run_that_goes_on_is_running(two: list[Path], tmp_path: Path) -> None:
    path = make(tmp_path, "image", {}, [3.0], status=None)
    (path / ".lock").write_text(json.dumps({"pid": os.getpid(), "host": os.uname().nodename}))
    assert describe(path).status == "running"
    (path / ".lock").write_text(json.dumps({"pid": 2**22 + 1, "host": os.uname().nodename}))
    assert describe(path).status == "unfinished"
    (path / ".lock").write_text(json.dumps({"pid": os.getpid(), "host": "another machine"}))
    assert describe(path).status == "unfinished"
    (path / ".lock").write_text("")
    assert describe(path).status == "unfinished"


def test_damaged_files_are_described_too(two: list[Path]) -> None:
    (two[0] / "summary.json").write_text("{")
    (two[0] / "config.yaml").write_text("a: b: c")
    info = describe(two[0])
    assert "summary.json cannot be read" in info.problem and "config.yaml" in info.problem and info.step == 30


def test_only_what_differs(two: list[Path]) -> None:
    comparison = compare(two)
    assert comparison.names == ["v001", "v002"]
    assert comparison.config == [("config.seed", [0, 1]), ("config.model.depth", [MISSING, 2])]
    assert comparison.environment == []
    results = dict(comparison.results)
    assert (
        results["step"] == [30, 20] and results["validation/loss"] == [1.0, 2.5] and results["best.value"] == [1, 2.5]
    )
    assert "status" not in results and "train/lr" not in results


def test_three_runs_have_three_values(two: list[Path], tmp_path: Path) -> None:
    third = make(tmp_path, "other", {"seed": 0, "model": {"width": 32}}, [3.0, 2.0, 1.0])
    comparison = compare([*two, third])
    assert comparison.names == ["image/v001", "image/v002", "other/v001"]
    assert dict(comparison.config) == {
        "config.seed": [0, 1, 0],
        "config.model.depth": [MISSING, 2, MISSING],
        "config.model.width": [64, 64, 32],
    }


def test_environment_differs(two: list[Path]) -> None:
    environment = json.loads((two[0] / "environment.json").read_text())
    environment["packages"]["torch"] = "1.0"
    (two[0] / "environment.json").write_text(json.dumps(environment))
    assert [key for key, _ in compare(two).environment] == ["packages.torch"]


def test_bad_comparisons(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least two runs"):
        compare(two[:1])
    with pytest.raises(UsageError, match="is no run"):
        compare([two[0], tmp_path])


def test_curves_are_chosen_and_named(two: list[Path]) -> None:
    found = curves(two)
    assert found.metric == "validation/loss" and list(found.points) == ["v001", "v002"]
    steps, values = found.points["v001"]
    assert steps.tolist() == [10, 20, 30] and values.tolist() == [3.0, 2.0, 1.0]
    assert curves(two, "train/loss").points["v002"][1].tolist() == [6.0, 5.0]
    assert curves(two, "lr").metric == "train/lr"
    with pytest.raises(UsageError, match=r"no run has logged 'validation/los'; did you mean 'validation/loss'"):
        curves(two, "validation/los")


def test_nothing_logged(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing has been logged"):
        curves([make(tmp_path, "a", {}, [], status=None)])


def plot_area(text: str) -> list[str]:
    return re.findall(r"^[^│┤]*[│┤](.*)│$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("width", [20, 60, 120])
def test_curves_are_drawn_where_they_are(width: int, capfd: pytest.CaptureFixture[str]) -> None:
    steps = np.arange(0, 101, 10)
    up, half = (steps, steps / 100.0), (steps[:6], 1 - steps[:6] / 100.0)
    text = draw(Curves("score", {"up": up, "half": half}), width, 16)
    assert all(len(line) <= width for line in text.splitlines())
    area = plot_area(text)
    assert "a" in area[-1][: width // 3] and "a" in area[0][-3:]  # from the lower left to the upper right
    assert "b" in area[0][:3] and not any("b" in line[int(0.6 * len(line)) :] for line in area)
    assert text.splitlines()[-1] == "a up  b half"
    assert capfd.readouterr() == ("", "")


def test_decades_flat_lines_single_points_and_nan(capfd: pytest.CaptureFixture[str]) -> None:
    steps = np.arange(50)
    decades = draw(Curves("loss", {"a": (steps, 10.0 ** -(steps / 7.0))}), 60, 16)
    assert "0.0001" in decades or "1e-05" in decades
    assert "a" in plot_area(decades)[len(plot_area(decades)) // 2][20:35]  # a straight line on a logarithmic axis
    assert "25" in draw(Curves("flat", {"a": (steps, np.full(50, 25.0))}), 60, 12)
    assert "3" in draw(Curves("one", {"a": (steps[:1], np.array([3.0]))}), 60, 12)
    holes = np.where(steps % 2, np.nan, 1.0 + steps)
    assert "a" in draw(Curves("holes", {"a": (steps, holes)}), 60, 12)
    assert draw(Curves("nan", {"a": (steps, np.full(50, np.nan))})) == "nan: no finite value to draw"
    assert capfd.readouterr() == ("", "")


def test_long_curves_are_thinned_to_means() -> None:
    steps = np.arange(100_000)
    noisy = np.where(steps % 2, 0.0, 2.0)
    area = plot_area(draw(Curves("noisy", {"a": (steps, noisy), "b": (steps, noisy + 4)}), 60, 12))
    assert sum("a" in line for line in area) == 1


def test_color(two: list[Path]) -> None:
    assert "\x1b[38;5;12m━━\x1b[0m v001" in draw(curves(two), color=True)
    assert "\x1b" not in draw(curves(two))
