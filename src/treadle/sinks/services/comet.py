"""Comet, from the process beside a run: what is logged, given to its SDK."""

from __future__ import annotations

import hashlib
import html
import json
import logging
import os
import shutil
import tempfile
import time as clock
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.files import to_json
from treadle.sinks.services.entries import line
from treadle.sinks.services.flat import all_entries, flatten
from treadle.sinks.services.service import Opening, Service

QUIET = {
    "COMET_DISABLE_ANNOUNCEMENT": "true",
    "COMET_ERROR_TRACKING_ENABLE": "false",
    "COMET_INTERNAL_REPORTING": "false",
    "COMET_DISPLAY_SUMMARY_LEVEL": "0",
    "COMET_LOGGING_CONSOLE": "error",
    # A server that is away would hold up everything: it is asked again later all the same.
    "COMET_HTTP_SESSION_RETRY_TOTAL": "1",
    "COMET_GET_OR_ADD_EXPERIMENT_RETRY_TOTAL": "1",
}
"""Set in this process where the user's own variables do not say otherwise."""

NOTHING_BY_ITSELF: dict[str, Any] = {
    "log_code": False,
    "log_graph": False,
    "parse_args": False,
    "log_git_metadata": False,
    "log_git_patch": False,
    "log_env_details": False,
    "log_env_gpu": False,
    "log_env_host": False,
    "log_env_cpu": False,
    "log_env_network": False,
    "log_env_disk": False,
    "auto_output_logging": False,
    "auto_param_logging": False,
    "auto_metric_logging": False,
    "auto_log_co2": False,
}
"""What Comet would log of this process by itself; the run's own environment is sent as what it is."""

LONGEST_NAME = 100
LONGEST_VALUE = 1000
"""Characters: more of a name or a value Comet cuts off."""
WRITTEN_SECONDS = 5.0
"""What an offline experiment was given is in its file after so long, or lost."""
MESSAGES = "messages.json"
"""The file of an offline experiment: a line of JSON for each thing that was logged."""


