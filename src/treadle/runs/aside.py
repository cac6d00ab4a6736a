"""Making a run aside, so that at every instant the whole of it is there, or nothing."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from treadle.errors import UsageError
from treadle.files import sync, sync_tree, write_whole
from treadle.runs.environment import describe_environment
from treadle.runs.lock import LOCK, RunLock
from treadle.runs.run import ENVIRONMENT, VERSION, Run, is_run, pretty, versions

ASIDE = ".treadle-new-"
"""How the names of runs begin that are being made, or whose making was killed: hidden, and no run's name."""
ATTEMPTS = 10
"""Another process may take a directory for a leftover in the instant before it is locked; so often is no chance."""
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def create_run(run_dir: str | Path, fill: Callable[[Run], None] = lambda run: None) -> Run:
    """Make a new run, which appears complete: with its environment.json, and with what `fill` writes into it.

    `runs/line` makes the next version, counted numerically: runs/line/v001, and v010 after v009; two processes get two
    versions. A path whose last part is a version already (`runs/line/v007`) is taken as it is, and has to be new or
    empty. Until it gets its name, in one step, the run is made aside: a process that is killed meanwhile leaves a
    hidden directory, which the next call here removes.

    Raises UsageError where the path cannot be taken or nothing can be written there, and whatever `fill` raises.
    """
    wanted = Path(run_dir).expanduser().absolute()
    named = VERSION.fullmatch(wanted.name) is not None
    place = wanted.resolve() if wanted.is_symlink() else wanted  # an empty directory that a link leads to is taken, too
    parent = place.parent if named else wanted
    with _explained(wanted):
        if named and wanted.exists() and any(wanted.iterdir()):
            raise _taken(wanted)
        if not named and is_run(wanted):
            raise UsageError(f"{wanted} is a run itself: give another directory, whose versions will be runs")
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        directory, lock = _make_aside(parent)
    try:
        run = Run(directory)
        with _explained(wanted):
            write_whole(directory / ENVIRONMENT, pretty(describe_environment()))
        try:
            fill(run)
        finally:
            run.close()
        with _explained(wanted):
            sync_tree(directory)
            path = _name(directory, place) if named else _next(directory, parent)
            sync(parent)
            os.truncate(path / LOCK, 0)  # nobody trains it
        return Run(wanted if named else path)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    finally:
        lock.release()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Within the block, what the system refuses is why no run can be made at `path`: a UsageError in a line."""
    try:
        yield
    except OSError as error:
        why = f"no run can be made at {path}:"
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise UsageError(f"{why} a file is in the way ({error.filename}); give another run directory") from None
        raise UsageError(f"{why} {error.strerror or error}; give a run directory that can be written") from None


def _make_aside(parent: Path) -> tuple[Path, RunLock]:
    """A hidden directory with its lock, which says to others that somebody is at work there."""
    for attempt in count(1):
        directory = parent / f"{ASIDE}{os.getpid()}-{secrets.token_hex(4)}"
        directory.mkdir()
        try:
            lock = RunLock(directory)
        except UsageError:
            if attempt == ATTEMPTS:
                raise
            continue
        if (directory / LOCK).exists():
            return directory, lock
        lock.release()
    raise AssertionError


def _remove_leftovers(parent: Path) -> None:
    """Remove what killed processes left; what a living one is making is locked."""
    for leftover in parent.glob(f"{ASIDE}*"):
        if leftover.is_symlink():
            continue
        try:
            lock = RunLock(leftover)
        except UsageError:
            continue
        shutil.rmtree(leftover, ignore_errors=True)
        lock.release()


def _name(directory: Path, wanted: Path) -> Path:
    """Give it the name `wanted`, which is free or an empty directory's: the system replaces no other."""
    try:
        os.rename(directory, wanted)
    except OSError as error:
        if error.errno in OCCUPIED:
            raise _taken(wanted) from None
        raise
    return wanted


def _taken(wanted: Path) -> UsageError:
    return UsageError(f"{wanted} is not empty: give {wanted.parent} to get its next version, or a new path")


def _next(directory: Path, parent: Path) -> Path:
    """Give it the next version's name; where another process is faster, the one after that."""
    existing = versions(parent)
    for number in count(int(existing[-1].name[1:]) + 1 if existing else 1):
        try:
            os.rename(directory, parent / f"v{number:03d}")
            return parent / f"v{number:03d}"
        except OSError as error:
            if error.errno not in OCCUPIED:
                raise
    raise AssertionError
