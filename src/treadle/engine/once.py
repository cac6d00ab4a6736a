"""Once for a batch: what several processes, or the parts of a batch, have found comes together and is acted upon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from treadle.data.random import RandomStreams
from treadle.engine.fixed_parts import FixedParts
from treadle.parallel import World
from treadle.parallel.everybody import everybodys

T = TypeVar("T")


class Once:
    """Calls functions once for a whole batch, whoever has which part of it.

    Args:
        world: the processes.
        fixed: what takes the batch part by part; None where each process has one part of it.
        own_streams: what this process draws from in its steps; None where it has none of its own.
        borrowed: whether the batch under way holds nothing of this process's own.
    """

    def __init__(
        self,
        world: World,
        fixed: FixedParts | None,
        own_streams: RandomStreams | None,
        borrowed: Callable[[], bool],
    ) -> None:
        self._world, self._fixed, self._own_streams, self._borrowed = world, fixed, own_streams, borrowed

    def call(self, function: Callable[..., T], tensors: Sequence[Tensor]) -> T:
        """See `Trainer.once`."""
        own = [tensor.detach() for tensor in tensors]
        if self._fixed is not None:
            found: T = self._fixed.once(function, own)
            return found
        if self._own_streams is None:
            with torch.no_grad():
                return function(*([tensor] for tensor in own))
        if self._borrowed():
            own = [tensor[:0] for tensor in own]
        with torch.no_grad(), self._own_streams.outside():
            return function(*everybodys(self._world, [own]))

    @property
    def number(self) -> int:
        """Which of the lists' entries is that of the call of `step` under way."""
        if self._fixed is not None:
            return self._fixed.current or 0
        return self._world.rank
