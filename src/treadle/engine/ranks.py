"""What each process of a run has by itself, in a state of the run that is the same in all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from treadle.checkpoint.packing import Packer, unpack
from treadle.checkpoint.state import State
from treadle.checkpoint.tensorfile import raw_bytes
from treadle.data.random import RandomStreams, derive_seed
from treadle.engine.logbook import Logbook
from treadle.engine.minimize import Minimizer
from treadle.engine.parts import Parts
from treadle.engine.progress import Progress
from treadle.parallel import World

BUFFERS = "buffers"


class Ranks:
    """Random streams, open sums, gradients under accumulation, and buffers that differ, of every process by its rank.

    All else in a state is the same in every process. To take a state is collective: each of them gets all parts.
    Restored by another number of processes the main one goes on with what all had summed up, and streams begin anew.

    Args:
        world: the processes.
        streams: those that this process draws from in its steps; None where it has none of its own: where it is alone,
            or where the parts of a batch have them.
        seed, device: of the run.
        progress, parts, logbook, minimizer: the run's.
    """

    def __init__(
        self,
        world: World,
        streams: RandomStreams | None,
        seed: int,
        device: torch.device,
        progress: Progress,
        parts: Parts,
        logbook: Logbook,
        minimizer: Minimizer,
    ) -> None:
        self.world, self._streams, self._seed, self._device = world, streams, seed, device
        self._progress, self._parts, self._logbook, self._minimizer = progress, parts, logbook, minimizer
        self._differing: list[str] = []

    @property
    def differ(self) -> bool:
        """Whether a process has anything by itself: where there are several, and no fixed parts."""
        return self._streams is not None

    @contextmanager
    def taken_apart(self) -> Iterator[dict[str, Any]]:
        """Within the block what this process has by itself is in no other section; gives the parts of all by rank."""
        mine = self._take()
        try:
            yield self._exchange(mine)
        finally:
            self._add(mine)

    @contextmanager
    def alike(self) -> Iterator[None]:
        """Within the block every process has the main one's buffers, such as batch statistics; then its own again."""
        buffers = list(self._buffers().values()) if self.differ else []
        own = [buffer.detach().clone() for buffer in buffers]
        if buffers:
            with torch.no_grad():
                self.world.spread(buffers)
        try:
            yield
        finally:
            for buffer, before in zip(buffers, own, strict=True):
                buffer.data.copy_(before)

    def make_alike(self, state: State) -> None:
        """Let `state` have the main process's buffers where they differ."""
        buffers = self._buffers()
        for path in self._differing:
            state.tensors[path] = buffers[path].clone()
        self.world.spread([state.tensors[path] for path in self._differing])

    def restore(self, parts: Mapping[str, Any]) -> int | None:
        """Take this process's part back; returns how many processes there were, where these are not as many."""
        before = len(parts) or 1
        if not self.differ and not parts:  # fixed parts are the same in any number of processes
            return None
        if before == self.world.size:
            if parts:
                mine = parts[str(self.world.rank)]
                self._add(mine)
                assert self._streams is not None
                self._streams.load_state_dict(mine["streams"])
                buffers = self._buffers()
                for path, value in mine[BUFFERS].items():
                    buffers[path].copy_(value)
            return None
        if self.world.main:
            for part in parts.values():
                self._add(part)
        elif not parts:  # the sums of the one process there was are the main one's
            self._take()
        if self._streams is not None:
            seed = derive_seed(self._seed, "rank", self.world.rank, self.world.size, self._progress.step)
            self._streams.load_state_dict(RandomStreams(seed, self._device).state_dict())
        return before

    def _take(self) -> dict[str, Any]:
        """What this process has by itself; its sums and gradients are then empty."""
        return {
            "meter": self._logbook.meter.take_running(),
            "objectives": {name: each.take_running() for name, each in self._parts.objectives.items()},
            "windows": {name: each.take_running() for name, each in self._minimizer.updaters.items()},
        }

    def _add(self, part: Mapping[str, Any]) -> None:
        self._logbook.meter.add_running(part["meter"])
        for name, objective in self._parts.objectives.items():
            objective.add_running(part["objectives"].get(name, {}))
        for name, updater in self._minimizer.updaters.items():
            if name in part["windows"]:
                updater.add_running(part["windows"][name])

    def _exchange(self, mine: Mapping[str, Any]) -> dict[str, Any]:
        """Everybody's parts by rank, with streams, and with the buffers that are not the same in all processes."""
        assert self._streams is not None
        buffers = self._buffers()
        hashes = {path: hashlib.sha256(raw_bytes(buffer)).hexdigest() for path, buffer in buffers.items()}
        everybodys = self.world.gather(hashes)
        self._differing = [path for path in hashes if any(other[path] != hashes[path] for other in everybodys)]
        # Copies: what shares memory with a module's own would be saved as the same tensor.
        own = {path: buffers[path].clone() for path in self._differing}
        packer = Packer()
        values = packer.pack({**mine, "streams": self._streams.state_dict(), BUFFERS: own}, "")
        tensors = {path: tensor.detach().cpu().contiguous() for path, tensor in packer.tensors.items()}
        kinds = {path: (str(tensor.dtype), list(tensor.shape)) for path, tensor in tensors.items()}
        found: dict[str, Any] = {}
        for rank, (others, theirs) in enumerate(self.world.gather((values, kinds))):
            some = tensors
            if rank != self.world.rank:
                some = {path: torch.empty(shape, dtype=_dtype(name)) for path, (name, shape) in theirs.items()}
            self.world.spread(list(some.values()), rank)
            found[str(rank)] = unpack(others, some)
        return found

    def _buffers(self) -> dict[str, Tensor]:
        """The buffers that a state has, and their averages, by the paths that it has them at."""
        found = {
            f"{name}/state/{key}": buffer
            for name, module in self._parts.modules.items()
            for key, buffer in module.named_buffers()
            if key in module.state_dict()
        }
        for name, ema in self._parts.emas.items():
            found |= {f"{name}/buffers/{key}": average for key, average in ema.buffers().items()}
        return found


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name.removeprefix("torch."))
    assert isinstance(found, torch.dtype)
    return found
