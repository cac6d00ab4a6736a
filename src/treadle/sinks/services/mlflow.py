"""MLflow, from the process beside a run: what is logged, given to its tracking client."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import re
import time as clock
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.files import file_name, to_json
from treadle.sinks.services.flat import all_entries, flatten
from treadle.sinks.services.service import Opening, Service

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing is told to anybody but the server that was asked for
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    # A server that is away would hold up everything for minutes: it is asked again later all the same.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Set in this process where the user's own variables do not say otherwise."""

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The tag of experiments that we make: without it their runs' pages show neither metrics nor parameters."""

STATUSES = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "killed": "KILLED"}
"""How a run ended, as MLflow says it; the tag treadle.status says it in our words."""

ENVIRONMENT = tuple(f"environment.{name}" for name in ("python", "packages.", "git.", "hardware.host", "hardware.gpus"))
"""What of the environment is worth a tag; all of it is in environment.json."""

METRICS_AT_ONCE = 1000
PARAMETERS_AT_ONCE = 100
"""More MLflow takes in no request; it is the same for tags."""
LONGEST_NAME = 230
LONGEST_PARAMETER = 6000
LONGEST_TAG = 5000
"""Characters that MLflow takes of a name (less what tags put before it), a parameter and a tag."""
FILES_SECONDS = 10.0
"""While things happen, the run's events.jsonl is not sent more often."""
POINTS_COUNTED = 50_000
"""So many points of a session, the first, are read back at its end."""


