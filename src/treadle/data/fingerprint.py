"""Fingerprints: SHA-256 over what identifies data, so that a resumed run notices data that changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_CHUNK = 1 << 24
"""Bytes made contiguous and hashed at a time."""

_PROBES = 8
"""Samples of a dataset that enter its fingerprint."""


class Fingerprint:
    """A SHA-256 that takes tensors, arrays, numbers, text and containers of them, each with its type and shape."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

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
            self._label(class_name(value))
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


def class_name(value: Any) -> str:
    """The full name of the class of `value` (of a function: its own)."""
    kind = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def own_fingerprint(data: Any) -> str | None:
    """What `data.fingerprint()` says, hashed with its class, or None where it has no such method."""
    method = getattr(data, "fingerprint", None)
    if not callable(method):
        return None
    return Fingerprint().add(class_name(data)).add(str(method())).hexdigest()


def probes(n: int) -> list[int]:
    """The indices that stand for all `n` samples of a dataset: the ends and some between, always the same."""
    inner = np.random.Generator(np.random.PCG64(n)).integers(0, n, size=_PROBES - 2)
    return sorted({0, n - 1, *inner.tolist()})
