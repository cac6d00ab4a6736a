"""TensorBoard event files."""

from __future__ import annotations

import importlib.util
import json
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.config.files import dumps
from treadle.errors import UsageError
from treadle.files import encoded, to_json
from treadle.images.display import png, to_uint8
from treadle.runs.metrics import read_metrics
from treadle.runs.run import read_journal
from treadle.sinks.base import Sink

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

    from treadle.engine.trainer import Trainer
    from treadle.sinks.tensorboard_events import EventFile


class TensorBoard(Sink):
    """Writes scalars ("train/loss", "validation/psnr"), pictures and text as TensorBoard events.

    The settings are its hyperparameters (the HParams tab compares runs by them) and a text, as are the environment, the
    summary and the journal's entries ("events/resume"). Each event is in the file the moment it is logged, whatever
    kills the run. After a rewind or a resume the events of steps that are taken again replace the old ones; what the
    files lack of a run that goes on (a fork has its parent's past; one that was begun without TensorBoard) is written
    from its metrics.jsonl.

    Args:
        directory: where the event files go; by default `tensorboard/` in the run's directory. What an older run has
            left there is forgotten: one directory shows one run.

    Raises:
        UsageError: the package tensorboard is not installed.

    Example:
        Trainer(..., run_dir="runs/line", hooks=[TensorBoard()])     # then: tensorboard --logdir runs
    """

    hands_over: ClassVar[bool] = True

    def __init__(self, directory: str | Path | None = None) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UsageError("TensorBoard is not installed: pip install 'treadle[tensorboard]'")
        self.directory = None if directory is None else Path(directory).expanduser().absolute()
        self._file: EventFile | None = None
        self._begun = self._described = False
        self._goes_on_at: int | None = None
        self._newest = 0

    def open(self, trainer: Trainer) -> None:
        """Begin an event file, with what the others lack of a run that goes on."""
        from treadle.sinks.tensorboard_events import EventFile, event_files, newest

        if self.directory is None:
            if trainer.run is None:
                raise UsageError("TensorBoard has nowhere to write: give it a directory, or the trainer a run_dir")
            self.directory = trainer.run.path / "tensorboard"
        if self._begun:
            self._file = EventFile(self.directory, None if self._goes_on_at is None else self._goes_on_at + 1)
            self._goes_on_at = None
            return
        lines = [] if trainer.run is None else read_metrics(trainer.run.path)
        journal = [] if trainer.run is None else read_journal(trainer.run.path)
        known, known_at = newest(self.directory)
        if self._goes_on_at is not None:
            known = min(known, self._goes_on_at)
        elif not lines:  # it begins: what is there is another run's, or that of one which came to nothing
            known = -1
        self._file = EventFile(self.directory, known + 1 if event_files(self.directory) else None)
        for line in lines:  # what is taken again has been cut off there
            if line["step"] > known:
                self._add_scalars(line["step"], line["values"], line["split"], line.get("time"))
        for entry in journal:
            if entry.get("time", 0.0) > known_at:
                self.event(entry)
        self._newest = trainer.progress.step
        self._begun, self._goes_on_at = True, None

    def close(self) -> None:
        """End the event file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Let what is logged from here on replace what was logged after this step."""
        if self._opened:
            self.cut(trainer.progress.step)
        else:
            self._goes_on_at = trainer.progress.step

    def cut(self, step: int) -> None:
        """Begin another event file, whose readers forget what the others say of later steps."""
        from treadle.sinks.tensorboard_events import EventFile

        self.close()
        assert self.directory is not None
        self._file = EventFile(self.directory, step + 1)
        self._newest = step

    def config(self, values: Mapping[str, Any]) -> None:
        """Write the settings: as hyperparameters, and as a text."""
        from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

        if self._described:  # once in a session: not again for a test after the run
            return
        settings = SessionStartInfo(start_time_secs=time.time())
        for name, value in _flat({"trainer": values["trainer"], **values["config"]}):
            if isinstance(value, bool):
                settings.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                settings.hparams[name].number_value = value
            else:
                settings.hparams[name].string_value = value if isinstance(value, str) else to_json(value)
        self._add_hyperparameters(self._newest, SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=settings))
        self.text(self._newest, "config", _block(values))

    def environment(self, values: Mapping[str, Any]) -> None:
        """Write versions, hardware, commit and command, as a text."""
        if not self._described:
            self.text(self._newest, "environment", _block(values))
        self._described = True

    def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
        """Write numbers, tagged "split/name"."""
        if step < self._newest:  # it began again, since nothing could be restored
            self.cut(step - 1)
        self._add_scalars(step, values, split)

    def image(self, step: int, name: str, picture: Any) -> None:
        """Write a picture."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        pixels = to_uint8(picture, name)
        height, width, channels = pixels.shape
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png(pixels))
        self._add(step, Summary(value=[Summary.Value(tag=name, image=image)]))

    def text(self, step: int, name: str, text: str) -> None:
        """Write a text; TensorBoard shows it as Markdown."""
        self._add_text(step, name, text)

    def event(self, entry: Mapping[str, Any]) -> None:
        """Write an entry of the journal, as a text; each kind of event has a tag."""
        details = {name: value for name, value in entry.items() if name not in ("event", "step", "epoch", "time")}
        head = f"**{entry['event']}** after {entry['step']} steps"
        text = f"{head}\n\n{_block(details)}" if details else head
        self._add_text(entry["step"], f"events/{entry['event']}", text, entry.get("time"))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write what the run came to, as a text; the HParams tab tells what has finished from what failed."""
        from tensorboard.plugins.hparams.api_pb2 import Status
        from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

        self.text(values["step"], "summary", _block(values))
        if values["status"] in ("finished", "failed"):
            status = Status.STATUS_SUCCESS if values["status"] == "finished" else Status.STATUS_FAILURE
            end = SessionEndInfo(status=status, end_time_secs=time.time())
            self._add_hyperparameters(values["step"], SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))

    def _add_scalars(self, step: int, values: Mapping[str, float], split: str, at: float | None = None) -> None:
        assert self._file is not None
        self._newest = max(self._newest, step)
        self._file.add_scalars(step, values, split, time.time() if at is None else at)

    def _add_text(self, step: int, name: str, text: str, at: float | None = None) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype="DT_STRING", string_val=[encoded(text)], tensor_shape=shape)
        plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        value = Summary.Value(tag=f"{name}/text_summary", metadata=plugin, tensor=tensor)
        self._add(step, Summary(value=[value]), at)

    def _add_hyperparameters(self, step: int, tag: str, data: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.metadata import NULL_TENSOR, create_summary_metadata

        value = Summary.Value(tag=tag, metadata=create_summary_metadata(data), tensor=NULL_TENSOR)
        self._add(step, Summary(value=[value]))

    def _add(self, step: int, summary: Summary, at: float | None = None) -> None:
        """Write what is known after `step` steps, at `at` (now by default)."""
        from tensorboard.compat.proto.event_pb2 import Event

        assert self._file is not None
        self._newest = max(self._newest, step)
        self._file.add(Event(wall_time=time.time() if at is None else at, step=step, summary=summary))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings and those in them, by names such as "optimizer.lr"; what is None is left out."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, value


def _block(values: Mapping[str, Any]) -> str:
    """Plain data as YAML, which Markdown shows as it is."""
    return textwrap.indent(dumps(json.loads(to_json(values))), "    ", lambda line: True)
