"""TensorBoard's event files: written record by record, each whole the moment it is written, and read back."""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import CRC_TABLE

from treadle.files import cannot_write

PREFIX = "events.out.tfevents."
VERSION = "brain.Event:2"
LANES = 256
"""Parts of a large record whose checksums are computed side by side."""


class EventFile:
    """A new event file in `directory`, read after those that are there already.

    Nothing waits in memory, so a killed process loses no event that it has written. (The package's own writer hands
    them to a thread that writes every so many seconds.)

    Args:
        directory: is made where it is not there.
        purge_step: readers forget what older files in the directory say of this step and later ones; None forgets
            nothing.

    Raises:
        RunError: the disk refuses it.
    """

    def __init__(self, directory: Path, purge_step: int | None = None) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # Files are read in the order of their names: a clock that stands still or goes back must not change it.
            stamp = max([int(time.time()), *(_stamp(path) + 1 for path in event_files(directory))])
            self.path = directory / f"{PREFIX}{stamp:010d}.treadle.{os.getpid()}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise cannot_write(directory, error) from error
        self.add(Event(wall_time=time.time(), file_version=VERSION))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            for _ in range(2):  # of those in all files TensorBoard's page passes over the first
                self.add(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def add(self, event: Event) -> None:
        """Write an event. Raises RunError where the disk refuses it, with the file as it was before."""
        data = event.SerializeToString()
        record = b"".join((_head(len(data)), data, _masked_sum(data)))
        try:
            written = os.write(self._descriptor, record)
            if written < len(record):  # a disk that fills takes the beginning
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def add_scalars(self, step: int, values: Mapping[str, float], split: str, at: float) -> None:
        """Write numbers, tagged "split/name"; to fill one message takes less than half the time of nested ones."""
        event = Event(wall_time=at, step=step)
        event.summary.SetInParent()
        add = event.summary.value.add
        for name, value in values.items():
            add(tag=f"{split}/{name}", simple_value=value)
        self.add(event)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def event_files(directory: Path) -> list[Path]:
    """The event files in a directory, in the order in which they are read."""
    return sorted(path for path in directory.glob(f"{PREFIX}*") if path.is_file())


def newest(directory: Path) -> tuple[int, float]:
    """The last step of which the event files in a directory say something, -1 where none does, and the time of that."""
    step, at = -1, 0.0
    for path in event_files(directory):
        for event in read_events(path):
            if event.session_log.status == SessionLog.START:
                step = min(step, event.step - 1)
            elif event.HasField("summary"):
                step, at = max(step, event.step), max(at, event.wall_time)
    return step, at


def read_events(path: Path) -> Iterator[Event]:
    """The events of a file up to its end, or to where it was torn."""
    with open(path, "rb") as file:
        while len(head := file.read(12)) == 12:
            size = struct.unpack("<Q", head[:8])[0]
            if size > os.fstat(file.fileno()).st_size:
                return
            record = file.read(size + 4)
            if len(record) < size + 4:
                return
            try:
                yield Event.FromString(record[:size])
            except Exception:  # protobuf's own DecodeError, which differs with its backend
                return


def _stamp(path: Path) -> int:
    digits = path.name.removeprefix(PREFIX).partition(".")[0]
    return int(digits) if digits.isdecimal() and len(digits) == 10 else 0


@lru_cache(maxsize=256)  # records of scalars have few lengths
def _head(length: int) -> bytes:
    """What a record of so many bytes begins with: their number, and its checksum."""
    packed = struct.pack("<Q", length)
    return packed + _masked_sum(packed)


def _masked_sum(data: bytes) -> bytes:
    """A checksum as the format has it. The package's own takes 0.1 s for a picture of a megabyte: not so here."""
    value = _crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc32c(data: bytes) -> int:
    """CRC-32C: of large data most of it at once, of others byte by byte."""
    value, table = 0xFFFFFFFF, CRC_TABLE
    if len(data) >= 64 * LANES:
        value = _by_lanes(data, value)
        data = data[len(data) // LANES * LANES :]
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _by_lanes(data: bytes, value: int) -> int:
    """A checksum after `data`, but for the few bytes that `LANES` does not divide.

    Equal parts go through the table together, and then one after the other into the whole: a checksum goes through
    zeros linearly, so what a part's length of them does to each of its 32 bits is computed along, as 32 lanes more.
    """
    length = len(data) // LANES
    table = np.array(CRC_TABLE, np.uint32)
    columns: NDArray[np.uint8] = np.zeros((length, LANES + 32), np.uint8)
    columns[:, :LANES] = np.frombuffer(data, np.uint8, length * LANES).reshape(LANES, length).T
    state = np.concatenate([np.zeros(LANES, np.uint32), np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))])
    for column in columns:
        state = table[(state ^ column) & 0xFF] ^ (state >> 8)
    after_zeros = state[LANES:].tolist()
    for part in state[:LANES].tolist():
        value = part ^ _xor(moved for bit, moved in enumerate(after_zeros) if value >> bit & 1)
    return value


def _xor(values: Iterable[int]) -> int:
    result = 0
    for value in values:
        result ^= value
    return result
