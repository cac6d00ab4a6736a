"""What a tractogram is scored by: bundles with the regions that they link, and what else is asked of their lines.

The configuration is that of scilpy's `scil_tractogram_segment_with_ROI_and_score`: JSON with an entry for each bundle,

    {"arc": {"head": "arc_head.nii.gz", "tail": "arc_tail.nii.gz", "gt_mask": "arc.trk", "length": [40, 80]}, ...}

with `endpoints` (one mask of both ends) in place of `head` and `tail`, and as one likes `gt_mask`, `all_mask`,
`any_mask`, `angle`, `length`, `length_x`, `length_x_abs` and so on for y and z. Masks are NIfTI, or streamlines whose
voxels they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from treadle.errors import UsageError, nearest
from treadle.kernels.traversal import traverse
from treadle.tracts.files import read_streamlines
from treadle.tracts.phantom import Phantom
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.volumes import is_nifti, read_volume

Limits = tuple[float, float]
"""Above the first and below the second."""

_AXES = ("x", "y", "z")
_LENGTHS = ("length", *(f"length_{axis}{kind}" for axis in _AXES for kind in ("", "_abs")))
_MASKS = ("head", "tail", "endpoints", "gt_mask", "all_mask", "any_mask")


@dataclass(frozen=True, eq=False)
class TrueBundle:
    """A bundle: the names of the regions that it links, and what its lines are like."""

    head: str
    tail: str
    mask: np.ndarray | None = None
    """(x, y, z) bool: its voxels; None: its volume is not scored."""
    all_mask: np.ndarray | None = None
    """Its lines stay inside."""
    any_mask: np.ndarray | None = None
    """Its lines go through."""
    angle: float | None = None
    """Degrees: its lines wind less than this."""
    length: Limits | None = None
    """Millimetres."""
    along: tuple[Limits, Limits, Limits] | None = None
    """Millimetres from end to end along each of the scanner's axes."""
    along_abs: tuple[Limits, Limits, Limits] | None = None
    """Millimetres walked along each of the scanner's axes, to and fro."""


@dataclass(frozen=True, eq=False)
class Truth:
    """The bundles that there are."""

    space: Space
    regions: Mapping[str, np.ndarray]
    """Where bundles end: (x, y, z) bool, by name."""
    bundles: Mapping[str, TrueBundle] = field(default_factory=dict)


SLACK = 1.2
"""How much longer than a phantom's longest line, or shorter than its shortest, lines of a bundle may be."""


def truth_of(phantom: Phantom) -> Truth:
    """The truth of a phantom. A line that links the ends of a bundle by a detour is none of its lines."""
    regions, bundles = {}, {}
    for name, (head, tail) in phantom.ends.items():
        regions[f"{name}_head"], regions[f"{name}_tail"] = head, tail
        lengths = phantom.bundles[name].millimetres(phantom.space.voxel_sizes)
        limits = (float(lengths.min() / SLACK), float(lengths.max() * SLACK))
        bundles[name] = TrueBundle(f"{name}_head", f"{name}_tail", phantom.masks[name], length=limits)
    return Truth(phantom.space, regions, bundles)


def voxels_of(lines: Streamlines, shape: tuple[int, int, int]) -> np.ndarray:
    """(x, y, z) bool: the voxels that any of the lines goes through."""
    mask = np.zeros(shape, bool)
    mask.reshape(-1)[traverse(lines.points, lines.offsets, shape)[0]] = True
    return mask


