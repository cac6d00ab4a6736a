"""From numbers of lines to a batch: the same code here and in worker processes, lazily and in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.kernels.trilinear import interpolate
from treadle.tracts.batch import LineBatch
from treadle.tracts.feeds.augment import (
    Parts,
    augmented_parts,
    plain_parts,
    rotation_counter,
    target_noise,
    turn_rows,
)
from treadle.tracts.feeds.cache import VolumeCache
from treadle.tracts.feeds.draws import rotations
from treadle.tracts.feeds.settings import LinesSettings
from treadle.tracts.resampling import compress, resample_count, resample_step
from treadle.tracts.signal import harmonics, tensor
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Subject, VolumeInfo


@dataclass(eq=False)
class _Source:
    """One subject's part of the data, read when needed or in memory."""

    space: Space
    first: int
    """The number of its first line."""
    subject: Subject | None
    """Whom to ask for what is not in memory."""
    volume: Tensor | None = None
    points: Tensor | None = None
    offsets: Tensor | None = None


@dataclass(eq=False)
class LineLoader:
    """Makes batches of lines.

    Args:
        subjects: whose lines are numbered one after the other.
        settings: what is done to them.
        training: augment them; else they are as they are, whatever the seed.
        ends: whether ends are learnt (see `LineBatch`).
        features: read the volume, where the subjects have one.

    Raises:
        UsageError: subjects that do not go together, groups they do not have, a rotation of what cannot be turned.
    """

    subjects: Sequence[Subject]
    settings: LinesSettings
    training: bool
    ends: bool
    features: bool = True
    cache: VolumeCache = field(init=False)

    def __post_init__(self) -> None:
        if not self.subjects:
            raise UsageError("there is no subject to take streamlines from: look at the split")
        self.lines_group = [_only(subject, self.settings.lines, "lines") for subject in self.subjects]
        self.volume_group = [self._volume_of(subject) for subject in self.subjects]
        infos = [s.volumes[g] for s, g in zip(self.subjects, self.volume_group, strict=True) if g is not None]
        self.info = self._common(infos) if infos else None
        lines = [s.lines[g] for s, g in zip(self.subjects, self.lines_group, strict=True)]
        self.names = [subject.name for subject in self.subjects]
        self.spaces = [each.space for each in lines]
        self.lengths = np.concatenate([each.lengths for each in lines])
        self.millimetres = np.concatenate([each.millimetres for each in lines])
        self.firsts = np.cumsum([0, *(len(each.lengths) for each in lines)], dtype=np.int64)
        self._open()

    def _open(self) -> None:
        """Find where each subject's part comes from; read it now unless that is to be done lazily."""
        self.cache = VolumeCache(self.settings.cache_mb << 20)
        firsts = self.firsts[:-1].tolist()
        self._sources = [
            _Source(space, first, subject)
            for space, first, subject in zip(self.spaces, firsts, self.subjects, strict=True)
        ]
        if not self.settings.lazy:
            for number in range(len(self.subjects)):
                self._load(number)
            self.subjects = ()  # workers are sent what was read, not those it came from

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> LineBatch:
        """Line `index` as a batch of its own, as it is."""
        return self.batch(0, 0, [index])

    @property
    def inputs(self) -> int:
        """Features per point."""
        return 0 if self.info is None else self.info.features * self.settings.neighbours

    def subject_of(self, lines: np.ndarray) -> np.ndarray:
        """The subject of each of the lines (n,) int64."""
        return np.searchsorted(self.firsts, lines, side="right") - 1

    def batch(self, seed: int, epoch: int, indices: Sequence[int] | np.ndarray) -> LineBatch:
        """The batch of the lines `indices` (rising) in `epoch`."""
        found = [self._joined(number, parts) for number, parts in self.parts(seed, epoch, indices)]
        starts = np.cumsum([0, *(len(each.points) for each in found)])
        offsets = [each.offsets[:-1] + int(start) for each, start in zip(found, starts, strict=False)]
        columns = [torch.cat([each[k] for each in found]) for k in (0, 1, 2, 3, 5, 6, 7)]
        features, points, previous, targets, last, lines, subject = columns
        whole = torch.cat([*offsets, torch.tensor([int(starts[-1])])])
        return LineBatch(features, points, previous, targets, whole, last, lines, subject)

    def parts(self, seed: int, epoch: int, indices: Sequence[int] | np.ndarray) -> Iterator[tuple[int, Parts]]:
        """The lines `indices` (rising), augmented where they are trained on: each subject's number, and its parts."""
        indices = np.asarray(indices, np.int64)
        of = self.subject_of(indices)
        for number in np.unique(of).tolist():
            lines = indices[of == number]
            found = self._read(self._sources[number], number, lines)
            points = found.points.astype(np.float64) * self.spaces[number].voxel_sizes
            if not self.training:
                yield number, plain_parts(points, found.offsets, lines)
                continue
            settings = self.settings
            yield (
                number,
                augmented_parts(
                    points,
                    found.offsets,
                    lines,
                    seed=seed,
                    epoch=epoch,
                    split=settings.split,
                    reverse=settings.reverse,
                    noise=settings.noise,
                ),
            )

    def volume(self, number: int) -> Tensor | None:
        """The volume (x, y, z, features) float32 of a subject; None where none is read."""
        if self.info is None:
            return None
        source = self._sources[number]
        if source.volume is not None:
            return source.volume
        subject, group = source.subject, self.volume_group[number]
        assert subject is not None and group is not None
        values = math.prod(subject.volumes[group].space.shape) * self.info.features
        return self.cache.get(number, 4 * values, lambda: self._read_volume(number))

    def _joined(self, number: int, parts: Parts) -> LineBatch:
        """One subject's part of a batch."""
        sizes = self.spaces[number].voxel_sizes
        counts = np.diff(parts.offsets)
        final = np.zeros(len(parts.clean), bool)
        final[parts.offsets[1:] - 1] = True
        steps = np.zeros_like(parts.clean)
        steps[:-1] = np.diff(parts.clean, axis=0)
        if self.training and self.settings.pull > 0:
            steps += self.settings.pull * (parts.clean - parts.seen)
        steps[final] = 0
        if self.training and self.settings.noise_targets > 0:
            steps += target_noise(parts, steps, self.settings.noise_targets)
        previous = np.zeros_like(parts.seen)
        previous[1:] = np.diff(parts.seen, axis=0)
        previous[parts.offsets[:-1]] = 0
        # A point that nothing follows stays where it is the end of a line, and ends are learnt.
        learnt = self.ends & parts.whole
        kept = ~final | np.repeat(learnt, counts)
        offsets = np.concatenate(([0], np.cumsum(counts - ~learnt))).astype(np.int64)
        places = np.asarray(parts.seen[kept] / sizes, np.float32)
        last = final[kept]
        turns = rotations(parts.stream, rotation_counter()) if self.training and self.settings.rotate else None
        targets, previous = (np.asarray(each[kept], np.float32) for each in (steps, previous))
        if turns is not None:
            targets, previous = (_turned(each, 3, turns, offsets) for each in (targets, previous))
        return LineBatch(
            self._seen(number, places, turns, offsets),
            torch.from_numpy(places),
            torch.from_numpy(previous),
            torch.from_numpy(targets),
            torch.from_numpy(offsets),
            torch.from_numpy(last),
            torch.from_numpy(parts.lines),
            torch.full((len(parts.lines),), number),
        )

    def _seen(self, number: int, places: np.ndarray, turns: np.ndarray | None, offsets: np.ndarray) -> Tensor:
        """What is read at points (p, 3), turned with the lines where these are: (p, inputs)."""
        volume = self.volume(number)
        if volume is None or self.info is None:
            return torch.zeros(len(places), 0)
        sizes = self.spaces[number].voxel_sizes
        beside = self.settings.offsets(sizes)
        if turns is None:
            return interpolate(volume, torch.from_numpy(places), beside if len(beside) > 1 else None)
        if len(beside) > 1:
            # In a world that is turned, what lies at R o beside R p lies at o beside p in this one: read at R^T o.
            away = (beside.double().numpy() * sizes @ turns / sizes).astype(np.float32)
            rows = np.repeat(np.arange(len(turns)), np.diff(offsets))
            places = (places[:, None] + away[rows]).reshape(-1, 3)
        values = interpolate(volume, torch.from_numpy(places)).view(-1, self.inputs)
        if self.info.kind == "tensor":
            matrices = tensor.rotation_matrix(turns)
        else:
            matrices = harmonics.rotation_matrix(harmonics.order_of(self.info.features), turns)
        return torch.from_numpy(_turned(values.numpy(), self.info.features, matrices, offsets))

    def _read(self, source: _Source, number: int, lines: np.ndarray) -> Streamlines:
        """Lines of one subject, by their numbers among all, with the points that the settings ask for."""
        own = lines - source.first
        if source.points is None or source.offsets is None:
            return self._resampled(number, own)
        offsets, points = source.offsets.numpy(), source.points.numpy()
        counts = offsets[own + 1] - offsets[own]
        ends = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        return Streamlines(points[np.repeat(offsets[own] - ends[:-1], counts) + np.arange(ends[-1])], ends)

    def _resampled(self, number: int, own: np.ndarray) -> Streamlines:
        subject = self._sources[number].subject
        assert subject is not None
        lines = subject.streamlines(self.lines_group[number], own)
        lines = Streamlines(lines.points, lines.offsets)
        if not np.isfinite(lines.points).all():
            raise UsageError(
                f"{subject.name}: the streamlines {self.lines_group[number]!r} have points that are NaN or infinite"
            )
        sizes, settings = self.spaces[number].voxel_sizes, self.settings
        if settings.step_size is not None:
            return resample_step(lines, settings.step_size, sizes)
        if settings.nb_points is not None:
            return resample_count(lines, settings.nb_points, sizes)
        return lines if settings.compress is None else compress(lines, settings.compress, sizes)

    def _load(self, number: int) -> None:
        """Read one subject whole."""
        source = self._sources[number]
        counts = self.lengths[self.firsts[number] : self.firsts[number + 1]].copy()
        usable = np.flatnonzero(counts >= 2)  # the others come in no batch, and a line without points has no others
        lines = self._resampled(number, usable)
        counts[:] = 0
        counts[usable] = lines.lengths
        source.points = torch.from_numpy(lines.points)
        source.offsets = torch.from_numpy(np.concatenate(([0], np.cumsum(counts))).astype(np.int64))
        source.volume = self._read_volume(number) if self.info is not None else None
        source.subject = None

    def _read_volume(self, number: int) -> Tensor:
        subject, group = self._sources[number].subject, self.volume_group[number]
        assert subject is not None and group is not None
        values = np.ascontiguousarray(subject.volume(group), np.float32)
        return torch.from_numpy(values if values.flags.writeable else values.copy())

    def _volume_of(self, subject: Subject) -> str | None:
        if not self.features or (self.settings.volume is None and not subject.volumes):
            return None
        return _only(subject, self.settings.volume, "volumes")

    def _common(self, infos: Sequence[VolumeInfo]) -> VolumeInfo:
        """What all volumes have in common."""
        if len(infos) != len(self.subjects):
            raise UsageError("some subjects have a volume and some have none: models need the same of all")
        kinds = {(info.features, info.kind) for info in infos}
        if len(kinds) > 1:
            told = " and ".join(sorted(f"{features} features {kind!r}" for features, kind in kinds))
            raise UsageError(f"the subjects' volumes have {told}: models need the same of all")
        for subject, group, lines in zip(self.subjects, self.volume_group, self.lines_group, strict=True):
            if not subject.volumes[str(group)].space.same(subject.lines[lines].space):
                raise UsageError(f"{subject.name}: the volume {group!r} and the streamlines {lines!r} differ in space")
        if self.training and self.settings.rotate and infos[0].kind not in ("tensor", "sh"):
            raise UsageError(
                f"rotate: the volume {self.volume_group[0]!r} does not say that it holds tensors or harmonics "
                f"(its kind is {infos[0].kind!r}): set rotate=false, or prepare the volume as one of those"
            )
        return infos[0]


def _turned(values: np.ndarray, size: int, matrices: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Rows (p, m * size), each of m vectors, turned by the matrix (size, size) of their line."""
    out = np.empty((len(values), values.shape[1] // size, size), np.float32)
    turn_rows(values.reshape(out.shape), np.ascontiguousarray(matrices, np.float32), offsets, out)
    return out.reshape(len(values), -1)


def _only(subject: Subject, group: str | None, kind: str) -> str:
    """The group that is meant: `kind` is "volumes" or "lines"."""
    if group is None:
        return subject.only(kind)
    if group not in getattr(subject, kind):
        raise subject.unknown(group, kind)
    return group
