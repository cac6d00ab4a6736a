"""The launcher (torchrun) that has started this process: what it says in variables, and its end."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from functools import cache

from treadle.errors import UsageError

LAUNCH = "TORCHELASTIC_RUN_ID"
"""The variable that has torchrun's name of what it has started."""


def restarts() -> int:
    """How often torchrun has started these processes again (`--max-restarts`)."""
    return _count("TORCHELASTIC_RESTART_COUNT")


def shares_store() -> bool:
    """Whether it is torchrun itself that listens at MASTER_ADDR, since before this process began, and after its end."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def refuse_restarts() -> None:
    """Raise UsageError where torchrun could not start these processes again, though it is to.

    On several machines each torchrun counts by itself how often it has, so nothing in the store that they share tells
    the processes of now from those of before.
    """
    if shares_store() and _count("GROUP_WORLD_SIZE") > 1 and _count("TORCHELASTIC_MAX_RESTARTS"):
        raise UsageError(
            "torchrun --max-restarts on several machines needs --rdzv-backend c10d, and in its environment on each of "
            "them TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1: processes that are started again would not find one another"
        )


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without what a launcher says in it: for a process that is to be alone."""
    said = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return {
        name: text for name, text in environment.items() if name not in said and not name.startswith("TORCHELASTIC")
    }


@cache
def end_with_the_launcher() -> None:
    """Have a thread stop this process as SIGTERM does where its launcher is killed: it would train on, by itself."""
    parent = os.getppid()

    def watch() -> None:
        gone = _was_gone()
        while not gone and os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="treadle-launcher", daemon=True).start()


def _was_gone() -> bool:
    """Whether the launcher was killed before anybody could ask who is the parent: while this process still imported."""
    if not shares_store():
        return False
    try:
        socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timeout=10).close()
    except ConnectionRefusedError:
        return True
    except (OSError, KeyError, ValueError):
        return False  # as far as one can tell
    return False


def _count(name: str) -> int:
    text = os.environ.get(name, "0")
    return int(text) if text.isdecimal() else 0
