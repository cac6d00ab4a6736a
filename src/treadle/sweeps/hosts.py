"""Whether the locks of a directory hold between machines, and which of them have worked there."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from treadle.errors import UsageError
from treadle.runs.lock import LOCK, last_host

MOUNTS = Path("/proc/self/mountinfo")

LOCAL_BY_OPTION = {
    "nfs": ("local_lock=all", "local_lock=flock", "nolock"),
    "nfs4": ("local_lock=all", "local_lock=flock"),
    "lustre": ("localflock",),
    "cifs": ("nobrl",),
    "smb3": ("nobrl",),
}
"""Options with which a network's file system keeps locks to each machine, by its type."""
LOCAL_ALWAYS = ("fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse")


def locks_stay_here(path: Path, mounts: str | None = None) -> str:
    """The file system of `path`, in words, where locks on it are not seen by other machines that have it; else empty.

    Args:
        mounts: what the system says of its mounts (by default /proc/self/mountinfo; empty where there is none).
    """
    if mounts is None:
        mounts = MOUNTS.read_text(errors="surrogateescape") if MOUNTS.exists() else ""
    place, found = path.resolve(), ("", "", "")
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        words, (kind, _, options) = before.split(), (*after.split(), "", "", "")[:3]
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), words[4])
        if place.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, kind, options)
    _, kind, options = found
    if kind in LOCAL_ALWAYS:
        return kind
    local = [option for option in options.split(",") if option in LOCAL_BY_OPTION.get(kind, ())]
    return f"{kind} with {local[0]}" if local else ""


def check_one_machine(path: Path) -> None:
    """Raise UsageError where another machine has trained in the sweep at `path`, and its locks are not seen here.

    Its live workers would look like dead ones, and their trials be trained twice.
    """
    kind = locks_stay_here(path)
    if not kind:
        return
    here = socket.gethostname()
    others = {host for each in path.glob(f"trial-*/{LOCK}") if (host := last_host(each.parent)) not in (None, here)}
    if others:
        host = min(map(str, others))
        raise UsageError(
            f"{path} is on {kind}, where a machine does not see the locks of another, and {host} has trained in it: "
            "give each machine a directory of its own (--run) and share a database (--storage); where nothing of the "
            f"sweep runs on {host} any more, remove {path}/trial-*/{LOCK}"
        )
