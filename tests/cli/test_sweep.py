"""`treadle sweep`, as typed and as printed."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")


@pytest.fixture
def swept(treadle: Any, line: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of two trials in `s`."""
    monkeypatch.setenv("COLUMNS", "80")
    search = ("--search", "rate=log:0.01..0.3", "accumulate=1|2")
    assert treadle("sweep", "line", *search, "--trials", "2", "--run", "s", "--sampler", "random") == 0


def test_it_ranks_the_trials_and_says_what_comes_next(treadle: Any, swept: None) -> None:
    assert "importance: known once 6 trials have finished" in treadle.out
    search = ("--search", "rate=log:0.01..0.3", "accumulate=1|2", "--sampler", "random")
    assert treadle("sweep", "line", *search, "--trials", "6", "--run", "s") == 0  # the same command once more
    assert "trial 2:" not in treadle.out
    out = treadle.out
    assert out.startswith("sweep: 6 trials by random into s\n")
    assert len(re.findall(r"^trial \d: loss .*; rate=.*  accumulate=\d; 20 steps, ", out, re.M)) == 4
    rows = [line.split() for line in out.splitlines() if re.match(r" +[1-6] +[1-6] ", line)]
    assert [row[0] for row in rows] == list("123456") and sorted(row[1] for row in rows) == list("123456")
    losses = [float(row[2]) for row in rows]
    assert losses == sorted(losses) and all(row[5:7] == ["finished", "20"] for row in rows)
    assert re.search(r"^importance: (rate|accumulate) 0\.\d\d  (rate|accumulate) 0\.\d\d$", out, re.M)
    assert "┤0.3" in out and "┤0.01" in out
    assert max(len(line) for line in out.splitlines() if not line.startswith("trial ")) <= 80
    assert out.endswith("page: s/index.html\nnext: treadle train s/config.yaml\n")
    assert treadle("train", "s/config.yaml") == 0
    assert Path("s/index.html").is_file()


def test_it_shows_a_sweep_without_training(treadle: Any, swept: None) -> None:
    ranked = re.findall(r"^ +\d +\d .*$", treadle.out, re.M)
    for arguments in (("s",), ("--show", "s"), ("line", "--show", "--run", "s")):
        assert treadle("sweep", *arguments) == 0
        assert re.findall(r"^ +\d +\d .*$", treadle.out, re.M) == ranked and "trial 1:" not in treadle.out
        assert treadle.out.endswith("next: treadle train s/config.yaml\n")


def test_it_goes_on_by_its_directory_alone(treadle: Any, swept: None) -> None:
    assert treadle("sweep", "s", "--resume", "--trials", "3") == 0
    assert len(re.findall(r"^trial 3: ", treadle.out, re.M)) == 1 and "trial 2:" not in treadle.out
    assert treadle("sweep", "s", "--trials", "4") == 2
    assert treadle.err == "treadle: treadle sweep s shows it: --resume goes on with it\n"


