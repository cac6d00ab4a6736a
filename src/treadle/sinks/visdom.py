"""A Visdom server that shows a run: curves, the newest pictures, texts."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from treadle.sinks.remote import RemoteSink
from treadle.sinks.services.visdom import DEFAULT_URL, parse_url


class Visdom(RemoteSink):
    """Shows a run on a Visdom server: curves over steps, the newest picture and text of each name.

    Loss terms share a window, so do their weights, and the learning rates; every other metric has one, with a line for
    "train", "epoch" and "validation". The windows are in an environment named after the run: `runs/line/v001` is
    "line_v001". When the run ends the server is asked to keep it on disk.

    Training only notes what is to be shown, within bounded memory; a process of its own sends it, so no server can
    delay a step or end a run. One that is away, mute or begins anew gets all there is to see when it is back. Windows
    are sent whole, so nothing is there twice after a failure, a rewind or a resume. What was never shown (a picture
    that a newer one replaced before it could be sent) is counted in the journal. Closing takes 5 seconds at most.

    Args:
        url: the server; without a port it is 8097 (443 for https).
        environment: its name; by default the run's, or the trainer's class for a run that is not on disk.

    Raises:
        UsageError: `url` is no address of a server.

    Example:
        Trainer(..., run_dir="runs/line", hooks=[Visdom("http://localhost:8097")])
    """

    name: ClassVar[str] = "visdom"
    title: ClassVar[str] = "Visdom"
    service: ClassVar[str] = "treadle.sinks.services.visdom:VisdomService"
    remembers: ClassVar[bool] = False
    takes_files: ClassVar[bool] = False
    drops: ClassVar[str] = "not shown:"

    def __init__(self, url: str = DEFAULT_URL, environment: str | None = None) -> None:
        self.server = parse_url(url)
        super().__init__(url=self.server.url, environment=environment)

    @property
    def called(self) -> str:
        """Visdom, and the address."""
        return f"{self.title} at {self.server.url}"

    def losses(self, dropped: Counter[str]) -> Counter[str]:
        """Windows that are not up to date; a picture that a newer one has replaced is none of them."""
        return dropped if "windows not up to date" in dropped else Counter()
