"""What is to hold between two GPUs, over NCCL; the same functions on the CPU show that the tests themselves are right.

On a machine with two NVIDIA GPUs: `pytest -n 0 tests/parallel/test_gpu.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.parallel.test_group import Net, some_data
from tests.parallel.together import together
from treadle import RunError, Trainer
from treadle.parallel import this_world
from treadle.parallel.group import group

TWO = pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs"))
EVERYWHERE = pytest.mark.parametrize("device", ["cpu", TWO])
ONLY_GPUS = pytest.mark.parametrize("device", [TWO])


@contextmanager
def placed(device: str, place: str, seconds: int = 200) -> Iterator[int]:
    """Within the block this process has the GPU of its rank, in a group that meets anew in `place`, over NCCL too.

    A launcher's processes are in such a group from the first; those of `together` have been in one without GPUs.
    """
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    before = {
        name: os.environ.get(name) for name in ("LOCAL_RANK", "TREADLE_TIMEOUT", "TORCH_NCCL_ASYNC_ERROR_HANDLING")
    }
    os.environ |= {"LOCAL_RANK": str(rank), "TREADLE_TIMEOUT": str(seconds), "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"}
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()
        group.cache_clear()
        store = dist.FileStore(f"{place}/{device}", size)  # type: ignore[attr-defined]
        backend = "gloo"
        if device == "cuda":
            backend = "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(rank)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=seconds))
    try:
        yield rank
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        group.cache_clear()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Small(Net):
    """Gradients without noise, so that they can be compared with one process's."""

    def setup(self) -> None:
        super().setup()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        loss = nn.functional.mse_loss(self.model(x), y)
        self.minimize(loss)
        return {"loss": loss}


class Normed(Small):
    """Batch statistics of the global batch."""

    def setup(self) -> None:
        layers = [nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 1)]
        self.model: Any = nn.Sequential(*layers)
        if this_world().size > 1:
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)


def train(kind: type[Trainer], device: str, place: str, settings: dict[str, Any], until: int = 0) -> dict[str, Any]:
    with placed(device, place):
        data = some_data(48)
        trainer = kind(data=data, validation_data=data, batch_size=8, seed=3, device=device, **settings)
        if until:
            while trainer.progress.step < until:
                trainer.iterate()
            trainer.driver.abandon()
            return {}
        summary = trainer.train()
        weights = {name: p.detach().cpu().flatten().tolist() for name, p in trainer.parts.all_parameters().items()}
        return {"weights": weights, "digest": trainer.digest(), "on": str(trainer.device), "step": summary.step}


def compare(alone: dict[str, Any], found: list[dict[str, Any]]) -> None:
    assert found[0]["digest"] == found[1]["digest"] and found[0]["weights"] == found[1]["weights"]
    for name, values in alone["weights"].items():
        assert values == pytest.approx(found[0]["weights"][name], abs=1e-5), name


@EVERYWHERE
@pytest.mark.parametrize("settings", [{}, {"accumulate": 2, "clip_norm": 0.5}, {"parts": 2}])
def test_two_sum_up_to_the_run_of_one_each_on_its_own(tmp_path: Path, device: str, settings: dict[str, Any]) -> None:
    settings = {"max_steps": 8} | settings
    (alone,) = together(1, tmp_path, train, Small, device, str(tmp_path), settings)
    found = together(2, tmp_path, train, Small, device, str(tmp_path), settings)
    compare(alone, found)
    assert [one["on"] for one in found] == ([device] * 2 if device == "cpu" else ["cuda:0", "cuda:1"])


@EVERYWHERE
def test_digests_agree_at_every_save_and_a_resume_goes_on_to_the_same(tmp_path: Path, device: str) -> None:
    settings = {"max_steps": 9, "save_every": "2 steps", "run_dir": str(tmp_path / "whole")}
    whole = together(2, tmp_path, train, Small, device, str(tmp_path), settings)
    compare(whole[0], whole)
    settings |= {"run_dir": str(tmp_path / "cut" / "v001")}
    first = tmp_path / "first"
    first.mkdir()
    together(2, tmp_path, train, Small, device, str(first), settings, 5)
    again = tmp_path / "again"
    again.mkdir()
    found = together(2, tmp_path, train, Small, device, str(again), settings | {"resume": True})
    assert [one["digest"] for one in found] == [one["digest"] for one in whole]


@ONLY_GPUS
def test_batch_statistics_of_both_are_those_of_one(tmp_path: Path, device: str) -> None:
    settings = {"max_steps": 8}
    (alone,) = together(1, tmp_path, train, Normed, device, str(tmp_path), settings)
    compare(alone, together(2, tmp_path, train, Normed, device, str(tmp_path), settings))


def ask(device: str, place: str, asks: int) -> list[Any]:
    """Rank `asks` says stop in its fifth step, while its GPU may still be at an earlier one."""
    with placed(device, place) as rank:
        trainer = Small(data=some_data(48), batch_size=8, max_steps=500, seed=3, device=device, log_every=None)

        def post_step(batch: Any, outputs: Any) -> None:
            if trainer.progress.step == 5 and rank == asks:
                trainer.stop("enough")

        trainer.post_step = post_step  # type: ignore[method-assign]
        summary = trainer.train()
        return [summary.status, summary.step, trainer.digest()]


@EVERYWHERE
@pytest.mark.parametrize("asks", [0, 1])
def test_what_one_is_asked_both_obey_after_the_same_step(tmp_path: Path, device: str, asks: int) -> None:
    one, other = together(2, tmp_path, ask, device, str(tmp_path), asks)
    assert one == other and 5 <= one[1] <= 7


class Failing(Small):
    def step(self, batch: Any) -> dict[str, Any]:
        if self.progress.step == 3 and self.loop.world.rank == 1:
            raise ValueError("boom")
        return super().step(batch)


def fail(device: str, place: str) -> str:
    with placed(device, place):
        world = this_world()
        try:
            Failing(data=some_data(48), batch_size=8, max_steps=9, seed=3, device=device).train()
        except (RunError, ValueError) as error:
            world.leave(error)
            return f"{type(error).__name__}: {error}"
        return "none"


@EVERYWHERE
def test_a_process_that_fails_ends_the_other_long_before_patience_does(tmp_path: Path, device: str) -> None:
    """Patience would name a process that did not come; what it said itself is heard only by who was woken."""
    waiting, failing = together(2, tmp_path, fail, device, str(tmp_path))
    assert failing.startswith("ValueError: boom")
    assert waiting.startswith("Gone: process 1 failed: ValueError: boom in step, at step 4")
