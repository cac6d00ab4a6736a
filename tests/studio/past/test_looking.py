"""Looking back without going back: kept states in second trainers, while the run trains on, bit for bit."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from treadle import UsageError
from treadle.checkpoint.store import read_checkpoint
from treadle.engine.again import made_again
from treadle.errors import RunError
from treadle.reports.views import LiveView, Window
from treadle.studio.past import memory
from treadle.studio.past.lent import Looked
from treadle.studio.past.looking import Looking
from treadle.studio.past.memory import bytes_of
from treadle.studio.past.shelf import Shelf
from treadle.testing import Line, line_data

WINDOW = Window(4, 4, (0, 0, 4, 4))


class Weight(LiveView):
    """A grey picture of the line's slope, at random noise of no size."""

    def __init__(self, trainer: Line) -> None:
        self.trainer = trainer

    def draw(self, window: Window) -> Any:
        torch.rand(5)  # what is drawn from must not be the run's
        assert not self.trainer.model.training
        return np.full((window.size[1], window.size[0]), self.trainer.model.weight.item(), np.float32)


class Shown(Line):
    """A line with dropout of its points, so that its random streams matter, and a view."""

    def setup(self) -> None:
        super().setup()
        self.dropout = nn.Dropout(0.3)

    def loss(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x, y = batch
        return super().loss((self.dropout(x), y))

    def views(self) -> Mapping[str, Any]:
        return {"weight": Weight(self)}


def make(run_dir: Path | None, kind: type[Line] = Shown, **settings: Any) -> Line:
    settings = {"batch_size": 10, "max_epochs": 8, "save_every": "5 steps", "keep_checkpoints": 99} | settings
    return kind(data=line_data(), validation_data=line_data(), run_dir=run_dir, seed=4, **settings)


def looking(trainer: Line, size: int = 1000) -> Looking:
    shelf = Shelf(None if trainer.run is None else trainer.run.path, trainer.loop.snapshots)

    def at_once(function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function())
        return future

    return Looking(
        shelf, lambda: made_again(trainer), lambda: size, trainer.commands.call, at_once, torch.device("cpu")
    )


def drawn(source: Looked) -> float:
    """The grey that its view draws."""
    return source.call(lambda: float(source.views()["weight"].draw(WINDOW)[0, 0])).result(60)


@pytest.fixture
def trained(tmp_path: Path) -> Iterator[Line]:
    trainer = make(tmp_path / "line", max_epochs=4)
    trainer.train()
    yield trainer
    trainer.close()


def test_a_kept_state_is_seen_as_it_was(trained: Line) -> None:
    back = looking(trained)
    told = back.open(5).result()
    assert (told["step"], told["kind"], told["open"], back.steps) == (5, "checkpoint", [5], [5])
    source = back.source(5)
    saved = read_checkpoint(trained.run.path / "checkpoints" / "step-00000005")
    assert drawn(source) == saved.tensors["model/state/weight"].item() != trained.model.weight.item()
    assert (source.step, source.trainer.progress.step, source.trainer.loop.counts) == (5, 5, (1, 5, 0))


def test_several_are_open_at_once_and_let_go_one_by_one(trained: Line) -> None:
    back = looking(trained)
    for step in (5, 20):
        back.open(step).result()
    first, second = (back.source(step) for step in (5, 20))
    values = [
        source.call(lambda s=source: s.views()["weight"].draw(WINDOW)[0, 0]).result() for source in (first, second)
    ]
    assert values[0] != values[1] and second.trainer is not first.trainer
    view = first.views()["weight"]
    assert back.let_go([5]).result() == [20] == back.steps
    with pytest.raises(UsageError, match="step 5 was let go"):
        view.draw(WINDOW)
    with pytest.raises(UsageError, match="step 5 was let go"):
        first.call(lambda: None)
    with pytest.raises(UsageError, match="step 5 is not open"):
        back.source(5)


def test_the_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    alone, watched = make(tmp_path / "alone"), make(tmp_path / "watched", snapshot_every="7 steps")
    alone.train()
    files: list[set[str]] = []
    back = looking(watched)
    thread = threading.Thread(target=watched.train)
    watched.commands.run_until("step 12").add_done_callback(lambda _: None)
    thread.start()
    while not watched.paused:
        threading.Event().wait(0.005)
    for step in (5, 7, 10):  # 7 is a snapshot in memory
        files.append({path.name for path in watched.run.path.rglob("*")})
        assert back.open(step).result(60)["step"] == step
        source = back.source(step)
        watched.commands.resume() if step == 5 else None
        drawn(source)
    back.let_go([7, 5]).result(60)
    thread.join(60)
    assert watched.status == "finished" and watched.digest() == alone.digest()
    assert not [path for path in watched.run.path.parent.iterdir() if path.name != "v001"]
    watched.close(), alone.close()


def test_what_it_takes_is_said_first_and_refused_when_short(trained: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    back = looking(trained, size=5_000_000)
    cost = back.cost(5).result()
    assert cost["trainer"] == 5_000_000 and cost["needed"] == cost["state"] + 5_000_000 and cost["state"] > 1000
    assert cost["enough"] and cost["free"] > 5_000_000 and back.steps == []
    monkeypatch.setattr("treadle.studio.past.looking.free_memory", lambda device: 4_000_000)
    assert not back.cost(5).result()["enough"]
    with pytest.raises(RunError, match=r"to look at step 5 takes 5.* MB of memory, and 4 MB are free"):
        back.open(5).result()
    assert back.steps == []


def test_a_step_that_is_not_kept_names_those_that_are(trained: Line) -> None:
    with pytest.raises(UsageError, match="no state of step 6 is kept: there are 5, 10, 15, 20"):
        looking(trained).open(6)


def test_a_damaged_state_is_refused_and_nothing_stays_open(trained: Line) -> None:
    file = trained.run.path / "checkpoints" / "step-00000010" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    back = looking(trained)
    with pytest.raises(Exception, match="damaged"):
        back.open(10).result()
    assert back.steps == [] and back.open(5).result()["open"] == [5]


def test_a_best_model_is_a_state_too(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line", max_epochs=3, save_every=None, validate_every="4 steps", keep_best=3)
    trainer.train()
    steps = Shelf(trainer.run.path).steps()
    step = steps[0]
    assert step % 4 == 0 and step < 15
    back = looking(trainer)
    assert back.open(step).result()["kind"] == "best"
    assert back.source(step).trainer.progress.step == step
    trainer.close()


def test_memory_is_given_back_when_let_go(tmp_path: Path) -> None:
    class Wide(Shown):
        def setup(self) -> None:
            super().setup()
            self.table = nn.Parameter(torch.zeros(3_000_000))

    trainer = make(tmp_path / "wide", Wide, max_epochs=1, batch_size=50, save_every="1 step")
    trainer.iterate()
    trainer.commands.pause()
    trainer.iterate()
    back = looking(trainer)
    process = psutil.Process()

    def open_and_close() -> tuple[int, int, int]:
        gc.collect()
        before = process.memory_info().rss
        future = back.open(1)
        while not future.done():
            trainer.iterate()
        future.result()
        between = process.memory_info().rss
        closing = back.let_go([1])
        trainer.iterate()
        closing.result()
        return before, between, process.memory_info().rss

    open_and_close()  # what is made once
    tries = [open_and_close() for _ in range(3)]  # what other threads take meanwhile is theirs
    assert max(between - before for before, between, _ in tries) > 11e6, "a table of 12 MB"
    assert min(after - before for before, _, after in tries) < 3e6
    trainer.close()


def test_bytes_count_once_and_not_what_is_shared() -> None:
    table, array = torch.zeros(1000), np.zeros(500)
    assert bytes_of([{"a": table, "b": [table[:10], array[3:]]}]) == 8000
    assert bytes_of([table, array], besides=[(array,)]) == 4000
    assert bytes_of([nn.Linear(10, 10)]) == 440
    free = memory.free_memory()
    assert free is None or 0 <= free < 1e13
    assert memory.shown_bytes(1_234_000_000) == "1.23 GB" and memory.shown_bytes(12) == "12 B"
