"""Where Rerun's data go: the files of a run, one for each session, or a viewer that listens.

A file is closed and written anew, into its place, where something is to be taken out of it, and when it has become many
times larger than it has to be: what is logged number by number takes 2 KB for each, and 24 bytes as columns.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

STEP, TIME = "step", "time"
SCALARS = "Scalars:scalars"
EVENTS = "/events"
CHUNK_BYTES = 2000
"""What a number takes that is logged by itself, about."""
SLACK = 32 << 20
"""Bytes that a file may be larger than it has to, or as much again as it has to."""
AT_THE_END = 512 << 20
"""A larger file is left as it is when the run ends, which waits for that."""
MESSAGE_HEAD = 16
"""Bytes in front of a message: its kind and length."""
RETRY_SECONDS = 10.0
FLUSH_SECONDS = 5.0
REWRITE_SECONDS = 60.0
CONNECT_SECONDS = 3.0


class Place:
    """A recording stream, with its id; what is logged is given on by `put`."""

    def __init__(self, app: str, id: str) -> None:
        self.app, self.id = app, id
        self.stream: Any = None
        self._abandoned: list[Any] = []

    def abandon(self) -> None:
        """Have no stream. One that has failed is kept out of the way: to disconnect or drop it may take for ever."""
        self._abandoned.append(self.stream)
        self.stream = None

    def recording(self) -> Any:
        """A stream that sends nothing by itself before a second has gone by, and no clock of its own."""
        import rerun as rr

        config = rr.ChunkBatcherConfig(flush_tick=1.0, flush_num_bytes=4 << 20)
        stream = rr.RecordingStream(self.app, recording_id=self.id, send_properties=False, batcher_config=config)
        stream.set_log_time_enabled(False)
        return stream


class Files(Place):
    """The files of a run, all with its id, so that viewers and `rerun rrd merge` make one recording of them.

    Args:
        base: the first session's file; those that follow are called after it, "line-2.rrd".
        app, id: of the recording.
        blueprint: gives what is written into a file as how viewers open it.
        alone: whether nobody else writes files beside `base`: then those with a torn end are mended.
    """

    def __init__(self, base: Path, app: str, id: str, blueprint: Callable[[], Any], *, alone: bool) -> None:
        super().__init__(app, id)
        self._base, self._blueprint, self._alone = base, blueprint, alone
        self._good = self._chunks = self._needed = 0
        self._empty = True
        self._failed: tuple[float, str] | None = None
        self.path = base

    def begin(self) -> None:
        """Begin a file beside those that there are. Raises OSError in words where that cannot be."""
        if self._failed is not None and time.monotonic() < self._failed[0] + RETRY_SECONDS:
            raise OSError(self._failed[1])
        self._base.parent.mkdir(parents=True, exist_ok=True)
        self.path = free(self._base)
        with open(self.path, "xb"):  # says what is wrong in words
            pass
        self.stream = self._opened(self.path)
        self._good = self._chunks = self._needed = 0
        self._empty = True

    def put(self, chunks: int = 1) -> None:
        """Have all that was logged in the file. Raises OSError where it does not take it: what is whole stays."""
        try:
            flush(self.stream)
            self._good = self.path.stat().st_size
        except Exception as error:
            why = f"{self.path} cannot be written: {trouble(self.path.parent) or error}"
            self._failed = time.monotonic(), why
            self.abandon()
            with suppress(OSError):
                if self._good:
                    os.truncate(self.path, self._good)
                else:
                    self.path.unlink()
            raise OSError(why) from None
        self._chunks += chunks
        self._empty = self._empty and not chunks
        if self._chunks * CHUNK_BYTES > max(SLACK, self._needed):
            self._rewrite()

    def cut(self, step: int) -> None:
        """Take out of all files what was logged after `step`, but for what happened."""
        own = None if self.stream is None else self.path
        for path in self.all():
            if path != own:
                self._renew(path, step)
        if own is not None:
            self._rewrite(step)

    def all(self) -> list[Path]:
        """The run's files, the oldest first."""
        found = [*self._base.parent.glob(self._base.name), *self._base.parent.glob(f"{self._base.stem}-*.rrd")]
        for path in found if self._alone else ():
            mend(path)
        return sorted((path for path in found if recording_of(path) == self.id), key=lambda path: path.stat().st_mtime)

    def held(self) -> dict[str, NDArray[np.int64]]:
        """The steps (see `steps_in`) that are in the run's files, by entity; files of killed sessions are mended."""
        steps: dict[str, list[NDArray[np.int64]]] = {}
        for path in self.all():
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                for entity, found in steps_in(path):
                    steps.setdefault(entity, []).append(found)
            if warned:
                self._renew(path)
        return {entity: np.unique(np.concatenate(found)) for entity, found in steps.items()}

    def close(self) -> None:
        """Close the file: written anew where that makes it small and is soon done, gone where it says nothing."""
        if self.stream is None:
            return
        stream = self.stream
        self.abandon()
        within(FLUSH_SECONDS, stream.disconnect)
        if self._empty and len(self.all()) > 1:
            self.path.unlink()
        elif self._chunks > 100 and self.path.stat().st_size < AT_THE_END:
            self._renew(self.path)

    def _opened(self, path: Path) -> Any:
        stream = self.recording()
        stream.save(path, default_blueprint=self._blueprint())
        return stream

    def _rewrite(self, step: int | None = None) -> None:
        """Write the file that is open anew, and go on with it."""
        stream = self.stream
        self.abandon()
        try:
            within(FLUSH_SECONDS, stream.disconnect)
            self.stream = self._renewed(self.path, step)
        except Exception as error:
            raise OSError(f"{self.path} cannot be written anew: {trouble(self.path.parent) or error}") from None
        self._chunks, self._needed = 0, self.path.stat().st_size
        self._good = self._needed

    def _renew(self, path: Path, step: int | None = None) -> None:
        stream = self._renewed(path, step)
        self._abandoned.append(stream)
        within(FLUSH_SECONDS, stream.disconnect)

    def _renewed(self, path: Path, step: int | None) -> Any:
        """A stream to a file in the place of `path`, that holds what that held, up to `step`."""
        new = path.with_name(f".{path.name}.new")
        stream = self._opened(new)
        try:
            stream.send_chunks(kept(path, step))
            flush(stream, REWRITE_SECONDS)
            os.replace(new, path)
        except BaseException:
            self._abandoned.append(stream)
            new.unlink(missing_ok=True)
            raise
        return stream


