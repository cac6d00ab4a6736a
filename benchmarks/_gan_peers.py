"""One worker of the pix2pix benchmark: plays the game with one loop, in a process of its own.

Started by gans.py as `_gan_peers.py LOOP WORKLOAD THREADS`. It writes a line when it is ready for its turn and reads a
line when it gets it, so that the processes of all loops take turns.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _gan_workload import TINY, WORKLOADS, Players, Workload, streams
from torch import Tensor, nn
from torch.nn import functional

from treadle.gans import convolutions
from treadle.gans.blocks import InstanceNorm
from treadle.gans.pix2pix import Pix2PixTrainer

Step = Callable[[Players, Tensor, Tensor], None]
Tick = Callable[[], None]

judge = nn.BCEWithLogitsLoss()


def plain_d_loss(players: Players, x: Tensor, y: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss as tutorials write it."""
    real, made = (players.discriminator(torch.cat([x, pictures], 1)) for pictures in (y, fake.detach()))
    return (judge(real, torch.ones_like(real)) + judge(made, torch.zeros_like(made))) * 0.5


def plain_g_loss(players: Players, x: Tensor, y: Tensor, fake: Tensor) -> Tensor:
    """The generator's loss as tutorials write it."""
    logits = players.discriminator(torch.cat([x, fake], 1))
    return judge(logits, torch.ones_like(logits)) + 100 * functional.l1_loss(fake, y)


def plain_step(players: Players, x: Tensor, y: Tensor) -> None:
    """The recipe of every tutorial: float32, and the generator's loss goes back through the discriminator's weights."""
    fake = players.generator(x)
    players.d_adam.zero_grad()
    plain_d_loss(players, x, y, fake).backward()
    players.d_adam.step()
    players.g_adam.zero_grad()
    plain_g_loss(players, x, y, fake).backward()
    players.g_adam.step()


def fast_d_loss(players: Players, x: Tensor, y: Tensor, fake: Tensor) -> Tensor:
    """The same loss, in the operators and the order that Treadle's objective has: to compare bits."""
    real = functional.softplus(-players.discriminator(torch.cat([x, y], 1)).float()).mean()
    made = functional.softplus(players.discriminator(torch.cat([x, fake.detach()], 1)).float()).mean()
    return real * 0.5 + made * 0.5


def fast_g_loss(players: Players, x: Tensor, y: Tensor, fake: Tensor) -> Tensor:
    """The same loss, likewise."""
    verdict = functional.softplus(-players.discriminator(torch.cat([x, fake], 1)).float()).mean()
    return verdict + (fake.float() - y).abs().mean() * 100.0


def fast_step(players: Players, x: Tensor, y: Tensor) -> None:
    """What one can do by hand: bf16, and no gradients of the discriminator's weights for the generator's loss."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fake = players.generator(x)
        loss = fast_d_loss(players, x, y, fake)
    players.d_adam.zero_grad()
    loss.backward()
    players.d_adam.step()
    # A block of its own: autocast keeps its bf16 copies of weights until the end, also of those updated meanwhile.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = fast_g_loss(players, x, y, fake)
    players.g_adam.zero_grad()
    loss.backward(inputs=list(players.generator.parameters()))
    players.g_adam.step()


def by_hand(workload: Workload, tick: Tick, step: Step, fused: bool | None, average: bool = False) -> Players:
    """A hand-written loop."""
    with streams():
        players = Players.of(workload, fused, average)
        for count, (x, y) in enumerate(workload.batches(), 1):
            tick()
            step(players, x, y)
            if average:
                decay = min(0.999, (1 + count) / (10 + count))
                weights = [parameter.detach() for parameter in players.generator.parameters()]
                torch._foreach_lerp_(players.shadows, weights, 1 - decay)
    return players


class Timed(Pix2PixTrainer):
    """Treadle's trainer, whose clock ticks at the start of every step."""

    transient = ("tick",)
    tick: Tick

    def step(self, batch: Any) -> Any:
        """See `Pix2PixTrainer`."""
        self.tick()
        return super().step(batch)

    def players(self) -> Players:
        """What the trainer has come to."""
        shadows = list(self.average.state_dict()["shadows"].values()) if self.average else []
        return Players(self.generator, self.discriminator, self.g_optimizer, self.d_optimizer, shadows)


def treadle(workload: Workload, tick: Tick, on_disk: bool = False, **settings: Any) -> Players:
    """Treadle's trainer, driven by `train()`."""
    with tempfile.TemporaryDirectory() as directory:
        trainer = Timed(
            workload.config, data=workload.data(), run_dir=Path(directory) / "gan" if on_disk else None, **settings
        )
        trainer.tick = tick
        trainer.train()
    return trainer.players()


