"""Rays as training data: drawn from all photographs at once, in an order that is a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treadle.cameras.capture import Photographs
from treadle.data.feed import Feed
from treadle.data.random import derive_seed
from treadle.errors import UsageError
from treadle.fields.nerf.pixels import Pixels, Seen


class RayFeed(Feed):
    """Batches of pixel numbers, each drawn from all pixels of all photographs; `rays` says what they show.

    A batch is the most rays that a step may take. How many it does take is up to the step, which asks for the first of
    them: so the position in the data stays two numbers, however many that are. For the same reason each of several
    processes, and each part of a batch, is given the numbers of the whole batch, of which it takes its part. An epoch
    has as many batches as it takes to draw as many pixels as there are.

    Args:
        photographs: the views.
        batch_size: pixels in a batch.
        memory: bytes of pixels that are kept in memory; see `Pixels`.
        threads: how many photographs are read at the same time.

    Raises:
        UsageError: there are no photographs.
    """

    def __init__(self, photographs: Photographs, batch_size: int, *, memory: int = 1 << 30, threads: int = 2) -> None:
        super().__init__()
        if len(photographs) == 0:
            raise UsageError("there are no photographs to train on: look at the split (every, lists)")
        self.photographs, self.batch_size = photographs, batch_size
        self._memory, self._threads = memory, threads
        self._pixels: Pixels | None = None
        self._count = sum(camera.width * camera.height for camera in photographs.cameras)

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        return -(-self._count // self.batch_size)

    @property
    def samples(self) -> int:
        """Pixels drawn in an epoch."""
        return self.batches * self.batch_size

    @property
    def pixels(self) -> Pixels:
        """The pixels, which are read when they are first asked for."""
        if self._pixels is None:
            self._pixels = Pixels(self.photographs, self._memory, self._threads)
        return self._pixels

    def plan(self, epoch: int) -> Sequence[range]:
        """The draws of an epoch, by number, that each batch is."""
        size = self.batch_size
        return [range(start, start + size) for start in range(0, self.batches * size, size)]

    def gather(self, epoch: int, indices: Any) -> Tensor:
        """The numbers of the pixels of the batch that these draws are of, (batch_size,) int64: of all of it."""
        position = indices[0] // self.batch_size
        # From a counter-based generator: any batch is drawn by itself.
        bits = np.random.Philox(key=derive_seed(self.seed, "rays", epoch), counter=position << 64)
        return torch.from_numpy(np.random.Generator(bits).integers(0, self._count, self.batch_size))

    def rays(self, numbers: Tensor) -> Seen:
        """What the pixels `numbers` (n,) show, on the feed's device."""
        return self.pixels.seen(numbers.cpu().numpy(), self.device)

    def counted(self, numbers: Tensor) -> Tensor | None:
        """(n,) bool: which of the pixels `numbers` are not ignored; None where none is."""
        return self.pixels.counted(numbers.cpu().numpy())

    def fingerprint(self) -> str:
        """That of the photographs."""
        return self.photographs.fingerprint()
