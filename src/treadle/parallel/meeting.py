"""Where the processes of a run meet, as a launcher's variables say: judged, and knocked at, before torch goes there.

torch waits for what cannot come, and tells of it in stack traces of its own, which nobody can catch.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from dataclasses import dataclass

from treadle.errors import RunError, UsageError

UNKNOWN = 30.0
"""Seconds for which the name of a machine may be unknown: one that has just begun is now and then."""


@dataclass(frozen=True)
class Meeting:
    """A process among `size`, which meet at `port` of the machine `host`."""

    rank: int
    size: int
    host: str
    port: int

    @property
    def at(self) -> str:
        """Where they meet, for messages."""
        return f"{self.host}:{self.port}"


def meeting() -> Meeting:
    """What the variables say. Raises UsageError where they are incomplete, or say what cannot be."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"WORLD_SIZE says that {os.environ.get('WORLD_SIZE')} processes train together, but {missing[0]} is not "
            "set: start them with torchrun, or unset WORLD_SIZE where nothing has started several"
        )
    size = _number("WORLD_SIZE", 1, None)
    return Meeting(_number("RANK", 0, size - 1), size, os.environ["MASTER_ADDR"], _number("MASTER_PORT", 1, 2**16 - 1))


def knock(where: Meeting, seconds: float) -> None:
    """Wait until the main process listens; as the main one, see that nothing else does where it is to.

    Raises RunError where it is not to be reached within `seconds`, or another program has its port.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun listens itself
        return
    if where.rank == 0:
        _see_that_it_is_free(where)
        return
    begin, wait = time.monotonic(), 0.01
    while True:
        try:
            socket.create_connection((where.host, where.port), timeout=max(1.0, seconds)).close()
            return
        except OSError as error:
            limit = min(seconds, UNKNOWN) if isinstance(error, socket.gaierror) else seconds
            if time.monotonic() - begin + wait > limit:
                raise RunError(
                    f"process {where.rank} cannot reach process 0 at {where.at} within {limit:g} s "
                    f"({error.strerror or error}): is it running, is MASTER_ADDR its machine, and nothing between them?"
                ) from None
        time.sleep(wait)
        wait = min(2 * wait, 1.0)


def _see_that_it_is_free(where: Meeting) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch does: what has ended is free
        try:
            trial.bind(("", where.port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                return  # torch may know better
            why = "another program has it" if error.errno == errno.EADDRINUSE else "it takes special rights"
            raise RunError(
                f"the processes of this run cannot meet at port {where.port} of this machine, {why}: give all of them "
                "another MASTER_PORT"
            ) from None


def _number(name: str, least: int, most: int | None) -> int:
    text = os.environ[name]
    if not (text.isdecimal() and least <= int(text) and (most is None or int(text) <= most)):
        expected = f"of {least} to {most}" if most is not None else f"of at least {least}"
        raise UsageError(f"{name} is {text!r}: expected a whole number {expected}, as torchrun sets it")
    return int(text)
