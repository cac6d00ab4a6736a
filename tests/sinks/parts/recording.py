"""The sinks of tests that write what a service is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from treadle.sinks.remote import RemoteSink


class Recorded(RemoteSink):
    """Tells a `Recording`, or another of its module, which writes into `file`."""

    hears = ("scalars", "image", "text", "scene")
    name, title, service = "recorded", "Recording", "recording_service:Recording"

    def __init__(self, file: str | Path, kind: str = "Recording", module: str = "recording_service") -> None:
        super().__init__(file=str(file))
        self.service, self.title = f"{module}:{kind}", kind


def told(file: Path, *kinds: str) -> list[dict[str, Any]]:
    """What was written into `file`, of these kinds."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line for line in lines if not kinds or line["what"] in kinds]
