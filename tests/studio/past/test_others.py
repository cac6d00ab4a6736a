"""Kept states of other runs beside the one that is trained here: read only, and no bit of either is another."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from treadle import UsageError
from treadle.checkpoint.store import read_checkpoint
from treadle.config.files import dumps
from treadle.reports.views import LiveView, Sample, Window
from treadle.runs.lock import RunLock
from treadle.runs.run import read_config
from treadle.studio.client import StudioClient
from treadle.studio.hook import Studio
from treadle.studio.protocol import Compare, Details, Frame, Inspect, Look, Watch
from treadle.testing import Line, line_data


class Slope(LiveView):
    """The line's slope as a grey, exactly."""

    lossless = True
    worst = "lowest"

    def __init__(self, trainer: Line) -> None:
        self.trainer = trainer

    def draw(self, window: Window) -> Any:
        torch.rand(3)  # what is drawn from must not be the run's
        return np.full((window.size[1], window.size[0]), grey(self.trainer.model.weight), np.uint8)

    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        return {"slope": self.trainer.model.weight.item()}

    def samples(self) -> Iterator[Sample | None]:
        yield Sample("only", {"slope": self.trainer.model.weight.item()})


class Shown(Line):
    """A line with its slope to look at; its data are given as objects."""

    def views(self) -> Mapping[str, Any]:
        return {"slope": Slope(self)}


class Drawing(Shown):
    """One whose reading of data draws from the global streams, as people's own code does."""

    @classmethod
    def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        np.random.rand(7), torch.rand(7)
        return {"data": line_data(), "validation_data": line_data()}


def grey(weight: torch.Tensor) -> int:
    return int(weight.item() * 50) % 256


def make(run_dir: Path, kind: type[Line] = Shown, **settings: Any) -> Line:
    settings = {"batch_size": 10, "max_epochs": 4, "save_every": "5 steps", "keep_checkpoints": 99} | settings
    return kind(data=line_data(), validation_data=line_data(), run_dir=run_dir, **{"seed": 4, **settings})


def trained(run_dir: Path, kind: type[Line] = Shown, **settings: Any) -> Path:
    with make(run_dir, kind, **settings) as trainer:
        trainer.train()
    path: Path = trainer.run.path
    return path


def saved(run: Path, step: int) -> torch.Tensor:
    return read_checkpoint(run / "checkpoints" / f"step-{step:08d}").tensors["model/state/weight"]


def hashes(run: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in run.rglob("*") if path.is_file()}


class Seen:
    """The newest frame of each pane: run's step, and its grey."""

    def __init__(self) -> None:
        self.frames: dict[int, tuple[int, int]] = {}
        self._arrived = threading.Condition()

    def __call__(self, frame: Frame, data: bytes | memoryview) -> None:
        with self._arrived:
            self.frames[frame.pane] = frame.step, Image.open(io.BytesIO(data)).convert("L").getpixel((0, 0))
            self._arrived.notify_all()

    def wait(self, condition: Callable[[dict[int, tuple[int, int]]], bool]) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: condition(self.frames), 100), self.frames


@contextmanager
def driven(trainer: Line) -> Iterator[tuple[StudioClient, Seen]]:
    """A run that is trained in a thread of its own, paused before its first step, with a client of its studio."""
    seen = Seen()
    with Studio(trainer, paused=True, quiet=True, open_browser=False) as studio:
        thread = threading.Thread(target=trainer.train)
        thread.start()
        try:
            with StudioClient(studio.url, on_frame=seen) as client:
                yield client, seen
        finally:
            trainer.commands.stop()
            thread.join(60)
    trainer.close()


