"""One worker of the loop benchmark: trains a workload with one framework, in a process of its own.

Started by loop.py as `_peers.py FRAMEWORK TIER WORKLOAD ROUNDS ORDERS OUT`. It writes a line when it is ready for its
turn and reads a line when it gets it, so that the processes of all frameworks take turns, a tenth of a second each.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _workload import WORKLOADS, Batches, Clock, Workload, digest, flat, peak_memory
from torch import nn

HOOKS = 5
LOG_EVERY = 50


class Job:
    """What a framework is given: the workload, the clock to tick first in every step, the order of the epochs."""

    def __init__(self, workload: Workload, tier: str, clock: Clock, orders: np.ndarray[Any, Any]) -> None:
        self.workload, self.tier, self.clock, self.orders = workload, tier, clock, orders
        self.loss, self.tick = workload.loss, clock.tick

    @property
    def hooks(self) -> bool:
        """Whether five hooks and the loss as a metric are asked for."""
        return self.tier != "bare"

    @property
    def files(self) -> bool:
        """Whether metrics go to files, too."""
        return self.tier == "full"

    def batches(self) -> Batches:
        """The batches of the run."""
        return Batches(self.workload.data(), self.orders, self.workload.batch_size)

    def parts(self, fused: bool | None = True) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The model and its optimizer."""
        model = self.workload.model()
        return model, self.workload.optimizer(model, fused)


def raw(job: Job, fused: bool | None = True) -> nn.Module:
    """The loop that everybody writes."""
    model, optimizer = job.parts(fused)
    batches, loss_of, tick = job.batches(), job.loss, job.tick
    for _ in range(job.clock.epochs):
        for x, y in batches:
            tick()
            loss = loss_of(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def naive(job: Job) -> nn.Module:
    """The same, with the optimizer as torch builds it by default."""
    return raw(job, fused=None)


def treadle(job: Job, iterate: bool = False) -> nn.Module:
    """Treadle's trainer with its default settings; `iterate` drives it step by step from outside."""
    from treadle import Hook, Trainer

    workload, loss_of, tick = job.workload, job.loss, job.tick

    class Training(Trainer):
        def setup(self) -> None:
            self.model, self.optimizer = job.parts(fused=None)

        def step(self, batch: Any) -> dict[str, torch.Tensor]:
            tick()
            x, y = batch
            loss = loss_of(self.model(x), y)
            self.minimize(loss)
            return {"loss": loss} if job.hooks else {}

    class Idle(Hook):
        def pre_step(self, trainer: Trainer, batch: Any) -> None:
            pass

        def post_step(self, trainer: Trainer, batch: Any, outputs: Any) -> None:
            pass

    with tempfile.TemporaryDirectory() as directory:
        trainer = Training(
            data=workload.data(),
            batch_size=workload.batch_size,
            max_epochs=job.clock.epochs,
            log_every=f"{LOG_EVERY} steps",
            save_every=None,  # what is measured is the loop, not the disk
            hooks=[Idle() for _ in range(HOOKS)] if job.hooks else [],
            run_dir=Path(directory) / "loop" if job.files else None,
        )
        if iterate:
            while trainer.iterate():
                pass
        else:
            trainer.train()
    return trainer.model


def treadle_iterate(job: Job) -> nn.Module:
    """Treadle driven by `iterate()`."""
    return treadle(job, iterate=True)


def ignite(job: Job) -> nn.Module:
    """An Ignite engine; with hooks: handlers, and a running average of the loss."""
    from ignite.engine import Engine, Events
    from ignite.metrics import RunningAverage

    model, optimizer = job.parts()
    loss_of, tick = job.loss, job.tick

    def update(engine: Engine, batch: Any) -> dict[str, Any]:
        tick()
        x, y = batch
        loss = loss_of(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()} if job.hooks else {}

    engine = Engine(update)
    if job.hooks:
        for _ in range(HOOKS):
            engine.add_event_handler(Events.ITERATION_STARTED, lambda: None)
            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: None)
        RunningAverage(output_transform=lambda output: output["loss"]).attach(engine, "loss")
    engine.run(job.batches(), max_epochs=job.clock.epochs)
    return model


