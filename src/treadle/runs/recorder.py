"""Writes a run's files as it goes: config, metrics, journal, summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.config.fields import to_dict
from treadle.engine.events import Hook, Order, Record
from treadle.errors import RunError
from treadle.runs.fork import as_forked
from treadle.runs.names import document, label
from treadle.runs.run import CONFIG, SUMMARY, Run, read_config

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


class RunRecorder(Hook):
    """Keeps a run's directory up to date: a critical hook, since a run that cannot be recorded is lost.

    The trainer adds it when it is given `run_dir`. `config.yaml` is written when training begins, unless a command has
    written it before (it knows the data's path). After a rewind or a resume, the metric lines of steps that will be
    taken again are dropped, so none is there twice.
    """

    order: ClassVar[int] = Order.LAST

    def __init__(self, run: Run) -> None:
        self.run = run

    def pre_training(self, trainer: Trainer) -> None:
        """Write config.yaml."""
        if not self.run.has(CONFIG):
            self.run.write_config(document(label(type(trainer)), trainer.config, None))

    def on_log(self, trainer: Trainer, record: Record) -> None:
        """Append scalars to metrics.jsonl."""
        if record.kind == "scalars":
            self.run.metrics.append(record.name, record.value, step=record.step, epoch=record.epoch)

    def on_journal(self, trainer: Trainer, entry: Mapping[str, Any]) -> None:
        """Append an entry to journal.jsonl; with other limits the run is described anew, and not finished."""
        if entry["event"] == "extend" and self.run.has(CONFIG):
            planned = trainer.loop.edits.planned(to_dict(trainer.config))
            self.run.write_config(read_config(self.run.path) | {"config": planned})
        if entry["event"] in ("extend", "edit", "rewind") and not trainer.ended:
            self.run.file(SUMMARY).unlink(missing_ok=True)
        self.run.journal.append(entry)

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Forget the metrics of what will be trained again; where a fork begins, let it be what it was forked to."""
        self.run.metrics.rewind(trainer.progress.step)
        as_forked(trainer, self.run.path)

    def teardown(self, trainer: Trainer) -> None:
        """Write the series and summary.json, and close the files."""
        failed = trainer.status == "failed"
        try:
            self.run.close()
            self.run.write_summary(trainer.summary().to_dict())
        except RunError as error:
            if not failed:
                raise
            # The disk that ended the run refuses its summary too: the first error is the one to be seen.
            trainer.journal.append({"event": "summary not written", "error": str(error)})
