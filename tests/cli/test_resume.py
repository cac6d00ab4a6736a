"""`treadle resume`: going on after a kill, raising limits, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from treadle.config.files import load
from treadle.runs.run import read_journal, read_summary

RUN = Path("runs/line/v001")
KEPT = ("--save-every", "2 steps", "--log-every", "1 step")


def test_a_killed_command_goes_on_to_the_same_end(
    treadle: Any, line: None, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "treadle.cli", "train", "line", *KEPT, "--pause", "0.5"]
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 60
        while not (RUN / "checkpoints" / "step-00000002").is_dir():  # nine seconds before its end
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert read_summary(RUN) == {}
    Path("go").touch()  # without pauses from now on
    assert treadle("resume", str(RUN), "--set", "log_every=1 step") == 0
    assert f"resuming {RUN} after step " in treadle.out and "finished: step 20" in treadle.out
    assert treadle("train", "line", *KEPT, "--pause", "0.5") == 0
    killed, whole = read_summary(RUN), read_summary(Path("runs/line/v002"))
    assert killed["digest"] == whole["digest"] and killed["metrics"] == whole["metrics"]
    lines = [
        [{k: v for k, v in json.loads(text).items() if k != "time"} for text in path.read_text().splitlines()]
        for path in (RUN / "metrics.jsonl", Path("runs/line/v002/metrics.jsonl"))
    ]
    assert lines[0] == lines[1]


def test_a_finished_run_says_so_and_how_to_go_on(treadle: Any, line: None) -> None:
    assert treadle("train", "line") == 0
    before = (RUN / "journal.jsonl").read_bytes()
    assert treadle("resume", "runs/line") == 0
    assert "nothing to do: " in treadle.out and "--set max_steps=" in treadle.out
    assert (RUN / "journal.jsonl").read_bytes() == before


def test_what_a_packs_setting_says_of_itself_holds_at_the_command_line(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--digits", "0") == 2
    assert "flags: digits is 0: expected between 1 and 17" in treadle.err
    assert treadle("train", "line", "--set", "digits=many") == 2
    assert "digits is 'many': expected a whole number" in treadle.err
    assert treadle("train", "line", "--max-steps", "10", "--save-every", "4 steps") == 0
    changes = ("max_steps=20", "digits=3")
    assert treadle("resume", str(RUN), "--set", *changes) == 0
    entry = next(entry for entry in read_journal(RUN) if entry["event"] == "resume")
    assert entry["changed"] == {"max_steps": [10, 20], "digits": [6, 3]}
    assert len((RUN / "report" / "slope.txt").read_text()) <= 5
    assert treadle("resume", str(RUN), "--set", "digits=4", "pause=0.1") == 2
    assert "a resume cannot change pause (0.0 -> 0.1): it determines" in treadle.err


def test_verify_goes_behind_a_change_that_the_state_does_not_depend_on(treadle: Any, line: None) -> None:
    saving = ("--save-every", "4 steps", "--keep-checkpoints", "9")
    assert treadle("train", "line", "--max-steps", "10", *saving) == 0
    assert treadle("resume", str(RUN), "--set", "digits=3") == 0
    assert treadle("verify", str(RUN), "--from", "4") == 0
    assert treadle("resume", str(RUN), "--set", "max_steps=12") == 0
    assert treadle("verify", str(RUN), "--from", "4") == 2
    assert "was resumed (or forked) at step 10 with settings that the steps before it did not have" in treadle.err


def test_limits_may_be_raised_and_that_is_journalled(treadle: Any, line: None) -> None:
    assert treadle("train", "line", "--max-steps", "10") == 0
    assert treadle("resume", str(RUN), "--set", "max_steps=30", "keep_checkpoints=9") == 0
    assert read_summary(RUN)["step"] == 30 and load(RUN / "config.yaml")["config"]["max_steps"] == 30
    entry = next(entry for entry in read_journal(RUN) if entry["event"] == "resume")
    assert entry["changed"] == {"max_steps": [10, 30], "keep_checkpoints": [3, 9]} and entry["step"] == 10


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed=2", "a resume cannot change seed (0 -> 2)"),
        ("batch_size=7", "batch_size (32 -> 7)"),
        ("slope=2.0", "slope (3.0 -> 2.0)"),
        ("max_step=40", "did you mean 'max_steps'?"),
    ],
)
def test_what_determines_the_past_is_refused_in_one_line(treadle: Any, line: None, change: str, said: str) -> None:
    assert treadle("train", "line", "--max-steps", "5") == 0
    before = {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()}
    assert treadle("resume", str(RUN), "--set", change) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1
    assert {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()} == before


def test_changed_data_is_noticed(treadle: Any, line: None) -> None:
    Path("factor").write_text("2")
    assert treadle("train", "line", "--data", "factor", "--max-steps", "5") == 0
    Path("factor").write_text("3")
    assert treadle("resume", str(RUN), "--set", "max_steps=9") != 0
    assert "the data of 'feed' is not what it was" in treadle.err and treadle.err.count("\n") == 1


def test_a_damaged_checkpoint_costs_steps_not_the_run(treadle: Any, line: None) -> None:
    assert treadle("train", "line", *KEPT) == 0
    digest = read_summary(RUN)["digest"]
    (RUN / "checkpoints" / "step-00000020" / "manifest.json").write_text("")
    assert treadle("resume", str(RUN)) == 0
    assert "step-00000020: manifest.json is damaged" in treadle.err and "after step 18" in treadle.out
    assert read_summary(RUN)["digest"] == digest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "RUN"),
        (["runs/nothing"], "no run runs/nothing"),
        (["runs/line/v001", "--st", "seed=1"], "unknown argument '--st'; did you mean '--set'?"),
    ],
)
def test_bad_usage_is_one_line(treadle: Any, line: None, arguments: list[str], said: str) -> None:
    assert treadle("resume", *arguments) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1


def test_train_starts_or_resumes_in_one_call(treadle: Any, line: None) -> None:
    """The same line in a job script, each time that the job is started again."""
    command = ("train", "line", "--resume", "auto", "--set", "save_every=5 steps")
    assert treadle(*command, "max_time=1e-9") == 0 and "stopped" in treadle.out
    assert treadle(*command) == 0
    assert f"resuming {RUN} after step " in treadle.out and "finished: step 20" in treadle.out
    assert treadle(*command) == 0 and "resuming" not in treadle.out and "run: runs/line/v002" in treadle.out
    assert treadle(*command, "--run", "runs/line/v002") == 0 and "nothing to do: runs/line/v002" in treadle.out
    assert treadle(*command, "seed=3", "--run", "runs/line/v002") == 2
    assert "a resume cannot change seed" in treadle.err and "(resume='auto' found " in treadle.err
    assert treadle("train", "line", "--resume", "atuo") == 2 and "invalid choice: 'atuo'" in treadle.err
