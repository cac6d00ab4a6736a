"""The pictures that a run has made on its way, as a live view: a slider goes back through them."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np

from treadle.images.pixels import decode
from treadle.images.reading import BadPicture
from treadle.reports.sheets import PAPER, Cell, SheetView
from treadle.reports.views import Option, Window

_NOTHING = np.broadcast_to(np.array(PAPER, np.uint8), (64, 256, 3))
_FILE = re.compile(r"step-(\d{1,15})-(.+)\.png")


class KeptPictures(SheetView):
    """What lies in a run's `examples/`: of each picture the newest that was made up to a chosen share of the way.

    Args:
        folder: where they are; it need not be there yet.
        reached: the step that the run has come to. Pictures of later steps are of a way that was given up, and are not
            shown.
    """

    title = "Pictures on the way"

    def __init__(self, folder: Path, reached: Callable[[], int]) -> None:
        super().__init__(self._stamp)
        self._folder, self._reached = folder, reached
        self._listed: tuple[int, dict[str, dict[int, Path]]] = (-1, {})

    def _stamp(self) -> Hashable:
        """Another number when a picture has come."""
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return 0

    def files(self) -> dict[str, dict[int, Path]]:
        """The files by the pictures' names and their steps. What is a link is none of them."""
        stamp = self._stamp()
        assert isinstance(stamp, int)
        if self._listed[0] != stamp:
            found: dict[str, dict[int, Path]] = {}
            for path in sorted(self._folder.glob("step-*.png")) if stamp else ():
                match = _FILE.fullmatch(path.name)
                if match and path.is_file() and not path.is_symlink():
                    found.setdefault(match[2], {})[int(match[1])] = path
            self._listed = stamp, found
        return self._listed[1]

    def options(self) -> Sequence[Option]:
        """Which picture, and when it was made."""
        names = tuple(self.files())
        which = (Option("picture", "Picture", "choice", names[0], names),) if len(names) > 1 else ()
        when = Option("when", "Way so far, 0 to 1", "range", 1.0, low=0.0, high=1.0, step=0.01)
        return *which, when, *super().options()

    def asked(self, window: Window) -> Hashable:
        """The file that is shown: steps that make no picture change nothing."""
        return self._chosen(window)

    def cells(self, window: Window) -> Sequence[Cell]:
        """The newest picture up to the chosen share of the way."""
        step, path = self._chosen(window)
        if path is None:
            return [Cell("none was made yet", _NOTHING)]
        try:
            return [Cell(f"step {step}", decode(path))]
        except BadPicture as error:
            return [Cell(str(error), _NOTHING)]

    def _chosen(self, window: Window) -> tuple[int, Path | None]:
        files = self.files()
        steps = files.get(str(window.options.get("picture", "")), next(iter(files.values()), {}))
        most = float(window.options["when"]) * self._reached()
        newest = max((step for step in steps if step <= most), default=-1)
        return newest, steps.get(newest)
