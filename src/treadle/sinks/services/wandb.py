"""Weights & Biases, from the process beside a run: what is logged, given to its SDK."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.sinks.services.entries import details, finishing_seconds, line
from treadle.sinks.services.service import Opening, Scene, Service
from treadle.sinks.services.wandb_log import logged

SETTINGS: dict[str, Any] = {
    "silent": True,
    "console": "off",  # this process has nothing to say, and its output belongs to the run's
    "disable_code": True,
    "disable_git": True,  # the run's commit is in its environment; here it would be this process's
    "disable_job_creation": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 2.0,  # what a killed machine loses of what was handed over
    "init_timeout": 20.0,
    "finish_timeout_raises": True,
}
"""What differs from the SDK's defaults, wherever the user's own variables do not say otherwise."""

JOURNAL_ROWS = 10_000
"""So many entries of the journal, the newest, are in its table: more W&B does not show."""

CLOUD_POINTS = 100_000
"""So many points of a scene are given to W&B, evenly picked: its page shows 300 000 at most, and slowly."""

EXIT_CODES = {"finished": 0, "stopped": 0, "failed": 1, "killed": 255}
"""How a run ended, as W&B shows it: finished, finished, failed, killed."""

OWN = ("step", "epoch", "event", "journal", "rewound_to")
"""Columns of our own; a picture or text of such a name gets an underscore behind it."""


class WandbService(Service):
    """One W&B run for the run, whatever process it lives in: its id is the run's."""

    def __init__(self) -> None:
        self._run: Any = None
        self._opening: Opening | None = None
        self._epoch = 0
        self._next_row: int | None = None  # set where the first row of this session goes on from an earlier one
        self._told: Counter[tuple[str, str]] = Counter()  # how often each (column, kind) was handed over
        self._artifacts: list[Any] = []  # that a server may still refuse
        self._refused: list[str] = []
        self._links_in: Path | None = None
        self._log_file: Path | None = None
        self._journal: deque[Mapping[str, Any]] = deque(maxlen=JOURNAL_ROWS)

    def open(self, opening: Opening) -> str:
        """Begin or resume the W&B run `opening.id`; returns its page, or the directory of an offline run."""
        os.environ.pop("WANDB_SERVICE", None)  # a training program that uses W&B itself has a service of its own
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        directory = _directory(opening)
        directory.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_DATA_DIR", str(directory / "wandb"))  # where artifacts wait to be uploaded
        options, parent = opening.options, opening.parent
        wanted = SETTINGS | {"finish_timeout": finishing_seconds()}
        settings = {name: value for name, value in wanted.items() if not _set_by_the_user(name)}
        arguments: dict[str, Any] = {
            "entity": options.get("entity"),
            "project": options.get("project") or os.environ.get("WANDB_PROJECT") or project_name(opening.project),
            "id": opening.id,
            "resume": "allow",
            "dir": os.environ.get("WANDB_DIR") or str(directory),
            # What "stop" on its page would interrupt is this process, not the run.
            "settings": wandb.Settings(**settings, stop_fn=lambda: None),
        }
        # On a server the run may have got another name and other tags since: they stay.
        if not opening.goes_on or wandb.setup().settings.mode == "offline":
            arguments |= _description(opening)
        self._links_in = None if os.environ.get("WANDB_DIR") else directory
        self._run = _begin(opening.id, arguments, self._links_in)
        self._opening = opening
        run = self._run
        extra = {"trainer": opening.trainer, "environment": dict(opening.environment)}
        run.config.update(
            extra | ({"parent": dict(parent)} if parent else {}) | dict(opening.config), allow_val_change=True
        )
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        run.define_metric("epoch/*", step_metric="epoch")
        if run.disabled:
            return "nowhere: WANDB_MODE=disabled"
        rows = _rows_before(Path(run.settings.sync_dir), opening.id)
        self._next_row = rows if rows > run.step else None
        return run.settings.sync_dir if run.offline else str(run.url)

    def scalars(self, step: int, epoch: int, split: str, values: Mapping[str, float], time: float) -> None:
        """A row of history: "train/loss", ... over "step"; those of whole epochs over "epoch"."""
        self._epoch = epoch
        self._log("scalars", step, {f"{split}/{name}": value for name, value in values.items()}, time)

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """A media panel with a slider over the steps."""
        import wandb
        from PIL import Image

        # From an array the SDK would drop sides of length 1: a row of colours becomes a grey picture.
        image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        self._log("picture", step, {column(name): wandb.Image(image, file_type="png")})

    def text(self, step: int, name: str, text: str) -> None:
        """A media panel with the text as it is, and a slider over the steps."""
        import wandb

        page = f'<pre style="white-space: pre-wrap">{html.escape(text)}</pre>'
        self._log("text", step, {column(name): wandb.Html(page, inject=False, data_is_not_path=True)})

    def scene(self, step: int, name: str, scene: Scene) -> None:
        """The points, or a mesh's or the lines' points, as a cloud that can be turned."""
        import wandb

        for points, colors in (
            (scene.points, scene.colors),
            (scene.vertices, scene.vertex_colors),
            (scene.lines, scene.line_colors),
        ):
            if points is not None and len(points):
                kept = np.linspace(0, len(points) - 1, min(len(points), CLOUD_POINTS)).astype(int)
                cloud = np.asarray(points, dtype=np.float64)[kept]
                if colors is not None:
                    cloud = np.concatenate([cloud, colors[kept]], axis=1)
                self._log("scene", step, {column(name): wandb.Object3D(cloud)})
                return

    def event(self, entry: Mapping[str, Any]) -> None:
        """A row whose "event" is the entry in one line; all of them are the table "journal" at the end."""
        self._epoch = int(entry.get("epoch", self._epoch))
        self._journal.append(entry)
        self._log("event", int(entry.get("step", 0)), {"event": line(entry)}, entry.get("time"))

    def cut(self, step: int) -> None:
        """A row that says so: rows cannot be taken back, and those that follow are beside the ones given up."""
        self._log("event", step, {"rewound_to": step})

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """A version of the artifact "name-ID" of that kind; the SDK uploads what differs from the version before."""
        import wandb

        assert self._run is not None and self._opening is not None
        artifact = wandb.Artifact(
            artifact_name(f"{name}-{self._opening.id}"), type=kind, metadata={"run": self._opening.run}
        )
        if path.is_dir():
            artifact.add_dir(str(path), skip_cache=True)
        else:
            artifact.add_file(str(path), skip_cache=True)
        logged = self._run.log_artifact(artifact)
        if not self._run.offline:
            self._artifacts.append(logged)

    def summary(self, values: Mapping[str, Any]) -> None:
        """The run's summary, beside the last value of everything that was logged."""
        assert self._run is not None
        self._run.summary.update(dict(values))

    def close(self, status: str) -> None:
        """Log the journal's table and finish, within the time that a run waits for its loggers.

        Raises TimeoutError, with the command that sends the rest, where not all is uploaded by then; RuntimeError where
        the server has refused an artifact.
        """
        import wandb

        if self._run is None:
            return
        run, self._run = self._run, None
        self._log_file = None if run.disabled else Path(run.settings.sync_file)
        try:
            if self._journal:
                step = int(self._journal[-1].get("step", 0))
                run.log({"step": step, "epoch": self._epoch, "journal": self._table()})
            self._wait_for_artifacts(finishing_seconds() / 2)
        finally:  # a server that does not want the table gets the rest
            try:
                run.finish(exit_code=EXIT_CODES.get(status, 1))
            except TimeoutError:
                raise TimeoutError(f"not all is uploaded: wandb sync {run.settings.sync_dir}") from None
            finally:
                wandb.teardown()
                _unlink(self._links_in)
        if self._refused:
            raise RuntimeError(f"an artifact was refused: {self._refused[0]}")

    def lost(self) -> Mapping[str, int]:
        """What is not in the file that the SDK keeps of this session, once that is closed."""
        lost = Counter({"artifact": len(self._refused)})
        if self._log_file is not None:
            found = logged(self._log_file)[0] if self._log_file.exists() else Counter[str]()
            for (name, kind), count in self._told.items():
                lost[kind] += max(0, count - found[name])
        return +lost

    def _wait_for_artifacts(self, seconds: float) -> None:
        """Hear of each artifact whether the server has it; one that is not there by then is left to `finish`."""
        import wandb

        until = time.monotonic() + seconds
        for artifact in self._artifacts:
            try:
                artifact.wait(timeout=max(0.1, until - time.monotonic()))
            except wandb.errors.Error:
                return
            except ValueError as error:
                self._refused.append(f"{artifact.name} ({error})")

    def _log(self, kind: str, step: int, values: Mapping[str, Any], time: float | None = None) -> None:
        assert self._run is not None
        row = {"step": step, "epoch": self._epoch, **values}
        if time is not None:
            row["_timestamp"] = float(time)
        if self._next_row is None:
            self._run.log(row)
        else:  # rows of an offline run are counted from 0 in each session, and a server drops those that it has
            self._run.log(row, step=self._next_row, commit=True)
            self._next_row = None
        self._told.update((name, kind) for name in values)

    def _table(self) -> Any:
        """The journal's entries of this session, and those before it that are still in the run's directory."""
        import wandb

        assert self._opening is not None
        both = [*_journal_of(self._opening.directory), *self._journal]
        entries = {(entry.get("time"), entry.get("event"), entry.get("step")): entry for entry in both}
        table = wandb.Table(columns=["time", "step", "epoch", "event", "details"])
        for entry in sorted(entries.values(), key=lambda entry: float(entry.get("time", 0)))[-JOURNAL_ROWS:]:
            when = datetime.fromtimestamp(float(entry.get("time", 0)), UTC).isoformat(" ", "milliseconds")
            table.add_data(when, entry.get("step"), entry.get("epoch"), entry.get("event"), details(entry))
        return table


