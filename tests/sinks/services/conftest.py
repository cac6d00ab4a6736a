"""Services called in the Python that has their SDK, which is rarely this one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sdk_process import Process

HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "src"
PROGRAM = """
import os, time
from treadle.fields.image_trainer import ImageTrainer

class Slow(ImageTrainer):
    def step(self, batch):
        time.sleep(float(os.environ.get("SLOW", 0)))
        return super().step(batch)
"""
SETTINGS = (
    *("max_steps=200", "levels=4", "log2_size=8", "n_min=4", "hidden=8", "batch_size=64", "device=cpu"),
    *("log_every=2 steps", "examples_every=50%", "save_every=20 steps", "keep_every=20 steps", "validate_every=25%"),
)
Calls = list[tuple[str, dict[str, Any]]]
ID = "0123456789abcdef"


def python_of(sdk: str, module: str = "") -> str:
    """The Python that has this SDK: that of TREADLE_<SDK>_PYTHON, or this one; skips the test where there is none."""
    named = os.environ.get(f"TREADLE_{sdk.upper()}_PYTHON")
    if named:
        return named
    if importlib.util.find_spec(module or sdk) is None:
        pytest.skip(f"{sdk} is not installed, and TREADLE_{sdk.upper()}_PYTHON is not set: make test-loggers runs it")
    return sys.executable


@pytest.fixture(scope="session")
def wandb_python() -> str:
    """The Python that has W&B's SDK."""
    return python_of("wandb")


@pytest.fixture(scope="session")
def trackio_python() -> str:
    """The Python that has trackio."""
    return python_of("trackio")


@pytest.fixture(scope="session")
def rerun_python() -> str:
    """The Python that has Rerun's SDK."""
    return python_of("rerun")


@pytest.fixture
def driven(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Call a service's methods in `python`, a process of its own with a home of its own; gives what each came to."""

    def drive(
        python: str, service: str, calls: Calls, variables: Mapping[str, str], file_bytes: int | None = None
    ) -> list[dict[str, Any]]:
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        done = subprocess.run(
            [python, "-P", str(HERE / "drive.py")],
            input=json.dumps({"service": service, "calls": calls, "file_bytes": file_bytes}),
            env=kept | {"HOME": str(home), "PYTHONPATH": str(SOURCES)} | dict(variables),
            cwd=home,
            capture_output=True,
            text=True,
            timeout=100,
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(calls), done.stderr
        return answers

    return drive


@pytest.fixture
def opening(tmp_path: Path) -> Callable[..., tuple[str, dict[str, Any]]]:
    """The call that opens a run."""

    def make(**more: Any) -> tuple[str, dict[str, Any]]:
        told = {"run": "line/v001", "id": ID, "project": "line", "trainer": "line", "step": 0, "goes_on": False}
        return "open", {"opening": told | {"directory": str(tmp_path / "line" / "v001")} | more}

    return make


@pytest.fixture
def scalars() -> Callable[..., tuple[str, dict[str, Any]]]:
    """A call with numbers."""

    def make(step: int, split: str = "train", epoch: int = 0, **values: float) -> tuple[str, dict[str, Any]]:
        time = 1_700_000_000.5 + step
        return "scalars", {"step": step, "epoch": epoch, "split": split, "values": values, "time": time}

    return make


def command(*words: object) -> list[str]:
    """A treadle command, on runs of a `Slow` trainer in the working directory."""
    return [sys.executable, "-m", "treadle.cli", *map(str, words), "--trainer", "slow.py:Slow"]


@pytest.fixture
def treadle(tmp_path: Path) -> Callable[..., str]:
    """Carry out a command, which has to succeed; returns what it has printed."""

    def run(*words: object) -> str:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(command(*words), cwd=tmp_path, text=True, timeout=250, **pipes)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.fixture
def killed(tmp_path: Path) -> Callable[[str], Path]:
    """Fit a picture with a logger, and kill the run once its service has something and step 60 is saved."""

    def train(log: str) -> Path:
        pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise.png")
        (tmp_path / "slow.py").write_text(PROGRAM)
        words = command("train", "--data", "noise.png", "--run", "noise", "--set", *SETTINGS, "--log", log)
        run = tmp_path / "noise" / "v001"
        with subprocess.Popen(words, cwd=tmp_path, env=os.environ | {"SLOW": "0.05"}) as process:
            until = time.monotonic() + 250
            while not (list(run.glob("logs/sent.*.json")) and (run / "checkpoints" / "step-00000060").exists()):
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.05)
            process.kill()
        return run

    return train


@pytest.fixture
def sessions(wandb_python: str) -> Callable[[Path], list[dict[str, Any]]]:
    """Read back the sessions that W&B's SDK has left in a directory, the oldest first."""

    def read(directory: Path) -> list[dict[str, Any]]:
        files = sorted(directory.glob("*run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)
        done = subprocess.run(
            [wandb_python, HERE / "read_wandb.py", *files], capture_output=True, text=True, check=True
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    return read


@pytest.fixture(scope="session")
def mlflow_python() -> str:
    """The Python that has MLflow."""
    return python_of("mlflow")


@pytest.fixture(scope="session")
def comet_python() -> str:
    """The Python that has Comet's SDK."""
    return python_of("comet", "comet_ml")


@pytest.fixture(scope="module")
def process(mlflow_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """MLflow, imported once for a file of tests: it takes seconds."""
    process = Process(mlflow_python, "mlflow_process.py", tmp_path_factory.mktemp("home"))
    yield process
    process.close()


@pytest.fixture(scope="module")
def template(process: Process, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: making one takes MLflow two seconds."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    process.ask(read=f"sqlite:///{path}")
    return path
