"""Files that an interruption at any instant leaves readable (whole files, lines, directories), and that are files.

A run's directory may come from somebody else. A link in it is never followed for writing, so nothing outside is harmed;
for reading it may lead to any regular file, as archives of large files make them. A pipe, socket or device is never
opened to wait for. The way to the run itself may go through links.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from treadle.errors import RunError, TreadleError, UsageError, nearest, one_line

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
NAN_AND_INF = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_LINK, _NO_FILE = "it is a link", "it is no regular file"
PART = ".part"
"""How the names of files end that are being written, or whose writing was killed."""
_REMEDIES = {
    _LINK: "put what it leads to in its place, or remove it",
    _NO_FILE: "remove it, or put the file back",
}


def to_json(value: Any) -> str:
    """Write `value` as one line of strict JSON.

    JSON has no NaN and no infinity: they become the strings "NaN", "Infinity" and "-Infinity", which `number` (and
    Python's `float`) reads back. Numbers of NumPy and scalar tensors become numbers, arrays become lists; whatever else
    JSON has no word for becomes its `str`.
    """
    return _ENCODER.encode(_plain(value))


def number(value: Any) -> float:
    """The number that `to_json` wrote as `value`; nan for what is no number."""
    if isinstance(value, str):
        return NAN_AND_INF.get(value, math.nan)
    return float(value) if isinstance(value, int | float) else math.nan


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is int or (kind is float and math.isfinite(value)):  # nearly all there is
        return value
    if kind is dict:
        return {name if type(name) is str else str(name): _plain(item) for name, item in value.items()}
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        value = float(value)
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.ndarray) or _is_tensor(value):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # not imported for it: commands that only read runs do without
    return torch is not None and isinstance(value, torch.Tensor)


def file_name(name: str) -> str:
    """A file name that says `name` and stays in its folder: "loss/l1" becomes "loss-l1", "../x" becomes "x".

    Letters, digits and `._+=@ -` are kept, everything else becomes "-"; no leading dots, at most 100 characters.
    """
    kept = re.sub(r"[^\w.+=@ -]+", "-", name).lstrip(".- ").rstrip(". ")[:100].rstrip(". ")
    return kept or "unnamed"


def text_cell(text: str) -> str:
    """A text as a cell of a CSV table: spreadsheets compute what begins so, unless an apostrophe stands before it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_whole(path: Path, content: bytes | str, *, sync: bool = False) -> None:
    """Write a file whole or not at all; `sync` waits until it is on the disk. An OSError leaves nothing behind."""
    data = encoded(content) if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}{PART}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def encoded(text: str) -> bytes:
    """`text` as UTF-8. What that cannot say, such as bytes in a file's name, becomes an escape: \\udcff, as in JSON."""
    return text.encode(errors="backslashreplace")


