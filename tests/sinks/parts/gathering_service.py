"""A service that gathers what it is given, for tests; nothing gets through while a file "blocked" is beside its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recording_service import Recording


class Gathering(Recording):
    """Writes numbers when it is flushed."""

    def __init__(self) -> None:
        self.gathered: list[dict[str, Any]] = []

    def scalars(self, step: int, epoch: int, split: str, values: Mapping[str, float], time: float) -> None:
        self.gathered.append({"step": step, "split": split, "values": dict(values)})

    def flush(self) -> None:
        if self.gathered and self.file.with_name("blocked").exists():
            raise OSError("the way is blocked")
        for said in self.gathered:
            self.write("scalars", **said)
        self.gathered.clear()

    def lost(self) -> Mapping[str, int]:
        return {"scalars": len(self.gathered)}
