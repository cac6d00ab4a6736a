"""State as plain data: nested Python values with tensors set aside, exact in both directions."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum, Flag
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter, is_lazy

from treadle.checkpoint.kinds import Kinds, field_values, filled, is_named_tuple, member
from treadle.errors import StateError

Plain = Any
"""JSON data: dict with str keys, list, str, int, finite float, bool, None."""


_NUMPY = {
    kind.__name__: kind
    for kind in (
        *(np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
        *(np.float16, np.float32, np.float64, np.complex64, np.complex128, np.str_),
    )
}
"""NumPy's scalars by name."""
_FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (bool, int, float, complex, str, list, tuple, dict)}
"""What a defaultdict that can be saved makes its entries with, besides a Counter, an OrderedDict and nothing."""
_FACTORIES |= {"Counter": Counter, "OrderedDict": OrderedDict, "deque": deque}
_PATHS = {kind.__name__: kind for kind in (PurePath, PurePosixPath, PureWindowsPath)}


class Packer:
    """Turns nested values into plain data; their tensors are collected in `tensors` under slash-separated paths.

    What JSON has no word for is written as a dict with one key that begins with "~": "~tensor" and "~array" (a path in
    `tensors`), "~float" (nan, inf, -inf), "~tuple", "~items" (a dict whose keys are not all plain strings), and so on
    for each type that `pack` knows. Everything comes back as the type that it was.

    Tensors that are the same memory are collected once. One that is not row-major (channels_last, every second column)
    is written row-major, and "~tensor" comes with "~strides": fused kernels walk the memory of a parameter and of its
    moments side by side, and a sum over other strides is added up in another order.

    Args:
        kinds: names the classes of the program's own data.
    """

    def __init__(self, kinds: Kinds | None = None) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._kinds = kinds or Kinds()
        self._seen: dict[tuple[Any, ...], str] = {}

    def pack(self, value: Any, path: str) -> Plain:
        """Return `value` as plain data; raises StateError naming `path` for what cannot be saved."""
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is int:
            return value
        if kind is float:
            return value if math.isfinite(value) else {"~float": repr(value)}
        if kind is list:
            return [self.pack(item, f"{path}/{index}") for index, item in enumerate(value)]
        if kind is dict:
            items = {key: self.pack(item, f"{path}/{key}" if path else str(key)) for key, item in value.items()}
            if all(type(key) is str and not key.startswith("~") for key in items):
                return items
            return {"~items": [[self.pack(key, f"{path}/key"), item] for key, item in items.items()]}
        if kind is tuple:
            return {"~tuple": self._each(value, path)}
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if kind is np.ndarray:
            return self._array(value, path)
        packed = self._rarer(value, path)
        if packed is not None:
            return packed
        raise StateError(
            f"{path} is a {kind.__module__}.{kind.__qualname__}, which cannot be saved: give it "
            "state_dict() and load_state_dict(), or leave it out if it has no state: a trainer names it in `transient`"
        )

    def _rarer(self, value: Any, path: str) -> Plain:
        """What has a mark of its own; None for a type that has none."""
        kind = type(value)
        if isinstance(value, np.generic) and _NUMPY.get(kind.__name__) is kind:
            return {"~numpy": [kind.__name__, self.pack(value.item(), path)]}
        if isinstance(value, Enum):
            called = int(value.value) if isinstance(value, Flag) else value.name
            return {"~enum": [self._kinds.name(kind, path), called]}
        if kind is complex:
            return {"~complex": [self.pack(value.real, path), self.pack(value.imag, path)]}
        if kind is bytes:
            return {"~bytes": value.hex()}
        if kind is torch.Size:
            return {"~size": list(value)}
        if kind is torch.dtype:
            return {"~dtype": str(value).removeprefix("torch.")}
        if kind is torch.device:
            return {"~device": str(value)}
        if isinstance(value, PurePath):
            name = "Path" if isinstance(value, Path) else kind.__name__
            return {"~path": [name, str(value)]} if name == "Path" or name in _PATHS else None
        if kind is deque:
            return {"~deque": [value.maxlen, self._each(value, path)]}
        if kind is OrderedDict:
            return {"~ordered": self._pairs(value, path)}
        if kind is Counter:
            return {"~counter": self._pairs(value, path)}
        if kind is defaultdict:
            return {"~default": [self._factory(value.default_factory, path), self._pairs(value, path)]}
        if is_named_tuple(kind):
            return {"~named": [self._kinds.name(kind, path), self._each(value, path)]}
        inside = field_values(value)
        if inside is not None:
            name = self._kinds.name(kind, path)
            return {"~fields": [name, {key: self.pack(item, f"{path}/{key}") for key, item in inside.items()}]}
        return None

    def _each(self, values: Iterable[Any], path: str) -> list[Plain]:
        return [self.pack(item, f"{path}/{index}") for index, item in enumerate(values)]

    def _pairs(self, value: Mapping[Any, Any], path: str) -> list[Plain]:
        return [[self.pack(key, f"{path}/key"), self.pack(item, f"{path}/{key}")] for key, item in value.items()]

    def _factory(self, factory: Any, path: str) -> str | None:
        name = getattr(factory, "__name__", None)
        if factory is not None and (name is None or _FACTORIES.get(name) is not factory):
            raise StateError(
                f"{path} is a defaultdict that makes its entries by {name or factory!r}, which cannot be saved: "
                f"use one of {', '.join(_FACTORIES)}, or a dict and its setdefault()"
            )
        return name

    def _tensor(self, tensor: Tensor, path: str) -> Plain:
        if is_lazy(tensor):
            return {"~uninitialized": str(tensor.dtype).removeprefix("torch.")}
        value = tensor.detach()
        if value.layout == torch.sparse_coo:
            parts = {"indices": value._indices(), "values": value._values(), "shape": list(value.shape)}
            return {"~sparse": self.pack(parts | {"coalesced": value.is_coalesced()}, path)}
        packed: dict[str, Any] = {"~tensor": self._collect(value, path)}
        if not value.is_contiguous() or (1 in value.shape and value.stride() != _row_major(value.shape)):
            packed["~strides"] = list(value.stride())
        return packed

    def _array(self, array: np.ndarray[Any, Any], path: str) -> Plain:
        turned = array.flags.f_contiguous and not array.flags.c_contiguous  # as all that are made by `.T`
        packed: dict[str, Any] = {"~array": self._collect(_from_array(array.T if turned else array, path), path)}
        return packed | ({"~turned": True} if turned else {})

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


