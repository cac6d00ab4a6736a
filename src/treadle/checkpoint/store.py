"""Checkpoints on disk: directories of safetensors and JSON with a hashed manifest, written whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle import files
from treadle.checkpoint.state import State, digest_of
from treadle.checkpoint.tensorfile import pieces, read_tensors
from treadle.errors import RunError, StateError, one_line
from treadle.files import hash_file, read_regular, reason, replace_directory, sync, write_json, write_synced

TENSORS, VALUES, MANIFEST, LATEST, PINS = (
    "tensors.safetensors",
    "state.json",
    "manifest.json",
    "latest.json",
    "pins.json",
)


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay: the newest `last`, one per `every` steps, the best models', and those a fork pinned."""

    last: int = 3
    every: int | None = None
    best: Collection[int] = ()

    def keeps(self, steps: Iterable[int], pinned: set[int], newest: int | None = None) -> set[int]:
        """The steps of the checkpoints that stay, of those there are (in any order).

        `newest` is the one just written. After a rewind it may not be the last: of what came later, a future that has
        been given up, only the pinned ones stay.
        """
        there = sorted(steps)
        ordered = [step for step in there if newest is None or step <= newest]
        kept = set(ordered[-max(self.last, 1) :]) | (pinned & set(there))
        kept |= set(self.best) & set(ordered)
        if self.every is not None:
            first_of: dict[int, int] = {}
            for step in ordered:
                first_of.setdefault(step // self.every, step)
            kept |= {step for interval, step in first_of.items() if interval > 0}
        return kept


def checkpoint_name(step: int) -> str:
    """The directory name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def write_checkpoint(directory: Path, state: State, retention: Retention | None = None) -> tuple[Path, str]:
    """Write `state` to `directory/step-00000500`; returns that path and the digest.

    The files are written to a temporary directory beside it, hashed into a manifest, synced and renamed into place;
    `latest.json` is moved last, and only then is deleted what `retention` does not keep. Whatever interrupts this
    leaves the previous checkpoint as it was. Raises RunError when the disk refuses.
    """
    target = directory / checkpoint_name(state.step)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary = directory / f".{target.name}-{secrets.token_hex(4)}"
        temporary.mkdir()
        try:
            digest = _write_files(temporary, state)
            replace_directory(temporary, target)
            sync(directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        write_json(directory / LATEST, {"checkpoint": target.name, "step": state.step, "digest": digest})
    except OSError as error:
        raise RunError(
            f"cannot write checkpoint {target}: {error.strerror or error}; free some space: the previous one is intact"
        ) from error
    _clean(directory, retention or Retention(), state.step)
    return target, digest


def read_checkpoint(path: Path) -> State:
    """Read a checkpoint directory and check it against its manifest; raises StateError naming what is damaged."""
    name = MANIFEST
    try:
        manifest = json.loads(read_regular(path / MANIFEST))
        listed, digest = manifest["files"], manifest["digest"]
        if sorted(listed) != sorted((TENSORS, VALUES)):
            raise StateError(f"checkpoint {path}: {MANIFEST} is damaged, it lists other files than it should")
        for name, expected in listed.items():
            if hash_file(path / name) != expected["sha256"]:
                raise StateError(f"checkpoint {path}: {name} is damaged, its SHA-256 is not the manifest's")
        name = VALUES
        saved = json.loads(read_regular(path / VALUES))
        values, clock = saved["values"], saved["clock"]
        if digest_of(values, listed[TENSORS]["sha256"]) != digest:
            raise StateError(f"checkpoint {path}: {MANIFEST} is damaged, its digest is not that of the files")
        name = TENSORS
        state = State(values, read_tensors(path / TENSORS), clock)
        name = VALUES
        if not (state.step >= 0 and state.epoch >= 0 and clock.get("seconds", 0) >= 0):
            raise ValueError("counts below zero")
        state.__dict__["digest"] = digest
        return state
    except StateError:
        raise
    except OSError as error:
        raise StateError(f"checkpoint {path}: {name} cannot be read: {reason(error)}") from error
    except Exception as error:  # whatever a file can hold that a state does not
        raise StateError(f"checkpoint {path}: {name} is damaged ({one_line(error)})") from error


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in `directory`, oldest first, damaged or not."""
    return sorted(path for path in directory.glob("step-*") if path.is_dir() and path.name[5:].isdecimal())


def step_of(path: Path) -> int:
    """The step in a checkpoint's directory name."""
    return int(path.name.removeprefix("step-"))


def newest_good(directory: Path, before: int | None = None) -> Iterator[tuple[Path, State | StateError]]:
    """Yield the checkpoints from the newest backwards, as read or as the StateError that says why not.

    Ends with the first good one. Only those up to the step that `latest.json` names (a rewind moves it back) and, where
    given, up to step `before`.
    """
    limits = [limit for limit in (before, latest_step(directory)) if limit is not None]
    for path in reversed(list_checkpoints(directory)):
        if limits and step_of(path) > min(limits):
            continue
        try:
            yield path, read_checkpoint(path)
            return
        except StateError as error:
            yield path, error


def forget_after(directory: Path, step: int) -> None:
    """Give up the checkpoints after `step`: pinned ones stay, but nothing resumes from them."""
    if not directory.is_dir():
        return
    earlier = [path for path in list_checkpoints(directory) if step_of(path) <= step]
    last = earlier[-1] if earlier else None
    write_json(directory / LATEST, {"checkpoint": last.name if last else None, "step": step_of(last) if last else -1})
    with alone_in(directory):
        pinned = _pinned(directory)
        for path in list_checkpoints(directory):
            if step_of(path) > step and step_of(path) not in pinned:
                _delete(path)


def pin(path: Path, why: str) -> None:
    """Keep the checkpoint at `path` from being deleted; `why` says who needs it. Raises OSError where it cannot be."""
    with alone_in(path.parent):
        known = _read_pins(path.parent)
        if known is None:  # whatever it named stays
            known = {there.name: [f"{PINS} was damaged"] for there in list_checkpoints(path.parent)}
        known.setdefault(path.name, [])
        if why not in known[path.name]:
            known[path.name].append(why)
        write_json(path.parent / PINS, known)


def pins(directory: Path) -> dict[str, list[str]]:
    """Who needs which checkpoint of those in `directory`, by its name; empty where nothing says, or it is damaged."""
    return _read_pins(directory) or {}


def remove_leftovers(directory: Path) -> None:
    """Remove what writes into `directory` that were killed have left; nobody may be writing checkpoints there now."""
    if directory.is_dir() and not directory.is_symlink():
        with alone_in(directory):
            files.remove_leftovers(directory)
            for leftover in directory.glob(".step-*-*"):
                shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Within the block, no other process that asks as well works on the names in `directory`: a pin, or retention.

    Needs no right to write there. Where the filesystem cannot lock a directory, everybody goes on.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def latest_step(directory: Path) -> int | None:
    """The step in `latest.json`, or None where it is missing or damaged: then the newest directory counts."""
    step = (_read_object(directory / LATEST) or {}).get("step")
    return step if type(step) is int else None


def _read_pins(directory: Path) -> dict[str, list[str]] | None:
    """Who needs which checkpoint, by name; None where the file is damaged."""
    if not (directory / PINS).exists():
        return {}
    found = _read_object(directory / PINS)
    return found if found is not None and all(isinstance(why, list) for why in found.values()) else None


def _read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none that can be read."""
    try:
        value = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _pinned(directory: Path) -> set[int]:
    """The steps of the pinned checkpoints; where `pins.json` is damaged, all of them: better too many than too few."""
    known = _read_pins(directory)
    return {step_of(path) for path in list_checkpoints(directory) if known is None or path.name in known}


def _clean(directory: Path, retention: Retention, newest: int) -> None:
    """Delete what retention does not keep, and what an interrupted write left behind."""
    with alone_in(directory):
        paths = {step_of(path): path for path in list_checkpoints(directory)}
        for step in set(paths) - retention.keeps(paths, _pinned(directory), newest):
            _delete(paths[step])
    remove_leftovers(directory)


def _delete(path: Path) -> None:
    """Delete a checkpoint: by its name first, so that a kill leaves none of which a part is missing."""
    if path.is_symlink():  # what it leads to is somebody else's
        return
    with suppress(OSError):
        going = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        path.rename(going)
        shutil.rmtree(going, ignore_errors=True)


def _write_files(directory: Path, state: State) -> str:
    """Write the three files of a checkpoint, synced; returns the digest."""
    sha, size = hashlib.sha256(), 0
    with open(directory / TENSORS, "wb", buffering=0) as file:
        for piece in pieces(state.tensors):
            sha.update(piece)
            size += len(piece)
            _write_all(file.fileno(), piece)
        os.fsync(file.fileno())
    digest = digest_of(state.values, sha.hexdigest())
    text = json.dumps({"values": state.values, "clock": state.clock}, allow_nan=False).encode()
    write_synced(directory / VALUES, text)
    manifest = {
        "digest": digest,
        "step": state.step,
        "epoch": state.epoch,
        "files": {
            TENSORS: {"sha256": sha.hexdigest(), "bytes": size},
            VALUES: {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)},
        },
    }
    write_synced(directory / MANIFEST, json.dumps(manifest, indent=1).encode())
    sync(directory)
    return digest


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
