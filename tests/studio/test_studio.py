"""A studio beside a run: what a client asks is done between steps."""

from __future__ import annotations

import threading

import pytest
import torch

from treadle import Trainer
from treadle.studio.client import StudioClient
from treadle.studio.hook import Studio


class Line(Trainer):
    def setup(self):
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, batch):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        self.minimize(loss)
        return {"loss": loss}


X = torch.linspace(-1, 1, 64)[:, None]


def line(**settings) -> Line:
    return Line(data=(X, 3 * X + 1), batch_size=32, seed=0, **{"max_steps": 10**9, **settings})


@pytest.fixture
def served():
    trainer = line()
    with Studio(trainer, quiet=True, paused=True) as studio:
        thread = threading.Thread(target=trainer.train, daemon=True)
        thread.start()
        yield trainer, studio
        trainer.commands.stop()
        thread.join(60)


def test_a_client_pauses_steps_and_plays(served):
    trainer, studio = served
    with StudioClient(studio.url) as client:
        assert client.welcome.role == "control"
        client.advance(3)
        assert trainer.loop.progress.step == 3 and trainer.paused
        client.play()
        client.pause()
        assert trainer.paused and trainer.loop.progress.step >= 3
