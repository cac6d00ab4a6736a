"""Randomness of samples: seeds for one sample at a time, with the program's own global generators left untouched."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from treadle.data import numpy_stream
from treadle.data.sampler import derive_seed

# Global generators can serve one scope at a time: feeds of trainers in other threads wait for this one.
_lock = threading.RLock()
# NumPy generators to lend to scopes (one, unless scopes are nested): to make one costs 100 us.
_spare: list[numpy_stream.MT19937] = []


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """The seed of everything random about sample `index` in `epoch`."""
    return derive_seed(seed, "sample", epoch, index)


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of sample `index` in `epoch`: the same in every process, another in every epoch."""
    return np.random.Generator(np.random.PCG64(sample_seed(seed, epoch, index)))


@contextmanager
def scoped_generators() -> Iterator[None]:
    """Inside, the global generators of Python, NumPy and torch (CPU) may be seeded and used; afterwards they are back.

    Another thread that draws from the global generators meanwhile draws from the scope: with several trainers in
    threads, give datasets `sample(index, rng)`, which needs no scope.
    """
    with _lock:
        python, cpu = random.getstate(), torch.get_rng_state()
        # Exchanging NumPy's stream is 30 times faster than reading and writing its state.
        lent = _spare.pop() if _spare else numpy_stream.MT19937(0)
        outside = numpy_stream.exchange((lent, None))
        try:
            yield
        finally:
            random.setstate(python)
            numpy_stream.exchange(outside)
            torch.set_rng_state(cpu)
            _spare.append(lent)


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (CPU); only inside `scoped_generators`."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)
