"""The table of runs and the comparison, as printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def two(treadle: Any, line: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that differ in their rate and length."""
    monkeypatch.setenv("COLUMNS", "80")
    assert treadle("train", "line", "--rate", "0.05") == 0
    assert treadle("train", "line", "--rate", "0.2", "--max-steps", "10") == 0


def test_the_table_has_a_row_per_run_and_fits_80_columns(treadle: Any, two: None) -> None:
    assert treadle("runs") == 0
    rows = treadle.out.splitlines()
    assert [row.split()[0] for row in rows[2:]] == ["line/v001", "line/v002"]
    assert "finished" in rows[2] and "20" in rows[2].split()
    assert max(map(len, rows)) <= 80
    assert treadle("runs", "runs/line/v002") == 0
    assert "line/v002" in treadle.out and "line/v001" not in treadle.out


def test_a_wide_terminal_shows_every_column(treadle: Any, two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    treadle("runs")
    assert "trainer" not in treadle.out
    monkeypatch.setenv("COLUMNS", "160")
    treadle("runs")
    for name in ("trainer", "epoch", "started", "at step"):
        assert name in treadle.out


def test_a_comparison_shows_only_what_differs_and_the_curves(treadle: Any, two: None) -> None:
    assert treadle("runs", "runs/line/v001", "runs/line/v002") == 0
    config, _, rest = treadle.out.partition("\n\n")
    assert [row.split()[0] for row in config.splitlines()[2:]] == ["max_steps", "rate"]
    assert "environment: the same" in rest
    assert "validation/loss" in rest and "a v001  b v002" in rest
    assert max(map(len, treadle.out.splitlines())) <= 80


def test_one_run_is_drawn_with_each_of_its_losses(treadle: Any, two: None) -> None:
    assert treadle("runs", "runs/line/v001") == 0
    assert "v001" in treadle.out.splitlines()[2] and "v002" not in treadle.out
    assert "validation/loss" in treadle.out and "epoch/loss" not in treadle.out and ".lr" not in treadle.out
    assert treadle("runs", "runs/line/v001", "--metric", "epoch/loss") == 0
    assert "epoch/loss" in treadle.out and "validation/loss" not in treadle.out


def test_a_name_means_its_newest_version(treadle: Any, two: None) -> None:
    assert treadle("runs", "runs/line/v001", "runs/line", "--metric", "epoch/loss") == 0
    assert "a v001  b v002" in treadle.out and "epoch/loss" in treadle.out


def test_curves_are_reckoned_with_and_written(treadle: Any, two: None, tmp_path: Path) -> None:
    both = ("runs", "runs/line/v001", "runs/line/v002")
    table, picture = tmp_path / "gap.csv", tmp_path / "gap.png"
    expression = ("--metric", "loss", "--expr", "diff(validation, epoch)")
    assert treadle(*both, *expression, "--csv", str(table), "--png", str(picture)) == 0
    assert "diff(validation, epoch)" in treadle.out and "a v001  b v002" in treadle.out
    lines = [line.split(",") for line in table.read_text().splitlines()]
    assert lines[0] == ["step", "v001", "v002"] and lines[-1][2] == "" and float(lines[1][1]) != 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert treadle(*both, "--expr", "correlation(v001:validation/loss, v002:validation/loss)") == 0
    assert -1 <= float(treadle.out.split()[-1]) <= 1
    assert treadle(*both, "--expr", "correlation(validation, epoch)") == 0
    assert [row.split()[0] for row in treadle.out.splitlines()[2:]] == ["v001", "v002"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--expr", "diff(validation, tran)", "--metric", "loss"], "has not logged 'tran/loss'"),
        (["--expr", "diff(v009:train/loss, v001:train/loss)"], "names the run 'v009'"),
        (["--expr", "diff(v001:train/loss, train/loss)"], "name one for each, or for none"),
        (["--expr", "correlation(validation, epoch)", "--png", "a.png"], "is a number"),
        (["--png", "a.xyz"], "are written as .png"),
    ],
)
def test_what_cannot_be_reckoned_is_said(treadle: Any, two: None, asked: list[str], said: str) -> None:
    assert treadle("runs", "runs/line/v001", "runs/line/v002", *asked) == 2
    assert said in treadle.err and len(treadle.err.splitlines()) == 1


def test_where_there_are_no_runs_it_says_how_to_make_one(treadle: Any, line: None) -> None:
    assert treadle("runs") == 0
    assert treadle.out.startswith("no runs in runs: treadle train RECIPE makes one")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere is no directory"),
        (["runs/line/v001", "runs/line/v003"], "no run runs/line/v003"),
        (["runs/lin", "runs/line"], "no run runs/lin; did you mean 'runs/line'?"),
        (["runs", "runs/line"], "runs is not a run: it has no config.yaml"),
        (["runs/line/v001/config.yaml", "runs/line"], "config.yaml is a file: expected a run directory"),
        (["runs/line", "--metric", "loss"], "--metric draws curves of runs: name one or more"),
        (["runs/line/v001", "runs/line", "--metric", "validation/los"], "did you mean 'validation/loss'?"),
        (["--metrics"], "unknown argument '--metrics'; did you mean '--metric'?"),
    ],
)
def test_what_cannot_be_shown_is_one_line(treadle: Any, two: None, arguments: list[str], said: str) -> None:
    assert treadle("runs", *arguments) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1


def test_looking_changes_nothing(treadle: Any, two: None) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    treadle("runs")
    treadle("runs", "runs/line/v001", "runs/line/v002")
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")} == before


def test_of_one_run_its_best_models_are_ranked(treadle: Any, line: None) -> None:
    arguments = ("--set", "validate_every=5 steps", "save_every=10 steps", "keep_checkpoints=1")
    assert treadle("train", "line", *arguments, "keep_best=3") == 0
    assert treadle("runs", "runs/line/v001") == 0
    rows = [line.split() for line in treadle.out.splitlines()]
    header = next(index for index, row in enumerate(rows) if row[:1] == ["best"])
    assert rows[header] == ["best", "loss", "step", "epoch", "weights", "checkpoint"]
    assert [(row[0], row[2], *row[4:]) for row in rows[header + 2 : header + 5]] == [
        ("1", "20", "best_model", "kept"),
        ("2", "15", "best_models/step-00000015"),
        ("3", "10", "best_models/step-00000010", "kept"),
    ]
    assert treadle("train", "line", *arguments) == 0 and treadle("runs", "runs/line/v002") == 0
    assert "best_model" not in treadle.out, "there is one, and the table of runs has it"
