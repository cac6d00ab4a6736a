"""Streamlines: many lines of points, packed into one array."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from treadle.errors import UsageError


@dataclass(frozen=True, eq=False)
class Streamlines:
    """Lines of any number of points each, one after the other, with what is known of each line and each point.

    Raises UsageError for offsets that do not cut the points, and data of another length.
    """

    points: np.ndarray
    """(p, 3) float32, in voxel space with corner origin (see `Space`) unless somebody says otherwise."""
    offsets: np.ndarray
    """(n + 1,) int64: line k is `points[offsets[k]:offsets[k + 1]]`."""
    per_line: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(n, k) float32 each: TRK's properties, TRX's dps."""
    per_point: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(p, k) float32 each: TRK's scalars, TRX's dpp."""

    def __post_init__(self) -> None:
        points = np.ascontiguousarray(self.points, np.float32).reshape(-1, 3)
        offsets = np.ascontiguousarray(self.offsets, np.int64)
        if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(points) or (np.diff(offsets) < 0).any():
            raise UsageError(f"the offsets of {len(offsets) - 1} streamlines do not cut {len(points)} points")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "offsets", offsets)
        for values, count, what in ((self.per_line, len(self), "line"), (self.per_point, len(points), "point")):
            for name, array in values.items():
                if array.ndim != 2 or len(array) != count:
                    raise UsageError(
                        f"{name!r} has the shape {array.shape}: expected a row for each of {count} {what}s"
                    )

    @classmethod
    def of(cls, lines: Iterable[np.ndarray]) -> Streamlines:
        """Pack arrays (n, 3)."""
        kept = [np.asarray(line, np.float32).reshape(-1, 3) for line in lines]
        offsets = np.cumsum([0, *map(len, kept)], dtype=np.int64)
        return cls(np.concatenate(kept) if kept else np.zeros((0, 3), np.float32), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """The points (k, 3) of one line, as a view."""
        if not 0 <= index < len(self):
            raise IndexError(f"line {index} of {len(self)}")
        return self.points[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64: points of each line."""
        return np.diff(self.offsets)

    def millimetres(self, voxel_sizes: np.ndarray | Sequence[float]) -> np.ndarray:
        """(n,) float64: how long each line is, for points in voxels of that size."""
        steps = np.linalg.norm(np.diff(self.points.astype(np.float64), axis=0) * np.asarray(voxel_sizes), axis=1)
        along = np.concatenate(([0.0], np.cumsum(steps)))
        first, last = self.offsets[:-1], np.maximum(self.offsets[1:] - 1, self.offsets[:-1])
        if len(self.points) == 0:
            return np.zeros(len(self))
        empty = self.lengths == 0
        return np.where(empty, 0.0, along[np.minimum(last, len(along) - 1)] - along[np.minimum(first, len(along) - 1)])

    def select(self, indices: np.ndarray) -> Streamlines:
        """Some of the lines, in the order of `indices` (k,) int64 (a bool mask will do)."""
        indices = np.asarray(indices)
        indices = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
        lengths = self.lengths[indices]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        rows = np.repeat(self.offsets[indices] - offsets[:-1], lengths) + np.arange(offsets[-1])
        per_line = {name: values[indices] for name, values in self.per_line.items()}
        per_point = {name: values[rows] for name, values in self.per_point.items()}
        return Streamlines(self.points[rows], offsets, per_line, per_point)

    @staticmethod
    def concatenate(parts: Sequence[Streamlines]) -> Streamlines:
        """The lines of all parts, one part after the other; of their data, what every part has."""
        if not parts:
            return Streamlines(np.zeros((0, 3), np.float32), np.zeros(1, np.int64))
        starts = np.cumsum([0, *(len(part.points) for part in parts)])
        offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]

        def common(kind: str) -> dict[str, np.ndarray]:
            tables: list[Mapping[str, np.ndarray]] = [getattr(part, kind) for part in parts]
            names = [name for name in tables[0] if all(name in table for table in tables)]
            return {name: np.concatenate([table[name] for table in tables]) for name in names}

        points = np.concatenate([part.points for part in parts])
        return Streamlines(
            points, np.append(np.concatenate(offsets), len(points)), common("per_line"), common("per_point")
        )
