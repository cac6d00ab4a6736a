"""Rerun, from the process beside a run: curves, pictures and what is in space, on the timelines "step" and "time"."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.files import file_name
from treadle.sinks.services.entries import line
from treadle.sinks.services.flat import flatten
from treadle.sinks.services.rerun_files import EVENTS, STEP, TIME, Files, Viewer
from treadle.sinks.services.rerun_look import Look, entity
from treadle.sinks.services.rerun_scene import entities, finite
from treadle.sinks.services.service import Opening, Scene, Service

LEVELS = {"exception": "ERROR", "observer failed": "WARN", "log failed": "WARN", "scenes failed": "WARN"}
"""How entries of the journal are coloured; others are "INFO"."""


class RerunService(Service):
    """A recording with the run's id: in files beside the run, or in a viewer that listens.

    Entities: "train/loss", "pictures/NAME", "texts/NAME", "scenes/NAME/splats" (points, lines, mesh, boxes, cameras/0),
    "events", and without a step "about/config", "about/environment", "about/summary". What has no time of its own has
    that of the newest numbers or event before it.
    """

    def __init__(self) -> None:
        self._place: Files | Viewer | None = None
        self._opening: Opening | None = None
        self._look = Look()
        self._held: dict[str, NDArray[np.int64]] = {}
        self._documents: dict[str, tuple[str, dict[str, Any]]] = {}
        self._scenes: dict[str, dict[str, Any]] = {}
        self._dropped: Counter[str] = Counter()
        self._time: float | None = None

    def open(self, opening: Opening) -> str:
        """Begin a file, or connect to a viewer; returns where that is.

        Raises OSError in words where the file cannot be written or nobody listens.
        """
        import rerun as rr

        rr.set_strict_mode(True)  # what is wrong is said here, and not printed
        self._opening = opening
        where = opening.options.get("where")
        if where is not None and "://" in where:
            place: Files | Viewer = Viewer(where, opening.project, opening.id, self._look.blueprint)
        else:
            place = Files(_base(opening, where), opening.project, opening.id, self._look.blueprint, alone=where is None)
        self._held = place.held()
        for path in self._held:
            self._look.add(_names(path))
        self._document("config", dict(opening.config))
        self._document("environment", dict(opening.environment))
        place.begin()
        self._place = place
        self._describe()
        return place.url if isinstance(place, Viewer) else str(place.path)

    def scalars(self, step: int, epoch: int, split: str, values: Mapping[str, float], time: float) -> None:
        """A number for each name, at "SPLIT/NAME"."""
        import rerun as rr

        self._time = time
        rows = [((split, *name.split("/")), [rr.Scalars(float(value))]) for name, value in values.items()]
        self._log(step, rows)

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """A PNG, at "pictures/NAME"."""
        import rerun as rr
        from PIL import Image

        found = io.BytesIO()
        Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(found, "PNG")
        self._log(step, [(("pictures", name), [rr.EncodedImage(contents=found.getvalue(), media_type="image/png")])])

    def text(self, step: int, name: str, text: str) -> None:
        """A document, at "texts/NAME"."""
        import rerun as rr

        self._log(step, [(("texts", name), [rr.TextDocument(text)])])

    def scene(self, step: int, name: str, scene: Scene) -> None:
        """Everything in it that is finite, each part below "scenes/NAME"; cameras where they have moved."""
        import rerun as rr

        whole, dropped = finite(scene)
        known = self._scenes.setdefault(name, {})
        parts = {path: (made, _bytes(made)) for path, made in entities(whole)}
        rows: list[tuple[tuple[str, ...], list[Any]]] = [
            (("scenes", name, *path.split("/")), made)
            for path, (made, content) in parts.items()
            if not path.startswith("cameras/") or known.get(path) != content
        ]
        rows += [(("scenes", name, *path.split("/")), [rr.Clear(recursive=False)]) for path in known.keys() - parts]
        self._log(step, rows)
        self._scenes[name] = {path: content for path, (_, content) in parts.items()}
        self._dropped += dropped

    def event(self, entry: Mapping[str, Any]) -> None:
        """A line of the log "events"."""
        import rerun as rr

        self._time = float(entry.get("time", self._time or 0.0))
        level = LEVELS.get(str(entry.get("event")), "INFO")
        self._log(int(entry.get("step", 0)), [(("events",), [rr.TextLog(line(entry), level=level)])])

    def cut(self, step: int) -> None:
        """Take what came after `step` out of the files; a viewer gets a recording of its own for what follows."""
        assert self._place is not None
        self._place.cut(step)
        self._scenes = {}
        if isinstance(self._place, Files):
            self._held = {path: at if path == EVENTS else at[at <= step] for path, at in self._held.items()}
        else:
            self._held = {}

    def summary(self, values: Mapping[str, Any]) -> None:
        """A document, and a property of the recording."""
        self._document("summary", dict(values))
        self._attached(lambda: self._describe(1))

    def close(self, status: str) -> None:
        """Close the file, or let go of the viewer."""
        if self._place is not None:
            self._place.close()

    def lost(self) -> Mapping[str, int]:
        """What of scenes was NaN or infinite."""
        return self._dropped

    # ----------------------------------------------------------------------------------------------------------------

    def _log(self, step: int, rows: list[tuple[tuple[str, ...], list[Any]]]) -> None:
        """Log archetypes at paths, and wait until they are where they belong; what is held is not logged again."""

        def log() -> None:
            assert self._place is not None
            stream, count = self._place.stream, 0
            stream.set_time(STEP, sequence=step)
            if self._time is not None:
                stream.set_time(TIME, timestamp=self._time)
            for names, made in rows:
                path = entity(names)
                if not self._is_held(path, step):
                    self._look.add(names)
                    stream.log(path, *made)
                    count += 1
            if count:
                self._show()
                self._place.put(count)

        self._attached(log)

    def _show(self) -> None:
        """Send how a viewer opens the run, where there is something new in it."""
        if self._look.changed and self._place is not None:
            self._place.stream.send_blueprint(self._look.blueprint())

    def _attached(self, act: Callable[[], None]) -> None:
        """Act with a stream; after a failure, or a rewind in a viewer, a new one is begun."""
        assert self._place is not None
        if self._place.stream is None:
            self._place.begin()
            self._describe()
        act()

    def _is_held(self, path: str, step: int) -> bool:
        held = self._held.get(path)
        if held is None:
            return False
        at = step if path != EVENTS else round((self._time or 0.0) * 1e6)
        place = int(np.searchsorted(held, at))
        return place < len(held) and int(held[place]) == at

    def _document(self, name: str, values: dict[str, Any]) -> None:
        self._look.add(("about", name))
        self._documents[name] = json.dumps(values, indent=2, ensure_ascii=False, default=str), flatten(values)

    def _describe(self, chunks: int = 0) -> None:
        """Give the recording its name, and what does not change with the step; `chunks` of it are new."""
        import rerun as rr

        place, opening = self._place, self._opening
        assert place is not None and opening is not None
        stream = place.stream
        name, parent = opening.run, opening.parent
        if parent:
            name = f"{name}, from {parent['run']} at step {parent['step']}"
            stream.send_property("parent", rr.AnyValues(**{key: str(value) for key, value in parent.items()}))
        _, _, since = place.id.partition("-")
        stream.send_recording_name(f"{name}, again from step {since}" if since else name)
        for title, (text, values) in self._documents.items():
            stream.log(entity(("about", title)), rr.TextDocument(f"```json\n{text}\n```", media_type="text/markdown"),
                       static=True)  # fmt: skip
            flat = {key: value if isinstance(value, int | float | str) else str(value) for key, value in values.items()}
            if flat:
                stream.send_property(title, rr.AnyValues(**flat))
        self._show()
        place.put(chunks)


def _base(opening: Opening, where: str | None) -> Path:
    """The run's first file: the one that is named, or one named after the run in the directory that is."""
    if where is not None and where.endswith(".rrd"):
        return Path(where)
    if where is None and opening.directory is None:
        raise ValueError("a run that is not on disk needs a place: a FILE.rrd, a directory, or a viewer's address")
    directory = Path(where) if where is not None else opening.directory / "rerun"  # type: ignore[operator]
    return directory / f"{file_name(opening.run.replace('/', '_'))}.rrd"


def _names(path: str) -> tuple[str, ...]:
    """The names of an entity's path: the way back from `entity`."""
    names, name, escaped = [], "", False
    for letter in path[1:]:
        if escaped or letter not in "\\/":
            name, escaped = name + letter, False
        elif letter == "\\":
            escaped = True
        else:
            names.append(name)
            name = ""
    return *names, name


def _bytes(made: list[Any]) -> bytes:
    """What tells a camera's archetypes from those of before."""
    return b"".join(
        batch.as_arrow_array().to_string().encode() for archetype in made for batch in archetype.as_component_batches()
    )
