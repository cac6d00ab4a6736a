"""Services that do what no service should, each in a way of its own; they write what they are told all the same."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from recording_service import Recording

from treadle.sinks.services.service import Opening


class Exits(Recording):
    def scalars(self, *args: Any) -> None:
        super().scalars(*args)
        sys.exit(3)

    def close(self, status: str) -> None:
        raise SystemExit(4)


class Dies(Recording):
    def scalars(self, step: int, epoch: int, split: str, *args: Any) -> None:
        if step == 4 and split == "epoch":
            print("a segmentation fault", flush=True)
            os._exit(5)
        super().scalars(step, epoch, split, *args)


class Floods(Recording):
    def scalars(self, *args: Any) -> None:
        for _ in range(100):
            print("x" * 10000)
            print("y" * 1000, file=sys.stderr)
        super().scalars(*args)


class Draws(Recording):
    def scalars(self, *args: Any) -> None:
        random.seed(3)
        np.random.seed(3)
        random.random()
        np.random.rand(5)
        super().scalars(*args)


class Handles(Recording):
    def open(self, opening: Opening) -> str:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, lambda *_: sys.exit(1))
        os.environ["OMP_NUM_THREADS"] = "7"
        os.chdir("/")
        os.kill(os.getppid(), 0)
        return super().open(opening)


class Forks(Recording):
    def scalars(self, *args: Any) -> None:
        os.fork()
        if os.getpid() == int(self.owner):
            super().scalars(*args)

    def open(self, opening: Opening) -> str:
        self.owner = os.getpid()
        return super().open(opening)


class HangsInOpen(Recording):
    def open(self, opening: Opening) -> str:
        time.sleep(1000)
        return ""


class HangsInScalars(Recording):
    def scalars(self, *args: Any) -> None:
        time.sleep(1000)


class HangsInClose(Recording):
    def close(self, status: str) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 30))
        time.sleep(1000)


class Raises(Recording):
    def __getattribute__(self, name: str) -> Any:
        if name in ("scalars", "picture", "text", "scene", "event", "cut", "artifact", "summary", "close", "lost"):
            raise RuntimeError(
                "no: https://me:hunter22@example.org said no to 0123456789abcdef0123456789abcdef01234567"
            )
        return super().__getattribute__(name)


class Refuses(Recording):
    def open(self, opening: Opening) -> str:
        raise ConnectionError("nobody is there")


class Nonsense(Recording):
    def open(self, opening: Opening) -> Any:
        super().open(opening)
        return {1, 2}

    def lost(self) -> Any:
        return ["x"]

    def scalars(self, *args: Any) -> Any:
        super().scalars(*args)
        if args[0] == 4:
            os.write(int(sys.argv[2]), b"not a frame at all, and far too long to be one")
        return NotImplemented


class Slow(Recording):
    def scalars(self, *args: Any) -> None:
        time.sleep(0.2)
        super().scalars(*args)


class Greedy(Recording):
    def scalars(self, *args: Any) -> None:
        super().scalars(*args)
        self.held = [np.ones(1 << 20) for _ in range(8)] + getattr(self, "held", [])
        raise MemoryError


class Drops(Recording):
    def lost(self) -> Mapping[str, int]:
        return {"scalars": 3}
