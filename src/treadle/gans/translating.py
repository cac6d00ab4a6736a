"""Translating files: reading and writing beside the network, each result whole or not at all."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from treadle.errors import RunError, UsageError, nearest
from treadle.files import existing as there_is
from treadle.files import reason, remove_leftovers
from treadle.gans.targets import fitting, targets_of
from treadle.gans.translator import OVERLAP, PIXELS, Translator, Unsuitable, translator_named
from treadle.gans.values import Array
from treadle.images.bands import read_bands, read_header
from treadle.images.folders import OnBad
from treadle.images.reading import BadPicture
from treadle.images.writing import write_picture
from treadle.recipes.actions import recipe_of_run
from treadle.runs.models import At
from treadle.runs.run import find_run

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

Existing = Literal["refuse", "skip", "overwrite"]

BATCH = 8
"""The most pictures that go through the network together."""
TOGETHER = 250_000
"""Pixels of pictures that go through it together: on a CPU more of them leave its caches, and take longer each."""
THREADS = min(4, os.cpu_count() or 1)
"""Threads that read and write beside the network."""
_NAMED = 3


@dataclass
class Translated:
    """What became of the pictures."""

    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    """Results that were there already and were left as they are."""
    bad: list[BadPicture] = field(default_factory=list)
    """What was wrong with pictures that were left out."""
    seconds: float = 0.0


def translate_files(
    translator: Translator,
    source: str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    existing: Existing = "refuse",
    on_bad: OnBad = "refuse",
    pairs: bool = False,
    pixels: int = PIXELS,
    overlap: int = OVERLAP,
    progress: Callable[[float, int], object] | None = None,
) -> Translated:
    """Translate a picture, or all pictures in a folder and the folders in it, into files of the same names.

    Each file is written whole or not at all, so a translation that was stopped goes on with `existing` "skip".

    Args:
        translator: from a trainer's `translators`.
        source: a picture or a folder; hidden files and folders do not count.
        out: the folder that the results go to, with the folders of `source`; for a single picture also a file.
        format: "png", "jpg" and so on (`treadle.gans.targets.FORMATS`); None keeps each picture's own, and takes PNG or
            TIFF where that cannot be written or cannot hold the result.
        existing: what to do where a result is there already: "refuse", "skip" or "overwrite".
        on_bad: what to do with pictures that cannot be read: "refuse" or "skip".
        pairs: the files show A and B side by side, as those that are trained on; the half that is the input counts.
        pixels, overlap: see `Translator.translate`. Small pictures go through the network together.
        progress: is called with how many pictures are done, and how many there are.

    Raises:
        UsageError: no pictures, bad ones, results that exist already or would replace pictures or one another.
        RunError: the disk refuses a file. Results that were finished before stay.
    """
    for name, value, known in (("existing", existing, get_args(Existing)), ("on_bad", on_bad, get_args(OnBad))):
        if value not in known:
            raise UsageError(f"{name} is {value!r}{nearest(str(value), known)}")
    done = Translated()
    targets = targets_of(there_is(source, "INPUT"), Path(out).expanduser(), format, translator)
    if there := [target for target in targets.values() if os.path.lexists(target)]:
        if existing == "refuse":
            raise UsageError(
                f"{len(there)} of {len(targets)} results are there already ({_some(there)}): keep them with existing "
                "'skip', or replace them with 'overwrite'"
            )
        if existing == "skip":
            done.kept = there
            targets = {path: target for path, target in targets.items() if target not in {*there}}
    work = _Work(translator, pairs, pixels, done)
    jobs = list(work.jobs(targets))

    def check() -> None:
        if done.bad and (on_bad == "refuse" or len(done.bad) == len(targets)):
            raise _refusal(done.bad, len(targets) + len(done.kept))

    check()
    folders: dict[Path, set[str]] = {}
    for job in jobs:
        folders.setdefault(job.target.parent, set()).add(job.target.name)
    for folder, names in folders.items():
        _make(folder)
        remove_leftovers(folder, names)
    began = time.perf_counter()

    def tell(share: float = 0.0) -> None:
        if progress is not None:
            progress(len(done.written) + len(done.bad) + share, len(targets))

    with work:
        for batch in work.read(jobs):
            tell()
            if len(batch) == 1 and batch[0].tensor is None:
                with work.noting(batch[0].job):
                    made = translator.translate(batch[0].picture, pixels=pixels, overlap=overlap, progress=tell)
                    work.write(batch[0], made)
            elif batch:
                tensors = translator.run(torch.stack([each.tensor for each in batch if each.tensor is not None]))
                for each, tensor in zip(batch, tensors, strict=True):
                    work.write(each, tensor)
            check()
        work.finish()
    tell()
    done.seconds = time.perf_counter() - began
    return done


def translate(
    run: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    at: At | None = None,
    direction: str | None = None,
    trainer: type[Trainer] | str | None = None,
    **how: Any,
) -> Translated:
    """Translate pictures with a model of a run: a file, or all in a folder and the folders in it.

    Args:
        run: its directory, `runs/pix2pix/v001`, or `runs/pix2pix` for its newest version.
        source, out: what is translated, and where it goes; see `translate_files`.
        at: which model: the step of one that is kept, "best" or "final"; None takes what suits the trainer.
        direction: "AtoB" or "BtoA", where the run has learnt both; None takes the first.
        trainer: its class, or its name in the registry; needed where the run's config.yaml has no such name.
        how: the other arguments of `translate_files`.

    Returns what became of the pictures. Raises UsageError and RunError in one line.

    Example:
        treadle.translate("runs/pix2pix", "photos", "translated")
    """
    directory = find_run(run)
    kind = recipe_of_run(directory, trainer).trainer_class
    return translate_files(translator_named(kind, directory, direction, at)[1], source, out, **how)


def _refusal(bad: list[BadPicture], total: int) -> UsageError:
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    instead = "" if len(bad) == total else "; on_bad 'skip' leaves such pictures out"
    return UsageError(f"{bad[0]}{more}{instead}")


def _some(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:_NAMED])) + (", ..." if len(paths) > _NAMED else "")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror or error}") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder} cannot be written to: mend its permissions, or choose another folder")


# Reading and writing beside the network -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    source: Path
    target: Path
    padded: tuple[int, int]
    """Height and width that go through the network."""

    @property
    def pixels(self) -> int:
        return self.padded[0] * self.padded[1]


@dataclass(frozen=True, eq=False)
class _Opened:
    job: _Job
    picture: Array
    tensor: Tensor | None
    """As the network takes it; None where it is translated in tiles."""


class _Work:
    """The pictures of one call: threads that read what comes next and write what is made, while the network runs."""

    def __init__(self, translator: Translator, pairs: bool, pixels: int, done: Translated) -> None:
        self.translator, self.pairs, self.pixels, self.done = translator, pairs, pixels, done
        self._pool = ThreadPoolExecutor(THREADS)
        self._writing: deque[tuple[Path, Future[None]]] = deque()

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def jobs(self, targets: dict[Path, Path]) -> Iterator[_Job]:
        """What is to be done, from the headers of the files; notes bad ones."""
        padded = self.translator.padded
        for source, target in targets.items():
            try:
                header = read_header(source)
                width, height = header.width, header.height
                if self.pairs:
                    width = _half(source, width, height)
            except BadPicture as error:
                self.done.bad.append(error)
                continue
            job = _Job(source, target, (padded(height), padded(width)))
            if job.pixels > self.pixels:
                self.translator.grid(height, width, self.pixels, 0)  # which says where that cannot be
            yield job

    def read(self, jobs: Iterable[_Job]) -> Iterator[list[_Opened]]:
        """Batches of pictures of one size, as many as `pixels` allow, or one that is larger; notes bad ones.

        While the network has one, the next one is read.
        """
        waiting = deque(_batches(jobs, self.pixels))
        begun: list[tuple[_Job, Future[_Opened]]] = []
        while waiting or begun:
            batch = begun or self._begin(waiting)
            begun = self._begin(waiting)
            opened = []
            for job, future in batch:
                with self.noting(job):
                    opened.append(future.result())
            yield opened

    @contextmanager
    def noting(self, job: _Job) -> Iterator[None]:
        """Within, a picture that turns out to be bad is noted."""
        try:
            yield
        except BadPicture as error:
            self.done.bad.append(error)
        except Unsuitable as error:
            self.done.bad.append(BadPicture(job.source, str(error), "convert it, or leave it out"))

    def _begin(self, waiting: deque[list[_Job]]) -> list[tuple[_Job, Future[_Opened]]]:
        """Begin to read the next batch; empty where there is none."""
        return [(job, self._pool.submit(self._open, job)) for job in waiting.popleft()] if waiting else []

    def _open(self, job: _Job) -> _Opened:
        picture = read_bands(job.source)
        if self.pairs:
            half = _half(job.source, picture.shape[1], picture.shape[0])
            picture = picture[:, :half] if self.translator.half == "left" else picture[:, half:]
        return _Opened(job, picture, self.translator.opened(picture) if job.pixels <= self.pixels else None)

    def write(self, opened: _Opened, made: Tensor | Array) -> None:
        """Have a result written: what the network made, or a picture that is closed already."""
        while len(self._writing) >= 2 * THREADS:
            self._wait()
        target = opened.job.target
        self._writing.append((target, self._pool.submit(self._close, opened, made)))

    def _close(self, opened: _Opened, made: Tensor | Array) -> None:
        picture = self.translator.closed(made, opened.picture) if isinstance(made, Tensor) else made
        target = opened.job.target
        write_picture(target, fitting(picture, target.suffix.lower()))

    def finish(self) -> None:
        """Wait for all that is being written."""
        while self._writing:
            self._wait()

    def _wait(self) -> None:
        target, future = self._writing.popleft()
        try:
            future.result()
        except OSError as error:
            raise RunError(
                f"cannot write {target}: {reason(error)}; make room or mend its permissions, then go on with existing "
                "'skip'"
            ) from error
        self.done.written.append(target)


def _half(source: Path, width: int, height: int) -> int:
    if width % 2:
        what = f"is {width} x {height} pixels, an odd width, which has no two halves"
        raise BadPicture(source, what, "translate it as it is, without pairs")
    return width // 2


def _batches(jobs: Iterable[_Job], pixels: int) -> Iterator[list[_Job]]:
    """Jobs of one size in their order, as many as go through the network together."""
    alike: dict[tuple[int, int], list[_Job]] = {}
    for job in jobs:
        alike.setdefault(job.padded, []).append(job)
    for batch in alike.values():
        most = max(1, min(BATCH, min(pixels, TOGETHER) // batch[0].pixels))
        for start in range(0, len(batch), most):
            yield batch[start : start + most]