class MlflowService(Service):
    """One MLflow run for the run, whatever process it lives in: the one with the tag `treadle.id`.

    What is logged twice with the same name, step, time and value is there once: that is how MLflow keeps it. It takes
    nothing back: after a rewind both futures are there, and `treadle.rewinds` says when each began.
    """

    def __init__(self) -> None:
        self._client: Any = None
        self._run = ""
        self._directory: Path | None = None
        self._tags: dict[str, str] = {}
        self._waiting: list[Any] = []
        self._files: dict[str, str] = {}
        self._entries: list[Mapping[str, Any]] = []
        self._described = 0.0
        self._rewinds: list[dict[str, Any]] = []
        self._renamed: set[str] = set()
        self._counted: dict[str, set[tuple[int, int]]] = {}
        self._points = 0
        self._step = 0

    def open(self, opening: Opening) -> str:
        """Find the run by its tag, or create it; returns its page, or how to see it where no server has been asked."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import mlflow

        place = opening.options.get("uri") or mlflow.get_tracking_uri()
        if is_directory(place) and not mlflow.environment_variables.MLFLOW_ALLOW_FILE_STORE.get():
            raise ValueError(
                f"{place} is a directory of files, which MLflow 3 takes no more: give it a database such as "
                "sqlite:///mlflow.db (mlflow migrate-filestore copies what is there), or a server's http:// address"
            )
        with alone(place):
            self._client = client = mlflow.MlflowClient(tracking_uri=place)
            experiment = self._experiment(opening)
        run = self._find(experiment, opening.id)
        if run is None and opening.goes_on:
            raise LookupError(
                f"no run there has the tag treadle.id = {opening.id}, though it was sent before: where it was sent to "
                "is the place to go on, or without logs/sent.mlflow*.json in the run's directory all is sent anew"
            )
        tags = self._first_tags(opening, experiment)
        if run is None:
            run = client.create_run(experiment, run_name=opening.run, tags=tags)
        else:
            client.update_run(run.info.run_id, status="RUNNING")
        self._run, self._directory = run.info.run_id, opening.directory
        self._rewinds = json.loads(run.data.tags.get("treadle.rewinds", "[]"))
        self._parameters(opening.config, run.data.params)
        self._tags |= {
            name: str(value)
            for name, value in flatten(opening.environment, "environment.").items()
            if name.startswith(ENVIRONMENT) and value not in (None, "", "{}", "[]")
        }
        self._send_tags()
        self._files = {"config.yaml": _json(opening.config), "environment.json": _json(opening.environment)}
        if re.match("https?://", place):
            return f"{place.rstrip('/')}/#/experiments/{experiment}/runs/{self._run}"
        return f"mlflow server --backend-store-uri {place} (run {self._run})"

    def scalars(self, step: int, epoch: int, split: str, values: Mapping[str, float], time: float) -> None:
        """Metrics "train/loss", ... with their step and time; sent together with others."""
        from mlflow.entities import Metric

        if len(self._waiting) >= METRICS_AT_ONCE:
            self.flush()
        self._step = step
        stamp = int(time * 1000)
        named = {self._name(f"{split}/{name}"): float(value) for name, value in values.items()}
        self._waiting += [Metric(name, value, stamp, step) for name, value in named.items()]

    def flush(self) -> None:
        """Send the metrics that wait."""
        while self._waiting:
            batch = self._waiting[:METRICS_AT_ONCE]
            self._client.log_batch(self._run, metrics=batch)
            del self._waiting[: len(batch)]
            if self._points < POINTS_COUNTED:
                self._points += len(batch)
                for metric in batch:
                    self._counted.setdefault(metric.key, set()).add((metric.step, metric.timestamp))

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """A picture with a slider over the steps."""
        self._client.log_image(self._run, picture, key=self._name(name, r"[^\w\-./ ]"), step=step, synchronous=True)

    def text(self, step: int, name: str, text: str) -> None:
        """An artifact text/NAME/step-00000050.txt."""
        self._client.log_text(self._run, text, f"text/{artifact_name(name)}/step-{step:08d}.txt")

    def event(self, entry: Mapping[str, Any]) -> None:
        """A line of the artifact events.jsonl, and a tag with the last of its kind."""
        self._entries.append(entry)
        said = f"step {entry.get('step')}, {clock.strftime('%F %T', clock.localtime(float(entry.get('time', 0))))}"
        self._tags[f"treadle.event.{entry.get('event')}"] = said
        if clock.monotonic() - self._described >= FILES_SECONDS:
            self._describe()

    def cut(self, step: int) -> None:
        """A tag that says so: what MLflow was sent it keeps, and what follows comes later in time."""
        self.flush()
        self._rewinds.append({"to_step": step, "time": clock.time(), "given_up_through_step": self._step})
        self._tags["treadle.rewinds"] = json.dumps(self._rewinds[-30:])
        self._step = step
        self._send_tags()

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """An artifact under its own name."""
        if path.is_dir():
            self._client.log_artifacts(self._run, str(path), artifact_name(name))
        else:
            self._client.log_artifact(self._run, str(path), artifact_name(name) if path.name != name else None)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Tags, the artifact summary.json, and the best model's value as a metric "best/NAME" to sort by."""
        best = values.get("best") or {}
        for name in ("reason", "seconds", "digest"):
            if values.get(name) not in (None, ""):
                self._tags[f"treadle.{name}"] = str(values[name])
        if isinstance(best.get("value"), int | float) and isinstance(best.get("step"), int):
            key, value = self._name(f"best/{best.get('metric') or best.get('monitor') or 'value'}"), best["value"]
            self._tags["treadle.best"] = json.dumps(best)
            if self._client.get_run(self._run).data.metrics.get(key) != value:
                self._client.log_metric(self._run, key, value, step=best["step"])
        self._files["summary.json"] = _json(values)
        self._describe()

    def close(self, status: str) -> None:
        """Send what waits and end the run at MLflow. Tries all of it, and raises what failed first."""
        troubles: list[Exception] = []
        self._tags["treadle.status"] = status
        for send in (
            self.flush,
            self._describe,
            lambda: self._client.set_terminated(self._run, STATUSES.get(status, "FAILED")),
        ):
            try:
                send()
            except Exception as error:
                troubles.append(error)
        if troubles:
            raise troubles[0]

    def lost(self) -> Mapping[str, int]:
        """What was sent in this session, and is not there when it is read back."""
        missing = len(self._waiting)
        for key, sent in self._counted.items():
            stored = {(point.step, point.timestamp) for point in self._client.get_metric_history(self._run, key)}
            missing += len(sent - stored)
        return {"values": missing}

    def _experiment(self, opening: Opening) -> str:
        """The id of the experiment: what the hook was made with, then MLflow's own variables, then the project."""
        from mlflow.exceptions import MlflowException

        name = opening.options.get("experiment") or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if not name and os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return os.environ["MLFLOW_EXPERIMENT_ID"]
        name = name or opening.project
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, tags=KIND))
            except MlflowException:  # another run has made it meanwhile
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise ValueError(
                f"the experiment {name!r} was deleted: mlflow experiments restore -x {found.experiment_id}"
            )
        return str(found.experiment_id)

    def _find(self, experiment: str, id: str) -> Any:
        """The run with the tag treadle.id; None where there is none."""
        found = self._client.search_runs([experiment], f"tags.`treadle.id` = '{id}'", max_results=1)
        return found[0] if found else None

    def _first_tags(self, opening: Opening, experiment: str) -> dict[str, str]:
        """What a run is made with: who it is, and whose fork."""
        tags = {
            "treadle.id": opening.id,
            "treadle.run": opening.run,
            "treadle.trainer": opening.trainer,
            "mlflow.source.name": opening.trainer,
            "mlflow.source.type": "LOCAL",
        }
        with suppress(OSError, KeyError, ImportError):
            tags["mlflow.user"] = getpass.getuser()
        commit = (opening.environment.get("git") or {}).get("commit")
        if commit:
            tags["mlflow.source.git.commit"] = str(commit)
        if opening.parent:
            parent = opening.parent
            tags["treadle.parent"] = f"{parent['run']} ({parent['id']}) at step {parent['step']}"
            tags["mlflow.note.content"] = f"Forked from `{parent['run']}` at step {parent['step']}."
            known = self._find(experiment, str(parent["id"]))
            if known is not None:  # its page lists forks below it
                tags["mlflow.parentRunId"] = known.info.run_id
        return tags

    def _parameters(self, config: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """Log what is not there yet; MLflow lets no parameter be changed, so what a resume has changed are tags."""
        from mlflow.entities import Param

        new, cut = [], []
        for name, value in flatten(config).items():
            key, text = self._name(name), str(value)
            if len(text) > LONGEST_PARAMETER:
                cut.append(name)
                text = f"{text[: LONGEST_PARAMETER - 1]}…"
            if key not in known:
                new.append(Param(key, text))
            elif known[key] != text:
                self._tags[f"treadle.changed.{name}"] = text
        for begin in range(0, len(new), PARAMETERS_AT_ONCE):
            self._client.log_batch(self._run, params=new[begin : begin + PARAMETERS_AT_ONCE])
        if cut:
            self._tags["treadle.cut_parameters"] = f"cut, whole in config.yaml: {', '.join(cut)}"

    def _describe(self) -> None:
        """Send tags and files that have changed."""
        self._described = clock.monotonic()
        self._send_tags()
        if self._entries:
            entries = all_entries(self._directory, self._entries)
            self._files["events.jsonl"] = "".join(f"{to_json(entry)}\n" for entry in entries)
        for name in list(self._files):
            self._client.log_text(self._run, self._files[name], name)
            del self._files[name]

    def _send_tags(self) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(plain_name(name, longest=250), text[:LONGEST_TAG]) for name, text in self._tags.items()]
        for begin in range(0, len(tags), PARAMETERS_AT_ONCE):
            self._client.log_batch(self._run, tags=tags[begin : begin + PARAMETERS_AT_ONCE])
        self._tags.clear()

    def _name(self, name: str, refused: str = r"[^/\w.\- ]") -> str:
        """`name` as MLflow takes it; where that is another, a tag treadle.name.MAPPED says what it was."""
        mapped = plain_name(name, refused)
        if mapped != name and name not in self._renamed:
            self._renamed.add(name)
            self._tags[f"treadle.name.{mapped}"] = name
        return mapped


