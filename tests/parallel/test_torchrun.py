"""A program of somebody's own under torchrun, as the guide has it, and the command line there."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.warm.python import python
from treadle import UsageError
from treadle.cli import several
from treadle.cli.main import main

PROGRAM = """
import atexit, pathlib, sys
import torch

def say_threads():  # registered first, so that it is called last
    tasks = [path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    sys.stdout.write(f"left: {sum('gloo' in name for name in tasks)}\\n")  # in one piece: there are two that write

atexit.register(say_threads)
from treadle import Interrupts, Trainer

class Line(Trainer):
    def setup(self):
        self.model = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, batch):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        self.minimize(loss)
        return {"loss": loss}

x = torch.linspace(-1, 1, 250)[:, None]
trainer = Line(data=(x, 3 * x + 1), batch_size=32, max_epochs=3, run_dir="runs/line", resume="auto")
summary = trainer.train()
sys.stdout.write(f"process {trainer.loop.world.rank}: {summary.status} {trainer.digest()}\\n")
sys.stdout.flush()
"""


def test_a_program_is_trained_by_two_processes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "program.py"]
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    said = sorted(line for line in done.stdout.splitlines() if line.startswith("process"))
    assert [line[:19] for line in said] == ["process 0: finished", "process 1: finished"]
    assert len({line.split()[-1] for line in said}) == 1
    if Path("/proc/self/task").exists():  # one that is left aborts the process now and then
        assert done.stdout.count("left: 0\n") == 2
    (run,) = (tmp_path / "runs" / "line").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["step"]) == ("finished", 24) and summary["digest"] in said[0]


RECIPE = """
import os, signal
import torch
from treadle import Trainer
from treadle.data import TensorFeed
from treadle.parallel import this_world

class Line(Trainer):
    def setup(self):
        self.model = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        x = torch.linspace(-1, 1, 64)[:, None]
        self.feed = TensorFeed((x, 3 * x + 1), batch_size=8)

    def step(self, batch):
        x, y = batch
        step, restarts = self.progress.step, os.environ["TORCHELASTIC_RESTART_COUNT"]
        if this_world().rank == 1:
            if os.environ["HOW"] == "stop" and step == 5:
                open("stop", "w").close()
            if os.environ["HOW"] == "fail" and (restarts, step) == ("0", 6):
                os.kill(os.getpid(), signal.SIGKILL)
            if os.environ["HOW"] == "fail" and (restarts, step) == ("1", 20):
                raise ValueError("boom")
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        self.minimize(loss)
        return {"loss": loss}
"""
TRAIN = ["treadle", "train", "--trainer", "recipe.py:Line", "--run", "runs/line", "--set", "batch_size=8"]


def start(place: Path, command: list[str], how: str) -> tuple[int, str, str]:
    """Carry out a command, which is told to stop where the recipe says so; its exit code and what it said."""
    (place / "recipe.py").write_text(RECIPE)
    source = str(Path(__file__).parents[2] / "src")
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": source, "HOW": how, "PYTHON_EXEC": python()}  # the last is torchrun's
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([python(), "-m", *command], cwd=place, env=os.environ | own, **streams) as process:
        deadline = time.monotonic() + 200
        while process.poll() is None and not (place / "stop").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def events(run: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run / "journal.jsonl").read_text().splitlines()]


def test_torchrun_starts_the_command_line_again_in_the_same_run_and_its_error_is_one_line(tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "-m", "--"]
    code, out, err = start(tmp_path, [*launcher, *TRAIN, "max_steps=30", "save_every=4 steps"], "fail")
    assert code == 1
    assert out.splitlines() == ["resuming runs/line/v001 after step 4"], err
    said = [line for line in err.splitlines() if line.startswith("treadle: ")]
    assert said[-1] == "treadle: process 1 failed: ValueError: boom in step, at step 21 (epoch 3, batch 5)"
    assert all("process 1, at step 7" in line for line in said[:-1])
    assert [path.name for path in (tmp_path / "runs" / "line").iterdir()] == ["v001"]
    assert events(tmp_path / "runs" / "line" / "v001").count("start") == 1


def test_the_command_line_starts_processes_and_a_signal_stops_all_of_them_with_a_checkpoint(tmp_path: Path) -> None:
    endless = ["max_steps=20000", "save_every=20000 steps", "log_every=null"]
    code, out, err = start(tmp_path, [*TRAIN, *endless, "--processes", "2"], "stop")
    assert code == 143, err
    stopped, following = out.splitlines()
    assert stopped.startswith("stopped: interrupted by SIGTERM, at step ")
    assert following == "next: treadle resume runs/line/v001 --trainer recipe.py:Line"
    assert not [line for line in err.splitlines() if "Error" in line or line.startswith("treadle: ")]
    assert events(tmp_path / "runs" / "line" / "v001")[-2:] == ["stop", "checkpoint"]


@pytest.mark.parametrize(
    ("arguments", "size", "said"),
    [
        (
            ["verify", "runs/x"],
            "2",
            "treadle verify is one process, and a launcher has started 2 (WORLD_SIZE): several",
        ),
        (["train", "image", "--processes", "2"], "2", "--processes starts processes, and a launcher has started 2"),
        (["train", "image", "--processes", "many"], "1", "--processes is 'many': expected a whole number of 1 to 1024"),
        (["test", "runs/x", "--processes=2"], "1", "treadle test is one process: --processes is of treadle train and"),
    ],
)
def test_what_cannot_be_started_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], size: str, said: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.delenv("RANK", raising=False)
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"treadle: {said}")


def test_more_processes_than_samples_in_a_batch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    several.check(SimpleNamespace(batch_size=3))
    with pytest.raises(UsageError, match="batch_size is 2, and 3 processes are to share each batch: start 2 at most"):
        several.check(SimpleNamespace(batch_size=2))
