"""The runs there are: a table with filter and sort, what differs between some, and one of them in full."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from treadle.config.files import MISSING, differences, loads
from treadle.engine.lifecycle import Stage
from treadle.errors import RunError, UsageError, nearest
from treadle.runs.run import CONFIG, ENVIRONMENT, JOURNAL, SUMMARY
from treadle.studio import protocol
from treadle.studio.past.others import kept_of
from treadle.studio.runs.inside import (
    as_object,
    folders_inside,
    json_inside,
    names_inside,
    plain,
    printable,
    read_end,
    read_inside,
)
from treadle.studio.runs.listing import Listing, natural, select
from treadle.studio.runs.rows import Row
from treadle.studio.topics import Client, Handler, Live, Topic, later
from treadle.studio.wire import pack

LOOK_SECONDS = 1.0
"""Between two looks for a run that was not there: whoever asks for what there is not keeps nobody else waiting."""
JOURNAL_BYTES = 1 << 20
"""Of a journal's end that is shown."""
ENTRIES = 1000
PICTURES = 500
"""Pictures of a run that are listed, the newest examples first."""
PICTURE_BYTES = 32 << 20
FOLDERS = re.compile(r"examples|report|test.*")
"""Folders of a run in which there are pictures to look at, in themselves or in their `pictures`."""
ENDINGS = (".png", ".jpg", ".jpeg", ".gif")
FORMATS: dict[bytes, Literal["png", "jpeg", "gif"]] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF8": "gif",
}


class Catalogue(Topic):
    """Answers `Runs`, `Difference`, `Details` and `PictureOf`.

    Runs are named by the catalogue's own list, and pictures by that of `Details`: no name that a client sends becomes
    a path. Files are read in a thread of their own.

    Args:
        root: the directory below which there are runs.
        live: the run that is trained here, if any.
    """

    features = ("runs",)

    def __init__(self, root: Path, live: Live | None = None) -> None:
        self._listing, self._live = Listing(root), live
        self._paths: dict[str, Path] = {}
        self._looked = -LOOK_SECONDS

    def handlers(self) -> Mapping[type[protocol.Request], Handler]:
        """One for each request."""
        return {
            protocol.Runs: self._runs,
            protocol.Difference: self._difference,
            protocol.Details: self._details,
            protocol.PictureOf: self._picture_of,
        }

    def path(self, name: str) -> Path:
        """The directory of a run by its name. Raises UsageError for one that there is not."""
        if not self._is_there(name) and monotonic() - self._looked > LOOK_SECONDS:
            self._paths = self._listing.paths()
            self._looked = monotonic()
        if not self._is_there(name):
            raise UsageError(f"there is no run {name!r}{nearest(name, self._paths)[:400]}")
        return self._paths[name]

    def _is_there(self, name: str) -> bool:
        return name in self._paths and self._paths[name].is_dir()

    # The table ----------------------------------------------------------------------------------------------------

    def _runs(self, asked: protocol.Runs, client: Client) -> object:
        return later(lambda: [row.plain() for row in self.rows(asked.where, asked.sort, down=asked.down)])

    def rows(self, where: str = "", sort: str = "started", *, down: bool = True) -> list[Row]:
        """The rows of the table that a filter finds, sorted; see `treadle.studio.runs.filtering` for what it can say.

        Raises UsageError, in a line that names the place, for a filter that cannot be read.
        """
        rows = self._listing.rows()
        self._paths = self._listing.known
        if self._live is not None and self._live.path is not None:
            home = os.path.realpath(self._live.path)
            own = next((name for name, path in self._paths.items() if os.path.realpath(path) == home), "")
            if own in rows and rows[own].status == "running":  # in this process, and not only looked at
                rows[own] = _as_it_is(rows[own], self._live)
        return select(rows.values(), where, sort, down=down)

    # Several ------------------------------------------------------------------------------------------------------

    def _difference(self, asked: protocol.Difference, client: Client) -> object:
        paths = {name: self.path(name) for name in asked.runs}
        return later(lambda: difference({name: _config(path) for name, path in paths.items()}))

    # One ----------------------------------------------------------------------------------------------------------

    def _details(self, asked: protocol.Details, client: Client) -> object:
        path = self.path(asked.run)
        return later(lambda: details(path))

    def _picture_of(self, asked: protocol.PictureOf, client: Client) -> object:
        path = self.path(asked.run)

        def read() -> bytes:
            if asked.picture not in pictures(path, None):
                raise UsageError(f"the run has no picture {asked.picture!r}: ask for its details, which name them")
            content = read_inside(path, asked.picture, PICTURE_BYTES + 1)
            kind = next((kind for begin, kind in FORMATS.items() if (content or b"").startswith(begin)), None)
            if content is None or kind is None or len(content) > PICTURE_BYTES:
                raise RunError(f"{asked.picture!r} cannot be shown: it is no PNG, JPEG or GIF of up to 32 MB")
            return pack(protocol.Picture(id=asked.id, format=kind), content)

        return later(read)


