"""Live views over a real server and a real socket."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
from websockets.sync import connection as client_connection

from treadle.errors import UsageError
from treadle.reports.views import LiveView, Shapes, Window
from treadle.studio.client import StudioClient
from treadle.studio.hook import Studio
from treadle.studio.protocol import Compare, Frame, Inspect, Overlay, Share, Watch
from treadle.testing import Line, capture, line_data


class Ramp(LiveView):
    drawn = 0

    def draw(self, window: Window) -> Any:
        self.drawn += 1
        return np.broadcast_to(window.places()[0].astype(np.float32), window.size[::-1])

    def inspect(self, window: Window, x: int, y: int) -> dict[str, float | str]:
        return {"value": float(window.places()[0][x])}

    def shapes(self, window: Window) -> Shapes:
        return Shapes(boxes=np.array([[[-1, -1, -1], [1, 1, 1]]], np.float32))


class Seen(Line):
    ramp: Ramp

    def views(self) -> dict[str, Any]:
        return {"ramp": self.ramp}

    def step(self, batch: Any) -> dict[str, Any]:
        sleep(0.001)
        return super().step(batch)


def make(steps: int) -> Seen:
    kind = type("Seen", (Seen,), {"ramp": Ramp()})
    return kind(data=line_data(), batch_size=20, max_steps=steps, seed=0)


def wait(done: Callable[[], Any]) -> None:
    end = monotonic() + 100
    while not done():
        assert monotonic() < end, "it never came to that"
        sleep(0.005)


def test_frames_reach_a_client_and_change_nothing() -> None:
    trainer = make(10**9)
    frames: list[Frame] = []
    with Studio(trainer, quiet=True, paused=True) as studio:
        thread = threading.Thread(target=trainer.train, daemon=True)
        thread.start()
        with StudioClient(studio.url, on_frame=lambda header, _: frames.append(header)) as client:
            assert [view["name"] for view in client.welcome.views] == ["ramp"]
            assert client.request(Watch(id=0, view="ramp", width=64, height=16)) is None
            wait(lambda: frames and frames[-1].still)
            assert client.request(Inspect(id=0, x=0, y=0)) == {"value": 0.5 / 64}
            header, data = client.request(Overlay(id=0, view="ramp"))
            assert header.parts[0]["shape"] == [1, 2, 3] and len(data) == 24
            assert client.request(Compare(id=0, view="ramp")) == []
            with pytest.raises(UsageError, match="did you mean 'ramp'"):
                client.request(Watch(id=0, view="ram"))
            assert client.request(Share(id=0, share=0.5)) == {"share": 0.5, "frames": 0.0}
            client.play()
            wait(lambda: len({frame.step for frame in frames}) > 5)
            client.pause()
            digest, alone = capture(trainer).digest, make(10**9)
        trainer.commands.stop()
        thread.join(100)
    while alone.progress.step < trainer.progress.step:
        alone.iterate()
    assert digest == capture(alone).digest


def test_a_client_that_draws_nothing_gets_two_frames() -> None:
    trainer = make(10**9)
    with Studio(trainer, quiet=True) as studio:
        thread = threading.Thread(target=trainer.train, daemon=True)
        thread.start()
        with StudioClient(studio.url) as client:  # it acknowledges none
            client.request(Watch(id=0, view="ramp", width=8, height=8))
            wait(lambda: trainer.ramp.drawn >= 2)
            step = trainer.progress.step
            wait(lambda: trainer.progress.step > step + 200)
            assert 2 <= trainer.ramp.drawn <= 3  # the third may be under way when the second is sent
        trainer.commands.stop()
        thread.join(100)


def test_pings_draw_nothing_from_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.studio.serving.server.PING_SECONDS", 0.01)
    alone, trainer = make(150), make(150)
    alone.train()
    with Studio(trainer, quiet=True) as studio, StudioClient(studio.url):
        sleep(0.1)
        trainer.train()
    assert capture(trainer).digest == capture(alone).digest
    assert client_connection.random.getrandbits != random.getrandbits  # whose pings come every 20 s
