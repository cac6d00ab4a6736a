"""Makes `data_cases` importable, here and in spawned workers (which inherit sys.path)."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def untouched_generators() -> Iterator[None]:
    """No feed may touch the global generators: checked around every test of this folder."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    python, cpu = random.getstate(), torch.get_rng_state()
    numpy_key = np.random.get_state()[1].tolist()
    yield
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), cpu)
    assert np.random.get_state()[1].tolist() == numpy_key
