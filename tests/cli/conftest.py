"""An installed third-party distribution with a small trainer, for commands to work on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.recipes import registry
from treadle.runs import names

PACK = '''
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from treadle import TrainerConfig, UsageError, setting
from treadle.testing import Line


@dataclass(kw_only=True)
class LineConfig(TrainerConfig):
    """Settings of the line."""

    max_steps: int | None = 20
    slope: float = 3.0
    """The slope to find."""
    rate: float = 0.1
    pause: float = 0.0
    fail: bool = False
    digits: int = setting(6, least=1, most=17, resumable=True, affects_state=False)
    """Digits of the slope in the report."""


class LineTrainer(Line):
    """Fits a line."""

    Config = LineConfig

    @classmethod
    def load_data(cls, config, path):
        x = torch.linspace(-1, 1, 64)[:, None]
        if path is not None:
            try:
                x = x * float(Path(path).read_text())
            except ValueError:
                raise UsageError(f"{path} holds no number") from None
        data = (x, config.slope * x)
        return {"data": data, "validation_data": data}

    def setup(self):
        super().setup()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.config.rate)

    def step(self, batch):
        if self.config.fail:
            raise ZeroDivisionError("as asked")
        if self.config.pause:
            Path("stepping").touch()  # for who waits for it
            if not Path("go").exists():
                time.sleep(self.config.pause)
        return super().step(batch)

    def report(self, directory):
        (directory / "slope.txt").write_text(f"{self.model.weight.item():.{self.config.digits}g}")
        return {"slope": self.model.weight.item(), "picture": directory / "slope.txt"}
'''


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as site-packages would be, with the pack in it."""
    site = tmp_path / "site"
    (site / "line_pack").mkdir(parents=True)
    (site / "line_pack" / "__init__.py").write_text(PACK)
    info = site / "line_pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: line-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[treadle.recipes]\nline = line_pack:LineTrainer\n")
    return site


@pytest.fixture
def line(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The recipe `line` is installed, and the working directory is empty."""
    monkeypatch.syspath_prepend(str(site))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    _forget()
    yield
    monkeypatch.undo()
    sys.modules.pop("line_pack", None)
    _forget()


def _forget() -> None:
    registry._files.cache_clear()
    names.registered.cache_clear()


class Command:
    """Runs `treadle ...` in this process: its exit code and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self.capsys.readouterr()
        code = main(arguments)
        self.out, self.err = self.capsys.readouterr()
        return code


@pytest.fixture
def treadle(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)