class Viewer(Place):
    """A viewer, or a proxy, that listens. It can take nothing back: after a rewind comes another recording."""

    def __init__(self, url: str, app: str, id: str, blueprint: Callable[[], Any]) -> None:
        super().__init__(app, id)
        self.url, self._blueprint = url, blueprint

    def begin(self) -> None:
        """Connect. Raises OSError in words where nobody listens."""
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "rerun+https" else 9876)
        try:
            socket.create_connection((parts.hostname or "localhost", port), CONNECT_SECONDS).close()
        except OSError as error:
            raise OSError(f"no viewer listens at {self.url} ({error.strerror or error})") from None
        self.stream = self.recording()
        self.stream.connect_grpc(self.url, default_blueprint=self._blueprint())

    def put(self, chunks: int = 1) -> None:
        """Have it sent. Raises OSError where the viewer is gone."""
        try:
            flush(self.stream)
        except Exception:
            self.abandon()
            raise OSError(f"the viewer at {self.url} is gone") from None

    def held(self) -> dict[str, NDArray[np.int64]]:
        """Nobody knows."""
        return {}

    def cut(self, step: int) -> None:
        """Go on in another recording."""
        if self.stream is not None:
            self.close()
        self.id = f"{self.id.partition('-')[0]}-{step}"

    def close(self) -> None:
        """Let go of the viewer."""
        if self.stream is not None:
            stream = self.stream
            self.abandon()
            within(FLUSH_SECONDS, stream.disconnect)


