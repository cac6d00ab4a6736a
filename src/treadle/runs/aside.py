"""Making a run aside, so that at every instant the whole of it is there, or nothing."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

from treadle.errors import UsageError
from treadle.files import sync, sync_tree
from treadle.runs.lock import LOCK, RunLock
from treadle.runs.run import VERSION, Run, furnish, is_run, refusal, versions

ASIDE = ".treadle-new-"
"""How the names of runs begin that are being made, or whose making was killed: hidden, and no run's name."""
ATTEMPTS = 10
"""Another process may take a directory for a leftover in the instant before it is locked; so often is no chance."""
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def create_whole(run_dir: Path, fill: Callable[[Run], None]) -> Path:
    """Make a run that appears complete: `fill` writes into it while it is aside, then it gets its name in one step.

    Names are given as by `Run.create`: `runs/line` makes the next version, `runs/line/v007` has to be new or empty. A
    process that is killed meanwhile leaves a hidden directory, which the next call here removes. Returns the run's
    directory. Raises UsageError where nothing can be written there, and whatever `fill` raises.
    """
    wanted = run_dir.expanduser().absolute()
    named = VERSION.fullmatch(wanted.name) is not None
    parent = wanted.parent if named else wanted
    try:
        if named and wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
            raise _taken(wanted)
        if not named and is_run(wanted):
            raise UsageError(f"{wanted} is a run itself: give another directory, whose versions will be runs")
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        directory, lock = _make_aside(parent)
    except OSError as error:
        raise UsageError(refusal(wanted, error)) from None
    try:
        run = furnish(directory)
        try:
            fill(run)
        finally:
            run.close()
        try:
            sync_tree(directory)
            path = _name(directory, wanted) if named else _next(directory, parent)
            sync(parent)
            os.truncate(path / LOCK, 0)  # nobody trains it
        except OSError as error:
            raise UsageError(refusal(wanted, error)) from None
        return path
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    finally:
        lock.release()


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
