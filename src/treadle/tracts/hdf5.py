"""HDF5 files as this pack reads and writes them: one handle per process, few rows in few reads, whole or not at all."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from treadle.errors import RunError, UsageError
from treadle.files import reason
from treadle.tracts.extras import extra, why

Version = tuple[int, int]
"""Which version of a file it is: its size in bytes, and when it was last written, in ns."""

_handles: dict[tuple[Path, Version], tuple[int, Any]] = {}
_gate = threading.Lock()


def _after_fork() -> None:
    global _gate
    _gate = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def version(path: Path) -> Version:
    """The version of a file that is there now. Raises UsageError where none is."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def handle(path: Path, known: Version) -> Any:
    """The open `h5py.File` of this process, for reading, of that version of a file.

    A handle that was there before a fork is never used after it: the child opens the file anew. Raises UsageError,
    naming the file, where it is not there, cut off, no HDF5, or another version by now.
    """
    with _gate:
        process, file = _handles.get((path, known), (0, None))
        if process == os.getpid():
            return file
        if file is not None:
            file.close()
            del _handles[path, known]
        h5py = extra("h5py", "reading prepared data")
        if version(path) != known:
            raise UsageError(f"{path} has been written anew since it was opened: begin again")
        try:
            file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise UsageError(f"{path} cannot be read as HDF5: {why(error)}") from None
        _handles[path, known] = (os.getpid(), file)
        return file


def close_handles() -> None:
    """Close the files that this process has open for reading; the next look at one opens it again."""
    with _gate:
        for process, file in _handles.values():
            if process == os.getpid():
                file.close()
        _handles.clear()


def rows(dataset: Any, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rows `starts[k]` to `starts[k] + lengths[k]` of a dataset (n, ...), for each k in turn, one after the other.

    Of a dataset that lies in the file in one piece, as `create_dataset(data=...)` writes it, only their bytes are read,
    without HDF5's slow ways. Raises UsageError where the file ends before them.
    """
    total = int(lengths.sum())
    found = np.empty((total, *dataset.shape[1:]), dataset.dtype)
    if total == 0:
        return found
    ends = starts + lengths
    # What follows on in the file is read at once.
    breaks = np.flatnonzero(np.concatenate(([True], starts[1:] != ends[:-1])))
    counts = np.add.reduceat(lengths, breaks)
    targets = np.cumsum(counts) - counts
    base = _place(dataset)
    if base is None:
        for start, count, target in zip(starts[breaks], counts, targets, strict=True):
            found[target : target + count] = dataset[start : start + count]
        return found
    size = found[:1].nbytes
    descriptor = dataset.file.id.get_vfd_handle()
    view = memoryview(found.reshape(-1).view(np.uint8).data)
    for start, count, target in zip(starts[breaks].tolist(), counts.tolist(), targets.tolist(), strict=True):
        piece, place = view[target * size : (target + count) * size], base + start * size
        while len(piece):
            read = os.preadv(descriptor, [piece], place)
            if read <= 0:
                raise UsageError(f"{dataset.file.filename} is cut off")
            piece, place = piece[read:], place + read
    return found


def _place(dataset: Any) -> int | None:
    """The byte at which a dataset begins in its file, if it lies there in one piece, as it is."""
    if dataset.chunks is not None or dataset.external or dataset.is_virtual or dataset.file.driver != "sec2":
        return None
    if dataset.dtype.hasobject or dataset.file.userblock_size or not hasattr(os, "preadv"):
        return None
    offset: int | None = dataset.id.get_offset()  # none for a compact one, and for one never written
    return offset


@contextmanager
def written(path: Path) -> Iterator[Any]:
    """An `h5py.File` to write into, which is at `path` after the block: whole, or as if nothing had been.

    Raises RunError where the disk refuses it.
    """
    h5py = extra("h5py", "writing prepared data")
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:60]}.")
        with os.fdopen(descriptor, "w+b", buffering=0) as raw:
            target = _Patient(raw)
            try:
                with h5py.File(target, "w") as file:
                    yield file
            finally:
                target.failed()  # the disk's own words, before those of who met its refusal
            os.fsync(raw.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise RunError(f"cannot write {path}: {reason(error)}; it is as it was") from None
        raise


class _Patient:
    """A file that seems to take everything. HDF5 ends the process when it cannot write what it has put off.

    The first refusal is remembered; `failed` raises it.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._error: OSError | None = None

    def failed(self) -> None:
        """Raise the OSError of the first write that failed, if there is one."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        """Take all of `data`, whatever becomes of it."""
        view = memoryview(data).cast("B")
        while len(view) and self._error is None:
            view = view[self._tried(self._raw.write, view) or 0 :]
        return memoryview(data).nbytes

    def read(self, count: int) -> bytes:
        """The next `count` bytes, as `readinto` gives them."""
        buffer = bytearray(count)
        self.readinto(buffer)
        return bytes(buffer)

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, with zeros where nothing has been written."""
        view = memoryview(buffer).cast("B")
        read: int = self._raw.readinto(view) or 0
        while 0 < read < len(view):
            more = self._raw.readinto(view[read:])
            if not more:
                break
            read += more
        view[read:] = bytes(len(view) - read)
        return len(view)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file does."""
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        """As a file does."""
        return int(self._raw.tell())

    def truncate(self, size: int | None = None) -> int:
        """As a file does."""
        self._tried(self._raw.truncate, size)
        return size or 0

    def flush(self) -> None:
        """Nothing is put off here."""

    def _tried(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except OSError as error:
            self._error = self._error or error
            return None
