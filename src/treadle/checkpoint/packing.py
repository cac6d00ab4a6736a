"""State as plain data: nested Python values with tensors set aside, exact in both directions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treadle.errors import StateError

Plain = Any
"""JSON data: dict with str keys, list, str, int, finite float, bool, None."""


class Packer:
    """Turns nested values into plain data; their tensors are collected in `tensors` under slash-separated paths.

    What JSON has no word for is written as a dict with one key that begins with "~": "~tensor" and "~array" (a path in
    `tensors`), "~float" (nan, inf, -inf), "~tuple", "~items" (a dict whose keys are not all plain strings).
    Tensors that are the same memory are collected once. One that is dense but not row-major (channels_last) is written
    row-major, and "~tensor" comes with "~strides": fused kernels walk the memory of a parameter and of its moments
    side by side, so both have to come back as they were.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._seen: dict[tuple[Any, ...], str] = {}

    def pack(self, value: Any, path: str) -> Plain:
        """Return `value` as plain data; raises StateError naming `path` for what cannot be saved."""
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float | np.floating):
            number = float(value)
            return number if math.isfinite(number) else {"~float": repr(number)}
        if isinstance(value, np.integer | np.bool_):
            return value.item()
        if isinstance(value, Tensor):
            packed: dict[str, Any] = {"~tensor": self._collect(value.detach(), path)}
            if not value.is_contiguous() and is_dense(value):
                packed["~strides"] = list(value.stride())
            return packed
        if isinstance(value, np.ndarray):
            return {"~array": self._collect(_from_array(value, path), path)}
        if isinstance(value, list):
            return [self.pack(item, f"{path}/{index}") for index, item in enumerate(value)]
        if isinstance(value, tuple):
            return {"~tuple": [self.pack(item, f"{path}/{index}") for index, item in enumerate(value)]}
        if isinstance(value, dict):
            items = {key: self.pack(item, f"{path}/{key}" if path else str(key)) for key, item in value.items()}
            if all(isinstance(key, str) and not key.startswith("~") for key in items):
                return items
            return {"~items": [[self.pack(key, f"{path}/key"), item] for key, item in items.items()]}
        raise StateError(
            f"{path} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be saved: give it "
            "state_dict() and load_state_dict(), or leave it out if it has no state: a trainer names it in `transient`"
        )

    def _collect(self, tensor: Tensor, path: str) -> str:
        if tensor.layout != torch.strided:
            raise StateError(f"{path} is a tensor with layout {tensor.layout}, which cannot be saved: make it dense")
        signs = tensor.is_conj(), tensor.is_neg()
        key = (tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride(), signs)
        if tensor.numel() and key in self._seen:
            return self._seen[key]
        while path in self.tensors:  # {"a/b": x, "a": {"b": y}}
            path += "'"
        self._seen[key] = path
        self.tensors[path] = tensor
        return path


def pack_plain(value: Any, path: str) -> Plain:
    """`value` as plain data without tensors; raises StateError naming `path` for what that cannot hold."""
    packer = Packer()
    packed = packer.pack(value, path)
    if packer.tensors:
        raise StateError(f"{next(iter(packer.tensors))} is a tensor: here only numbers, text and lists can be kept")
    return packed


def is_dense(tensor: Tensor) -> bool:
    """Whether every place of the tensor's memory belongs to one entry: its dimensions are only in another order."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _strided(tensor: Tensor, strides: list[int]) -> Tensor:
    """A copy of a row-major tensor whose memory is in the order of `strides`."""
    if len(strides) != tensor.dim() or not all(isinstance(stride, int) and stride >= 0 for stride in strides):
        raise StateError(f"the checkpoint is damaged: strides {strides} for a tensor of shape {tuple(tensor.shape)}")
    result = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    if not is_dense(result):
        raise StateError(f"the checkpoint is damaged: strides {strides} for a tensor of shape {tuple(tensor.shape)}")
    return result.copy_(tensor)


def _from_array(array: np.ndarray[Any, Any], path: str) -> Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape)
    except TypeError:
        raise StateError(f"{path} is an array of dtype {array.dtype}, which cannot be saved: use numbers") from None


def unpack(value: Plain, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `Packer.pack`; raises StateError for a tensor that is not there."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 2 and set(value) == {"~tensor", "~strides"}:
        return _strided(unpack({"~tensor": value["~tensor"]}, tensors), value["~strides"])
    if len(value) == 1:
        (kind, inner), *_ = value.items()
        if kind in ("~tensor", "~array"):
            if inner not in tensors:
                raise StateError(f"the checkpoint has no tensor {inner!r}")
            return tensors[inner] if kind == "~tensor" else tensors[inner].numpy()
        if kind == "~float":
            return float(inner)
        if kind == "~tuple":
            return tuple(unpack(item, tensors) for item in inner)
        if kind == "~items":
            return {unpack(key, tensors): unpack(item, tensors) for key, item in inner}
    return {key: unpack(item, tensors) for key, item in value.items()}
