"""Weights & Biases: `--log wandb[=[ENTITY/]PROJECT]`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

from treadle.errors import UsageError
from treadle.reports.scene import checked, thinned
from treadle.sinks.remote import RemoteSink
from treadle.sinks.services.marks import checksum

if TYPE_CHECKING:
    from treadle.engine.events import Record
    from treadle.engine.trainer import Trainer

_FORBIDDEN = re.compile(r"[/\\#?%:]")


class Wandb(RemoteSink):
    """Logs to Weights & Biases: a W&B run for the run, the same one after every resume.

    Who you are and where it goes are the SDK's own business: `wandb login`, `WANDB_API_KEY`, `WANDB_BASE_URL`;
    `WANDB_MODE=offline` keeps everything in `RUN/wandb`, from where `wandb sync` sends it. The SDK's other variables
    hold too: `WANDB_PROJECT`, `WANDB_NAME`, `WANDB_TAGS`, `WANDB_DIR`, ...

    Metrics are called "train/loss", "validation/psnr" and are drawn over "step", those of whole epochs ("epoch/loss")
    over "epoch". Pictures, texts and scenes are media with a slider over the steps; config, environment and, for a
    fork, its parent are the run's config; the journal is the metric "event" and at the end the table "journal"; the
    best model is an artifact of type "model". W&B takes nothing back: after a rewind the values that were given up stay
    beside those that follow, and a point of the metric "rewound_to" shows where that was.

    Args:
        project: the project; by default `WANDB_PROJECT`, or the name that the run's directory has.
        entity: the user or team that it belongs to; by default `WANDB_ENTITY`, or your own.
        group: what the run is grouped with; by default `WANDB_RUN_GROUP`.
        tags: the run's tags; by default `WANDB_TAGS`. A fork is tagged "fork".
        notes: a few words on it; by default `WANDB_NOTES`.

    Raises:
        UsageError: the package wandb is not installed, or a name has characters that W&B does not take.

    Example:
        Trainer(..., run_dir="runs/line", hooks=[Wandb("lines", tags=["small"])])
    """

    name: ClassVar[str] = "wandb"
    title: ClassVar[str] = "W&B"
    service: ClassVar[str] = "treadle.sinks.services.wandb:WandbService"
    package: ClassVar[str] = "wandb"
    hears: ClassVar[Collection[str]] = ("scalars", "image", "text", "scene")

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
    ) -> None:
        for kind, name in (("project", project), ("entity", entity)):
            if name is not None and (not name or len(name) > 128 or _FORBIDDEN.search(name)):
                raise UsageError(rf"{name!r} is no {kind} of W&B: 1 to 128 characters, without / \ # ? % :")
        super().__init__(project=project, entity=entity, group=group, tags=list(tags) or None, notes=notes)

    @classmethod
    def at(cls, where: str | None) -> Self:
        """The sink of `--log wandb=PROJECT` or `--log wandb=ENTITY/PROJECT`."""
        if where is None:
            return cls()
        entity, slash, project = where.rpartition("/")
        return cls(project, entity if slash else None)

    def on_log(self, trainer: Trainer, record: Record) -> None:
        """Put the record into the outbox; of a scene as much as can be looked at."""
        if record.kind == "scene":
            record = replace(record, value=thinned(checked(record.value, record.name))[0])
        super().on_log(trainer, record)

    @property
    def mark(self) -> str:
        """By the project and entity alone: with other tags or notes it is the same W&B run."""
        place = {name: value for name, value in self.options.items() if name in ("project", "entity")}
        return f"{self.name}-{checksum(place):08x}" if place else self.name