def _description(opening: Opening) -> dict[str, Any]:
    """What people know the run by: the options', or the user's variables', and what it was forked from."""
    options, parent = opening.options, opening.parent
    notes = [options.get("notes") or os.environ.get("WANDB_NOTES")]
    tags = list(options.get("tags") or filter(None, os.environ.get("WANDB_TAGS", "").split(",")))
    if parent:
        notes.append(f"forked from {parent['run']} ({parent['id']}) at step {parent['step']}")
        tags.append("fork")
    return {
        "name": os.environ.get("WANDB_NAME") or opening.run,
        "group": options.get("group"),
        "tags": tags or None,
        "notes": "\n".join(filter(None, notes)) or None,
    }


def _begin(run_id: str, arguments: dict[str, Any], links_in: Path | None) -> Any:
    """Begin or resume the run in the SDK; where it cannot, nothing of the attempt stays behind."""
    import wandb

    root = Path(arguments["dir"])
    before = set(root.glob(f"*wandb/run-*-{run_id}*"))
    begun = threading.Event()
    threading.Thread(target=_unlink, args=(links_in, begun), daemon=True).start()
    try:
        return wandb.init(**arguments)
    except Exception as error:
        wandb.teardown()
        for path in set(root.glob(f"*wandb/run-*-{run_id}*")) - before:
            shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, wandb.errors.UsageError) and "API key" in str(error):
            raise RuntimeError("nobody is logged in: wandb login, or WANDB_MODE=offline to send it later") from None
        raise
    finally:
        begun.set()


