"""How a run and the processes that tell its services speak: frames of a JSON head and raw bytes, each of known length.

A frame is two big-endian 32-bit lengths, a head (a JSON object in UTF-8) and a body. To the process go frames whose
head says what to "do": "open", and then "scalars", "picture", "text", "scene", "event", "cut", "artifact", "summary",
"lack", "filled" and "close". Back come heads without a body: {"opened", "mark"}, {"refused"}, {"done"} with how many of
the frames after "open" are carried out, {"trouble", "lost"} and {"closed", "dropped"}.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.files import to_json
from treadle.sinks.services.service import Scene

LENGTHS = struct.Struct(">II")
LONGEST_HEAD = 16 << 20
"""Bytes of a head: a config, a journal entry or a text."""
LONGEST_BODY = 1 << 30
"""Bytes of a body: a picture, or a scene."""
LONGEST_REPLY = 1 << 20

Head = dict[str, Any]

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Garbled(ValueError):
    """What came is no frame."""


def head_bytes(head: Mapping[str, Any]) -> bytes:
    """A head as it is sent. NaN and infinities become the texts that `treadle.files.number` reads."""
    try:
        text = _ENCODER.encode(head)
    except (TypeError, ValueError):
        text = to_json(head)
    return text.encode(errors="backslashreplace")


def frame(head: bytes, body: bytes | memoryview = b"") -> Iterator[bytes | memoryview]:
    """The pieces of a frame. Raises Garbled for one that is longer than frames may be."""
    if len(head) > LONGEST_HEAD or len(body) > LONGEST_BODY:
        raise Garbled(f"{len(head) + len(body)} bytes are more than can be sent at once")
    yield LENGTHS.pack(len(head), len(body)) + head
    if body:
        yield body


class Reader:
    """Puts frames together from the bytes that come; a frame longer than `head` and `body` bytes raises Garbled."""

    def __init__(self, head: int = LONGEST_HEAD, body: int = LONGEST_BODY) -> None:
        self._most = head, body
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Head, bytes]]:
        """Take in `data`; gives the frames that are whole with it."""
        self._held += data
        while len(self._held) >= LENGTHS.size:
            head, body = LENGTHS.unpack_from(self._held)
            if head > self._most[0] or body > self._most[1]:
                raise Garbled(f"a frame of {head} and {body} bytes")
            end = LENGTHS.size + head + body
            if len(self._held) < end:
                return
            raw = bytes(self._held[LENGTHS.size : end])
            del self._held[:end]
            try:
                read = json.loads(raw[:head])
            except (ValueError, RecursionError):
                raise Garbled("a head that is no JSON") from None
            if not isinstance(read, dict):
                raise Garbled("a head that is no object")
            yield read, raw[head:]


def pack_picture(picture: NDArray[np.uint8]) -> tuple[Head, memoryview]:
    """What a frame says of a picture (H, W, C), and its bytes."""
    return {"shape": list(picture.shape)}, memoryview(np.ascontiguousarray(picture).reshape(-1).data)


def unpack_picture(head: Mapping[str, Any], body: bytes) -> NDArray[np.uint8]:
    """The picture of a frame."""
    return np.frombuffer(body, np.uint8).reshape(head["shape"]).copy()


_TYPES = {"<f4": np.float32, "<f8": np.float64, "|u1": np.uint8, "<i4": np.int32, "<i8": np.int64}


def pack_scene(scene: Scene) -> tuple[Head, memoryview]:
    """What a frame says of a scene, and the bytes of its arrays, one after the other."""
    said: list[list[Any]] = []
    parts: list[bytes] = []
    for field in fields(Scene):
        value = getattr(scene, field.name)
        if value is not None:
            array = np.ascontiguousarray(value, _TYPES[_DTYPES[field.name]])
            said.append([field.name, list(array.shape)])
            parts.append(array.astype(_DTYPES[field.name], copy=False).tobytes())
    return {"arrays": said}, memoryview(b"".join(parts))


def unpack_scene(head: Mapping[str, Any], body: bytes) -> Scene:
    """The scene of a frame."""
    arrays: dict[str, NDArray[Any]] = {}
    offset = 0
    for name, shape in head["arrays"]:
        kind = np.dtype(_DTYPES[name])
        count = math.prod(shape)
        arrays[name] = np.frombuffer(body, kind, count, offset).reshape(shape).copy()
        offset += count * kind.itemsize
    return Scene(**arrays)


_DTYPES = {
    "points": "<f4",
    "colors": "|u1",
    "radii": "<f4",
    "scales": "<f4",
    "rotations": "<f4",
    "lines": "<f4",
    "line_colors": "|u1",
    "offsets": "<i8",
    "vertices": "<f4",
    "faces": "<i4",
    "vertex_colors": "|u1",
    "boxes": "<f4",
    "poses": "<f8",
    "intrinsics": "<f8",
}
"""The types of a scene's arrays, as they are sent."""
