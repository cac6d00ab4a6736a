"""Messages as they go over the WebSocket: JSON as text, or a header line of JSON and raw bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from treadle.errors import UsageError, message
from treadle.studio.protocol import Binary, FromClient, FromStudio, Message

_encoder = msgspec.json.Encoder(enc_hook=lambda value: _plain(value))
_from_client = msgspec.json.Decoder(FromClient)
_from_studio = msgspec.json.Decoder(FromStudio)
_binary = msgspec.json.Decoder(Binary)


class _Id(msgspec.Struct):
    """What is read of a message that cannot be: which request its refusal answers."""

    id: int = 0


_id = msgspec.json.Decoder(_Id)


def encode(told: Message) -> str:
    """A message as text; NaN and infinity become null."""
    return _encoder.encode(told).decode()


def pack(header: Message, *parts: bytes | memoryview) -> bytes:
    """A binary message: the header as a line of JSON, then the parts one after the other."""
    return b"".join([_encoder.encode(header), b"\n", *parts])


def from_client(text: str | bytes) -> Message:
    """What a client says. Raises UsageError for what is no message of the protocol."""
    return _decoded(_from_client, text)


def from_studio(text: str | bytes) -> Message:
    """What a studio says in text."""
    return _decoded(_from_studio, text)


def unpack(data: bytes) -> tuple[Any, memoryview]:
    """Header and bytes of a binary message."""
    end = data.index(b"\n")
    return _decoded(_binary, data[:end]), memoryview(data)[end + 1 :]


def id_of(text: str | bytes) -> int:
    """The id of a request that is not understood; 0 where it has none."""
    try:
        number = _id.decode(text).id
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return 0
    return number if 0 <= number < 2**53 else 0


def _decoded(decoder: msgspec.json.Decoder[Any], text: str | bytes) -> Any:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise UsageError(f"not understood: {message(error)[:300]}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # a NumPy or torch scalar
        return value.item()
    if isinstance(value, Iterable):
        return list(value)
    raise UsageError(f"a {type(value).__name__} is no plain data")
