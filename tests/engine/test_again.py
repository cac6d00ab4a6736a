"""A second trainer of the same arguments, to be looked at: no run, no given hooks, and the first is not disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from treadle import EMA, Hook, Trainer, UsageError
from treadle.checkpoint.store import read_checkpoint
from treadle.engine.again import made_again
from treadle.testing import Line, capture, line_data


class Averaged(Line):
    """Has an average, a counter of its own and hooks that say whether they were made."""

    def __init__(self, scale: float, **keywords: Any) -> None:
        self.scale = scale
        super().__init__(**keywords)

    def setup(self) -> None:
        super().setup()
        self.ema = EMA(self.model, 0.5)
        self.seen = 0
        self.noise = torch.rand(3)
        self.add_hook(Watcher())

    def step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        self.seen += 1
        return super().step(batch)


class Watcher(Hook):
    observer = True


def make(**settings: Any) -> Averaged:
    return Averaged(2.0, data=line_data(), batch_size=10, max_epochs=3, seed=3, log_every="1 step", **settings)


def test_it_is_of_the_same_arguments_and_writes_nothing(tmp_path: Path) -> None:
    trainer = make(run_dir=tmp_path / "line", hooks=[Watcher()], save_every="2 steps")
    trainer.iterate()
    files = sorted(tmp_path.rglob("*"))
    second = made_again(trainer)
    assert (second.scale, second.config.seed, type(second)) == (2.0, 3, Averaged)
    assert second.run is None and not any(isinstance(hook, Watcher) for hook in second.hooks)
    assert torch.equal(second.noise, trainer.noise), "setup drew from streams of its own"
    second.close()
    assert sorted(tmp_path.rglob("*")) == files
    trainer.close()


def test_making_one_changes_no_bit_of_the_first() -> None:
    alone, watched = make(), make()
    alone.train()
    while watched.iterate():
        if watched.progress.step % 3 == 0:
            watched.commands.call(lambda: made_again(watched).close())
    assert watched.digest() == alone.digest()


def test_a_state_is_shown_without_optimizers_hooks_and_streams(tmp_path: Path) -> None:
    trainer = make(run_dir=tmp_path / "line", save_every="4 steps", keep_checkpoints=9)
    trainer.train()
    saved = read_checkpoint(trainer.run.path / "checkpoints" / "step-00000008")
    second = made_again(trainer)
    before = capture(second)
    with second.driver.active:
        second.loop.state.show(saved)
    now = capture(second)
    for path, tensor in saved.tensors.items():
        if path.startswith(("model/", "ema/", "noise")):
            assert torch.equal(now.tensors[path], tensor), path
    assert (second.seen, second.progress.step, second.progress.epoch) == (8, 8, 1)
    assert second.metrics and not second.optimizer.state
    for name in ("random", "feeds", "hooks"):
        assert now.values[name] == before.values[name]
    saved.values["attributes"]["other"] = 1
    with pytest.raises(Exception, match="'other', the trainer has not"):
        second.loop.state.show(saved)


def test_a_run_that_begins_in_the_constructor_is_not_begun_again(tmp_path: Path) -> None:
    class Own(Line):
        def __init__(self) -> None:
            super().__init__(data=line_data(), max_epochs=1, run_dir=tmp_path / "own", hooks=[Watcher()])

    trainer = Own()
    assert made_again(trainer).run is None
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["v001"]
    trainer.close()


def test_what_can_be_read_once_is_not_read_twice() -> None:
    def batches() -> Iterator[Any]:
        yield from (line_data() for _ in range(8))

    trainer = Line(data=batches(), batch_size=None, max_steps=8)
    trainer.iterate()
    with pytest.raises(UsageError, match=r"generator.* a second trainer beside Line would take from them"):
        made_again(trainer)
    assert trainer.train().step == 8


def test_what_fails_says_so_in_a_line() -> None:
    class Once(Trainer):
        def __init__(self, things: list[int], **keywords: Any) -> None:
            things.pop()
            super().__init__(**keywords)

    trainer = Once([1], data=line_data(), max_epochs=1)
    with pytest.raises(UsageError, match=r"Once cannot be made a second time .*IndexError"):
        made_again(trainer)
