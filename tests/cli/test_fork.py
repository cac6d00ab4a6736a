"""`treadle fork`: a run that branches off another, with other settings from there on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from treadle.checkpoint.store import read_checkpoint
from treadle.config.files import load
from treadle.runs.run import read_journal, read_summary

PARENT, FORK = Path("runs/line/v001"), Path("runs/line/v002")


@pytest.fixture
def parent(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--save-every", "5 steps", "--keep-checkpoints", "9") == 0


def test_it_goes_on_from_the_checkpoint_with_the_new_settings(treadle: Any, parent: None) -> None:
    assert treadle("fork", str(PARENT), "--at", "10", "--set", "rate=0.01", "max_steps=30") == 0
    assert f"forked {PARENT} at step 10 into " in treadle.out and "finished: step 30" in treadle.out
    settings = load(FORK / "config.yaml")["config"]
    assert (settings["rate"], settings["max_steps"]) == (0.01, 30)
    assert read_summary(FORK)["step"] == 30 and read_summary(PARENT)["step"] == 20
    digests = [read_checkpoint(run / "checkpoints" / "step-00000010").digest for run in (PARENT, FORK)]
    assert digests[0] == digests[1]
    events = [entry["event"] for entry in read_journal(FORK)]
    assert events[:2] == ["fork", "resume"] and events[-1] == "finish"


def test_a_fork_is_a_run_like_any(treadle: Any, parent: None) -> None:
    assert treadle("fork", str(PARENT), "--at", "10", "--run", "other") == 0
    fork = Path("other/v001")
    assert read_summary(fork)["digest"] == read_summary(PARENT)["digest"], "nothing was changed: the same run"
    assert treadle("resume", str(fork), "--set", "max_steps=25") == 0
    assert treadle("verify", str(fork)) == 0
    assert treadle("verify", str(fork), "--from", "10") == 2
    assert "at step 20 with settings that the steps before it did not have" in treadle.err
    assert treadle("test", str(fork)) == 0


def test_a_learning_rate_that_is_forked_applies(treadle: Any, parent: None) -> None:
    """The optimizer's own rate is part of its state; a fork that changes it means the new one."""
    assert treadle("fork", str(PARENT), "--at", "10", "--set", "rate=0.01") == 0
    assert read_summary(FORK)["metrics"]["lr"] == 0.01
    assert read_journal(FORK)[0]["hyperparameters"] == [
        {"optimizer": "optimizer", "group": 0, "key": "lr", "value": 0.01}
    ]
    assert treadle("verify", str(FORK), "--from", "10") == 0
    assert treadle("verify", str(FORK), "--from", "0") == 2


@pytest.mark.parametrize("given", [["--data", "factor.txt"], ["--set", "data=factor.txt"]])
def test_a_fork_goes_on_with_other_data(treadle: Any, parent: None, given: list[str]) -> None:
    Path("factor.txt").write_text("2")
    assert treadle("fork", str(PARENT), "--at", "10", *given) == 0
    assert "treadle: other data: weights, optimizers and schedules go on as they were, from step 10" in treadle.err
    assert load(FORK / "config.yaml")["data"] == str(Path("factor.txt").absolute())
    assert read_journal(FORK)[0]["data"] == {"feeds": ["feed", "validation_feed"], "epoch": 5, "batch": 0}
    assert treadle("verify", str(FORK)) == 0 and treadle("verify", str(FORK), "--from", "10") == 0
    Path("factor.txt").write_text("3")
    assert treadle("verify", str(FORK)) == 1 and "the data of 'feed' is not what it was" in treadle.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--at", "7"], "no checkpoint at step 7; there are: 5, 10, 15, 20"),
        ([], "the following arguments are required: --at"),
        (["--at", "10", "--set", "rat=1"], "did you mean 'rate'?"),
    ],
)
def test_bad_usage_is_one_line_and_makes_nothing(treadle: Any, parent: None, arguments: list[str], said: str) -> None:
    assert treadle("fork", str(PARENT), *arguments) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1
    assert not FORK.exists()