def flush(stream: Any, seconds: float = FLUSH_SECONDS) -> None:
    """Wait until all that was logged is where it belongs. Raises RuntimeError where that fails or takes longer."""
    within(seconds, lambda: stream.flush(timeout_sec=seconds))


def within(seconds: float, act: Callable[[], object]) -> None:
    """Act, for so long at most; raises what that raises, and RuntimeError where it takes longer.

    In a thread: where the SDK's writer of a file ends just then, it is waited for for ever, whatever was said.
    """
    failed: list[Exception] = []

    def run() -> None:
        try:
            act()
        except Exception as error:
            failed.append(error)

    acting = threading.Thread(target=run, daemon=True)
    acting.start()
    acting.join(seconds)
    if failed:
        raise failed[0]
    if acting.is_alive():
        raise RuntimeError(f"nothing was taken in {seconds:g} s")


def free(base: Path) -> Path:
    """`base`, or the first of "base-2", "base-3", ... that is not there."""
    number, path = 1, base
    while path.exists():
        number += 1
        path = base.with_name(f"{base.stem}-{number}{base.suffix}")
    return path


def mend(path: Path) -> None:
    """Take a torn message off the end of a file, as the crash of a machine leaves it: nothing else could be read."""
    from rerun.chunk import RrdReader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            RrdReader(path).recordings()
        except RuntimeError as error:
            torn = re.search(r"\(start (\d+), length \d+\) exceeds file size", str(error))
            if torn is not None:
                os.truncate(path, int(torn[1]) - MESSAGE_HEAD)


def recording_of(path: Path) -> str | None:
    """The id of the recording in a file; None where it holds none that can be read."""
    from rerun.chunk import RrdReader

    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        for found in RrdReader(path).recordings():
            return str(found.recording_id)
    return None


def steps_in(path: Path) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The entities of a file with the steps at which they have something; of events it is the microseconds."""
    from rerun.chunk import RrdReader

    with suppress(RuntimeError):  # what comes behind a torn end is lost
        for chunk in RrdReader(path).stream():
            if STEP in chunk.timeline_names:
                events = chunk.entity_path == EVENTS
                found = column(chunk.to_record_batch(), TIME if events else STEP)
                yield str(chunk.entity_path), (found + 500) // 1000 if events else found


def kept(path: Path, step: int | None = None) -> Iterator[Any]:
    """The chunks of a file, its numbers as columns; those after `step` left out, but for what happened."""
    import rerun as rr
    from rerun.chunk import Chunk, RrdReader

    numbers: dict[str, list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for chunk in RrdReader(path).stream():
            names = chunk.timeline_names
            if STEP not in names:
                yield chunk
                continue
            batch = chunk.to_record_batch()
            steps = column(batch, STEP)
            good = np.full(len(steps), True) if step is None or chunk.entity_path == EVENTS else steps <= step
            if SCALARS in batch.schema.names and TIME in names:
                values = batch.column(SCALARS).flatten().to_numpy(zero_copy_only=False)
                if len(values) == len(steps):
                    rows = steps[good], column(batch, TIME)[good], values[good]
                    numbers.setdefault(str(chunk.entity_path), []).append(rows)
                    continue
            if good.all():
                yield chunk
            elif good.any():
                yield from Chunk.from_record_batch(batch.filter(np.asarray(good)))
    for entity, parts in numbers.items():
        steps, times, values = (np.concatenate(part) for part in zip(*parts, strict=True))
        if len(steps):
            index = [
                rr.TimeColumn(STEP, sequence=steps),
                rr.TimeColumn(TIME, timestamp=times.astype("datetime64[ns]")),
            ]
            yield Chunk.from_columns(entity, index, rr.Scalars.columns(scalars=values))


def column(batch: Any, name: str) -> NDArray[Any]:
    """A column of whole numbers, or of times as nanoseconds."""
    return np.asarray(batch.column(name).to_numpy(zero_copy_only=False)).astype(np.int64)


def trouble(directory: Path) -> str:
    """Why nothing can be written there, in words; "" where it can."""
    probe = directory / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(bytes(1 << 16))
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with suppress(OSError):
            probe.unlink()
    return ""
