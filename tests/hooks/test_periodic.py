"""Periodic hooks: when they act; checkpointing; examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treadle import Hook
from treadle.errors import UsageError
from treadle.hooks import Examples, Periodic
from treadle.reports.scene import Scene


class Note(Periodic):
    def __init__(self, every: str) -> None:
        super().__init__(every)
        self.steps: list[int] = []

    def act(self, trainer: Any) -> None:
        self.steps.append(trainer.progress.step)


@pytest.mark.parametrize("stepwise", [True, False])
@pytest.mark.parametrize(
    ("every", "expected"),
    [("4 steps", [4, 8, 12]), ("3 steps", [3, 6, 9, 12]), ("2 epochs", [8]), ("1 epoch", [4, 8, 12]), ("50%", [6, 12])],
)
def test_acts_when_due_and_once(scripted: Callable[..., Any], every: str, expected: list[int], stepwise: bool) -> None:
    hook = Note(every)
    trainer = scripted(max_epochs=3, hooks=[hook])
    if stepwise:
        while trainer.iterate():
            pass
    else:
        trainer.train()
    assert hook.steps == expected


def test_the_base_cannot_be_used_by_itself() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Periodic("1 epoch")  # type: ignore[abstract]
    with pytest.raises(UsageError, match="unit"):
        Note("500")


def test_save_every_is_honoured(scripted: Callable[..., Any], tmp_path: Path) -> None:
    trainer = scripted(run_dir=tmp_path / "line", max_epochs=3, save_every="2 epochs", keep_checkpoints=20)
    trainer.train()
    names = sorted(p.name for p in (trainer.run.path / "checkpoints").glob("step-*"))
    assert names == ["step-00000008", "step-00000012"]


def test_examples_are_logged_and_leave_no_trace(scripted: Callable[..., Any], tmp_path: Path) -> None:
    modes = []

    def draw(trainer: Any) -> dict[str, Any]:
        modes.append((trainer.model.training, torch.is_grad_enabled()))
        torch.rand(3)
        np.random.rand(3)
        return {"fit": trainer.model(torch.linspace(0, 1, 16)[:, None]).reshape(4, 4), "noise": torch.rand(4, 4, 3)}

    trainer = scripted(run_dir=tmp_path / "line", max_epochs=2, hooks=[Examples("4 steps", draw)])
    trainer.train()
    bare = scripted(max_epochs=2)
    bare.train()
    assert torch.equal(trainer.model.weight, bare.model.weight)
    assert torch.equal(trainer.random.state_dict()["torch"], bare.random.state_dict()["torch"])
    assert modes == [(False, False)] * 2 and trainer.model.training
    names = sorted(p.name for p in (trainer.run.path / "examples").iterdir())
    assert names == [f"step-{step:08d}-{name}.png" for step in (4, 8) for name in ("fit", "noise")]


def test_examples_of_the_trainer_itself(scripted: Callable[..., Any], tmp_path: Path) -> None:
    trainer = scripted(run_dir=tmp_path / "line", max_epochs=1, hooks=[Examples("1 epoch")])
    type(trainer).examples = lambda self: {"grey": np.zeros((2, 2))}  # type: ignore[attr-defined]
    try:
        trainer.train()
    finally:
        del type(trainer).examples  # type: ignore[attr-defined]
    assert [p.name for p in (trainer.run.path / "examples").iterdir()] == ["step-00000004-grey.png"]


@pytest.mark.parametrize("pictures", [None, lambda trainer: [1, 2], lambda trainer: 1 / 0])
def test_examples_that_fail_are_reported_and_the_run_goes_on(
    scripted: Callable[..., Any], capfd: pytest.CaptureFixture[str], pictures: Any
) -> None:
    trainer = scripted(max_epochs=2, hooks=[Examples("1 epoch", pictures)])
    assert trainer.train().status == "finished"
    assert trainer.model.training
    message = capfd.readouterr().err
    expected = {type(None): "has no examples()"}.get(type(pictures), "Examples.post_epoch failed")
    assert expected in message and "the run goes on" in message


def test_examples_wants_a_function() -> None:
    with pytest.raises(UsageError, match="expected a function"):
        Examples("1 epoch", 3)  # type: ignore[arg-type]


class Listening(Hook):
    """Hears what is logged in space."""

    hears = ("scene",)

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, Any]] = []

    def on_log(self, trainer: Any, record: Any) -> None:
        self.heard.append((record.name, record.step, record.value))


def in_space(scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, scenes: Any, *hooks: Hook) -> Any:
    """A trainer that gives scenes with its pictures, every 4 steps."""
    trainer = scripted(max_epochs=2, hooks=[Examples("4 steps"), *hooks])
    monkeypatch.setattr(type(trainer), "examples", lambda self: {"grey": np.zeros((2, 2))})
    monkeypatch.setattr(type(trainer), "scenes", scenes)
    return trainer


def test_scenes_are_made_with_examples_and_only_where_somebody_hears_them(
    scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def scenes(trainer: Any) -> dict[str, Any]:
        made.append((trainer.progress.step, trainer.model.training, torch.is_grad_enabled()))
        torch.rand(3)
        return {"line": Scene(points=np.zeros((1, 3), np.float32))}

    class All(Hook):
        def on_log(self, trainer: Any, record: Any) -> None:
            assert record.kind != "scene"

    deaf = in_space(scripted, monkeypatch, scenes, All())
    deaf.train()
    assert made == []
    listening = Listening()
    heard = in_space(scripted, monkeypatch, scenes, All(), listening)
    heard.train()
    assert made == [(4, False, False), (8, False, False)]
    assert [(name, step) for name, step, _ in listening.heard] == [("line", 4), ("line", 8)]
    assert heard.digest() == deaf.digest()
    heard.log_scene("mine", Scene())
    assert listening.heard[-1][0] == "mine"


def test_scenes_that_fail_are_said_once_and_the_pictures_stay(
    scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Pictures(Hook):
        hears = ("image", "scene")
        steps: list[int] = []

        def on_log(self, trainer: Any, record: Any) -> None:
            self.steps.append(record.step)

    pictures = Pictures()
    trainer = in_space(scripted, monkeypatch, lambda self: 1 / 0, pictures)
    assert trainer.train().status == "finished" and pictures.steps == [4, 8]
    said = "Scripted.scenes() failed (ZeroDivisionError: division by zero); the run goes on without them"
    assert capfd.readouterr().err.count(said) == 1
    assert [entry["error"] for entry in trainer.journal if entry["event"] == "scenes failed"]


def test_a_trainer_may_have_scenes_and_no_pictures(
    scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = Listening()
    trainer = scripted(max_epochs=1, hooks=[Examples("1 epoch"), listening])
    monkeypatch.setattr(type(trainer), "scenes", lambda self: {"line": Scene()})
    assert trainer.train().status == "finished" and len(listening.heard) == 1