def test_a_state_of_another_run_is_seen_beside_this_one(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    other = trained(runs / "other", seed=9)
    before = hashes(other)
    with driven(trainer := make(runs / "line")) as (client, seen):
        assert "beside" in client.welcome.features
        client.advance(7)
        kept = client.request(Details(id=0, run="other/v001"))["kept"]
        assert [(each["step"], each["kind"]) for each in kept] == [(step, "checkpoint") for step in (5, 10, 15, 20)]
        cost = client.request(Look(id=0, run="other/v001", step=20))
        assert cost["enough"] and 0 < cost["state"] <= cost["needed"] < cost["free"] and cost["open"] == []
        with pytest.raises(UsageError, match="'other/v001' is not open beside this run: look at one of its kept"):
            client.request(Watch(id=0, pane=1, view="slope", run="other/v001"))
        told = client.request(Look(id=0, run="other/v001", step=10, sure=True))
        assert told["open"] == [10] and told["said"] == []
        assert [(view["name"], view["has"]) for view in told["views"]] == [("slope", ["samples", "inspect"])]
        client.request(Watch(id=0, pane=0, view="slope", width=16, height=8))
        client.request(Watch(id=0, pane=1, view="slope", width=16, height=8, run="other/v001"))
        then = saved(other, 10)
        seen.wait(lambda frames: frames == {0: (7, grey(trainer.model.weight)), 1: (10, grey(then))})
        assert grey(then) != grey(trainer.model.weight)
        assert client.request(Inspect(id=0, pane=1, x=3, y=3)) == {"slope": then.item()}
        found = client.request(Compare(id=0, view="slope", run="other/v001", state=10))
        assert found == [{"name": "only", "figures": {"slope": then.item()}}]
        # Another of its states takes the place of the first where it is asked for, and the newest where none is named.
        client.request(Look(id=0, run="other/v001", step=20, sure=True))
        client.request(Watch(id=0, pane=1, view="slope", width=16, height=8, run="other/v001"))
        seen.wait(lambda frames: frames[1] == (20, grey(saved(other, 20))))
        client.request(Watch(id=0, pane=1, view="slope", width=16, height=8, run="other/v001", state=10))
        seen.wait(lambda frames: frames[1] == (10, grey(then)))
        assert client.request(Look(id=0, run="other/v001", step=None)) == {"open": []}
        with pytest.raises(UsageError, match="is not open beside this run"):
            client.request(Watch(id=0, pane=1, view="slope", run="other/v001", state=10))
    assert hashes(other) == before


def test_letting_go_of_another_run_leaves_what_is_open_of_this_one(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("other", "third"):
        trained(runs / name)
    with driven(make(runs / "line")) as (client, _):
        client.advance(6)
        for run in (None, "other/v001", "third/v001"):
            assert client.request(Look(id=0, run=run, step=5, sure=True))["open"] == [5]
        assert client.request(Look(id=0, run="other/v001", step=None)) == {"open": []}
        for run in (None, "third/v001"):
            client.request(Watch(id=0, view="slope", run=run, state=5))
        client.request(Look(id=0, step=None))
        client.request(Watch(id=0, view="slope", run="third/v001"))


def test_the_run_that_is_trained_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    alone = make(tmp_path / "alone", Drawing, max_epochs=30)
    alone.train()
    runs = tmp_path / "runs"
    trained(runs / "other", Drawing, seed=1, deterministic=True)
    trainer = make(runs / "line", Drawing, max_epochs=30)
    with driven(trainer) as (client, seen):
        client.play()
        client.request(Look(id=0, run="other/v001", step=20, sure=True))
        client.request(Watch(id=0, pane=1, view="slope", width=16, height=8, run="other/v001"))
        seen.wait(lambda frames: 1 in frames)
        while not trainer.ended:
            threading.Event().wait(0.01)
    assert trainer.digest() == alone.digest()
    alone.close()


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_others import make
trainer = make(Path({run!r}), max_epochs=10**6, keep_checkpoints=3)
while trainer.progress.step < 12:
    trainer.iterate()
trainer.save()
print("there", flush=True)
sys.stdin.readline()
for _ in range(10):
    trainer.iterate()
trainer.save()
print("further", flush=True)
sys.stdin.readline()
"""


def test_a_run_that_another_process_trains_and_one_that_was_killed(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "other" / "v001"
    program = PROGRAM.format(folder=str(Path(__file__).parent), run=str(run.parent))
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "there\n"
        with driven(make(tmp_path / "runs" / "line")) as (client, seen):
            with pytest.raises(UsageError, match="is being trained by process"):
                RunLock(run)
            client.request(Look(id=0, run="other/v001", step=12, sure=True))
            client.request(Watch(id=0, pane=1, view="slope", width=16, height=8, run="other/v001"))
            first = grey(saved(run, 12))
            seen.wait(lambda frames: frames.get(1) == (12, first))
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "further\n"
            process.kill()
            process.wait()
            client.request(Look(id=0, run="other/v001", step=22, sure=True))
            client.request(Watch(id=0, pane=1, view="slope", width=16, height=8, run="other/v001"))
            seen.wait(lambda frames: frames[1] == (22, grey(saved(run, 22))))
            with pytest.raises(UsageError, match="no state of step 5 is kept: there are 15, 20, 22"):
                client.request(Look(id=0, run="other/v001", step=5))
            assert "resume" not in (run / "journal.jsonl").read_text()


def test_what_cannot_be_looked_at_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    other, foreign = trained(runs / "other"), trained(runs / "foreign")
    config = read_config(foreign)
    (foreign / "config.yaml").write_text(dumps({**config, "trainer": "somewhere:Else"}))
    with driven(make(runs / "line")) as (client, _):
        for run, why in {
            "nowhere/v001": "there is no run 'nowhere/v001'",
            "line/v001": "'line/v001' is the run that is shown here",
            "foreign/v001": "trainer 'somewhere:Else' is not in the registry",
        }.items():
            with pytest.raises(UsageError, match=why):
                client.request(Look(id=0, run=run, step=5))
        monkeypatch.setattr("treadle.studio.past.looking.free_memory", lambda device: 1000)
        assert not client.request(Look(id=0, run="other/v001", step=5))["enough"]
        with pytest.raises(UsageError, match=r"to look at step 5 takes .* of memory, and 1 kB are free"):
            client.request(Look(id=0, run="other/v001", step=5, sure=True))
        monkeypatch.undo()
        damaged = other / "checkpoints" / "step-00000010" / "tensors.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:-8])
        with pytest.raises(Exception, match="damaged"):
            client.request(Look(id=0, run="other/v001", step=10, sure=True))
        assert client.request(Look(id=0, run="other/v001", step=15, sure=True))["open"] == [15]


def test_data_that_leave_no_room_are_refused_before_the_trainer_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    trained(runs / "other", Drawing)
    with driven(make(runs / "line", Drawing)) as (client, _):
        monkeypatch.setattr("treadle.studio.past.others.free_memory", lambda device: 100)
        with pytest.raises(UsageError, match=r"the data of other/v001 take .*B of memory, and the 100 B that they"):
            client.request(Look(id=0, run="other/v001", step=5, sure=True))


def test_other_data_than_then_are_told(tmp_path: Path) -> None:
    class Elsewhere(Drawing):
        shift = 0.0

        @classmethod
        def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
            x, y = line_data()
            return {"data": (x, y + cls.shift)}

    runs = tmp_path / "runs"
    trained(runs / "other", Elsewhere)
    Elsewhere.shift = 1.0
    with driven(make(runs / "line", Elsewhere)) as (client, _):
        told = client.request(Look(id=0, run="other/v001", step=5, sure=True))
        assert told["said"] == ["the data of 'feed' are not what they were: truths and errors are those of now"]


def test_a_run_that_is_not_on_disk_has_none_beside_it() -> None:
    trainer = Shown(data=line_data(), validation_data=line_data(), batch_size=10, max_epochs=1)
    with driven(trainer) as (client, _):
        assert "beside" not in client.welcome.features
        with pytest.raises(UsageError, match="there is no run 'other/v001' beside this one, which is not on disk"):
            client.request(Look(id=0, run="other/v001", step=5))
