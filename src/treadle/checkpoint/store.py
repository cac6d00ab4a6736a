"""Checkpoints on disk: directories of safetensors and JSON with a hashed manifest, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from treadle.checkpoint.state import State
from treadle.errors import RunError, StateError

TENSORS, VALUES, MANIFEST, LATEST = "tensors.safetensors", "state.json", "manifest.json", "latest.json"


def write_checkpoint(directory: Path, state: State, *, keep: int) -> Path:
    """Write `state` to `directory/step-00000500` and return that path.

    The files are written to a temporary directory beside it, synced, hashed into a manifest and renamed into place;
    `latest.json` is moved last, and only then are all but the newest `keep` checkpoints deleted. Whatever interrupts
    this leaves the previous checkpoint as it was. Raises RunError when the disk refuses.
    """
    name = f"step-{state.step:08d}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=directory))
        try:
            _write_files(temporary, state)
            target = directory / name
            if target.exists():
                shutil.rmtree(target)
            os.rename(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(directory)
        _replace_json(directory / LATEST, {"checkpoint": name, "step": state.step, "digest": state.digest})
        sync(directory)
    except OSError as error:
        raise RunError(
            f"cannot write checkpoint {directory / name}: {error.strerror or error}; the previous one is intact"
        ) from error
    for old in list_checkpoints(directory)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def read_checkpoint(path: Path) -> State:
    """Read a checkpoint directory and check it against its manifest; raises StateError naming what is damaged."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for name, expected in manifest["files"].items():
            if Path(name).name != name:
                raise StateError(f"checkpoint {path}: the manifest names {name!r}, which is no file of it")
            if hash_file(path / name) != expected["sha256"]:
                raise StateError(f"checkpoint {path}: {name} is damaged, its SHA-256 is not the manifest's")
        saved = json.loads((path / VALUES).read_text())
        return State(saved["values"], load_file(path / TENSORS), saved["clock"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"checkpoint {path} cannot be read: {error}") from error


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in `directory`, oldest first."""
    return sorted(path for path in directory.glob("step-*") if (path / MANIFEST).is_file())


def _write_files(directory: Path, state: State) -> None:
    save_file({path: _own_memory(tensor) for path, tensor in state.tensors.items()}, directory / TENSORS)
    (directory / VALUES).write_text(json.dumps({"values": state.values, "clock": state.clock}))
    files = {
        name: {"sha256": hash_file(directory / name), "bytes": (directory / name).stat().st_size}
        for name in (TENSORS, VALUES)
    }
    manifest = {"digest": state.digest, "step": state.step, "epoch": state.epoch, "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest | {"entries": state.entries}, indent=1))
    for name in (TENSORS, VALUES, MANIFEST):
        sync(directory / name)
    sync(directory)


def _own_memory(tensor: Tensor) -> Tensor:
    """`tensor` contiguous and alone in its storage, as safetensors wants it."""
    tensor = tensor.cpu().contiguous()
    alone = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if alone else tensor.clone()


def _replace_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    sync(temporary)
    os.replace(temporary, path)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Ask the operating system to have a file, or a directory's names, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
