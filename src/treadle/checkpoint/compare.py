"""Where two states differ, entry by entry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from treadle.checkpoint.state import State
from treadle.checkpoint.tensorfile import raw_bytes


def differences(first: State, second: State) -> Iterator[str]:
    """Yield a line for each entry that differs: its path and what it is in `first` and `second`.

    Counters and other plain data come before tensors; nothing is yielded for equal digests.
    """
    if first.digest == second.digest:
        return
    yield from _plain(first.values, second.values, "")
    for path in sorted(set(first.tensors) | set(second.tensors)):
        a, b = first.tensors.get(path), second.tensors.get(path)
        if a is None or b is None:
            yield f"{path}: only in the {'second' if a is None else 'first'}"
        elif a.shape != b.shape or a.dtype != b.dtype:
            yield f"{path}: {_kind(a)} and {_kind(b)}"
        elif raw_bytes(a) != raw_bytes(b):
            yield f"{path}: {_how_far(a, b)}"


def _plain(a: Any, b: Any, path: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(set(a) | set(b)):
            where = f"{path}/{key}" if path else str(key)
            if key in a and key in b:
                yield from _plain(a[key], b[key], where)
            else:
                yield f"{where}: only in the {'first' if key in a else 'second'}"
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            yield f"{path}: {len(a)} and {len(b)} entries"
        for index, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from _plain(x, y, f"{path}/{index}")
    elif repr(a) != repr(b):  # 1, 1.0 and True differ, and so do 0.0 and -0.0
        yield f"{path}: {_short(a)} and {_short(b)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _how_far(a: Tensor, b: Tensor) -> str:
    bits = [np.frombuffer(raw_bytes(x), np.uint8).reshape(x.numel(), -1) for x in (a, b)]
    text = f"{int((bits[0] != bits[1]).any(axis=1).sum())} of {a.numel()} entries differ"
    if not a.is_floating_point():
        return text
    apart = (a.cpu().double() - b.cpu().double()).abs()
    return f"{text}, by up to {float(apart[apart.isfinite()].max()):.3g}" if apart.isfinite().any() else text
