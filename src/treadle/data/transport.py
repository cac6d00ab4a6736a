"""How objects travel between the training process and its workers: tensors and arrays as raw bytes beside the message.

torch's own way shares each tensor through a file descriptor, which costs a handshake per tensor, runs out of
descriptors with many, and dies with its sender. Here a batch is copied once through the pipe and then belongs to the
receiver. Only whole large tensors of a dataset are shared, so that workers do not each hold a copy.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor

_SHARE_FROM = 1 << 20
"""Bytes from which a dataset's tensor is put into shared memory."""


class _Packer(ForkingPickler):
    """Writes tensors by value: out of band where `buffers` is a list to put them into, else inside the message."""

    def __init__(self, file: io.BytesIO, buffers: list[Any] | None, share: bool) -> None:
        # Positional: file, protocol, fix_imports, buffer_callback.
        super().__init__(file, 5, True, None if buffers is None else _keep(buffers))
        self._share = share

    def reducer_override(self, value: Any) -> Any:
        """Reduce plain CPU tensors; leave everything else, and tensors to share, to the usual way."""
        if type(value) is not Tensor or value.device.type != "cpu" or value.layout != torch.strided:
            return NotImplemented
        if value.is_quantized or (self._share and value.numel() * value.element_size() >= _SHARE_FROM):
            return NotImplemented
        plain = value.detach().resolve_conj().resolve_neg().contiguous()
        data = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else None
        return _rebuild, (data, plain.dtype, tuple(plain.shape), value.requires_grad)


def _keep(buffers: list[Any]) -> Any:
    return lambda buffer: buffers.append(buffer.raw())  # None is falsy: "serialised out of band"


def _rebuild(data: Any, dtype: torch.dtype, shape: tuple[int, ...], requires_grad: bool) -> Tensor:
    tensor = torch.empty(shape, dtype=dtype)
    if data is not None:
        tensor = torch.from_numpy(data).view(dtype).reshape(shape)
    return tensor.requires_grad_(requires_grad)


def pack_dataset(value: Any) -> bytes:
    """`value` for one worker; large tensors move into shared memory. Raises what pickling raises."""
    file = io.BytesIO()
    _Packer(file, None, share=True).dump(value)
    return file.getvalue()


def unpack_dataset(data: bytes) -> Any:
    """What `pack_dataset` packed; once only, since shared tensors are handed over."""
    return ForkingPickler.loads(data)


def pack(value: Any) -> list[Any]:
    """`value` as pieces to send: the message, then the raw memory of the arrays and tensors in it."""
    file, buffers = io.BytesIO(), list[Any]()
    _Packer(file, buffers, share=False).dump(value)
    return [file.getvalue(), *buffers]


def send(connection: Connection, header: Any, pieces: Sequence[Any]) -> None:
    """Send a header (plain data) and the pieces of `pack`."""
    connection.send((header, [len(piece) for piece in pieces]))
    for piece in pieces:
        if len(piece):
            connection.send_bytes(piece)


def receive(connection: Connection) -> tuple[Any, list[Any]]:
    """Receive what `send` sent: the header and the pieces, each in memory aligned as torch aligns its own."""
    header, sizes = connection.recv()
    pieces = []
    for size in sizes:
        piece = torch.empty(size, dtype=torch.uint8).numpy()
        if size:
            connection.recv_bytes_into(piece.data)
        pieces.append(piece)
    return header, pieces


def unpack(pieces: Iterable[Any]) -> Any:
    """The value of `pieces`; its tensors use the pieces' memory."""
    message, *buffers = pieces
    return ForkingPickler.loads(message.data, buffers=buffers)