def read_truth(path: Path, directory: Path | None = None, *, gt_as_all: bool = False) -> Truth:
    """Read a configuration and the masks that it names.

    Args:
        path: the configuration, or a directory with one JSON file that is it (or several, one of them config.json).
        directory: where its file names lead from; None: where it lies.
        gt_as_all: lines have to stay in the `gt_mask`, which is then the `all_mask`, too.

    Raises:
        UsageError: naming the bundle and the key, or the file, that is not as it should be.
    """
    config = _find(path)
    directory = config.parent if directory is None else directory
    try:
        entries = json.loads(config.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{config} cannot be read as JSON: {error}") from None
    if not isinstance(entries, dict) or not entries or not all(isinstance(entry, dict) for entry in entries.values()):
        raise UsageError(f"{config}: expected an object with an object for each bundle")
    masks = _Masks(directory)
    regions: dict[str, np.ndarray] = {}
    bundles = {}
    for name, entry in entries.items():
        where = f"{config}, {name}"
        _check(where, entry, gt_as_all)
        if "endpoints" in entry:
            ends = [f"{entry['endpoints']} ({part})" for part in ("head", "tail")]
            regions |= zip(ends, split_ends(masks.read(entry["endpoints"]), where), strict=True)
        else:
            ends = [entry["head"], entry["tail"]]
            regions |= {end: masks.read(end) for end in ends}
        gt_mask = masks.read(entry["gt_mask"]) if entry.get("gt_mask") else None
        all_mask = masks.read(entry["all_mask"]) if entry.get("all_mask") else None
        bundles[name] = TrueBundle(
            head=ends[0],
            tail=ends[1],
            mask=gt_mask,
            all_mask=gt_mask if gt_as_all else all_mask,
            any_mask=masks.read(entry["any_mask"]) if entry.get("any_mask") else None,
            angle=None if entry.get("angle") is None else float(entry["angle"]),
            length=None if entry.get("length") is None else _limits(entry["length"]),
            along=_along(entry, ""),
            along_abs=_along(entry, "_abs"),
        )
    assert masks.space is not None, "every bundle has ends"
    return Truth(masks.space, regions, bundles)


def split_ends(mask: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Split a mask of both ends of a bundle in two, by two means (Lloyd, 1982), from its two voxels farthest apart.

    Raises UsageError, beginning with `where`, for a mask of fewer than two voxels.
    """
    voxels = np.argwhere(mask)
    if len(voxels) < 2:
        raise UsageError(f"{where}: the mask of its endpoints has {len(voxels)} voxels: expected two regions")
    places = voxels.astype(np.float64)
    first = places[np.argmax(((places - places.mean(axis=0)) ** 2).sum(axis=1))]
    means = np.stack([first, places[np.argmax(((places - first) ** 2).sum(axis=1))]])
    while True:
        nearer = ((places[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        moved = np.stack([places[nearer == part].mean(axis=0) for part in (0, 1)])
        if np.array_equal(moved, means):
            break
        means = moved
    parts = []
    for part in (0, 1):
        region = np.zeros(mask.shape, bool)
        region[tuple(voxels[nearer == part].T)] = True
        parts.append(region)
    return parts[0], parts[1]


class _Masks:
    """Masks by file name, each read once, all of one grid."""

    def __init__(self, directory: Path) -> None:
        self.space: Space | None = None
        self._directory, self._read = directory, dict[str, np.ndarray]()

    def read(self, name: str) -> np.ndarray:
        """The mask in this file. Raises UsageError."""
        if name not in self._read:
            path = self._directory / name
            if is_nifti(path):
                values, space = read_volume(path)
                mask = np.asarray((values > 0).any(axis=3))
            else:
                lines, space = read_streamlines(path, self.space)
                mask = voxels_of(lines, space.shape)
            if self.space is not None and not self.space.same(space):
                raise UsageError(f"{path} lies in another grid than the masks before it")
            self.space, self._read[name] = self.space or space, mask
        return self._read[name]


def _find(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise UsageError(f"{path}: no such file or directory")
        return path
    found = sorted(path.glob("*.json"))
    usual = [each for each in found if each.name == "config.json"]
    if len(usual or found) != 1:
        raise UsageError(f"{path} has {len(found)} JSON files: expected one, or config.json, that lists the bundles")
    return (usual or found)[0]


def _check(where: str, entry: Mapping[str, Any], gt_as_all: bool) -> None:
    known = {*_MASKS, *_LENGTHS, "angle"}
    for key, value in entry.items():
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}{nearest(key, known)}")
        if value is None:
            continue
        if key in _MASKS and not isinstance(value, str):
            raise UsageError(f"{where}: {key} is {value!r}: expected the name of a file")
        if key in _LENGTHS and not _is_limits(value):
            raise UsageError(f"{where}: {key} is {value!r}: expected two numbers, [least, most]")
        if key == "angle" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UsageError(f"{where}: angle is {value!r}: expected a number of degrees")
    ends = {"head", "tail", "endpoints"} & {key for key, value in entry.items() if value is not None}
    if ends not in ({"head", "tail"}, {"endpoints"}):
        raise UsageError(f"{where}: expected either head and tail, or endpoints, not {sorted(ends) or 'none of them'}")
    if gt_as_all and entry.get("all_mask"):
        raise UsageError(f"{where} has an all_mask: the gt_mask cannot be that, too")


def _is_limits(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value)
    )


def _limits(value: list[float]) -> Limits:
    return float(value[0]), float(value[1])


def _along(entry: Mapping[str, Any], kind: str) -> tuple[Limits, Limits, Limits] | None:
    given = [entry.get(f"length_{axis}{kind}") for axis in _AXES]
    if all(value is None for value in given):
        return None
    x, y, z = ((-math.inf, math.inf) if value is None else _limits(value) for value in given)
    return x, y, z