def tensor_paths(value: Plain) -> Iterator[str]:
    """The paths of the tensors that are named in plain data that `Packer.pack` gave."""
    if isinstance(value, list):
        for item in value:
            yield from tensor_paths(item)
    elif isinstance(value, dict):
        path = value.get("~tensor", value.get("~array"))
        if isinstance(path, str):
            yield path
        else:
            for item in value.values():
                yield from tensor_paths(item)


def is_dense(tensor: Tensor) -> bool:
    """Whether every place of the tensor's memory belongs to one entry: its dimensions are only in another order."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a new tensor. Others of a dimension of size 1 lead nowhere, but choose memory formats."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(size, 1))
    return tuple(reversed(strides))


def _strided(tensor: Tensor, strides: list[int]) -> Tensor:
    """A copy of a row-major tensor whose entries lie in memory as `strides` say: with gaps, or several in one place."""
    damaged = StateError(f"the checkpoint is damaged: strides {strides} for a tensor of shape {tuple(tensor.shape)}")
    if len(strides) != tensor.dim() or not all(type(stride) is int and stride >= 0 for stride in strides):
        raise damaged
    try:
        result = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    except RuntimeError as error:  # no memory has room for it
        raise damaged from error
    if is_dense(result):
        return result.copy_(tensor)
    places = torch.zeros((), dtype=torch.int64)
    for stride, size in zip(strides, tensor.shape, strict=True):
        places = places.unsqueeze(-1) + torch.arange(size) * stride
    flat = result.as_strided((result.untyped_storage().nbytes() // result.element_size(),), (1,))
    flat[places.reshape(-1)] = tensor.reshape(-1)  # where several are in one place they are equal
    return result


def _from_array(array: np.ndarray[Any, Any], path: str) -> Tensor:
    whole = np.ascontiguousarray(array)
    try:
        return torch.from_numpy(whole if whole.flags.writeable else whole.copy()).reshape(array.shape)
    except TypeError:
        raise StateError(f"{path} is an array of dtype {array.dtype}, which cannot be saved: use numbers") from None


def unpack(value: Plain, tensors: Mapping[str, Tensor], kinds: Kinds | None = None) -> Any:
    """The inverse of `Packer.pack`; raises StateError for a tensor, or a class of data, that is not there."""
    if isinstance(value, list):
        return [unpack(item, tensors, kinds) for item in value]
    if not isinstance(value, dict):
        return value
    if "~tensor" in value or "~array" in value:
        if len(value) == 1 or set(value) in ({"~tensor", "~strides"}, {"~array", "~turned"}):
            return _stored(value, tensors)
    elif len(value) == 1:
        ((kind, inner),) = value.items()
        if kind in _UNPACKED:
            # Of a dict and its keys the marks are its own, not those of the value that it is.
            parts = inner if kind in _NO_VALUES else unpack(inner, tensors, kinds)
            try:
                return _UNPACKED[kind](parts, kinds or Kinds())
            except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
                raise StateError(f"the checkpoint is damaged: {kind} of {str(inner)[:60]!r}") from error
    return {key: unpack(item, tensors, kinds) for key, item in value.items()}


_NO_VALUES = frozenset({"~float", "~size", "~dtype", "~device", "~path", "~uninitialized", "~bytes"})
"""Marks of what holds no other values."""


def _of_torch(name: str) -> torch.dtype:
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise TypeError(name)
    return found


def _uninitialized(dtype: torch.dtype) -> Tensor:
    make: Any = UninitializedParameter
    made: Tensor = make(requires_grad=False, dtype=dtype)
    return made


def _sparse(parts: dict[str, Any]) -> Tensor:
    made = torch.sparse_coo_tensor(parts["indices"], parts["values"], parts["shape"], check_invariants=True)
    return made._coalesced_(parts["coalesced"])


_UNPACKED: dict[str, Callable[[Any, Kinds], Any]] = {
    "~float": lambda text, _: float(text),
    "~tuple": lambda items, _: tuple(items),
    "~items": lambda pairs, _: dict(pairs),
    "~numpy": lambda pair, _: _NUMPY[pair[0]](pair[1]),
    "~enum": lambda pair, kinds: member(kinds.find(pair[0]), pair[1]),
    "~complex": lambda pair, _: complex(*pair),
    "~bytes": lambda text, _: bytes.fromhex(text),
    "~size": lambda sizes, _: torch.Size(sizes),
    "~dtype": lambda name, _: _of_torch(name),
    "~device": lambda name, _: torch.device(name),
    "~path": lambda pair, _: (Path if pair[0] == "Path" else _PATHS[pair[0]])(pair[1]),
    "~deque": lambda pair, _: deque(pair[1], pair[0]),
    "~ordered": lambda pairs, _: OrderedDict(pairs),
    "~counter": lambda pairs, _: Counter(dict(pairs)),
    "~default": lambda pair, _: defaultdict(None if pair[0] is None else _FACTORIES[pair[0]], pair[1]),
    "~named": lambda pair, kinds: filled(kinds.find(pair[0]), pair[1]),
    "~fields": lambda pair, kinds: filled(kinds.find(pair[0]), pair[1]),
    "~sparse": lambda parts, _: _sparse(parts),
    "~uninitialized": lambda name, _: _uninitialized(_of_torch(name)),
}
"""How what has a mark is made again, from what is in it and the classes of the program's own data."""


def _stored(value: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    path: Any = value.get("~tensor", value.get("~array"))
    if path not in tensors:
        raise StateError(f"the checkpoint has no tensor {path!r}")
    if "~array" in value:
        array = tensors[path].numpy()
        return array.T if "~turned" in value else array
    return _strided(tensors[path], value["~strides"]) if "~strides" in value else tensors[path]
