"""Why a process of a run has left: what it said in the launcher's store, for the others to find when they miss it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from torch._C._distributed_c10d import Store

from treadle.errors import RunError

GRACE = 3.0
"""Seconds within which a process that has left in any orderly way has said why."""
HEAR = 5.0
"""Seconds within which the store answers; where it does not, it is beyond a link that is cut."""


class Gone(RunError):
    """Another process has left, or has not come; which one, and what it said, is in the text.

    Attributes:
        said: whether that process has said itself what went wrong.
        heard: the processes that know of it, this one among them.
    """

    def __init__(self, text: str, *, said: bool, heard: list[int]) -> None:
        super().__init__(text)
        self.said, self.heard = said, heard


class Leaving:
    """What the processes of a run say when they leave it.

    Args:
        store: where they say it; what one has set all can get.
        rank, size: of this process, and how many there are.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self._store, self._rank, self._size = store, rank, size
        self._said = False
        self._deaf = False
        """Whether the store is gone, as it is with the launcher, or with the machine that has it."""

    def say(self, kind: str, text: str) -> None:
        """Say once why this process leaves: it "failed", "waited" too long, or met "nobody"."""
        if not self._said:
            self._said = True
            self._ask(lambda: self._store.set(f"left/{self._rank}", json.dumps([kind, text])))

    def part(self, *, tells: bool) -> None:
        """End here; where another is to tell people of it, once it has: a launcher ends all for the first that ends."""
        end = time.monotonic() + 2 * GRACE
        if tells:
            self._ask(lambda: self._store.set("told", ""))
        while not (tells or self._deaf or self._has("told")) and time.monotonic() < end:
            time.sleep(0.02)

    def others(self) -> bool:
        """Whether another process has said that it leaves, as far as this one can hear."""
        return any(self._has(f"left/{rank}") for rank in range(self._size) if rank != self._rank)

    def _has(self, key: str) -> bool:
        return bool(self._ask(lambda: self._store.check([key])))

    def _ask(self, question: Callable[[], Any]) -> Any:
        """What the store answers; None where it is gone, or silent: then nothing is ever asked again.

        torch waits for an answer without end, so this is done in a thread, which is left behind there.
        """
        if self._deaf:
            return None
        answers: list[Any] = []

        def ask() -> None:
            try:
                answers.append(question())
            except RuntimeError:
                self._deaf = True

        thread = threading.Thread(target=ask, name="treadle-store", daemon=True)
        thread.start()
        thread.join(HEAR)
        self._deaf |= thread.is_alive()
        return answers[0] if answers else None

    def explain(self, text: str, where: str, seconds: float) -> Gone:
        """What to raise where the others were not met: who is missing and why, as far as anybody knows.

        Args:
            text: what the connection said.
            where: the step at which they should have met.
            seconds: how long this process would have waited.
        """
        hangs = ("imed out" in text or "timeout" in text.lower()) and not self.others()
        self.say("waited" if hangs else "nobody", text)
        found = self._listen()
        at = f", at {where}" if where else ""
        heard = sorted({self._rank, *(rank for rank, (kind, _) in found.items() if kind != "failed")})
        for rank, (kind, what) in sorted(found.items()):
            if kind == "failed":
                return Gone(f"process {rank} failed: {what}", said=True, heard=heard)
        absent = [rank for rank in range(self._size) if rank not in found and rank != self._rank]
        who = f"process{'es' if len(absent) > 1 else ''} {', '.join(map(str, absent))}"
        if not absent:
            said = f"another process of this run is gone: {text}"
        elif hangs or any(kind == "waited" for kind, _ in found.values()):
            said = (
                f"{who} did not come within {seconds:g} s{at}: what hangs there, or takes longer than TREADLE_TIMEOUT, "
                "is to be looked for in what that step does"
            )
        else:
            said = f"another process of this run is gone: {who}{at}, without a word, as when it is killed"
        return Gone(said, said=False, heard=heard)

    def _listen(self) -> dict[int, tuple[str, str]]:
        """What everybody has said, by rank, once all have, or one has failed, or the grace is over."""
        found: dict[int, tuple[str, str]] = {}
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            for rank in range(self._size):
                if rank not in found and self._has(f"left/{rank}"):
                    said = self._ask(partial(self._store.get, f"left/{rank}"))
                    kind, text = json.loads(said or '["", ""]')
                    found[rank] = str(kind), str(text)
            if self._deaf or len(found) == self._size or any(kind == "failed" for kind, _ in found.values()):
                break
            time.sleep(0.02)
        return found