def test_runs_shows_a_sweep_as_one_and_compares_within(treadle: Any, swept: None) -> None:
    assert treadle("train", "line", "--run", "runs/line") == 0
    os.rename("s", "runs/s")
    assert treadle("runs") == 0
    rows = treadle.out.splitlines()
    assert [row.split()[0] for row in rows if "v001" in row] == ["line/v001"]
    (row,) = (row for row in rows if row.startswith("s "))
    assert "2 of 2" in row and "finished" in row and "loss " in row
    assert treadle("runs", "runs/s") == 0
    assert len(re.findall(r"^ +\d +\d .*finished", treadle.out, re.M)) == 2
    compare = re.search(r"^treadle (runs \S+ \S+) compares the two best$", treadle.out, re.M)
    assert compare is not None and treadle(*compare[1].split()) == 0
    assert "config.rate" in treadle.out or re.search(r"^rate ", treadle.out, re.M)
    assert treadle("runs", "runs/s", "runs/s/trial-001") == 2
    assert treadle.err == "treadle: runs/s is a sweep, and no run: name a trial of it, such as runs/s/trial-001\n"
    assert treadle("runs", "runs/s/trial-001") == 0 and "trial-001/v001" in treadle.out
    assert treadle("runs", "runs/s/trial-001/v001") == 0 and "loss" in treadle.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("line",), "nothing is searched: name a setting and its values"),
        (("line", "--search", "rat=1..2"), "rat is not a setting of LineConfig; did you mean 'rate'?"),
        (("line", "--search", "rate=2..1"), "the range is empty: its end has to be above its beginning"),
        (("line", "--search", "rate"), "expected NAME=VALUES"),
        (("line", "--search", "rate=0.1..1", "--sampler", "tpee"), "did you mean 'tpe'?"),
        (("line", "--search", "rate=0.1..1", "--trials", "0"), "trials is 0"),
        (("line", "--search", "rate=0.1..1", "--workers", "0"), "workers is 0"),
        (("line", "--search", "rate=0.1..1", "--set", "max_step=3"), "did you mean 'max_steps'?"),
        (("line", "--search", "rate=0.1..1", "--storage", "sqlite:////nowhere/x.db"), "cannot be used: "),
        (("lime", "--search", "rate=0.1..1"), "did you mean 'line'?"),
        (("nowhere", "--resume"), "nowhere is no sweep: it has no sweep.yaml"),
        (("--show",), "name the sweep's directory"),
        ((), None),
        (("--resume",), "name the sweep's directory first"),
        (("--search", "rate=1..2"), "name a recipe"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(treadle: Any, line: None, arguments: Any, words: Any) -> None:
    assert treadle("sweep", *arguments) == 2
    if words is None:
        assert treadle.out.startswith("usage: treadle sweep RECIPE")
        return
    assert words in treadle.err and treadle.err.count("\n") == 1
    assert not Path("runs").exists()


def test_other_directories_are_refused(treadle: Any, swept: None) -> None:
    search = ("--search", "rate=log:0.01..0.3")
    for arguments, words in (
        (("line", *search, "--run", "s"), "s is another sweep: "),
        (("line", *search, "--run", "s/trial-001/v001"), "it is a run; give another directory (--run)"),
        (("line", *search, "--run", "s/trial-001"), "is there already; give a new directory (--run)"),
        (("s", *search), "treadle sweep s: --search was settled when that sweep began"),
        (("s", "--resume", "--set", "pause=1"), "treadle sweep s: --set was settled when that sweep began"),
        (("s", "--resume", *search), "without it this command goes on, too"),
        (("s", "--repeat", "2"), "treadle sweep s: --repeat was settled when that sweep began"),
        (("s/trial-001/v001",), "is a run, and no sweep: treadle runs"),
        (("s/trial-001",), "s/trial-001 is no sweep"),
    ):
        assert treadle("sweep", *arguments) == 2
        assert words in treadle.err and treadle.err.count("\n") == 1


def test_interrupted_it_leaves_with_130_and_says_how_to_go_on(treadle: Any, line: None) -> None:
    def interrupt() -> None:
        for _ in range(3000):
            if Path("stepping").exists():
                break
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    arguments = ("--search", "rate=log:0.01..0.3", "--trials", "2", "--run", "s", "--set", "pause=0.05")
    assert treadle("sweep", "line", *arguments) == 143
    thread.join()
    assert "stopped: 2 of 2 trials to go; what was trained can be resumed\n" in treadle.out
    assert treadle.out.endswith("next: treadle sweep s --resume\n")
    assert treadle("sweep", "s") == 0 and "unfinished" in treadle.out
    assert treadle.out.endswith("next: treadle sweep s --resume   (2 trials to go)\n")
    assert treadle("sweep", "s", "--resume") == 0
    assert len(re.findall(r"^ +\d +\d .*finished", treadle.out, re.M)) == 2


def test_where_no_trial_finishes_it_fails(treadle: Any, line: None) -> None:
    arguments = ("--search", "rate=log:0.01..0.3", "--trials", "2", "--run", "s", "--set", "fail=true")
    assert treadle("sweep", "line", *arguments) == 1
    assert "trial 1 failed: ZeroDivisionError: as asked" in treadle.out
    assert "no trial has finished: what they said is in s/trial-*/output.txt" in treadle.out


def test_without_optuna_it_says_what_to_install(treadle: Any, line: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert treadle("sweep", "line", "--search", "rate=0.1..1") == 2
    assert treadle.err == "treadle: a sweep needs optuna: pip install 'treadle[sweep]'\n"


def test_its_help_has_what_a_newcomer_needs(treadle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert treadle("sweep", "--help") == 0
    assert max(map(len, treadle.out.splitlines())) <= 80
    for word in ("--search", "log:1e-4..1e-1", "config.yaml", "--prune", "the seed alone", "--resume"):
        assert word in treadle.out
