"""A try-out: two steps of everything, resumed once; what goes wrong in any of it is shown as what it is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

import treadle
from treadle.errors import UsageError
from treadle.testing import Line, line_data

DATA = {"data": line_data(64), "validation_data": line_data(32), "test_data": line_data(32)}
LONG: dict[str, Any] = {"batch_size": 4, "max_epochs": 1000, "save_every": "1 step", "snapshot_every": "1 step"}


@pytest.fixture(autouse=True)
def aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go; the working directory is beside it."""
    for name in ("aside", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "aside"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "aside"


class Telling(Line):
    """Writes down what it is asked for."""

    done: list[str] = []
    breaks = ""

    def tell(self, what: str) -> None:
        self.done.append(what)
        if what == self.breaks:
            raise ZeroDivisionError(f"in {what}")

    def setup(self) -> None:
        super().setup()
        self.tell("setup")

    def step(self, batch: Any) -> Any:
        self.tell("step")
        return super().step(batch)

    def post_epoch(self) -> None:
        self.tell("post_epoch")

    def validation_step(self, batch: Any) -> Any:
        self.tell("validation_step")
        return super().validation_step(batch)

    def test_step(self, batch: Any) -> Any:
        self.tell("test_step")
        return {"loss": self.loss(batch)}

    def examples(self) -> dict[str, Any]:
        self.tell("examples")
        return {}

    def post_training(self) -> None:
        self.tell("post_training")

    def report(self, directory: Path) -> dict[str, Any]:
        self.tell("report")
        (directory / "report.txt").write_text("report")
        return {}


@pytest.fixture(autouse=True)
def forget() -> None:
    Telling.done = []


def test_two_of_everything_and_nothing_is_kept(aside: Path) -> None:
    tried = treadle.try_out(Telling, **DATA, **LONG)
    assert tried.holds and tried.differences == []
    assert list(tried.seconds) == ["setup", "training", "resume", "validation", "examples", "end", "report", "test"]
    evaluated = ["validation_step"] * 2
    first = ["setup", "step", "step", "post_epoch", *evaluated]
    resumed = ["setup", "step", "post_epoch", *evaluated]
    rest = [*evaluated, "examples", "post_training", "report", "test_step", "test_step", "report"]
    assert Telling.done == [*first, *resumed, *rest]
    assert not list(aside.glob("treadle*")) and not list(Path().iterdir())


def test_what_a_trainer_lacks_is_left_out() -> None:
    tried = treadle.try_out(Line, data=line_data(8), max_steps=3)
    assert list(tried.seconds) == ["setup", "training", "resume", "examples", "end", "report"]
    assert treadle.try_out(Line, **DATA, **LONG, limit_batches=1).holds
    assert treadle.try_out(Line, data=line_data(8), max_steps=1).holds, "a run that is over before"


@pytest.mark.parametrize(
    ("breaks", "where"),
    [
        ("setup", "setup"),
        ("step", "training"),
        ("post_epoch", "training"),
        ("validation_step", "training"),
        ("examples", "examples"),
        ("post_training", "end"),
        ("report", "report"),
        ("test_step", "test"),
    ],
)
def test_an_error_is_what_it_is_and_says_where(aside: Path, breaks: str, where: str) -> None:
    kind = type("Breaking", (Telling,), {"breaks": breaks})
    with pytest.raises(ZeroDivisionError) as caught:
        treadle.try_out(kind, **DATA, **LONG)
    assert str(caught.value) == f"in {breaks}"
    assert f"while {where} was tried out" in caught.value.__notes__
    assert not list(aside.glob("treadle*"))


def test_state_that_a_resume_cannot_see_is_named() -> None:
    steps = []

    class Forgetful(Line):
        def step(self, batch: Any) -> Any:
            steps.append(batch)
            return super().step((batch[0] * len(steps), batch[1]))

    tried = treadle.try_out(Forgetful, **DATA, **LONG)
    assert not tried.holds and any(entry.startswith("model/state/weight: ") for entry in tried.differences)


def test_state_that_cannot_be_saved_is_named() -> None:
    class Unsaveable(Line):
        def setup(self) -> None:
            super().setup()
            self.handle = iter([1])

    with pytest.raises(treadle.StateError, match="handle"):
        treadle.try_out(Unsaveable, **DATA, **LONG)


def test_recipes_are_tried_by_name_and_settings_are_checked(aside: Path) -> None:
    tried = treadle.try_out("image", batch_size=64, log2_size=8, max_steps=50)
    assert tried.holds and tried.seconds["test"] > 0 and not list(aside.glob("treadle*"))
    with pytest.raises(UsageError, match="max_step is not a setting of TrainerConfig; did you mean 'max_steps'"):
        treadle.try_out(Line, **DATA, max_step=3)
    with pytest.raises(UsageError, match="nothing says when to end"):
        treadle.try_out(Line, **DATA)
    with pytest.raises(UsageError, match="unknown recipe 'imag'; did you mean 'image'"):
        treadle.try_out("imag")
