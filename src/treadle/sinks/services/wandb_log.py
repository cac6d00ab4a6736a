"""The transaction log in which W&B's SDK keeps a run (`run-ID.wandb`), read back: what reached it, and what did not."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

BLOCK = 32_768
"""Records are cut at multiples of this, as in LevelDB's log format."""
IDENT = b":W&B"
HEAD = struct.Struct("<IHB")  # checksum, length, and whether this is all of a record or its first, middle, last part
ALL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[bytes]:
    """The records of a log, each a serialised `wandb.proto.wandb_internal_pb2.Record`; ends where the file is cut off.

    Raises ValueError where it is no such file.
    """
    data = path.read_bytes()
    if data[: len(IDENT)] != IDENT:
        raise ValueError(f"{path} is not a transaction log of W&B")
    at, parts = 7, b""  # after the ident, a magic number and a version
    while at + HEAD.size <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEAD.size:
            at += left
            continue
        _, length, kind = HEAD.unpack_from(data, at)
        part = data[at + HEAD.size : at + HEAD.size + length]
        if kind not in (ALL, FIRST, MIDDLE, LAST) or len(part) < length:
            return
        at += HEAD.size + length
        parts = part if kind in (ALL, FIRST) else parts + part
        if kind in (ALL, LAST):
            yield parts


def logged(path: Path) -> tuple[Counter[str], int]:
    """How often each metric was logged, by its name, and how many rows have been: where the next session goes on."""
    from wandb.proto.wandb_internal_pb2 import Record

    names: Counter[str] = Counter()
    rows = 0
    record = Record()
    for data in records(path):
        record.ParseFromString(data)
        if record.HasField("history"):
            # A picture is several items, whose nested keys begin with its name.
            names.update({item.key or item.nested_key[0] for item in record.history.item})
            rows = max(rows, record.history.step.num + 1)
    return names, rows
