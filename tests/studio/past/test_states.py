"""The past through the protocol: the timeline and kept states, with a real server and a real client."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from treadle import UsageError
from treadle.checkpoint.store import read_checkpoint
from treadle.reports.views import LiveView, Window
from treadle.studio.client import StudioClient
from treadle.studio.hook import Studio
from treadle.studio.past.states import LookingBack
from treadle.studio.protocol import Frame, Look, Rewind, State, States, Watch
from treadle.testing import Line, line_data


class Slope(LiveView):
    """The line's slope as a grey, exactly."""

    lossless = True

    def __init__(self, trainer: Line) -> None:
        self.trainer = trainer

    def draw(self, window: Window) -> Any:
        level = int(self.trainer.model.weight.item() * 50) % 256
        return np.full((window.size[1], window.size[0]), level, np.uint8)


class Shown(Line):
    def views(self) -> Mapping[str, Any]:
        return {"slope": Slope(self)}


def make(run_dir: Path | None, **settings: Any) -> Line:
    settings = {"batch_size": 10, "max_epochs": 4, "save_every": "5 steps", "keep_checkpoints": 99} | settings
    return Shown(data=line_data(), validation_data=line_data(), run_dir=run_dir, seed=4, **settings)


@contextmanager
def driven(trainer: Line) -> Iterator[tuple[LookingBack, StudioClient, str]]:
    """A run that is trained in a thread of its own, paused before its first step, with a studio that has its past."""
    with Studio(trainer, paused=True, quiet=True, open_browser=False) as studio:
        past = studio.topic(LookingBack)
        thread = threading.Thread(target=trainer.train)
        thread.start()
        try:
            with StudioClient(studio.url) as client:
                yield past, client, studio.url
        finally:
            trainer.commands.stop()
            thread.join(60)
    trainer.close()


def told(client: StudioClient, wanted: str) -> States:
    """The first timeline that has a kept state or a mark such as "checkpoint 5"."""
    while True:
        states = client.wait_for(States)
        if wanted in [f"{each['kind']} {each['step']}" for each in [*states.kept, *states.marks]]:
            return states


def test_the_timeline_grows_with_the_run(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line", snapshot_every="6 steps")
    with driven(trainer) as (_, client, _):
        client.advance(7)
        states = told(client, "checkpoint 5")
        assert [kept["step"] for kept in states.kept if kept["kind"] == "snapshot"] == [6]
        assert all(kept["bytes"] > 500 for kept in states.kept)
        trainer.commands.breakpoint("step 13").result(60)
        client.request(Look(id=0, step=None))
        trainer.commands.rewind(5).result(60)
        states = told(client, "rewind 5")
        assert states.lost == [[5, 7]]
        assert states.breakpoints == [{"number": 1, "until": "step 13", "act": "pause", "hits": 0}]
        client.advance(8)
        states = told(client, "breakpoint 13")
        assert states.breakpoints[0]["hits"] == 1


def test_a_newcomer_is_told_what_was(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line")
    trainer.train()
    trainer.close()
    again = make(trainer.run.path, resume=True, max_epochs=9)
    with driven(again) as (_, client, _):
        assert client.wait_for(State).step == 20
        states = told(client, "resume 20")  # where the client came first, it is told when the run has begun
        assert {"start", "finish", "resume"} <= {mark["kind"] for mark in states.marks}
        assert len([mark for mark in states.marks if mark["kind"] == "resume"]) == 1
        assert [kept["step"] for kept in states.kept if kept["kind"] == "checkpoint"] == [5, 10, 15, 20]


def test_looking_says_its_memory_first_and_changes_no_bit(tmp_path: Path) -> None:
    alone = make(tmp_path / "alone")
    alone.train()
    trainer = make(tmp_path / "line")
    with driven(trainer) as (past, client, _):
        client.advance(11)
        cost = client.request(Look(id=0, step=5))
        assert cost["step"] == 5 and cost["enough"] and cost["open"] == [] == past.looking.steps
        assert 0 < cost["trainer"] < cost["state"] <= cost["needed"] < cost["free"]
        assert client.request(Look(id=0, step=5, sure=True))["open"] == [5]
        trainer.commands.breakpoint("step 17").result(60)  # it goes on meanwhile, and is not over before the last look
        client.play()
        assert client.request(Look(id=0, step=10, sure=True))["open"] == [5, 10]
        assert past.source(10).trainer.progress.step == 10
        with pytest.raises(UsageError, match="no state of step 4 is kept: there are 5, 10"):
            client.request(Look(id=0, step=4))
        assert client.request(Look(id=0, step=None)) == {"open": []}
        told(client, "breakpoint 17")
        client.play()
        told(client, "finish 20")
    assert trainer.digest() == alone.digest()
    alone.close()


def test_what_another_client_looks_at_stays_open(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line")
    with driven(trainer) as (_, client, url):
        client.advance(11)
        with StudioClient(url) as other:
            for asking in (client, other):
                asking.request(Look(id=0, step=5, sure=True))
            other.request(Look(id=0, step=10, sure=True))
            assert other.request(Look(id=0, step=None)) == {"open": [5]}
        assert client.request(Look(id=0, step=None)) == {"open": []}


def test_two_states_side_by_side(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line", max_epochs=40)
    frames: dict[int, tuple[int | None, int, int]] = {}
    arrived = threading.Condition()

    def on_frame(frame: Frame, data: bytes | memoryview) -> None:
        with arrived:
            frames[frame.pane] = frame.state, frame.step, Image.open(io.BytesIO(data)).convert("L").getpixel((0, 0))
            arrived.notify_all()

    with driven(trainer) as (_, _, url), StudioClient(url, on_frame=on_frame) as client:
        client.advance(60)
        client.request(Look(id=0, step=5, sure=True))
        client.request(Watch(id=0, pane=0, view="slope", width=16, height=8))
        client.request(Watch(id=0, pane=1, view="slope", width=16, height=8, state=5))
        with arrived:
            assert arrived.wait_for(lambda: len(frames) == 2, 60)
        saved = read_checkpoint(trainer.run.path / "checkpoints" / "step-00000005").tensors["model/state/weight"]
        then, now = (int(weight.item() * 50) % 256 for weight in (saved, trainer.model.weight))
        assert frames == {0: (None, 60, now), 1: (5, 5, then)} and then != now
        with pytest.raises(UsageError, match="step 10 is not open"):
            client.request(Watch(id=0, pane=1, view="slope", state=10))
        client.request(Look(id=0, step=None))
        with pytest.raises(UsageError, match="step 5 is not open"):
            client.request(Watch(id=0, pane=1, view="slope", state=5))


def test_continuing_from_here_is_a_rewind_and_the_future_stays_known(tmp_path: Path) -> None:
    alone = make(tmp_path / "alone")
    while alone.progress.step < 17:
        alone.iterate()
    alone.rewind(10)
    alone.train()
    trainer = make(tmp_path / "line")
    with driven(trainer) as (_, client, _):
        client.advance(17)
        kept = client.request(Rewind(id=0, step=10, keep=True))
        assert trainer.paused and trainer.progress.step == 10
        states = told(client, "rewind 10")
        while not states.forks:
            states = client.wait_for(States)
        assert states.lost == [[10, 17]]
        fork = Path(str(kept))
        assert [each["run"] for each in states.forks] == [f"{fork.parent.name}/{fork.name}"] and fork.is_dir()
        client.play()
        assert told(client, "finish 20").lost == [[10, 17]]
    assert trainer.digest() == alone.digest()
    alone.close()