def remove_leftovers(directory: Path, names: Collection[str] | None = None) -> None:
    """Remove what writes into `directory` have left that were killed; nobody may be writing there now.

    With `names`, only those of files that are called so.
    """
    known = None if names is None else {f".{name[:60]}" for name in names}
    if directory.is_dir() and not directory.is_symlink():
        for leftover in directory.glob(f".*.????????{PART}"):
            if known is None or leftover.name[: -len(PART) - 9] in known:
                leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all, and have it on the disk."""
    write_whole(path, json.dumps(value), sync=True)
    sync(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open the regular file at `path` with the flags of `os.open`, without waiting; returns its descriptor.

    Raises OSError whose `strerror` says it in words: for a pipe, socket, device or directory, and where the file is to
    be written, for a link.
    """
    writing = flags & (os.O_WRONLY | os.O_RDWR)
    # Truncated only once it is known to be a file.
    wanted = (flags & ~os.O_TRUNC) | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (os.O_NOFOLLOW if writing else 0)
    try:
        descriptor = os.open(path, wanted, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise OSError(errno.ELOOP, _LINK, str(path)) from None
        if error.errno == errno.ENXIO:  # a pipe without a reader, a socket
            raise OSError(errno.EINVAL, _NO_FILE, str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, _NO_FILE, str(path))
    if flags & os.O_TRUNC:
        os.ftruncate(descriptor, 0)
    return descriptor


def read_regular(path: Path) -> bytes:
    """The content of the regular file at `path`; raises OSError as `open_regular` does."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read()


def copy_regular(source: Path, target: Path) -> None:
    """Copy a regular file, whatever link it is reached by; `target` is new, and on the disk. Raises OSError."""
    with os.fdopen(open_regular(source), "rb") as old, open(target, "xb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())


def make_directory(path: Path) -> None:
    """Make the directory `path`, where it is not there yet; raises OSError where a link stands in its place."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, _LINK, str(path))
    path.mkdir(exist_ok=True)


def make_report_directory(directory: Path) -> None:
    """Make the directory of a report in a run. Raises UsageError where that fails, or a link leads out."""
    try:
        make_directory(directory)
    except OSError as error:
        raise UsageError(f"{directory} cannot be made: {reason(error)}") from None
    refuse_foreign(directory)


def refuse_foreign(directory: Path) -> None:
    """Raise UsageError, naming it, for a link anywhere in `directory` that leads out of it, and for a pipe or device.

    Whoever is going to write there calls this first: a report, a picture or a checkpoint would end up elsewhere, or
    wait for ever.
    """
    home = os.path.realpath(directory)
    for here, folders, names in os.walk(home):
        for name in (*folders, *names):
            path = os.path.join(here, name)
            try:
                mode = os.lstat(path).st_mode
            except OSError:  # somebody has just removed it
                continue
            inside = directory / os.path.relpath(path, home)
            if stat.S_ISLNK(mode):
                if not os.path.realpath(path).startswith(home + os.sep):
                    raise UsageError(
                        f"{inside} is a link to {os.readlink(path)}, outside of {directory}, and nothing is written "
                        f"through it: {_REMEDIES[_LINK]}"
                    )
            elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise UsageError(f"{inside} is a pipe, a socket or a device, which no run has: remove it")


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(directory: Path) -> None:
    """Ask the operating system to have a directory's names on the disk before going on."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Have a directory with all that is in it on the disk before going on."""
    for here, _, names in os.walk(directory, topdown=False):
        for name in names:
            descriptor = open_regular(Path(here, name))
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync(Path(here))


def reason(error: OSError) -> str:
    """Why the system refused a file, and where it is not a plain file what to do about it."""
    why = error.strerror or str(error)
    return f"{why}: {_REMEDIES[why]}" if why in _REMEDIES else why


@contextmanager
def blamed(path: Path) -> Iterator[None]:
    """Within the block, a value that is missing or of another kind than it should be is the fault of the file `path`.

    Raises RunError for it, in a line that names the file.
    """
    try:
        yield
    except TreadleError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({one_line(error)}): restore it from a copy") from error


def existing(text: str | Path, option: str) -> Path:
    """The absolute path of a file or directory that exists; raises UsageError, beginning with `option`, otherwise."""
    path = Path(text).expanduser()
    if path.exists():
        return path.resolve()
    raise UsageError(f"{option} {text}: no such file or directory{near_sibling(path)}")


def near_sibling(path: Path) -> str:
    """`"; did you mean ...?"`, where something beside `path` has nearly its name; for error messages."""
    siblings = [str(path.with_name(sibling.name)) for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    tail = nearest(str(path), siblings)
    return tail if "did you mean" in tail else ""


def cannot_write(path: Path, error: OSError) -> RunError:
    """The error for a disk that refused `path` during a run."""
    if error.strerror in _REMEDIES:
        return RunError(f"cannot write {error.filename or path}: {reason(error)}")
    return RunError(f"cannot write {path}: {error.strerror or error}; make room or mend its permissions, then resume")


def replace_directory(new: Path, target: Path) -> None:
    """Put the directory `new` in the place of `target` (both on one filesystem), which then is gone.

    Where the system can exchange two names (Linux), `target` is there, old or new, at every instant. Elsewhere it is
    aside for a moment between two renames; `settled` finds it there.
    """
    if not target.exists():
        os.rename(new, target)
    elif _exchange(new, target):
        shutil.rmtree(new, ignore_errors=True)
    else:
        aside = _aside(target)
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(target, aside)
        os.rename(new, target)
    shutil.rmtree(_aside(target), ignore_errors=True)


def settled(target: Path) -> Path:
    """Where the directory `target` is: itself, or aside where a replacement of it was interrupted."""
    aside = _aside(target)
    return aside if aside.is_dir() and not target.exists() else target


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one instant; returns whether the system could."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0)


class LineFile:
    """A file of JSON lines that only grows, by whole lines, each in one write.

    A line is appended in the same time however long the file is. Nothing is kept in user-space buffers, so a killed
    process loses no line it has written. A line being written may be torn: by a crash of the machine, or by a kill, as
    Linux heeds one between the pages of a write. Readers leave it out, and it is cut away when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one entry. Raises RunError when the disk refuses it, with the file as it was before."""
        line = encoded(to_json(entry) + "\n")
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            written = os.write(self._descriptor, line)
            if written < len(line):  # a disk that fills takes the beginning of a line
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def extend(self, lines: bytes) -> None:
        """Add whole lines as they are. Raises RunError when the disk refuses them, with the file as it was before."""
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            view = memoryview(lines)
            try:
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError:
                written = len(lines) - len(view)
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
                raise
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def end_of(self, stays: Callable[[bytes], bool]) -> int:
        """Bytes up to the end of the last line that `stays`; no more of the file is read than what comes after."""
        if not self.path.exists():
            return 0
        try:
            with os.fdopen(open_regular(self.path), "rb", buffering=0) as file:
                end = place = end_of_last_line(file.fileno(), os.fstat(file.fileno()).st_size)
                held = b""  # what lies between `place` and `end`
                while end > 0:
                    start = held.rfind(b"\n", 0, -1) + 1
                    if start == 0 and place > 0:
                        held = os.pread(file.fileno(), min(place, 65536), max(0, place - 65536)) + held
                        place = max(0, place - 65536)
                        continue
                    if stays(held[start:]):
                        break
                    held = held[:start]
                    end = place + start
                return end
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def cut_after(self, stays: Callable[[bytes], bool]) -> None:
        """Drop the lines after the last one that `stays`; no more of the file is read than these."""
        self.close()
        if not self.path.exists():
            return
        end = self.end_of(stays)
        try:
            with os.fdopen(open_regular(self.path, os.O_RDWR), "r+b", buffering=0) as file:
                file.truncate(end)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    @property
    def size(self) -> int:
        """Its bytes; 0 where there is no file."""
        try:
            return os.stat(self.path if self._descriptor is None else self._descriptor).st_size
        except OSError:
            return 0

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.close()

    def _open(self) -> int:
        descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        size = os.fstat(descriptor).st_size
        whole = end_of_last_line(descriptor, size)
        if whole < size:
            os.ftruncate(descriptor, whole)
        return descriptor


def end_of_last_line(descriptor: int, size: int) -> int:
    """Bytes up to and including the last line break, reading from the end."""
    end = size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a JSON-lines file, none where there is no file; a torn last line is left out.

    Raises RunError naming the line for anything else that is no JSON object, and the file where it cannot be read.
    """
    for count, line in enumerate(raw_lines(path), 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise RunError(f"{path}, line {count} is damaged: it is no JSON object; delete it to read the rest")
        yield entry


def raw_lines(path: Path, begin: int = 0) -> Iterator[bytes]:
    """Yield the whole lines of a file as they are, none where there is no file; a torn last one is left out.

    `begin` is the byte from which it is read, the beginning of a line.

    Raises RunError naming the file where it cannot be read.
    """
    try:
        file = os.fdopen(open_regular(path), "rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from None
    with file:
        file.seek(begin)
        for line in file:
            if line.endswith(b"\n"):
                yield line