def plain_name(name: str, refused: str = r"[^/\w.\- ]", longest: int = LONGEST_NAME) -> str:
    """A name that MLflow takes: what `refused` matches becomes "_", and no part may lead out of a folder.

    One that had to be changed ends with a checksum of what it was, so that two do not become one.
    """
    parts = [part for part in re.sub(refused, "_", name, flags=re.ASCII).split("/") if part.strip(". ")]
    plain = "/".join(parts)
    if plain and plain == name and len(name) <= longest:
        return name
    return f"{plain[: longest - 5]}-{zlib.crc32(name.encode(errors='replace')) & 0xFFFF:04x}"


def is_directory(place: str) -> bool:
    """Whether a tracking URI is that of a directory of files."""
    return place.startswith("file:") or ("://" not in place and not re.match(r"databricks|uc\b", place))


@contextmanager
def alone(place: str) -> Iterator[None]:
    """Within the block no other run of ours begins in the same SQLite database.

    Two processes that make the tables of a new one at once get into each other's way.
    """
    found = re.match(r"sqlite:///([^?]+)", place)
    if found is None:
        yield
        return
    directory = Path(found[1]).absolute().parent
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def artifact_name(name: str) -> str:
    """The folder or file that an artifact is kept in."""
    return re.sub(r"[^\w.\- ]", "-", file_name(name), flags=re.ASCII)


def _json(values: Mapping[str, Any]) -> str:
    """As JSON, which is YAML too."""
    return json.dumps(json.loads(to_json(values)), indent=2, ensure_ascii=False) + "\n"