class CometService(Service):
    """One Comet experiment for the run: its key is derived from the run's id, so every session goes on with the same.

    Without a key it is offline: each session leaves an archive KEY-XXXXXX.zip, which `comet upload` sends in any order.
    What a killed process has left of one becomes an archive when the run is next opened. Comet takes nothing back:
    after a rewind both futures are there.
    """

    def __init__(self) -> None:
        self._experiment: Any = None
        self._directory: Path | None = None
        self._entries: list[Mapping[str, Any]] = []
        self._step = 0
        self._rewinds = 0
        self._offline: OfflineFiles | None = None
        self._metrics: Counter[str] = Counter()
        self._files: Counter[str] = Counter()

    def open(self, opening: Opening) -> str:
        """Begin the experiment, or go on with it; returns its page, or the directory of its archives."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import comet_ml

        key, options, known = experiment_key(opening.id), opening.options, comet_ml.get_config()
        workspace = options.get("workspace") or comet_ml.config.get_workspace(None, known)
        project = options.get("project") or comet_ml.config.get_project_name(None, known) or opening.project
        settings = comet_ml.ExperimentConfig(
            **NOTHING_BY_ITSELF, display_summary_level=0, name=opening.run, tags=["fork"] if opening.parent else None
        )
        if not is_online(comet_ml):
            self._offline = OfflineFiles(archives(comet_ml, opening.directory), key)
            self._offline.recover(workspace, project)
            settings.offline_directory = str(self._offline.directory)
            tempfile.tempdir = str(self._offline.unfinished)  # where it gathers what the archive is made of at its end
        try:
            self._experiment = experiment = comet_ml.start(
                workspace=workspace,
                project_name=project,
                experiment_key=key,
                mode="get_or_create",
                online=self._offline is None,
                experiment_config=settings,
            )
        finally:
            tempfile.tempdir = None
        if not experiment.alive:
            raise ConnectionError("Comet does not begin the experiment: is the key right, and the server there?")
        self._directory = opening.directory
        if self._offline is not None:
            self._offline.begin(Path(experiment.tmpdir), Path(experiment.offline_directory))
        self._describe(opening)
        return str(self._offline.directory) if self._offline is not None else str(experiment.get_url())

    def scalars(self, step: int, epoch: int, split: str, values: Mapping[str, float], time: float) -> None:
        """Metrics "train/loss", ... with their step and epoch; Comet's time is when it is told of them."""
        self._step = step
        for name, value in values.items():
            key = short_name(f"{split}/{name}")
            self._experiment.log_metric(key, float(value), step=step, epoch=epoch)
            self._metrics[key] += 1

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """A picture with a slider over the steps."""
        from PIL import Image

        # From an array the SDK would stretch dark pictures.
        image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        self._asset("pictures", self._experiment.log_image(image, name=name, step=step, image_format="png"))

    def text(self, step: int, name: str, text: str) -> None:
        """A text, with its name beside it."""
        self._asset("texts", self._experiment.log_text(text, step=step, metadata={"name": name}))

    def event(self, entry: Mapping[str, Any]) -> None:
        """A line of the page of HTML; all of them are the asset events.jsonl at the end."""
        self._entries.append(entry)
        when = clock.strftime("%F %T", clock.localtime(float(entry.get("time", 0))))
        self._html(f"{when}, step {entry.get('step')}: {line(entry)}")

    def cut(self, step: int) -> None:
        """A line that says so: what Comet was sent it keeps, and what follows comes later in time."""
        self._rewinds += 1
        self._html(f"back to step {step}: what is shown after it up to step {self._step} was given up")
        self._other("rewind", f"to step {step}, from step {self._step}")
        self._step = step

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """A model, or assets in a folder of that name."""
        if kind == "model":
            self._asset("artifacts", self._experiment.log_model(name, str(path)))
        elif path.is_dir():
            logged = self._experiment.log_asset_folder(str(path), log_file_name=True, recursive=True)
            self._asset("artifacts", logged)
        else:
            self._asset("artifacts", self._experiment.log_asset(str(path), file_name=name, overwrite=True))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Others: "status", "best.value", ..., and the asset summary.json."""
        for name, value in flatten(values).items():
            if value not in (None, "", "{}"):
                self._other(name, value)
        self._file("summary.json", to_json(values))

    def flush(self) -> None:
        """Wait until what was logged is in the file of an offline experiment, or has reached the server."""
        if self._experiment is None:
            if self._offline is not None:
                self._offline.end()
        elif self._offline is not None:
            self._offline.wait(self._metrics.total())
        elif not self._experiment.flush():
            raise TimeoutError("Comet has not taken all that it was given")

    def close(self, status: str) -> None:
        """End the experiment; offline, make its archive. Raises OSError where that is not there afterwards."""
        self._other("status", status)
        if self._entries:
            entries = all_entries(self._directory, self._entries)
            self._file("events.jsonl", "".join(f"{to_json(entry)}\n" for entry in entries))
        experiment, self._experiment = self._experiment, None
        experiment.end()
        if self._offline is not None:
            self._offline.end()

    def lost(self) -> Mapping[str, int]:
        """What was logged in this session, and is not in the archive that the SDK made of it."""
        if self._offline is None:
            return {}
        metrics: Counter[str] = Counter()
        files = 0
        for message in [] if self._offline.archive is None else read_archive(self._offline.archive):
            if message["type"] == "metric_msg":
                metrics[message["payload"]["metric"]["metricName"]] += 1
            files += message["type"] == "file_upload"
        return {"values": (self._metrics - metrics).total(), "files": max(0, self._files.total() - files)}

    def _describe(self, opening: Opening) -> None:
        """What the run is, and was made with."""
        cut = []
        parameters = {}
        for name, value in flatten(opening.config).items():
            if isinstance(value, str) and len(value) > LONGEST_VALUE:
                cut.append(name)
                value = f"{value[: LONGEST_VALUE - 1]}…"
            parameters[short_name(name)] = value
        self._experiment.log_parameters(parameters, nested_support=False)
        if cut:
            self._other("cut_parameters", f"cut, whole in config.yaml: {', '.join(cut)}")
        self._other("id", opening.id)
        self._other("run", opening.run)
        self._other("trainer", opening.trainer)
        if opening.parent:
            self._other("parent", f"{opening.parent['run']} at step {opening.parent['step']}")
            self._other("parent_key", experiment_key(str(opening.parent["id"])))
        for name, value in flatten(opening.environment, "environment.").items():
            if value not in (None, "", "{}", "[]"):
                self._other(name, value)
        self._file("config.yaml", to_json(opening.config))  # JSON, which is YAML too
        self._file("environment.json", to_json(opening.environment))

    def _other(self, name: str, value: Any) -> None:
        text = value if isinstance(value, int | float) else str(value)[:LONGEST_VALUE]
        self._experiment.log_other(short_name(name), text)

    def _file(self, name: str, content: str) -> None:
        self._asset("files", self._experiment.log_asset_data(content, name=name, overwrite=True))

    def _html(self, text: str) -> None:
        self._experiment.log_html(f"<div>{html.escape(text)}</div>\n")

    def _asset(self, kind: str, logged: Any) -> None:
        """Count what was handed over. Raises ValueError where the SDK has not taken it."""
        if not logged:
            raise ValueError(f"Comet has not taken {kind}")
        self._files[kind] += len(logged) if isinstance(logged, list) else 1


class OfflineFiles:
    """What an offline experiment writes: a folder that is gathered, and an archive that is made of it at the end.

    Args:
        directory: where the archives go.
        key: of the experiment.

    Attributes:
        archive: what `end` has found; None before.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.directory, self.unfinished = directory, directory / f".{key}"
        self.archive: Path | None = None
        self._key = key
        self._messages = Path()
        self._before: set[Path] = set()
        self._read, self._metrics, self._stuck = 0, 0, -1
        self.unfinished.mkdir(parents=True, exist_ok=True)

    def recover(self, workspace: str | None, project: str) -> None:
        """Make archives of what killed processes have left, and clear away what they had begun to make."""
        from comet_ml.offline_utils import create_experiment_archive, write_experiment_meta_file

        for path in self._archives():
            if not _is_whole(path):
                path.unlink()
        for left in sorted(self.unfinished.iterdir()):
            messages = left / MESSAGES
            if messages.is_file():
                content = messages.read_bytes()
                messages.write_bytes(content[: content.rfind(b"\n") + 1])  # the last line may be torn
                begun = json.loads(content.partition(b"\n")[0] or b"{}").get("payload", {}).get("local_timestamp")
                ended = int(messages.stat().st_mtime * 1000)
                if content.count(b"\n"):
                    write_experiment_meta_file(
                        str(left), self._key, workspace, project, begun or ended, ended, [], "get_or_create",
                        user_provided_experiment_key=True, comet_start_sourced=True,
                    )  # fmt: skip
                    name = f"{self._key}-{zlib.crc32(left.name.encode()):08x}.zip"
                    create_experiment_archive(str(self.directory), name, str(left), logging.getLogger(__name__))
            _remove(left)

    def begin(self, gathered: Path, directory: Path) -> None:
        """The SDK gathers here, and means to make the archive there. Raises OSError where that is another place."""
        if directory != self.directory:
            raise OSError(f"{self.directory} cannot be written")
        self._messages = gathered / MESSAGES
        self._before = set(self._archives())

    def wait(self, metrics: int) -> None:
        """Wait until so many metrics are in the file. Raises OSError where they do not, the next time at once."""
        until = clock.monotonic() + WRITTEN_SECONDS
        while (written := self._written()) < metrics:
            if written == self._stuck or clock.monotonic() > until:
                self._stuck = written
                raise OSError(f"{metrics - self._metrics} values do not get into {self._messages}: is the disk full?")
            clock.sleep(0.01)

    def end(self) -> None:
        """Find the archive. Raises OSError where there is no whole one."""
        made = [path for path in self._archives() if path in self._before and _is_whole(path)]
        newest = max(made, key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is None or self._messages.exists():
            raise OSError(f"Comet has made no archive in {self.directory}: is the disk full? The next session tries it")
        self.archive = newest
        with suppress(OSError):
            self.unfinished.rmdir()

    def _written(self) -> int:
        with suppress(OSError), self._messages.open("rb") as file:
            file.seek(self._read)
            data = file.read()
            whole = data.rfind(b"\n") + 1
            self._read += whole
            self._metrics += sum(b'"metric_msg"' in raw for raw in data[:whole].splitlines())
        return self._metrics

    def _archives(self) -> list[Path]:
        return sorted(self.directory.glob(f"{self._key}-*.zip"))


def read_archive(path: Path) -> Iterator[dict[str, Any]]:
    """What an archive of an offline experiment holds: `type` and `payload` of each thing that was logged, in order."""
    with zipfile.ZipFile(path) as archive, archive.open(MESSAGES) as lines:
        for line in lines:
            yield json.loads(line)


def experiment_key(id: str) -> str:
    """The key of the experiment of a run: the run's id and more, as Comet wants 32 to 50 letters and digits."""
    return f"{id}{hashlib.sha256(f'comet {id}'.encode()).hexdigest()[:24]}"


def is_online(comet_ml: Any) -> bool:
    """Whether Comet is to be spoken to: there is a key, and nothing of Comet's own settings says otherwise."""
    settings = comet_ml.get_config()
    wanted = settings.get_bool(None, "comet.start.online", default=None, not_set_value=None)
    if wanted is None:
        return comet_ml.config.get_api_key(None, settings) is not None
    return bool(wanted)


def archives(comet_ml: Any, directory: Path | None) -> Path:
    """Where archives go: as Comet's own settings say, else comet/ in the run's directory, else .cometml-runs."""
    default = comet_ml.config.DEFAULT_OFFLINE_DATA_DIRECTORY
    named = comet_ml.get_config().get_comet_offline_directory() or default
    if named == default and directory is not None:
        return directory / "comet"
    return Path(named).absolute()


def short_name(name: str) -> str:
    """`name`, or where it is longer than Comet takes, its beginning and a checksum."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{zlib.crc32(name.encode(errors='replace')):08x}"


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return MESSAGES in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
