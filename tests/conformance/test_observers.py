"""Observers that misbehave in every way there is: the run ends as it does without them, to the last bit.

What is beyond this: an observer is given the trainer itself, and may reach into its modules on purpose.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from treadle import Hook, Order, Trainer
from treadle.engine.events import EVENTS
from treadle.testing import capture, kill

DATA = [{"x": x, "more": {"y": 3 * x + 1}} for x in torch.linspace(-1, 1, 24)[:, None]]


class Noisy(Trainer):
    """Fits a line, draws from every generator, computes in the default dtype, keeps a best model, and has an epoch."""

    def setup(self) -> None:
        self.model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.2), nn.Linear(4, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)

    def loss(self, batch: Any) -> torch.Tensor:
        noise = random.random() + np.random.randn() + torch.rand(1)
        return nn.functional.mse_loss(self.model(batch["x"]) + 0.01 * noise, batch["more"]["y"])

    def step(self, batch: Any) -> Any:
        loss = self.loss(batch)
        self.minimize(loss)
        self.log("share", np.float32(1) / np.float32(3))
        return {"loss": loss, "nested": loss * 2}

    def validation_step(self, batch: Any) -> Any:
        return {"loss": self.loss(batch)}


class Critical(Hook):
    """Looks at everything after the observers have had it, and depends on it."""

    order = Order.NORMAL

    def __init__(self) -> None:
        self.seen = 0.0

    def pre_step(self, trainer: Any, batch: Any) -> None:
        self.seen += float(batch["x"].sum() + batch["more"]["y"].sum())

    def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
        self.seen += float(batch["x"].sum()) + float(outputs["nested"])

    def post_validation(self, trainer: Any, metrics: dict[str, float]) -> None:
        metrics["seen"] = self.seen + metrics["loss"]

    def on_save(self, trainer: Any, state: dict[str, Any]) -> None:
        state["seen"] = {"value": torch.tensor(self.seen, dtype=torch.float64)}

    def on_load(self, trainer: Any, state: dict[str, Any]) -> None:
        self.seen = float(state["seen"]["value"])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def train(*observers: Hook, **settings: Any) -> Any:
    """Two and a half epochs, with a rewind, snapshots and validations; the end of it."""
    trainer = Noisy(
        data=DATA, validation_data=DATA, batch_size=8, max_steps=8, seed=0, log_every="1 step", monitor="seen",
        snapshot_every="2 steps", validate_every="2 steps", hooks=[*observers, Critical()], **settings,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(5):
            trainer.iterate()
        trainer.rewind(3)
        trainer.train()
    return trainer


def end(trainer: Any) -> dict[str, Any]:
    """What has to be the same."""
    found = {name: getattr(trainer, name) for name in ("status", "reason", "metrics", "validation_metrics", "best")}
    return found | {"digest": capture(trainer).digest, "step": trainer.progress.step}


@pytest.fixture(scope="module")
def quiet() -> dict[str, Any]:
    """How it ends without any."""
    return end(train())


def spoil(*things: Any) -> None:
    """Edit whatever can be edited, all the way down."""
    for thing in things:
        if isinstance(thing, torch.Tensor):
            thing.data.zero_()
        elif isinstance(thing, np.ndarray):
            thing[...] = 0
        elif isinstance(thing, dict):
            spoil(*thing.values())
            thing.clear()
        elif isinstance(thing, list):
            spoil(*thing)
            del thing[:]
        elif hasattr(thing, "value"):
            spoil(thing.value)


def draw(*_: Any) -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    random.random(), np.random.randn(3), torch.rand(3), torch.randn(3)
    torch.nn.functional.dropout(torch.ones(3))


def set_everything(*_: Any) -> None:
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    torch.autograd.set_detect_anomaly(True)
    np.seterr(all="raise")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no words")

    __repr__ = __str__


class Own(BaseException):
    pass


def raising(error: Callable[[], BaseException]) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise error()

    return fail


def asks(trainer: Any, *_: Any) -> None:
    """What an observer may not, or not now."""
    for ask in (
        lambda: trainer.log("mine", 1.0),
        trainer.validate,
        lambda: trainer.finish("enough"),
        lambda: trainer.metrics.clear(),
        lambda: trainer.validation_metrics.clear(),
        lambda: spoil(trainer.best),
        trainer.train,
        trainer.iterate,
    ):
        with contextlib.suppress(Exception):
            ask()


WAYS: dict[str, Callable[..., Any]] = {
    "edits what it is given": lambda trainer, *given: spoil(*given),
    "draws": draw,
    "sets": set_everything,
    "asks": asks,
    "recursion": lambda trainer, *given: WAYS["recursion"](trainer, *given),
    "sys.exit": raising(lambda: SystemExit(3)),
    "generator exit": raising(GeneratorExit),
    "stop iteration": raising(StopIteration),
    "own": raising(lambda: Own("own")),
    "unspeakable": raising(Unspeakable),
    "memory": raising(MemoryError),
    "surrogates": raising(lambda: OSError("\udcff\n\x1b[2J")),
    "everything": lambda trainer, *given: (spoil(*given), draw(), set_everything(), WAYS["unspeakable"]()),
}


def observer(way: Callable[..., Any], *events: str) -> Hook:
    """An observer that does so in these events, before anybody else."""
    methods = {event: lambda self, trainer, *given: way(trainer, *given) for event in events}
    return type("Odd", (Hook,), {"observer": True, "order": Order.FIRST} | methods)()


@pytest.mark.parametrize("way", WAYS)
def test_it_changes_nothing_in_any_event(way: str, quiet: dict[str, Any]) -> None:
    for event in EVENTS:
        assert end(train(observer(WAYS[way], event))) == quiet, event
    assert end(train(observer(WAYS[way], *EVENTS))) == quiet


def test_all_of_them_together_change_nothing(quiet: dict[str, Any]) -> None:
    assert end(train(*(observer(way, *EVENTS) for way in WAYS.values()))) == quiet


def test_also_where_the_run_is_on_disk_killed_and_resumed(quiet: dict[str, Any], tmp_path: Path) -> None:
    """With state that raises, cannot be saved, or is somebody else's business, in every way."""

    def made(way: Callable[..., Any], what: Any) -> Hook:
        hook = observer(way, *EVENTS)
        kind = type(hook)
        kind.state_dict = lambda self: what if not callable(what) else what()  # type: ignore[attr-defined]
        kind.load_state_dict = lambda self, state: way(None)  # type: ignore[attr-defined]
        kind.on_save = lambda self, trainer, state: state.update(mine=what)  # type: ignore[assignment]
        return hook

    kept = [object(), raising(lambda: SystemExit()), {"fine": 1}, torch.ones(2).to_sparse(), {1: {2}}, float("nan")]
    settings: dict[str, Any] = {"save_every": "1 step", "monitor": "seen", "validate_every": "2 steps", "seed": 0}
    settings |= {"data": DATA, "validation_data": DATA, "batch_size": 8, "max_steps": 8, "log_every": "1 step"}

    def make(*observers: Hook, **where: Any) -> Any:
        return Noisy(hooks=[*observers, Critical()], snapshot_every="2 steps", **settings, **where)

    whole = make(run_dir=tmp_path / "quiet")
    whole.train()
    assert end(whole) == quiet | {"digest": end(whole)["digest"]}, "there the best weights are no state"
    for (name, way), what in zip(WAYS.items(), itertools.cycle(kept)):
        path = tmp_path / name / "v001"
        first = make(made(way, what), run_dir=path)
        for _ in range(5):
            first.iterate()
        kill(first)
        last = make(made(way, what), run_dir=path, resume=True)
        assert last.progress.step == 5
        last.train()
        assert end(last) == end(whole), name


def test_what_an_observer_may_not_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    train(observer(lambda trainer, *_: trainer.log("mine", 1.0), "post_step"))
    assert "log() was called by Odd, an observer, and would change the run: make it a critical hook" in (
        capsys.readouterr().err
    )
