"""trackio: `--log trackio[=PROJECT]`."""

from __future__ import annotations

from typing import ClassVar

from treadle.errors import UsageError
from treadle.sinks.remote import RemoteSink
from treadle.sinks.services.marks import checksum


class Trackio(RemoteSink):
    """Logs to trackio: a trackio run for the run, the same one after every resume.

    It is kept on this machine, in `TRACKIO_DIR` or where trackio keeps things without being told, and
    `trackio show --project PROJECT` shows it. trackio's own variables send it elsewhere: `TRACKIO_SPACE_ID` to a
    Hugging Face Space (`hf auth login`), `TRACKIO_SERVER_URL` and `TRACKIO_WRITE_TOKEN` to a server.

    Metrics are called "train/loss", "validation/psnr". Texts are reports, the journal's entries are alerts, the summary
    is a table, config, environment and a fork's parent are the run's config, and the best model is an artifact of type
    "model". A run is called after its directory and the first digits of its id: "line-v001-3fa2c1". After a rewind
    what was given up is removed from what is kept on this machine; a host keeps it, and an alert says so.

    Args:
        project: the project; by default the name that the run's directory has.
        group: what the run is grouped with.

    Raises:
        UsageError: the package trackio is not installed, or the project has no name.

    Example:
        Trainer(..., run_dir="runs/line", hooks=[Trackio("lines")])     # then: trackio show --project lines
    """

    name: ClassVar[str] = "trackio"
    title: ClassVar[str] = "trackio"
    service: ClassVar[str] = "treadle.sinks.services.trackio:TrackioService"
    package: ClassVar[str] = "trackio"

    def __init__(self, project: str | None = None, group: str | None = None) -> None:
        if project is not None and not any(c.isalnum() or c in "-_" for c in project):
            raise UsageError(f"{project!r} is no project of trackio: a name has letters, digits, - or _")
        super().__init__(project=project, group=group)

    @property
    def mark(self) -> str:
        """By the project alone: in another group it is the same trackio run."""
        project = self.options.get("project")
        return f"{self.name}-{checksum(project):08x}" if project else self.name
