"""The launcher (torchrun) that has started this process: what it says in variables, and its end."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from functools import cache

LAUNCH = "TORCHELASTIC_RUN_ID"
"""The variable that has torchrun's name of what it has started."""
AGENTS = "TORCHELASTIC_USE_AGENT_STORE"
"""The variable that says that it is torchrun itself that listens at MASTER_ADDR, since before this process began."""


def restarts() -> int:
    """How often torchrun has started these processes again (`--max-restarts`)."""
    text = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return int(text) if text.isdecimal() else 0


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
        while os.getppid() == parent and not was_gone:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    was_gone = _is_gone()
    threading.Thread(target=watch, name="treadle-launcher", daemon=True).start()


def _is_gone() -> bool:
    """Whether the launcher was killed before anybody could ask who is the parent: while this process still imported."""
    if os.environ.get(AGENTS) != "True":
        return False
    try:
        socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timeout=10).close()
    except ConnectionRefusedError:
        return True
    except (OSError, KeyError, ValueError):
        return False  # as far as one can tell
    return False