def fabric(job: Job) -> nn.Module:
    """Lightning Fabric around a raw loop; with hooks: `fabric.call` to callbacks, and `fabric.log`."""
    from lightning.fabric import Fabric

    class Idle:
        def pre_step(self, batch: Any) -> None:
            pass

        def post_step(self, batch: Any, outputs: Any) -> None:
            pass

    runner = Fabric(accelerator="cpu", devices=1, callbacks=[Idle() for _ in range(HOOKS)] if job.hooks else [])
    runner.launch()
    model, optimizer = runner.setup(*job.parts())
    batches, loss_of, tick = job.batches(), job.loss, job.tick
    step = 0
    for _ in range(job.clock.epochs):
        for batch in batches:
            if job.hooks:
                runner.call("pre_step", batch)
            tick()
            x, y = batch
            loss = loss_of(model(x), y)
            optimizer.zero_grad()
            runner.backward(loss)
            optimizer.step()
            step += 1
            if job.hooks:
                runner.call("post_step", batch, {"loss": loss})
                if step % LOG_EVERY == 0:
                    runner.log("loss", loss.item(), step)
    return model


def accelerate(job: Job) -> nn.Module:
    """Hugging Face Accelerate around a raw loop; it has no hooks."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(*job.parts())
    batches, loss_of, tick = job.batches(), job.loss, job.tick
    for _ in range(job.clock.epochs):
        for x, y in batches:
            tick()
            loss = loss_of(model(x), y)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
    return model


def lightning(job: Job) -> nn.Module:
    """Lightning's Trainer: barebones; with hooks: callbacks and `self.log`; in full: CSV files and a progress bar."""
    import lightning as pl

    loss_of, tick = job.loss, job.tick

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self._optimizer = job.parts()

        def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
            tick()
            x, y = batch
            loss = loss_of(self.model(x), y)
            if job.hooks:
                self.log("loss", loss, prog_bar=job.files)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return self._optimizer

    class Idle(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            pass

        def on_train_batch_end(self, *_: Any) -> None:
            pass

    module = Module()
    with tempfile.TemporaryDirectory() as directory:
        options: dict[str, Any] = {"barebones": True}
        if job.hooks:
            options = {
                "callbacks": [Idle() for _ in range(HOOKS)],
                "log_every_n_steps": LOG_EVERY,
                "logger": pl.pytorch.loggers.CSVLogger(directory) if job.files else False,
                "enable_progress_bar": job.files,
                "enable_checkpointing": False,
                "enable_model_summary": False,
            }
        trainer = pl.Trainer(accelerator="cpu", devices=1, max_epochs=job.clock.epochs, **options)
        trainer.fit(module, job.batches())
    return module.model


FRAMEWORKS: dict[str, Callable[[Job], nn.Module]] = {
    "naive": naive,
    "raw": raw,
    "treadle": treadle,
    "iterate": treadle_iterate,
    "ignite": ignite,
    "fabric": fabric,
    "accelerate": accelerate,
    "lightning": lightning,
}


def train(framework: str, tier: str, workload: str, clock: Clock, orders: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Train to the end; returns the weights, their digest, and what the clock counted."""
    model = FRAMEWORKS[framework](Job(WORKLOADS[workload], tier, clock, orders))
    return {"digest": digest(model), "weights": flat(model), "calls": clock.calls, "seconds": clock.seconds}


def main() -> None:
    """A worker process: see the top of this file."""
    framework, tier, workload, rounds, orders, out = sys.argv[1:]
    # Whatever the frameworks print must not get between the lines of the protocol.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(1)

    def turn(index: int) -> None:
        channel.write("ready\n")
        if not sys.stdin.readline():
            os._exit(1)  # the driver is gone

    clock = Clock(int(rounds), turn)
    result = train(framework, tier, workload, clock, np.load(orders, mmap_mode="r"))
    np.save(out, result.pop("weights"))
    channel.write(json.dumps(result | {"memory": peak_memory()}) + "\n")


if __name__ == "__main__":
    main()
