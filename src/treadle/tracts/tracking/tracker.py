"""Tracking: from seeds to streamlines, batch by batch, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from treadle.errors import RunError, UsageError
from treadle.files import cannot_write, write_whole
from treadle.tracts.masks import at_points
from treadle.tracts.resampling import compress
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.tracking.growing import REASONS, growing, last_of
from treadle.tracts.tracking.propagator import Propagator
from treadle.tracts.tracking.settings import TrackingSettings

_HEAD = "tracking.json"


@dataclass(frozen=True, eq=False)
class Tracked:
    """What has become of the seeds."""

    lines: Streamlines
    """The lines that were kept, in voxel space with corner origin, in the order of their seeds."""
    seeds: np.ndarray
    """(n, 3) float32: where each began."""
    numbers: np.ndarray
    """(n,) int64: which of the seeds that is."""
    reasons: np.ndarray
    """(n, 2) int8: why each stopped, forward and backward (see `growing.REASONS`); -1: it did not grow that way."""
    outside: int
    """Seeds outside of the mask."""
    short: int
    """Lines that were dropped because they are too short."""

    def counts(self) -> dict[str, int]:
        """How many ends of lines each reason has stopped, and how many seeds became no line, by name."""
        found = np.bincount(self.reasons[self.reasons >= 0], minlength=len(REASONS))
        counts = {f"stopped by {name}": int(count) for name, count in zip(REASONS, found, strict=True)}
        return counts | {"seeds outside of the mask": self.outside, "too short": self.short}

    @staticmethod
    def concatenate(parts: Sequence[Tracked]) -> Tracked:
        """One after the other."""
        return Tracked(
            Streamlines.concatenate([part.lines for part in parts]),
            np.concatenate([part.seeds for part in parts]),
            np.concatenate([part.numbers for part in parts]),
            np.concatenate([part.reasons for part in parts]),
            sum(part.outside for part in parts),
            sum(part.short for part in parts),
        )


def track(
    propagator: Propagator,
    seeds: np.ndarray,
    space: Space,
    mask: np.ndarray,
    settings: TrackingSettings,
    *,
    seed: int,
    directory: Path | None = None,
    identity: str = "",
    progress: Callable[[int], object] | None = None,
) -> Tracked:
    """Grow a line from each seed: forward, then backward from the seed, with the line so far as its past.

    What a line becomes depends on its seed, its number and `seed` alone, not on the lines beside it.

    Args:
        propagator: says where lines go on.
        seeds: (n, 3) float32, in voxel space with corner origin.
        space: the grid of the volume.
        mask: (x, y, z) bool: where lines may be; a step that would leave it ends the line before.
        settings: how; `per_voxel` and `total` are not looked at.
        seed: of all randomness.
        directory: where batches are kept as soon as they are done; those that are there are not tracked again.
        identity: what else the lines depend on (the model's weights, the volume), so that batches of another tracking
            in `directory` are refused.
        progress: called after each batch with the seeds that are done.

    Raises:
        UsageError: seeds or a mask of another shape, or batches of another tracking in the directory.
        RunError: the disk refuses a batch.
    """
    seeds = np.ascontiguousarray(seeds, np.float32)
    if seeds.ndim != 2 or seeds.shape[1] != 3 or len(seeds) == 0:
        raise UsageError(f"expected seeds of the shape (n, 3), not {seeds.shape}")
    if mask.shape != space.shape:
        raise UsageError(f"the mask has {mask.shape} voxels: expected {space.shape}, as the volume has")
    mask = np.ascontiguousarray(mask, bool)
    kept = None if directory is None else _Batches(directory, _identity(seeds, space, mask, settings, seed, identity))
    parts = []
    for begin in range(0, len(seeds), settings.batch):
        numbers = np.arange(begin, min(begin + settings.batch, len(seeds)))
        part = kept.read(begin) if kept is not None else None
        if part is None:
            part = last_of(tracking(propagator, seeds, numbers, space, mask, settings, seed=seed))
            if kept is not None:
                kept.write(begin, part)
        parts.append(part)
        if progress is not None:
            progress(int(numbers[-1]) + 1)
    return Tracked.concatenate(parts)


def tracking(
    propagator: Propagator,
    all_seeds: np.ndarray,
    numbers: np.ndarray,
    space: Space,
    mask: np.ndarray,
    settings: TrackingSettings,
    *,
    seed: int,
) -> Generator[None, None, Tracked]:
    """Track one batch, yielding after each point: for who tracks beside something else, between two steps, say.

    Args:
        propagator, space, mask, settings, seed: as for `track`.
        all_seeds: (n, 3) float32.
        numbers: (k,) int64: which of them are tracked.

    Returns:
        What has become of those.
    """
    inside = at_points(mask, all_seeds[numbers])
    outside = int((~inside).sum())
    numbers = numbers[inside]
    seeds = all_seeds[numbers]
    reasons = np.full((len(numbers), 2), -1, np.int8)
    points, offsets = seeds, np.arange(len(seeds) + 1)
    if len(seeds):
        grown = yield from growing(
            propagator, points, offsets, space, mask, settings, seed=seed, numbers=numbers, purpose="forward"
        )
        reasons[:, 0] = grown.reasons
        points, offsets = grown.points, grown.offsets
        if settings.backward:
            points, offsets = grown.turned()
            grown = yield from growing(
                propagator, points, offsets, space, mask, settings, seed=seed, numbers=numbers, purpose="backward",
                first=-grown.first,
            )  # fmt: skip
            reasons[:, 1] = grown.reasons
            points, offsets = grown.points, grown.offsets
    lines = Streamlines(points, offsets)
    lengths = (lines.lengths - 1) * settings.step
    long = (lengths >= settings.shortest - 1e-6) & (lines.lengths > 1)
    lines = lines.select(long)
    if settings.compress > 0:
        lines = compress(lines, settings.compress, space.voxel_sizes)
    return Tracked(lines, seeds[long], numbers[long], reasons[long], outside, int((~long).sum()))


def _identity(
    seeds: np.ndarray, space: Space, mask: np.ndarray, settings: TrackingSettings, seed: int, identity: str
) -> Mapping[str, object]:
    """What makes this tracking what it is."""
    digest = hashlib.sha256(identity.encode())
    for array in (seeds, np.asarray(space.affine), mask):
        digest.update(str(array.shape).encode() + array.tobytes())
    return {"seeds": len(seeds), "seed": seed, "settings": asdict(settings), "digest": digest.hexdigest()}


class _Batches:
    """The batches that are done, each a file."""

    def __init__(self, directory: Path, identity: Mapping[str, object]) -> None:
        self._directory = directory
        head = json.dumps(identity, indent=1)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            there = directory / _HEAD
            if not there.exists():
                write_whole(there, head)
            elif there.read_text() != head:
                raise UsageError(f"{directory} holds batches of another tracking: remove it, or give another place")
        except OSError as error:
            raise cannot_write(directory, error) from error

    def _path(self, begin: int) -> Path:
        return self._directory / f"from-{begin:09d}.npz"

    def read(self, begin: int) -> Tracked | None:
        """The batch that begins with this seed; None: it is not done."""
        path = self._path(begin)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                lines = Streamlines(file["points"], file["offsets"])
                outside, short = map(int, file["dropped"])
                return Tracked(lines, file["seeds"], file["numbers"], file["reasons"], outside, short)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise RunError(f"{path} is damaged ({error}): remove it, and it is tracked again") from None

    def write(self, begin: int, part: Tracked) -> None:
        """Keep a batch."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            points=part.lines.points,
            offsets=part.lines.offsets,
            seeds=part.seeds,
            numbers=part.numbers,
            reasons=part.reasons,
            dropped=np.array([part.outside, part.short]),
        )
        try:
            write_whole(self._path(begin), buffer.getvalue())
        except OSError as error:
            raise cannot_write(self._path(begin), error) from error
