"""A subject: volumes and streamlines of one head (or phantom), in memory or in a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from treadle.errors import UsageError, nearest
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines


@dataclass(frozen=True, eq=False)
class VolumeInfo:
    """What is known of a volume before it is read."""

    space: Space
    features: int
    """Values per voxel."""
    kind: str = ""
    """What they are: "tensor" (xx, xy, xz, yy, yz, zz along the grid's axes), "sh" (real symmetric spherical harmonics
    along the grid's axes, see `signal.harmonics`), or "" where nobody said; the first two can be rotated."""


@dataclass(frozen=True, eq=False)
class LinesInfo:
    """What is known of a group of streamlines before their points are read."""

    space: Space
    lengths: np.ndarray
    """(n,) int64: points of each."""
    millimetres: np.ndarray
    """(n,) float64: how long each is."""
    per_line: tuple[str, ...] = ()
    """Names of what is known of each line."""


@dataclass(frozen=True, eq=False)
class Connectivity:
    """How many lines link which regions: what generation-validation compares with."""

    matrix: np.ndarray
    """(r, r) float64, symmetric."""
    blocs: tuple[int, int, int] | None = None
    """The volume is cut into so many blocs, each a region; None where labels tell the regions."""
    labels: str = ""
    """The group of the volume with the regions' labels."""


class Subject(ABC):
    """Volumes and groups of streamlines by name. Nothing is read before it is asked for.

    Points are in the voxel space of their `Space`, with corner origin. A subject can be sent to another process.
    """

    name: str
    volumes: Mapping[str, VolumeInfo]
    lines: Mapping[str, LinesInfo]

    @abstractmethod
    def volume(self, group: str) -> np.ndarray:
        """The volume (x, y, z, features) float32. Raises UsageError for an unknown group."""

    @abstractmethod
    def streamlines(self, group: str, indices: np.ndarray | None = None) -> Streamlines:
        """The lines of `indices` (k,) int64, in that order; None: all. Raises UsageError for an unknown group."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, in hex, over everything that a training could read of it."""

    def connectivity(self, group: str) -> Connectivity | None:
        """How many lines of `group` link which regions, where the data tells."""
        return None

    def only(self, kind: str) -> str:
        """The name of the only group of "volumes" or "lines". Raises UsageError where there are none or more."""
        known = list(getattr(self, kind))
        if len(known) != 1:
            one = "volume" if kind == "volumes" else kind
            raise UsageError(f"{self.name} has the {kind} {', '.join(known) or 'of no group'}: say which ({one}=...)")
        return str(known[0])

    def unknown(self, group: str, kind: str) -> UsageError:
        """The error for a group that is not there; `kind` is "volumes" or "lines"."""
        known = list(getattr(self, kind))
        return UsageError(f"{self.name} has no {kind} {group!r}{nearest(group, known)}")


@dataclass(eq=False)
class MemorySubject(Subject):
    """A subject whose parts are given."""

    name: str
    space: Space
    given_volumes: Mapping[str, tuple[np.ndarray, str]]
    """Arrays (x, y, z, features) float32, each with its kind (see `VolumeInfo`)."""
    given_lines: Mapping[str, Streamlines] = field(default_factory=dict)
    regions: Mapping[str, Connectivity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.volumes = {
            name: VolumeInfo(self.space, values.shape[3], kind) for name, (values, kind) in self.given_volumes.items()
        }
        self.lines = {
            name: LinesInfo(self.space, lines.lengths, lines.millimetres(self.space.voxel_sizes), tuple(lines.per_line))
            for name, lines in self.given_lines.items()
        }

    def volume(self, group: str) -> np.ndarray:
        """As it was given."""
        if group not in self.given_volumes:
            raise self.unknown(group, "volumes")
        return self.given_volumes[group][0]

    def streamlines(self, group: str, indices: np.ndarray | None = None) -> Streamlines:
        """As they were given."""
        if group not in self.given_lines:
            raise self.unknown(group, "lines")
        lines = self.given_lines[group]
        return lines if indices is None else lines.select(indices)

    def connectivity(self, group: str) -> Connectivity | None:
        """As it was given."""
        return self.regions.get(group)

    def fingerprint(self) -> str:
        """Over everything that was given."""
        from treadle.data.fingerprint import Fingerprint

        found = Fingerprint().add(self.name).add(self.space.affine)
        for group, (values, kind) in sorted(self.given_volumes.items()):
            found.add(group).add(kind).add(values)
        for group, lines in sorted(self.given_lines.items()):
            found.add(group).add(lines.points).add(lines.offsets)
            for key, values in sorted(lines.per_line.items()):
                found.add(key).add(values)
        return found.hexdigest()


@dataclass(frozen=True, eq=False)
class TractData:
    """What a training takes: subjects, each in one of three splits."""

    training: tuple[Subject, ...]
    validation: tuple[Subject, ...] = ()
    testing: tuple[Subject, ...] = ()
    path: Path | None = None
    """The file it is from; None: in memory."""
