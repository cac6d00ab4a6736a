"""A process that fails, is killed or hangs: the others end, and say which one it was and what it was at."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from tests.parallel.test_group import Net, some_data
from tests.parallel.together import together
from treadle import RunError
from treadle.parallel import this_world
from treadle.parallel.group import group

LEAVES = 1
"""Which of the processes does."""


class Leaving(Net):
    how = ""
    done: Path

    def step(self, batch: Any) -> dict[str, Any]:
        if self.progress.step == 3 and self.loop.world.rank == LEAVES:
            if self.how == "fails":
                raise ValueError("boom")
            if self.how == "goes":
                dist.destroy_process_group()
                raise KeyboardInterrupt
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
    except (RunError, ValueError, KeyboardInterrupt) as error:
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
        ("goes", 100, "Gone: another process of this run is gone: process 1, at step 4 (epoch 1, batch 4), without a "
                      "word, as when it is killed True"),
        ("hangs", 15, "Gone: process 1 did not come within 15 s, at step 4 (epoch 1, batch 4): what hangs there, or "
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
