"""trackio, from the process beside a run: what is logged, given to its SDK, which keeps it or sends it to a host."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.sinks.services.entries import details, finishing_seconds
from treadle.sinks.services.service import Opening, Service

HOSTS = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""The variables that send what is logged to a host; without them it stays in TRACKIO_DIR."""

ANSWER_SECONDS = 2.0
"""A host that takes longer for what it is sent is told as one that does not answer."""

WARNINGS = ("failed", "damaged", "bad step", "lost", "no update", "not written", "rewind", "rollback")
"""What in an event's name makes its alert a warning."""


class TrackioService(Service):
    """One trackio run for the run, whatever process it lives in: it is found again by its name."""

    def __init__(self) -> None:
        self._run: Any = None
        self._arguments: dict[str, Any] = {}
        self._opening: Opening | None = None
        self._host = False
        self._closed = False
        self._epoch = 0
        self._told: Counter[tuple[str, str]] = Counter()  # how often each (column, kind) was handed over
        self._before = {"metrics": 0, "alerts": 0}  # the newest rows of these tables that are not this session's
        self._lost: Counter[str] = Counter()

    def open(self, opening: Opening) -> str:
        """Begin or resume the trackio run; returns the directory that it is kept in, or its host."""
        # The SDK prints as it goes, and what it does next it leaves out where nobody is there to read that any more.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as this process lives
        self._host = any(os.environ.get(name) for name in HOSTS)
        if not self._host:  # nothing that is kept here needs a network: the SDK would ask who is logged in
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        parent = opening.parent
        own = {"id": opening.id, "trainer": opening.trainer, "environment": dict(opening.environment)}
        config = own | ({"parent": dict(parent)} if parent else {}) | dict(opening.config)
        self._opening = opening
        self._arguments = {
            "project": project_name(opening.options.get("project") or opening.project),
            "name": run_name(opening),
            "group": opening.options.get("group"),
            "config": {name.lstrip("_") or "_": value for name, value in config.items()},  # "_..." is the SDK's own
            "embed": False,
            "auto_log_gpu": False,
            "auto_log_cpu": False,
            "webhook_min_level": os.environ.get("TRACKIO_WEBHOOK_MIN_LEVEL") or "warn",
        }
        self._begin()
        if self._host:
            return str(self._run.url).partition("?")[0]
        from trackio.utils import TRACKIO_DIR

        return f"{TRACKIO_DIR} (trackio show --project {self._arguments['project']})"

    def scalars(self, step: int, epoch: int, split: str, values: Mapping[str, float], time: float) -> None:
        """A row of metrics: "train/loss", ...; trackio notes the time itself."""
        self._epoch = epoch
        self._log("scalars", step, {f"{split}/{name}": value for name, value in values.items()})

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """A picture in its gallery."""
        import trackio
        from PIL import Image

        image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        self._log("picture", step, {column(name): trackio.Image(image)})

    def text(self, step: int, name: str, text: str) -> None:
        """A report, shown as Markdown."""
        import trackio

        self._log("text", step, {column(name): trackio.Markdown(text)})

    def event(self, entry: Mapping[str, Any]) -> None:
        """An alert: a warning for what went wrong or back, else information."""
        import trackio

        assert self._run is not None
        name = str(entry.get("event"))
        bad = entry.get("status") == "failed" or any(word in name for word in WARNINGS)
        level = trackio.AlertLevel.WARN if bad else trackio.AlertLevel.INFO
        self._run.alert(name, details(entry) or None, level=level, step=int(entry.get("step", 0)))
        self._told["", "event"] += 1

    def cut(self, step: int) -> None:
        """Take back what is kept here after `step`; a host keeps it, and an alert says so."""
        import trackio

        assert self._run is not None
        if self._host or not _in_sqlite():
            text = "what was logged after this step was given up, and other values follow"
            self._run.alert(f"went back to step {step}", text, level=trackio.AlertLevel.WARN, step=step)
            return
        self._run.finish()  # everything is written before any of it is taken back
        lost = self.lost()
        database = self._database()
        if database is not None:
            with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
                connection.execute("DELETE FROM metrics WHERE run_id = ? AND step > ?", (self._run.id, step))
        self._begin()
        self._lost = Counter(lost)

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """A version of the artifact "name-ID" of that kind. Raises ConnectionError where its host is away."""
        import trackio

        assert self._run is not None and self._opening is not None
        until = time.monotonic() + ANSWER_SECONDS
        while self._host and self._run._client is None:  # the SDK would wait for a minute
            if time.monotonic() > until:
                raise ConnectionError(f"{name} is not sent: the host cannot be reached")
            time.sleep(0.02)
        artifact = trackio.Artifact(artifact_name(f"{name}-{self._opening.id}"), type=kind)
        if path.is_dir():
            artifact.add_dir(path)
        else:
            artifact.add_file(path)
        self._run.log_artifact(artifact)

    def summary(self, values: Mapping[str, Any]) -> None:
        """A table "summary", a row for each value."""
        import trackio

        told = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
        table = trackio.Table(columns=["what", "value"], data=[[name, value] for name, value in told.items()])
        self._log("summary", int(values.get("step") or 0), {"summary": table})

    def flush(self) -> None:
        """Have the SDK write or send what it has gathered: it does so every half a second.

        Raises TimeoutError where its host does not answer. While that cannot be reached it is kept here as well.
        """
        run = self._run
        if run is None or self._closed:
            return
        if not self._host or run._client is None:
            with run._client_lock:
                run._flush_queues_inline()
            return
        until = time.monotonic() + ANSWER_SECONDS
        while run._queued_logs or run._queued_uploads or run._queued_alerts or run._sending_batch:
            if time.monotonic() > until:
                raise TimeoutError(f"its host has not answered in {ANSWER_SECONDS:g} s")
            time.sleep(0.02)

    def close(self, status: str) -> None:
        """Write or send what waits. Raises RuntimeError where a host has not got all of it in time."""
        if self._run is None:
            return
        self._closed = True
        if not self._host:
            self._run.finish()
            return
        from trackio.sqlite_storage import SQLiteStorage
        from trackio.utils import TRACKIO_DIR

        end = threading.Thread(target=self._run.finish, daemon=True)  # it may take half a minute
        end.start()
        end.join(finishing_seconds())
        if end.is_alive():
            self._run._flush_queues_inline()  # what it still has in memory is kept here
        if end.is_alive() or SQLiteStorage.has_pending_data(self._arguments["project"]):
            raise RuntimeError(f"not all has reached its host: the rest waits in {TRACKIO_DIR} for the next run there")

    def lost(self) -> Mapping[str, int]:
        """What was handed over and is not in the file that it is kept in; a host does not say what it has."""
        if self._host or self._run is None or not _in_sqlite():
            return {}
        database, found = self._database(), Counter[str]()
        if database is not None:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
                mine = (self._run.id, self._before["metrics"])
                for (metrics,) in connection.execute("SELECT metrics FROM metrics WHERE run_id = ? AND id > ?", mine):
                    found.update(json.loads(metrics).keys())
                mine = (self._run.id, self._before["alerts"])
                rows = connection.execute("SELECT COUNT(*) FROM alerts WHERE run_id = ? AND id > ?", mine)
                found[""] = rows.fetchone()[0]
        lost = Counter(self._lost)
        for (name, kind), count in self._told.items():
            lost[kind] += max(0, count - found[name])
        return +lost

    def _begin(self) -> None:
        """Begin or resume the run in the SDK; what is handed over is counted from here."""
        import trackio

        self._run = trackio.init(**self._arguments, resume="allow")
        self._told.clear()
        database = None if self._host else self._database()
        if database is not None:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
                for table in self._before:
                    (self._before[table],) = connection.execute(f"SELECT COALESCE(MAX(id), 0) FROM {table}").fetchone()

    def _log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        assert self._run is not None
        self._run.log({"epoch": self._epoch, **values}, step=step)
        self._told.update((name, kind) for name in values)

    def _database(self) -> Path | None:
        """The file that the SDK keeps this project in; None where there is none, or it keeps fragments instead."""
        from trackio.sqlite_storage import SQLiteStorage

        path = Path(SQLiteStorage.get_project_db_path(self._arguments["project"]))
        return path if _in_sqlite() and path.exists() else None


def run_name(opening: Opening) -> str:
    """Its name in trackio, which finds runs by their names: two runs called "line/v001" stay two."""
    return f"{opening.run.replace('/', '-')}-{opening.id[:6]}"


def project_name(name: str) -> str:
    """`name`, or another where trackio keeps it for files of its own."""
    from trackio.sqlite_storage import SQLiteStorage

    try:
        SQLiteStorage.validate_project_name(name)
    except ValueError:
        return re.sub("^registry-", "", name) + "-runs"
    return name


def column(name: str) -> str:
    """`name`, or another where trackio keeps it for itself."""
    from trackio.utils import RESERVED_KEYS

    return f"{name}_" if name in (*RESERVED_KEYS, "epoch", "summary") else name.lstrip("_") or "_"


def artifact_name(name: str) -> str:
    """`name` with nothing but what trackio takes in an artifact's name."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)


def _in_sqlite() -> bool:
    """Whether the SDK writes to a database; on network drives it keeps fragments that its dashboard reads in."""
    from trackio.utils import get_storage_mode

    return bool(get_storage_mode() == "sqlite")
