"""What every sink has in common."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treadle.reports.scene import Scene
from treadle.sinks.base import Sink
from treadle.sinks.console import Console
from treadle.sinks.tensorboard import TensorBoard


class Calls(Sink):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def open(self, trainer: Any) -> None:
        self.calls.append("open")

    def close(self) -> None:
        self.calls.append("close")

    def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
        assert all(type(value) is float for value in values.values())
        self.calls.append((split, step))

    def image(self, step: int, name: str, picture: Any) -> None:
        assert isinstance(picture, np.ndarray)
        self.calls.append((name, step))

    def text(self, step: int, name: str, text: str) -> None:
        self.calls.append((name, step, text))


def test_opened_once_and_closed_once(line: Callable[..., Any]) -> None:
    sink = Calls()
    trainer = line(hooks=[sink], max_epochs=1)
    trainer.iterate()
    trainer.log_image("probe", torch.zeros(2, 2))
    trainer.log_text("note", "hello")
    trainer.train()
    assert sink.calls[:3] == ["open", ("probe", 1), ("note", 1, "hello")]
    assert sink.calls[3:] == [("train", 2), ("train", 4), ("epoch", 4), ("validation", 4), "close"]
    trainer.test(trainer.validation_feed)
    assert sink.calls[8:] == ["open", ("test", 4), "close"]


class Everything(Calls):
    """Has a place for all that there is."""

    hears = ("scalars", "image", "text", "scene")

    def config(self, values: Mapping[str, Any]) -> None:
        self.calls.append(("config", values["trainer"], values["config"]["batch_size"]))

    def environment(self, values: Mapping[str, Any]) -> None:
        self.calls.append(("environment", values["packages"]["torch"]))

    def scene(self, step: int, name: str, scene: Any) -> None:
        self.calls.append((name, step, scene.points.tolist()))

    def event(self, entry: Mapping[str, Any]) -> None:
        self.calls.append((entry["event"], entry["step"]))

    def cut(self, step: int) -> None:
        self.calls.append(("cut", step))

    def artifact(self, name: str, kind: str, path: Path) -> None:
        self.calls.append((name, kind, (path / "weights.safetensors").is_file()))

    def summary(self, values: Mapping[str, Any]) -> None:
        self.calls.append(("summary", values["status"], values["step"], values["digest"] is None))


def test_it_is_told_all_that_it_has_a_place_for(line: Callable[..., Any], tmp_path: Path) -> None:
    sink = Everything()
    trainer = line(hooks=[sink], max_epochs=1, run_dir=tmp_path / "runs" / "line", save_every=None)
    trainer.iterate()
    trainer.log_scene("cloud", Scene(points=np.zeros((1, 3), np.float32)))
    trainer.train()
    name = f"{type(trainer).__module__}:Line"
    assert sink.calls[:3] == ["open", ("config", name, 10), ("environment", torch.__version__)]
    assert sink.calls[3:5] == [("start", 0), ("cloud", 1, [[0.0, 0.0, 0.0]])]
    ends = [("checkpoint", 4), ("finish", 4), ("best_model", "model", True), ("summary", "finished", 4, False), "close"]
    assert sink.calls[-5:] == ends
    bare = Everything()
    line(hooks=[bare], max_epochs=1).train()
    assert bare.calls[:3] == sink.calls[:3] and bare.calls[-2:] == [("summary", "finished", 4, True), "close"]


def test_going_back_is_told_at_once_and_on_a_resume_after_open(line: Callable[..., Any], tmp_path: Path) -> None:
    sink = Everything()
    trainer = line(hooks=[sink], run_dir=tmp_path / "runs" / "line", save_every="2 steps")
    for _ in range(6):
        trainer.iterate()
    trainer.rewind(4)
    assert ("cut", 4) in sink.calls and sink.calls.count("open") == 1
    trainer.train()
    trainer.rewind(10)  # after its end
    trainer.train()
    assert [call for call in sink.calls if call in ("open", "close") or call[0] == "cut"] == [
        "open", ("cut", 4), "close", "open", ("cut", 10), "close"
    ]  # fmt: skip
    for path in (trainer.run.path / "checkpoints").glob("step-*12"):
        shutil.rmtree(path)
    (trainer.run.path / "checkpoints" / "latest.json").unlink(missing_ok=True)
    again = Everything()
    line(hooks=[again], run_dir=trainer.run.path, resume=True, save_every="2 steps").train()
    assert again.calls[0] == "open" and again.calls[3] == ("cut", 10) and again.calls[-1] == "close"


def test_a_sink_that_fails_does_not_end_the_run(line: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(Sink):
        def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
            raise OSError("the logger's server is away")

    assert line(hooks=[Broken()]).train().status == "finished"
    assert "Broken.on_log failed (OSError: the logger's server is away)" in capfd.readouterr().err


def test_sinks_leave_the_run_and_the_global_streams_as_they_are(
    line: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bare = line()
    bare.train()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    full = line(hooks=[Console(), TensorBoard(tmp_path)])
    full.iterate()
    full.log_image("probe", torch.zeros(4, 4, 3))
    full.log_text("note", "hello")
    full.train()
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])
    assert torch.equal(bare.model.weight, full.model.weight)


def test_a_sink_with_a_scene_method_hears_scenes_that_fit_together(
    line: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    class Space(Calls):
        def scene(self, step: int, name: str, scene: Scene) -> None:
            self.calls.append((name, step, scene))

    space, flat = Space(), Calls()
    trainer = line(hooks=[space, flat], max_epochs=1)
    trainer.iterate()
    points = np.zeros((2, 3), np.float32)
    trainer.log_scene("cloud", Scene(points=points))
    trainer.log_scene("none", {"points": points})
    points[:] = 1
    (name, step, scene), *more = space.calls[1:]
    assert (name, step, more) == ("cloud", 1, []) and flat.calls == ["open"]
    assert scene.points.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert "scene 'none' is a dict: expected a treadle.reports.scene.Scene" in capfd.readouterr().err
