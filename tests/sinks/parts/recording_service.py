"""A service that writes what it is told as lines of JSON, for tests; RECORDING_FAULT says how it misbehaves."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import treadle
from treadle.sinks.services.service import Opening, Scene, Service


class Recording(Service):
    """Appends to the file that its option names."""

    def open(self, opening: Opening) -> str:
        self.file = Path(opening.options["file"])
        self.write("open", id=opening.id, goes_on=opening.goes_on, step=opening.step, run=opening.run,
                   parent=opening.parent, config=dict(opening.config), process=os.getpid(), path=sys.path,
                   package=treadle.__file__)  # fmt: skip
        return f"recorded in {self.file.name}"

    def write(self, what: str, **said: Any) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps({"what": what, **said}) + "\n")

    def scalars(self, step: int, epoch: int, split: str, values: Mapping[str, float], time: float) -> None:
        self.write("scalars", step=step, epoch=epoch, split=split, values=dict(values), time=time)

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        self.write("picture", step=step, name=name, shape=picture.shape, mean=float(picture.mean()))

    def text(self, step: int, name: str, text: str) -> None:
        self.write("text", step=step, name=name, text=text)

    def scene(self, step: int, name: str, scene: Scene) -> None:
        said = {key: [str(value.dtype), value.tolist()] for key, value in vars(scene).items() if value is not None}
        self.write("scene", step=step, name=name, arrays=said)

    def event(self, entry: Mapping[str, Any]) -> None:
        self.write("event", event=entry["event"], step=entry["step"])

    def cut(self, step: int) -> None:
        self.write("cut", step=step)

    def artifact(self, name: str, kind: str, path: Path) -> None:
        self.write("artifact", name=name, kind=kind, files=sorted(file.name for file in path.iterdir()))

    def summary(self, values: Mapping[str, Any]) -> None:
        self.write("summary", status=values["status"], step=values["step"], digest=values["digest"])

    def close(self, status: str) -> None:
        self.write("close", status=status)
