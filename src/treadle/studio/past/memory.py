"""How much memory there is, and how much of it things take: to say so before it is too late."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_LOOKED_AT = 20_000
"""Objects that `bytes_of` looks into at most: what holds more of them holds them in a structure of its own."""


def free_memory(device: torch.device | None = None) -> int | None:
    """Bytes that could still be taken, on `device` where that is a GPU, else by this process; None where nothing says.

    Of the machine and of the group that the process is in (a container), the less.
    """
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min((free for free in (_of_machine(), _of_group()) if free is not None), default=None)


def resident_memory(process: int | None = None) -> int | None:
    """Bytes of memory that a process, by default this one, has now; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        pages = Path(f"/proc/{process or 'self'}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return None


def bytes_of(things: Iterable[Any], besides: Iterable[Any] = ()) -> int:
    """Bytes of the tensors and arrays that `things` hold, those left out that `besides` hold too; each counts once."""
    known = dict(_blocks(besides))
    return sum(size for place, size in dict(_blocks(things)).items() if place not in known)


def bytes_on_disk(path: Path) -> int:
    """Bytes of a file, or of those in a folder; of very many files only of so many as `MOST_LOOKED_AT`."""
    files = [path] if path.is_file() else islice(path.rglob("*"), MOST_LOOKED_AT)
    return sum(_size(file) for file in files)


def shown_bytes(count: int) -> str:
    """A number of bytes as people read it: "1.2 GB"."""
    size, unit = float(count), "B"
    for following in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, following
    return f"{size:.3g} {unit}"


def _size(file: Path) -> int:
    with suppress(OSError):
        found = file.stat()
        return found.st_size if stat.S_ISREG(found.st_mode) else 0
    return 0


def _of_machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):  # no Linux
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_group() -> int | None:
    """What a control group (v2, else v1) leaves; its caches count as free, since they are given up first."""
    for limit, usage, caches in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
            "/sys/fs/cgroup/memory/memory.stat",
        ),
    ):
        with suppress(OSError, ValueError):
            most = int(Path(limit).read_text())  # "max" where there is none
            cached = [line for line in Path(caches).read_text().splitlines() if line.startswith("inactive_file ")]
            return max(0, most - int(Path(usage).read_text()) + sum(int(line.split()[1]) for line in cached))
    return None


def _blocks(things: Iterable[Any]) -> Iterator[tuple[tuple[str, int], int]]:
    """Where each block of numbers begins, and its bytes."""
    waiting, seen = list(things), set[int]()
    while waiting and len(seen) < MOST_LOOKED_AT:
        thing = waiting.pop()
        if id(thing) in seen or thing is None or isinstance(thing, str | bytes | int | float | type):
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            if thing.layout == torch.strided:
                storage = thing.untyped_storage()
                yield (str(thing.device), storage.data_ptr()), storage.nbytes()
        elif isinstance(thing, np.ndarray):
            while isinstance(thing.base, np.ndarray):
                thing = thing.base
            yield ("cpu", thing.__array_interface__["data"][0]), thing.nbytes
        elif isinstance(thing, Mapping):
            waiting += thing.values()
        elif isinstance(thing, list | tuple | set | frozenset):
            waiting += thing
        elif hasattr(thing, "__dict__") and not callable(getattr(type(thing), "__get__", None)):
            waiting += vars(thing).values()
