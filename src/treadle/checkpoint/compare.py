"""Where two states differ, entry by entry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
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
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _plain(x, y, f"{path}/{index}")
    elif a != b or type(a) is not type(b):
        yield f"{path}: {_short(a)} and {_short(b)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _how_far(a: Tensor, b: Tensor) -> str:
    a, b = a.cpu(), b.cpu()
    different = ~((a == b) | (a.isnan() & b.isnan())) if a.is_floating_point() else a != b
    count = int(different.sum())
    if not a.is_floating_point() or not count:
        return f"{max(count, 1)} of {a.numel()} entries differ"
    largest = float(torch.nan_to_num((a.double() - b.double()).abs()).max())
    return f"{count} of {a.numel()} entries differ, by up to {largest:.3g}"
