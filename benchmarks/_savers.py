"""Ways to save a checkpoint, each timed by the same rules: the contenders of the checkpoint benchmark."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from treadle.checkpoint.state import State
from treadle.checkpoint.store import Retention
from treadle.checkpoint.writer import CheckpointWriter
from treadle.files import sync

Tensors = dict[str, Tensor]


@dataclass
class Times:
    """What one contender took, in seconds; lists have one entry for each round after the first."""

    first: float = 0.0
    """Stall of the first save, for which there is no memory yet."""
    stall: list[float] = field(default_factory=list)
    """Wall time until training may go on and change the tensors."""
    cpu: list[float] = field(default_factory=list)
    """CPU time of the training thread in the stall; what other processes do touches it little."""
    total: list[float] = field(default_factory=list)
    """Wall time until the save is complete."""


class Saver(ABC):
    """One way to save; `name` is its row in the table, `durable` whether it is on the disk when complete."""

    name: str
    durable = False

    @abstractmethod
    def start(self, tensors: Tensors, path: Path) -> Callable[[], object]:
        """Save to `path`, as far as training has to wait; returns what completes it."""

    def prepare(self, tensors: Tensors, directory: Path) -> None:  # noqa: B027
        """What is done once, beside the training, before the first save."""

    def close(self) -> None:  # noqa: B027
        """Give back what is kept from one save to the next."""


class TorchSave(Saver):
    name = "torch.save"

    def start(self, tensors: Tensors, path: Path) -> Callable[[], object]:
        torch.save(tensors, path)
        return lambda: None


class TorchSaveDurable(Saver):
    name = "torch.save + fsync + rename"
    durable = True

    def start(self, tensors: Tensors, path: Path) -> Callable[[], object]:
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            torch.save(tensors, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
        return lambda: None


class Safetensors(Saver):
    name = "safetensors"

    def start(self, tensors: Tensors, path: Path) -> Callable[[], object]:
        safetensors.torch.save_file(tensors, path)
        return lambda: None


class SafetensorsDurable(Saver):
    name = "safetensors + fsync"
    durable = True

    def start(self, tensors: Tensors, path: Path) -> Callable[[], object]:
        safetensors.torch.save_file(tensors, path)
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        return lambda: None


class DCPSave(Saver):
    name = "DCP save"
    durable = True  # its file system writer syncs by default

    def start(self, tensors: Tensors, path: Path) -> Callable[[], object]:
        dcp.save(dict(tensors), checkpoint_id=path, no_dist=True)
        return lambda: None


class DCPAsync(Saver):
    name = "DCP async_save"
    durable = True

    def start(self, tensors: Tensors, path: Path) -> Callable[[], object]:
        return _complete(dcp.async_save(dict(tensors), checkpoint_id=path, no_dist=True))


class DCPAsyncCached(Saver):
    """As much as DCP can be asked for: a stager that keeps its memory. It pins memory, so it may need a GPU."""

    name = "DCP async_save, cached stager"
    durable = True

    def __init__(self) -> None:
        self.stager = BlockingAsyncStager(cache_staged_state_dict=True)

    def start(self, tensors: Tensors, path: Path) -> Callable[[], object]:
        if self.stager.state_dict_cache is None:
            self.stager.state_dict_cache = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
        return _complete(dcp.async_save(dict(tensors), checkpoint_id=path, no_dist=True, async_stager=self.stager))


class Treadle(Saver):
    """Also hashes (SHA-256), writes a manifest, and keeps no checkpoint but the newest."""

    name = "Treadle"
    durable = True

    def __init__(self) -> None:
        self.writer: CheckpointWriter | None = None
        self.step = 0

    def prepare(self, tensors: Tensors, directory: Path) -> None:
        """As a trainer does after its first step: the writer's thread finds memory."""
        self.writer = CheckpointWriter(directory, lambda *_: None, 60.0)
        self.writer.prepare(state(tensors, 0))
        self.writer.wait()

    def start(self, tensors: Tensors, path: Path) -> Callable[[], object]:
        if self.writer is None:
            self.writer = CheckpointWriter(path.parent, lambda *_: None, 60.0)
        self.step += 1
        self.writer.submit(state(tensors, self.step), Retention(last=1))
        return self.writer.wait

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class TreadleOnOneThread(Treadle):
    """The same where the copy has one core: what a run pays whose torch is set to one thread."""

    name = "Treadle, on one thread"

    def start(self, tensors: Tensors, path: Path) -> Callable[[], object]:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return super().start(tensors, path)
        finally:
            torch.set_num_threads(before)


def _complete(answer: object) -> Callable[[], object]:
    upload = getattr(answer, "upload_completion", answer)
    return upload.result  # type: ignore[attr-defined, no-any-return]


def state(tensors: Tensors, step: int) -> State:
    """`tensors` as the state of a run after `step` steps."""
    return State({"progress": {"step": step, "epoch": 0, "batch": 0}}, tensors, {"seconds": 0.0})


def everyone() -> list[Saver]:
    """A new one of each."""
    kinds = [
        TorchSave,
        TorchSaveDurable,
        Safetensors,
        SafetensorsDurable,
        DCPSave,
        DCPAsync,
        DCPAsyncCached,
        TreadleOnOneThread,
    ]
    kinds.append(Treadle)
    return [kind() for kind in kinds]


def compete(tensors: Tensors, rounds: int, directory: Path, savers: list[Saver]) -> dict[str, Times]:
    """Let all save `tensors` in turns, `rounds` times after a first that is not counted; nothing stays on the disk."""
    times = {saver.name: Times() for saver in savers}
    warnings.filterwarnings("ignore", module="torch.distributed")
    try:
        for saver in savers:
            saver.prepare(tensors, directory / _folder(saver))
        for index in range(rounds + 1):
            start = index % len(savers)
            for saver in [*savers[start:], *savers[:start]]:
                stall, cpu, total = _once(saver, tensors, directory / _folder(saver) / f"{index}")
                found = times[saver.name]
                if index == 0:
                    found.first = stall
                else:
                    found.stall.append(stall)
                    found.cpu.append(cpu)
                    found.total.append(total)
    finally:
        for saver in savers:
            saver.close()
    return times


def _folder(saver: Saver) -> str:
    return saver.name.replace(" ", "-")


def _once(saver: Saver, tensors: Tensors, path: Path) -> tuple[float, float, float]:
    path.parent.mkdir(parents=True)
    try:
        begin, cpu = time.perf_counter(), time.thread_time()
        complete = saver.start(tensors, path)
        stall, cpu = time.perf_counter() - begin, time.thread_time() - cpu
        complete()
        return stall, cpu, time.perf_counter() - begin
    finally:
        # Deleted at once: what was never synced must not be left for the next one's fsync.
        shutil.rmtree(path.parent)