def _unlink(root: Path | None, done: threading.Event | None = None) -> None:
    """Remove the links to logs that the SDK makes: a run's directory has none that lead out of it, also once moved.

    With `done` as soon as they are made, until it is set: to begin a run may take long, and be ended from outside.
    """
    while root is not None:
        for path in (*root.glob("*wandb/*"), *root.glob("*wandb/*/logs/*")):
            if path.is_symlink():
                path.unlink(missing_ok=True)
        if done is None or done.is_set():
            return
        done.wait(0.05)


def project_name(name: str) -> str:
    """`name` without the characters that W&B takes in no project's name, and at most as long as it may be."""
    return re.sub(r"[/\\#?%:]", "-", name)[:128] or "treadle"


def column(name: str) -> str:
    """`name`, or another where it is that of a column of ours."""
    return f"{name}_" if name in OWN else name


def artifact_name(name: str) -> str:
    """`name` with nothing but what W&B takes in an artifact's name."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:128]


def _set_by_the_user(setting: str) -> bool:
    """Whether one of the variables from which the SDK takes this setting is there."""
    private = setting.removeprefix("x_")
    return any(
        f"WANDB_{name.upper()}" in os.environ for name in {setting, f"_{private}" if private != setting else setting}
    )


def _directory(opening: Opening) -> Path:
    """Where the SDK keeps its files: beside the run's, or in the user's cache for a run that is not on disk."""
    if opening.directory is not None:
        return opening.directory
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "treadle"


def _rows_before(sync_dir: Path, run_id: str) -> int:
    """How many rows earlier sessions have kept here of this run."""
    earlier = [path for path in sync_dir.parent.glob(f"*run-*-{run_id}*/run-{run_id}.wandb") if path.parent != sync_dir]
    return max((logged(path)[1] for path in earlier), default=0)


def _journal_of(directory: Path | None) -> list[Mapping[str, Any]]:
    """The whole lines of the run's journal; none where it has none."""
    path = directory / "journal.jsonl" if directory is not None else None
    if path is None or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