def lightning(workload: Workload, tick: Tick, fast: bool = False) -> Players:
    """Lightning's manual optimization with everything else switched off: the plain step, or the fast one."""
    import lightning as pl

    class Game(pl.LightningModule):
        automatic_optimization = False

        def __init__(self) -> None:
            super().__init__()
            self.players = Players.of(workload, fused=True if fast else None)
            self.generator, self.discriminator = self.players.generator, self.players.discriminator

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [self.players.g_adam, self.players.d_adam]

        def training_step(self, batch: Any, batch_index: int) -> None:
            tick()
            x, y = batch
            d_loss, g_loss = (fast_d_loss, fast_g_loss) if fast else (plain_d_loss, plain_g_loss)
            g_adam, d_adam = self.optimizers()
            fake = self.players.generator(x)
            with self.turn_of(d_adam):
                d_adam.zero_grad()
                self.manual_backward(d_loss(self.players, x, y, fake))
                d_adam.step()
            with self.turn_of(g_adam):
                g_adam.zero_grad()
                self.manual_backward(g_loss(self.players, x, y, fake))
                g_adam.step()

        @contextlib.contextmanager
        def turn_of(self, adam: Any) -> Iterator[None]:
            """Lightning's way to leave the opponent out, where the step is the fast one."""
            if fast:
                self.toggle_optimizer(adam)
            yield
            if fast:
                self.untoggle_optimizer(adam)

    with streams(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        game = Game()
        precision = "bf16-mixed" if fast else "32-true"
        trainer = pl.Trainer(accelerator="cpu", devices=1, max_epochs=1, precision=precision, barebones=True)
        trainer.fit(game, workload.batches())
    return game.players


LOOPS: dict[str, Callable[[Workload, Tick], Players]] = {
    "plain": partial(by_hand, step=plain_step, fused=None),
    "fast": partial(by_hand, step=fast_step, fused=True),
    "fast+ema": partial(by_hand, step=fast_step, fused=True, average=True),
    "treadle": treadle,
    "treadle+ema": partial(treadle, ema=0.999),
    "treadle+ema on disk": partial(treadle, ema=0.999, on_disk=True),
    "lightning plain": lightning,
    "lightning fast": partial(lightning, fast=True),
}


STOCK = ("plain", "lightning plain", "lightning fast")
"""Loops whose networks have torch's own layers, as everybody's have; the same weights and sums, in another order."""


def stock_layers() -> None:
    """Let Treadle's networks in this process be made of what torch has."""
    convolutions.FEW = 0
    InstanceNorm.forward = nn.InstanceNorm2d.forward  # type: ignore[method-assign]


class Clock:
    """Reads the wall clock at the start of steps: `tick` is called first in every step.

    Args:
        workload: says how many steps settle and how many are timed in a turn.
        turn: called with the index of each turn before it begins; it may wait.
    """

    def __init__(self, workload: Workload, turn: Callable[[int], None] = lambda _: None) -> None:
        self.seconds: list[float] = []
        """Seconds per step, one entry for each turn."""
        self._script, self._left = self._plan(workload, turn), 0

    def tick(self) -> None:
        """A step begins."""
        if not self._left:
            self._left = next(self._script)
        self._left -= 1

    def _plan(self, workload: Workload, turn: Callable[[int], None]) -> Iterator[int]:
        """What is done when; each value is the number of steps until the next thing."""
        yield workload.warm_up
        for index in range(workload.rounds):
            turn(index)
            yield workload.settle
            start = time.perf_counter()
            yield workload.timed
            self.seconds.append((time.perf_counter() - start) / workload.timed)
        yield sys.maxsize


def play(loop: str, workload: Workload, turn: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
    """Play to the end: what the clock read, the digest of the weights, and how good the generator has become."""
    clock = Clock(workload, turn)
    players = LOOPS[loop](workload, clock.tick)
    return {"seconds": clock.seconds, "digest": players.digest(), "l1": players.quality(workload.data())}


def main() -> None:
    """A worker process: see the top of this file."""
    loop, name, threads = sys.argv[1:]
    # Whatever a framework prints must not get between the lines of the protocol.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(int(threads))
    if loop in STOCK:
        stock_layers()

    def turn(index: int) -> None:
        channel.write("ready\n")
        if not sys.stdin.readline():
            os._exit(1)  # the driver is gone

    result = play(loop, TINY if name == "tiny" else WORKLOADS[name], turn)
    channel.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
