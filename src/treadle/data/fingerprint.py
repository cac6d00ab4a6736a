"""Fingerprints: SHA-256 over what identifies data, so that a resumed run notices data that changed.

Of data that is an object its class counts, by a name that survives a move to another module: its `data_kind`, a string
that a class may declare, or else its own name. A class that is renamed keeps its fingerprint by declaring the old name.

Version 0.1.0 took the module's name, too; the fingerprints in its runs are told by `older_fingerprints`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_CHUNK = 1 << 24
"""Bytes made contiguous and hashed at a time."""

_PROBES = 8
"""Samples of a dataset that enter its fingerprint."""

_OURS = {name: f"treadle.gans.images.{name}" for name in ("PairedImages", "UnpairedImages")}
"""The kinds of our own datasets: their names in version 0.1.0, wherever they are today."""

Naming = Callable[[Any], str]
"""What the class of a value is called in a fingerprint."""


def stable_name(value: Any) -> str:
    """The `data_kind` that the class of `value` declares, or its name (of a function: its own) without the module."""
    kind = _kind(value)
    declared = getattr(kind, "data_kind", None)
    if isinstance(declared, str):
        return declared
    name: str = kind.__qualname__
    return _OURS.get(name, name) if _module(kind).startswith("treadle.") else name


def _module(kind: Any) -> str:
    return getattr(kind, "__module__", None) or ""  # a generator has a name but no module


def _kind(value: Any) -> Any:
    return value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)


class Fingerprint:
    """A SHA-256 that takes tensors, arrays, numbers, text and containers of them, each with its type and shape."""

    def __init__(self, naming: Naming = stable_name) -> None:
        self._hash, self._naming = hashlib.sha256(), naming

    def add(self, value: Any) -> Fingerprint:
        """Take in `value`. Of an object of another kind only its class counts (unless it converts to an array)."""
        if isinstance(value, Tensor):
            self._label(f"tensor {value.dtype} {tuple(value.shape)}")
            self._tensor(value.detach())
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            self._label(f"array {value.dtype.str} {value.shape}")
            self._hash.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        elif value is None or isinstance(value, str | bool | int | float | complex | bytes | np.generic):
            self._label(f"{type(value).__name__} {value!r}")
        elif isinstance(value, Mapping):
            self._label(f"mapping {len(value)}")
            for key, entry in value.items():
                self.add(key).add(entry)
        elif isinstance(value, tuple | list):
            self._label(f"sequence {len(value)}")
            for entry in value:
                self.add(entry)
        elif hasattr(value, "__array_interface__"):
            self.add(np.asarray(value))
        else:
            self._label(self._naming(value))
        return self

    def hexdigest(self) -> str:
        """The digest of everything taken in so far, 64 hex digits."""
        return self._hash.hexdigest()

    def _label(self, text: str) -> None:
        data = text.encode()
        self._hash.update(len(data).to_bytes(8, "little") + data)

    def _tensor(self, tensor: Tensor) -> None:
        if tensor.layout != torch.strided or tensor.is_quantized:
            tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor.dequantize()
        flat = tensor.reshape(1) if tensor.dim() == 0 else tensor
        row = max(1, flat[:1].numel() * flat.element_size())
        # Row by row in large pieces: a tensor that is not contiguous or on a GPU is never copied whole.
        for piece in torch.split(flat, max(1, _CHUNK // row)):
            if piece.numel():
                host = piece.cpu().resolve_conj().resolve_neg().contiguous()
                self._hash.update(host.reshape(-1).view(torch.uint8).numpy().data)


def identify(data: Any, naming: Naming = stable_name) -> str:
    """The fingerprint of an object: what its `fingerprint()` says, hashed with its class; without one, its class."""
    digest = Fingerprint(naming).add(naming(data))
    method = getattr(data, "fingerprint", None)
    return (digest.add(str(method())) if callable(method) else digest).hexdigest()


def older_fingerprints(data: Any, make: Callable[[Naming], str]) -> Iterator[str]:
    """What `make` would have given in version 0.1.0, where classes had their module's name.

    A script's module is called `__main__` while it runs and by its file's name when it is imported: a run begun one way
    goes on the other way.
    """
    module, main = _module(_kind(data)), sys.modules.get("__main__")
    known = [module, "__main__"]
    if module == "__main__" and main is not None:
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        known += [spec.name] if spec is not None else [Path(file).stem] if file else []
    for name in dict.fromkeys(known):
        yield make(lambda value, name=name: _full_name(value, {module: name}))  # type: ignore[misc]


def _full_name(value: Any, modules: Mapping[str, str]) -> str:
    kind = _kind(value)
    declared = getattr(kind, "data_kind", None)
    name = declared if isinstance(declared, str) else kind.__qualname__
    return f"{modules.get(_module(kind), _module(kind))}.{name}"


def probes(n: int) -> list[int]:
    """The indices that stand for all `n` samples of a dataset: the ends and some between, always the same."""
    inner = np.random.Generator(np.random.PCG64(n)).integers(0, n, size=_PROBES - 2)
    return sorted({0, n - 1, *inner.tolist()})