def difference(configs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings in which runs differ: `key`, dotted, and `values` by run; who lacks the key is not among them."""
    first, *others = configs
    rows: dict[str, dict[str, Any]] = {}
    for other in others:
        for key, _, value in differences(configs[first], configs[other]):
            rows.setdefault(key, {})[other] = value
    found = []
    for key, values in rows.items():
        own = _leaf(configs[first], key)
        every = {name: values.get(name, own) for name in configs}
        there = {name: plain(value) for name, value in every.items() if value is not MISSING}
        found.append({"key": printable(key), "values": there})
    return found


def details(path: Path) -> dict[str, Any]:
    """A run in full, as far as there is something: config (text), environment, journal, notes, report, pictures, kept.

    `kept` has the states that can be looked at: step, kind and bytes of each.
    """
    config = read_inside(path, CONFIG) or b""
    if not config and read_inside(path, ENVIRONMENT) is None:
        raise UsageError(f"the run {printable(path.name)} has been deleted")
    entries = [as_object(line) for line in (read_end(path, JOURNAL, JOURNAL_BYTES) or b"").split(b"\n")]
    journal = [entry for entry in entries if isinstance(entry.get("event"), str)]
    return {
        "config": config.decode(errors="replace"),
        "environment": plain(json_inside(path, ENVIRONMENT)),
        "journal": plain(journal[-ENTRIES:]),
        "notes": plain([entry for entry in journal if entry["event"] == "note"]),
        "report": plain(_report(path)),
        "pictures": pictures(path, PICTURES),
        "kept": kept_of(path),
    }


def pictures(path: Path, most: int | None) -> list[str]:
    """The names of a run's pictures: those made while it was trained, the newest first, then of reports and tests."""
    found: list[str] = []
    for folder in folders_inside(path):
        if FOLDERS.fullmatch(folder):
            for place in (folder, f"{folder}/pictures"):
                names = [name for name in names_inside(path, place) if name.lower().endswith(ENDINGS)]
                ordered = sorted(names, key=natural, reverse=folder == "examples")
                found += [printable(f"{place}/{name}") for name in ordered]
    return found[:most]


def _report(path: Path) -> dict[str, Any]:
    """What the run came to, and the figures of its tests, by name."""
    summary = json_inside(path, SUMMARY)
    found = {name: summary[name] for name in ("status", "reason", "step", "epoch", "seconds") if summary.get(name)}
    for split, key in (("train", "metrics"), ("validation", "validation_metrics")):
        values = summary.get(key)
        found |= {f"{split}/{name}": value for name, value in (values if isinstance(values, dict) else {}).items()}
    if isinstance(summary.get("best"), dict):
        found["best"] = summary["best"]
    for folder in folders_inside(path):
        if FOLDERS.fullmatch(folder):
            table = json_inside(path, f"{folder}/table.json")
            for name, summarized in _object(table.get("metrics")).items():
                found[f"{folder}: {name}, mean"] = _object(summarized).get("mean")
            for name, value in _object(table.get("overall")).items():
                found[f"{folder}: {name}"] = value
    return found


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _config(path: Path) -> dict[str, Any]:
    """A run's config; raises UsageError, naming the run, where it has none that can be read."""
    text = read_inside(path, CONFIG)
    if text is None:
        raise UsageError(f"{printable(path.name)} has no {CONFIG} yet: it cannot be compared")
    return loads(text.decode(errors="replace"), source=printable(f"{path.parent.name}/{path.name}/{CONFIG}"))


def _leaf(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, as `differences` names them; `MISSING` where there is none."""
    for name, value, _ in differences(config, {}):
        if name == key:
            return value
    return MISSING


def _as_it_is(row: Row, live: Live) -> Row:
    """The row of the run that is trained here, by the counters of its loop."""
    lifecycle, (epoch, step, _) = live.loop.lifecycle, live.loop.counts
    status = lifecycle.status if lifecycle.stage is not Stage.PAUSED else Stage.PAUSED.value
    return replace(row, status=status, step=step, epoch=epoch, seconds=lifecycle.seconds)
