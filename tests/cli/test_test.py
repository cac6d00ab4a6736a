"""`treadle test`: the best model, not the last one, and the report in the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RUN = Path("runs/line/v001")


@pytest.fixture
def trained(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--set", "validate_every=5 steps") == 0


def test_the_best_model_is_evaluated_and_reported(treadle: Any, trained: None) -> None:
    before = {path: path.stat().st_mtime_ns for path in RUN.rglob("*") if path.is_file()}
    assert treadle("test", "runs/line") == 0
    best = json.loads((RUN / "summary.json").read_text())["best"]
    results = json.loads((RUN / "test" / "metrics.json").read_text())
    assert results["step"] == best["step"]
    assert results["loss"] == pytest.approx(best["value"], rel=1e-6)
    assert (RUN / "test" / "slope.txt").exists()
    assert "slope: " in treadle.out and f"report:  {RUN / 'test'}" in treadle.out
    after = {path: path.stat().st_mtime_ns for path in RUN.rglob("*") if path.is_file() and path.parent.name != "test"}
    assert after == before  # testing adds a folder to the run and changes nothing else


def test_it_is_the_best_and_not_the_last(treadle: Any, line: None) -> None:
    # Far too large a rate: the loss grows from the first validation on.
    assert treadle("train", "line", "--rate", "3.5", "--set", "validate_every=2 steps", "max_steps=8") == 0
    summary = json.loads((RUN / "summary.json").read_text())
    assert summary["best"]["step"] == 2
    assert treadle("test", str(RUN)) == 0
    results = json.loads((RUN / "test" / "metrics.json").read_text())
    assert results["loss"] == pytest.approx(summary["best"]["value"], rel=1e-6)
    assert results["loss"] < summary["validation_metrics"]["loss"]


def test_the_report_of_a_training_and_its_test_show_the_same_model(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--rate", "3.5", "--set", "validate_every=2 steps", "max_steps=8") == 0
    assert "  model:   best model by loss, step 2\n" in treadle.out
    slope = (RUN / "report" / "slope.txt").read_text()
    assert treadle("test", str(RUN)) == 0
    assert (RUN / "test" / "slope.txt").read_text() == slope
    assert treadle("test", str(RUN), "--at", "final") == 0
    assert (RUN / "test" / "slope.txt").read_text() != slope


def test_at_says_which_model_and_what_is_printed_says_it(treadle: Any, line: None) -> None:
    settings = ("validate_every=2 steps", "max_steps=8", "save_every=4 steps")
    assert treadle("train", "line", "--rate", "3.5", "--set", *settings) == 0
    losses = {}
    for at, said in (
        ("best", "best model by loss, step 2"),
        ("4", "model of step 4"),
        ("final", "final model, step 8"),
    ):
        assert treadle("test", str(RUN), "--at", at) == 0
        assert treadle.out.startswith(f"{said} of {RUN} on the data of its recipe\n")
        results = json.loads((RUN / "test" / "metrics.json").read_text())
        assert (results["model"], results["step"]) == (said, int(said.split()[-1]))
        losses[at] = results["loss"]
    final = json.loads((RUN / "summary.json").read_text())["validation_metrics"]["loss"]
    assert losses["best"] < losses["4"] < losses["final"] == pytest.approx(final, rel=1e-6)
    assert treadle("test", str(RUN), "--at", "6") == 2
    assert treadle.err == f"treadle: {RUN} keeps no model of step 6: there are 2 (best), 4, 8 (final)\n"
    assert treadle("test", str(RUN), "--at", "fnal") == 2 and "did you mean 'final'?" in treadle.err
    assert treadle("test", "--ply", str(RUN / "config.yaml"), "--at", "4") == 2
    assert "--at has no meaning with --ply" in treadle.err


def test_other_data_may_be_tested_on(treadle: Any, trained: None) -> None:
    Path("factor").write_text("10")
    assert treadle("test", str(RUN)) == 0
    own = json.loads((RUN / "test" / "metrics.json").read_text())["loss"]
    assert treadle("test", str(RUN), "--data", "factor") == 0
    assert json.loads((RUN / "test" / "metrics.json").read_text())["loss"] > 10 * own


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "treadle test: expected either RUN or --ply FILE"),
        (["nowhere"], "no run nowhere (treadle runs lists the runs)"),
        (["runs/lin"], "no run runs/lin; did you mean 'runs/line'?"),
        (["runs/line/v001", "--data", "nothing"], "--data nothing: no such file or directory"),
        (["runs/line/v001", "--dat", "x"], "unknown argument '--dat'; did you mean '--data'?"),
    ],
)
def test_bad_usage_is_one_line(treadle: Any, trained: None, arguments: list[str], said: str) -> None:
    assert treadle("test", *arguments) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1
    assert not (RUN / "test").exists()


def test_a_run_without_a_best_model_says_so(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--fail") == 1
    assert treadle("test", str(RUN)) == 2
    assert "has no best model" in treadle.err
