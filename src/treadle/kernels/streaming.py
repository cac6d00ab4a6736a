"""Copying large tensors past the caches: what a snapshot costs is what memory costs.

An ordinary store first reads the line that it will overwrite. A non-temporal one does not, which saves a third of the
traffic of a large copy (and would cost a small one its place in the cache): 56 ms per GB instead of 85 on one thread.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from treadle.kernels import threads

LARGE = 4_000_000
"""Bytes from which a tensor is streamed; below, its copy may fit in a cache, and nothing needs compiling."""
LINE = 64
"""Bytes of a cache line; what is streamed begins at a multiple of it."""


def copy(target: Tensor, source: Tensor) -> Tensor:
    """`target.copy_(source)`, with the same result, quicker where both are large and lie in CPU memory."""
    if can_stream(target) and can_stream(source) and target.dtype == source.dtype and target.shape == source.shape:
        size = target.nbytes
        threads.launch(_kernel(), threads.parts_for(size // LINE), target.data_ptr(), source.data_ptr(), size)
        return target
    return target.copy_(source)


def prepare() -> None:
    """Compile what `copy` needs, on the calling thread alone."""
    memory = torch.zeros(4 * LINE, dtype=torch.uint8)
    start = -memory.data_ptr() % LINE
    threads.launch(_kernel(), 1, memory.data_ptr() + start, memory.data_ptr() + 2 * LINE, LINE)


def can_stream(tensor: Tensor) -> bool:
    """Whether `tensor` is large, contiguous, in CPU memory and plainly readable there."""
    return (
        tensor.device.type == "cpu"
        and tensor.nbytes >= LARGE
        and tensor.is_contiguous()
        and tensor.data_ptr() % LINE == 0
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


@lru_cache
def _kernel() -> Any:
    """Compiled at the first large copy, and kept on disk: importing this module costs nothing."""
    from treadle.kernels.streaming_loops import stream

    return stream
