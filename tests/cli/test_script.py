"""`--trainer FILE.py:CLASS`: commands on a run that a program of one's own has made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.warm.python import python
from treadle.runs.run import read_config, read_summary

PROGRAM = '''
import numbers_of_mine
import torch

from treadle import Trainer


class Mine(Trainer):
    """Fits a line."""

    @classmethod
    def load_data(cls, config, path):
        x = torch.linspace(-1, 1, 64)[:, None]
        slope = numbers_of_mine.SLOPE if path is None else float(path.read_text())
        return {"data": (x, slope * x), "validation_data": (x, slope * x)}

    def setup(self):
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, batch):
        loss = (self.model(batch[0]) - batch[1]).square().mean()
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch):
        return {"loss": (self.model(batch[0]) - batch[1]).square().mean()}


class Other(Mine):
    pass


class Deep(Mine):
    def __init__(self, depth, **given):
        super().__init__(**given)


class Bare(Mine):
    @classmethod
    def load_data(cls, config, path):
        return Trainer.load_data.__func__(cls, config, path)


if __name__ == "__main__":
    settings = {"max_steps": 20, "save_every": "5 steps", "keep_checkpoints": 9, "run_dir": "runs/mine"}
    Mine(**Mine.load_data(None, None), **settings).train()
'''
RUN = Path("runs/mine/v001")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program, and one in which it has made a run."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("work", "programs"):
        (folder / name).mkdir()
    (folder / "programs" / "prog.py").write_text(PROGRAM)
    (folder / "programs" / "numbers_of_mine.py").write_text("SLOPE = 3.0\n")
    subprocess.run([python(), "../programs/prog.py"], cwd=folder / "work", check=True)
    return folder


@pytest.fixture
def program(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the program is, from the working directory, in which it has made a run."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert read_config(RUN)["trainer"] == "__main__:Mine"
    before = set(sys.modules)
    yield "../programs/prog.py"
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_every_command_that_needs_the_trainer_takes_it(treadle: Any, program: str) -> None:
    code = ("--trainer", f"{program}:Mine")
    digest = read_summary(RUN)["digest"]
    assert treadle("verify", str(RUN), "--from", "0", *code) == 0, treadle.err
    assert treadle("fork", str(RUN), "--at", "10", *code) == 0 and read_summary("runs/mine/v002")["digest"] == digest
    assert treadle("resume", str(RUN), "--set", "max_steps=25", *code) == 0 and read_summary(RUN)["step"] == 25
    assert treadle("test", str(RUN), *code) == 0 and (RUN / "test" / "metrics.json").exists()
    assert treadle("export", str(RUN), "--onnx", *code) == 2 and "Mine has nothing to export" in treadle.err
    for run in ("v001", "v002"):
        assert read_config(f"runs/mine/{run}")["trainer"] == "__main__:Mine", "no file names code"


def test_a_trainer_of_ones_own_is_trained_like_a_recipe(treadle: Any, program: str) -> None:
    code = ("--trainer", f"{program}:Mine")
    slope, moved = Path("slope"), Path("moved")
    slope.write_text("3")
    assert treadle("train", *code, "--data", "slope", "--max-steps", "10", "--set", "save_every=5 steps") == 0
    run = Path("runs/mine/v002")  # by default a run is named by its trainer
    assert treadle.out.endswith(f"next: treadle test {run} --trainer {program}:Mine\n")
    assert read_config(run)["trainer"] == "prog:Mine" and read_config(run)["data"] == str(slope.resolve())
    assert read_summary(run)["step"] == 10
    slope.rename(moved)
    for command in (("verify", str(run)), ("resume", str(run), "--set", "max_steps=12")):
        assert treadle(*command, *code) == 2 or "No such file" in treadle.err  # what load_data itself says
        assert treadle(*command, *code, "--data", "moved") == 0, treadle.err
    # A file with settings, which a class of that name may use: a run's own is one.
    assert treadle("train", f"{run}/config.yaml", *code, "--data", "moved", "--run", "again") == 0
    assert read_summary("again/v001")["step"] == 12
    Path("mine.yaml").write_text("trainer: Mine\nconfig: {max_steps: 4}\n")
    assert treadle("train", "mine.yaml", *code) == 0 and read_summary("runs/mine/v003")["step"] == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trainer", "P:Deep"], "Deep cannot be made by a command, which gives config, data, validation_data"),
        (["--trainer", "P:Deep"], "missing a required argument: 'depth'; hand these on (**kwargs), and make"),
        (
            ["--trainer", "P:Bare", "--max-steps", "3"],
            "Steps(n) where step makes its own; load_data for commands",
        ),
        (["--trainer", "P:Bare", "--data", "P"], "Bare takes no data path"),
        (["--trainer", "P:Mine"], "nothing says when to end: give max_epochs, max_steps or max_time"),
        (["--trainer", "P:Mine", "--max-step", "3"], "unknown flag --max-step; did you mean '--max-steps'?"),
        (["--trainer=P:Mne"], "has no trainer 'Mne'; did you mean 'Mine'?"),
        (["image", "--trainer", "P:Mine"], "image.yaml was written by the trainer 'image', not by 'Mine'"),
        (["mine.yaml"], "trainer 'Mine' is unknown; known: "),
        (["mine.yaml"], "(--trainer FILE.py:CLASS names one of your own)"),
    ],
)
def test_what_cannot_be_trained_is_one_line(treadle: Any, program: str, arguments: list[str], said: str) -> None:
    Path("mine.yaml").write_text("trainer: Mine\n")
    assert treadle("train", *(argument.replace("P", program, 1) for argument in arguments)) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1
    assert not Path("runs/mine/v002").exists()


def test_help_shows_the_settings_of_a_trainer_of_ones_own(treadle: Any, program: str) -> None:
    assert treadle("train", "--trainer", f"{program}:Mine", "--help") == 0
    assert "Fits a line." in treadle.out and "--max-epochs " in treadle.out
    assert f"treadle train --trainer {program}:Mine --help all" in treadle.out


@pytest.mark.parametrize("command", ["verify", "resume", "test"])
def test_without_it_the_remedy_is_named(treadle: Any, program: str, command: str) -> None:
    assert treadle(command, str(RUN)) == 2
    assert "a file cannot name code: name it on the command line (--trainer FILE.py:Mine), or" in treadle.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prog.py:Mine", "--trainer prog.py: no such file or directory"),
        ("../programs/prog.py", "expected FILE.py:CLASS, such as prog.py:LM"),
        ("../programs:Mine", "expected FILE.py:CLASS"),
        ("../programs/prog.py:Mne", "prog.py has no trainer 'Mne'; did you mean 'Mine'?"),
        ("../programs/prog.py:torch", "prog.py has no trainer 'torch'; known: Bare, Deep, Mine, Other"),
        ("../programs/prog.py:Other", "config.yaml was written by the trainer '__main__:Mine', not by 'Other'"),
        ("../programs/bad.py:Mine", "bad.py cannot be imported: ZeroDivisionError: division by zero"),
        ("../programs/leaves.py:Mine", "leaves.py cannot be imported: SystemExit: 3"),
    ],
)
def test_what_is_no_trainer_is_one_line(treadle: Any, program: str, text: str, said: str) -> None:
    Path("../programs/bad.py").write_text("1 / 0\n")
    Path("../programs/leaves.py").write_text("raise SystemExit(3)\n")
    assert treadle("verify", str(RUN), "--trainer", text) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1


def test_a_file_may_be_called_like_a_module(treadle: Any, program: str) -> None:
    import random

    Path("../programs/random.py").write_text(Path(program).read_text())
    assert treadle("verify", str(RUN), "--trainer", "../programs/random.py:Mine") == 0, treadle.err
    assert sys.modules["random"] is random
