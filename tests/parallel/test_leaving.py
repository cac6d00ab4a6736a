"""A process that fails, is killed or hangs: the others end, and say which one it was and what it was at."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch.distributed import HashStore

from tests.parallel.test_group import Net, some_data
from tests.parallel.together import together
from treadle import RunError
from treadle.parallel import leaving, this_world
from treadle.parallel.group import group
from treadle.parallel.leaving import Leaving as Waiting

LEAVES = 1
"""Which of the processes does."""


class Leaving(Net):
    how = ""
    done: Path

    def step(self, batch: Any) -> dict[str, Any]:
        if self.progress.step == 3 and self.loop.world.rank == LEAVES:
            if self.how == "fails":
                raise ValueError("boom")
            while not self.done.exists():
                time.sleep(0.05)
        return super().step(batch)


def leave(how: str, place: str, seconds: int) -> str:
    """Train, and leave as `how` says; returns what the error was in this process."""
    rank, size = this_world().rank, this_world().size
    dist.barrier()
    dist.destroy_process_group()
    group.cache_clear()
    store = dist.FileStore(f"{place}/{how}", size)  # type: ignore[attr-defined]
    before, os.environ["TREADLE_TIMEOUT"] = os.environ["TREADLE_TIMEOUT"], str(seconds)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=seconds))
    trainer = Leaving(data=some_data(), batch_size=8, max_epochs=2, seed=3)
    trainer.how, trainer.done = how, Path(place) / "done"
    world = this_world()
    try:
        trainer.train()
    except (RunError, ValueError) as error:
        if how == "fails":
            world.leave(error)
        elif how == "hangs":
            trainer.done.touch()
        if dist.is_initialized():
            dist.destroy_process_group()
        os.environ["TREADLE_TIMEOUT"] = before
        return f"{type(error).__name__}: {error} {world.tells(error)}"
    return "none"


@pytest.mark.parametrize(
    ("how", "seconds", "said"),
    [
        ("fails", 100, "Gone: process 1 failed: ValueError: boom in step, at step 4 (epoch 1, batch 4) True"),
        ("hangs", 8, "Gone: process 1 did not come within 8 s, at step 4 (epoch 1, batch 4): what hangs there, or "
                      "takes longer than TREADLE_TIMEOUT, is to be looked for in what that step does True"),
    ],
)  # fmt: skip
def test_those_that_wait_name_the_one_that_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, seconds: int, said: str
) -> None:
    found = together(3, tmp_path, leave, how, str(tmp_path), seconds)
    assert found[0] == said
    assert found[2] == said.removesuffix("True") + "False"
    assert found[1] != found[0]


@pytest.mark.parametrize(
    ("others", "text", "said", "heard"),
    [
        ({}, "Connection closed by peer", "another process of this run is gone: processes 1, 2, at step 4", [0]),
        ({2: ["nobody", "x"]}, "Connection reset", "another process of this run is gone: process 1, at step 4", [0, 2]),
        ({1: ["nobody", "x"], 2: ["nobody", "x"]}, "Broken pipe", "another process of this run is gone: Broken pipe",
         [0, 1, 2]),
        ({2: ["waited", "x"]}, "Connection reset", "process 1 did not come within 60 s, at step 4", [0, 2]),
        ({1: ["failed", "ValueError: boom"]}, "Timed out", "process 1 failed: ValueError: boom", [0]),
    ],
)  # fmt: skip
def test_what_is_known_of_those_that_do_not_come(
    monkeypatch: pytest.MonkeyPatch, others: dict[int, list[str]], text: str, said: str, heard: list[int]
) -> None:
    monkeypatch.setattr(leaving, "GRACE", 0.1)  # all that anybody says has been said
    store = HashStore()
    for rank, words in others.items():
        store.set(f"left/{rank}", json.dumps(words))
    found = Waiting(store, 0, 3).explain(text, "step 4", 60)
    assert str(found).startswith(said) and found.heard == heard
    assert found.said == str(found).startswith("process 1 failed")


class Lost(HashStore):
    """The store of a launcher that is gone."""

    asked = 0

    def check(self, keys: list[str]) -> bool:
        self.asked += 1
        raise RuntimeError("Broken pipe")


def test_a_store_that_is_gone_says_nothing_of_the_others() -> None:
    """Else whoever waits for a process that takes its time takes it for gone, when its launcher is killed."""
    store = Lost()
    waiting = Waiting(store, 0, 3)
    assert [waiting.others(), waiting.others()] == [False, False]
    assert store.asked == 1  # torch prints a page each time


class Far(HashStore):
    """The store of a launcher beyond a link that is cut: it does not say no, either."""

    mended = threading.Event()

    def check(self, keys: list[str]) -> bool:
        return self.mended.wait(200)


def test_a_store_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.parallel.leaving.HEAR", 0.1)
    waiting = Waiting(Far(), 0, 2)
    try:
        assert waiting.others() is False
        found = waiting.explain("Timed out waiting", "step 4", 60)
    finally:
        Far.mended.set()
    assert str(found).startswith("process 1 did not come within 60 s, at step 4") and found.heard == [0]
