"""A program of somebody's own under torchrun, as the guide has it, and the command line there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from treadle.cli.main import main

PROGRAM = """
import torch
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
print(f"process {trainer.loop.world.rank}: {summary.status} {trainer.digest()}", flush=True)
"""


def test_a_program_is_trained_by_two_processes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "program.py"]
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    said = sorted(line for line in done.stdout.splitlines() if line.startswith("process"))
    assert [line[:19] for line in said] == ["process 0: finished", "process 1: finished"]
    assert len({line.split()[-1] for line in said}) == 1
    (run,) = (tmp_path / "runs" / "line").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["step"]) == ("finished", 24) and summary["digest"] in said[0]


def test_the_command_line_says_what_several_processes_are_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "image"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("treadle: treadle train is one process, and a launcher has started 2 (WORLD_SIZE)")
