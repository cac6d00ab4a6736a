"""Named tensors as the bytes of a safetensors file, made piece by piece: to write, to hash, or both in one pass.

The format is safetensors' (https://github.com/huggingface/safetensors#format): the header's length as 8 bytes little
endian, a JSON header, then the tensors. The library's own writer first copies every tensor to a `bytes` object while
holding the interpreter; here the memory of the tensors is handed on as it is. Reading is left to the library.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from treadle.errors import StateError
from treadle.files import read_regular

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
PIECE = 8 << 20
"""Bytes per piece: small enough to stay in the cache between being hashed and being written."""


def pieces(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """Yield the file's bytes. The order (larger entries first, then by name) makes equal tensors equal bytes.

    `metadata` is text by name, which the format keeps beside the tensors; by default there is none.

    Raises StateError for a dtype that the format does not have.
    """
    check_dtypes(tensors)
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name in order:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        data = raw_bytes(tensors[name])
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, on the CPU. Raises OSError, and SafetensorError for a damaged one."""
    from safetensors.torch import load, load_file

    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:  # the library opens no file by such a name
        return load(read_regular(path))
    return load_file(path)


def check_dtypes(tensors: Mapping[str, Tensor]) -> None:
    """Raise StateError naming the first tensor of a dtype that the format does not have."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise StateError(f"{name} has dtype {tensor.dtype}, which a checkpoint cannot hold: convert it")


def raw_bytes(tensor: Tensor) -> memoryview:
    """The memory of a tensor in row-major order, as bytes."""
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data) if flat.numel() else memoryview(b"")


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of the file that `pieces` gives, without writing it."""
    sha = hashlib.sha256()
    for piece in pieces(tensors):
        sha.update(piece)
    return sha.hexdigest()
