"""Whether a trainer's attributes have collected something: what they hold, to compare with what they held before."""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from treadle.checkpoint.packing import Packer
from treadle.checkpoint.tensorfile import raw_bytes
from treadle.engine.ema import EMA
from treadle.engine.events import Hook
from treadle.engine.objective import Objective
from treadle.engine.parts import Parts
from treadle.errors import StateError

MOST = 10_000
"""Entries of a container that are looked at one by one; of more, how many they are."""
_ENGINES_OWN = (nn.Module, torch.optim.Optimizer, Hook, EMA, Objective)


class _Itself:
    """A thing that is the same while it is this object, unchanged: kept, so that no other can take its place."""

    def __init__(self, thing: Any, mark: int) -> None:
        self._thing, self._mark = thing, mark

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self._thing is other._thing and self._mark == other._mark

    __hash__ = None  # type: ignore[assignment]


def collected(parts: Parts) -> dict[str, Any]:
    """What the attributes hold that are data or have a state, those left out that are `transient`, and modules.

    Tensors are not copied, and told by their count of changes: this is cheap.
    """
    return {name: _look(value) for name, value in parts.attributes.items() if name not in parts.transient}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names of what is not as it was, sorted."""
    return sorted(name for name in {**before, **after} if before.get(name) != after.get(name))


def _look(value: Any) -> Any:
    if value is None or isinstance(value, str | int | bytes):
        return value
    if isinstance(value, float | complex | np.generic):
        return repr(value)  # a NaN is not itself otherwise
    if isinstance(value, Tensor):
        return _Itself(value, value._version)
    if isinstance(value, np.ndarray):
        return _Itself(value, zlib.crc32(value.tobytes()) if value.nbytes <= 1 << 20 else 0)
    if isinstance(value, Mapping):
        return len(value) if len(value) > MOST else [(_look(key), _look(item)) for key, item in value.items()]
    if isinstance(value, list | tuple | deque):
        return len(value) if len(value) > MOST else [_look(item) for item in value]
    if isinstance(value, Set):
        return len(value)
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, np.random.Generator):
        return _look(value.bit_generator.state)
    if isinstance(value, random.Random):
        return value.getstate()
    return None if isinstance(value, _ENGINES_OWN) or not hasattr(value, "state_dict") else _state_of(value)


def _state_of(value: Any) -> Any:
    """The state of an object of somebody's own, as numbers."""
    packer = Packer()
    try:
        values = packer.pack(value.state_dict(), "")
    except (StateError, TypeError):
        return None  # the first save says so
    return repr(values), {path: zlib.crc32(raw_bytes(tensor)) for path, tensor in packer.tensors.items()}
