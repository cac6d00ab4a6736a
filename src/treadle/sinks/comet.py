"""Comet: experiments at comet.com, or as archives to be uploaded later."""

from __future__ import annotations

from typing import ClassVar, Self

from treadle.errors import UsageError
from treadle.sinks.remote import RemoteSink


class Comet(RemoteSink):
    """Logs a run to Comet: parameters, metrics, pictures, texts, its journal as HTML, summary, report and best model.

    It is one experiment for as long as it lives, whose key begins with the run's id. With a key (COMET_API_KEY, or
    ~/.comet.config) it is told to Comet's server, unless COMET_START_ONLINE=0; without one each session leaves an
    archive in `comet/` in the run's directory, or where COMET_OFFLINE_DIRECTORY says, and `comet upload FILE...` sends
    them, in any order. Nothing that Comet collects by itself (code, output, the machine) is logged: that would be of
    the process beside the run. A run's environment is.

    Comet keeps what it was sent: after a rewind the metrics of both futures are there, the second one later in time,
    and the page of HTML says so. A fork is an experiment of its own, whose "parent_key" is its parent's. Times are
    those at which Comet was told. An upload keeps 15 000 values of each metric of an archive
    (COMET_OFFLINE_SAMPLING_SIZE).

    Args:
        project: the project; by default what COMET_PROJECT_NAME says, else the run's name without its version.
        workspace: the workspace; by default what COMET_WORKSPACE says, else that of the key's owner.

    Raises:
        UsageError: comet_ml is not installed.

    Example:
        Trainer(..., run_dir="runs/line", hooks=[Comet("lines")])
    """

    name: ClassVar[str] = "comet"
    title: ClassVar[str] = "Comet"
    service: ClassVar[str] = "treadle.sinks.services.comet:CometService"
    package: ClassVar[str] = "comet_ml"

    def __init__(self, project: str | None = None, workspace: str | None = None) -> None:
        super().__init__(project=project or None, workspace=workspace or None)

    @classmethod
    def at(cls, where: str | None) -> Self:
        """WHERE is PROJECT, or WORKSPACE/PROJECT. Raises UsageError for anything with more slashes."""
        workspace, slash, project = (where or "").rpartition("/")
        if "/" in workspace or (slash and not (workspace and project)):
            raise UsageError(f"{where!r} is no project: expected PROJECT or WORKSPACE/PROJECT")
        return cls(project, workspace)
