"""Sparse cells around what is known to be a surface, below the larger cells that hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.capture import Capture
from treadle.errors import UsageError
from treadle.fields.structures.structure import Structure
from treadle.kernels import voxels
from treadle.kernels.marching import Tree

CHUNK = 1 << 16
"""Points at which a density is asked for at a time."""


class Octree(Structure):
    """Cells of side 2^(1 - level) in [-1, 1]^3, sorted by Morton code; what is above them is stepped over at once.

    `load_state_dict` takes the state of a tree of any level and size.

    Args:
        cells: (m, 3) int64, each from 0 to 2^level - 1, by x, y, z, in any order, repeated or not.
        level: how often the box is halved, up to 16.

    Buffers:
        codes: (m,) int64, the cells' Morton codes, rising: a cell's number is its place here.
        values: (m,) float32, the largest density seen in each cell, fading: for `prune`.
        below, first: the larger cells: `children` and `first` of a
            `treadle.kernels.marching.Tree`.
        depth: the level, a scalar.

    Raises:
        UsageError: there is no cell, or one that is not in the box.
    """

    codes: Tensor
    values: Tensor
    below: Tensor
    first: Tensor
    depth: Tensor

    def __init__(self, cells: Tensor, level: int) -> None:
        super().__init__()
        if not 0 <= level <= voxels.FINEST:
            raise UsageError(f"octree: level is {level}: expected 0 to {voxels.FINEST}")
        if cells.dim() != 2 or cells.shape[1] != 3 or cells.dtype != torch.int64 or len(cells) == 0:
            raise UsageError(f"octree: expected cells (m, 3) int64, at least one, got {tuple(cells.shape)} "
                             f"{cells.dtype}")  # fmt: skip
        if int(cells.min()) < 0 or int(cells.max()) >= 1 << level:
            raise UsageError(f"octree: cells from {int(cells.min())} to {int(cells.max())}: expected 0 to "
                             f"{(1 << level) - 1} at level {level}")  # fmt: skip
        self.extent = 1.0
        self._keep(torch.unique(voxels.encode(cells, level)), level)
        self.values.fill_(torch.inf)

    def _keep(self, codes: Tensor, level: int) -> None:
        tree = voxels.tree(codes, level)
        self.register_buffer("codes", codes)
        self.register_buffer("values", torch.zeros(len(codes), device=codes.device))
        self.register_buffer("below", tree.children)
        self.register_buffer("first", tree.first)
        self.register_buffer("depth", torch.tensor(level, device=codes.device))

    def __len__(self) -> int:
        """How many cells there are."""
        return len(self.codes)

    @property
    def level(self) -> int:
        """How often the box is halved."""
        return int(self.depth)

    @property
    def cells(self) -> Tensor:
        """(m, 3) int64: the cells by x, y, z, in the order of their numbers."""
        return voxels.decode(self.codes, self.level)

    @property
    def share(self) -> float:
        """Which part of the box is occupied."""
        return float(len(self) / 8.0**self.level)

    def space(self) -> Tree:
        """The tree."""
        return Tree(self.below, self.first, self.level)

    def query(self, points: Tensor) -> Tensor:
        """The number of the cell that holds each of `points` (n, 3): (n,) int64, or -1 where there is none."""
        side = 1 << self.level
        inside = (points.abs() <= 1).all(1)
        cells = ((points.clamp(-1, 1) + 1) * (side / 2)).floor().long().clamp(0, side - 1)
        wanted = voxels.encode(torch.where(inside[:, None], cells, 0), self.level)
        place = torch.searchsorted(self.codes, wanted).clamp(max=len(self) - 1)
        return torch.where(inside & (self.codes[place] == wanted), place, -1)

    @classmethod
    def from_points(cls, points: Tensor | NDArray[Any], level: int, *, dilation: int = 0) -> Octree:
        """The cells that hold one of `points` (n, 3), and those up to `dilation` cells away; points outside count not.

        Raises:
            UsageError: points that are not finite, or none that lies in the box.
        """
        places = torch.as_tensor(points).detach().cpu().double()
        if places.dim() != 2 or places.shape[1] != 3 or not bool(places.isfinite().all()):
            raise UsageError(f"octree: expected finite points (n, 3), got {tuple(places.shape)}")
        inside = places[(places.abs() <= 1).all(1)]
        if len(inside) == 0:
            raise UsageError(f"octree: none of {len(places)} points lies in [-1, 1]^3: bring them there first")
        side = 1 << level
        found = cls(((inside + 1) * (side / 2)).floor().long().clamp(0, side - 1), level)
        return found.dilated(dilation) if dilation else found

    @classmethod
    def from_mesh(
        cls, vertices: NDArray[Any] | Tensor, faces: NDArray[Any] | Tensor, level: int, *, dilation: int = 0
    ) -> Octree:
        """The cells that a triangle touches, and those up to `dilation` cells away.

        Args:
            vertices: (v, 3) in the box; what reaches out of it counts as far as it is inside.
            faces: (f, 3) numbers of vertices.
            level: how often the box is halved.
            dilation: how many more cells on each side.

        Raises:
            UsageError: there is no triangle in the box, or what is given is no mesh.
        """
        codes = voxels.touched(np.asarray(vertices), np.asarray(faces), level)
        if len(codes) == 0:
            raise UsageError(f"octree: none of {len(faces)} faces touches [-1, 1]^3: bring the mesh there first")
        found = cls(voxels.decode(codes, level), level)
        return found.dilated(dilation) if dilation else found

    @classmethod
    def from_capture(
        cls,
        capture: Capture,
        level: int,
        *,
        to_box: NDArray[np.float64] | None = None,
        dilation: int = 1,
        stride: int = 1,
    ) -> Octree:
        """The cells around what is known of a scene's surfaces: depth pictures if there are any, and points (COLMAP's).

        Args:
            capture: the scene; only what is there for training is looked at.
            level: how often the box is halved.
            to_box: (4, 4), a similarity from the capture's coordinates to those of the box; the identity where None.
            dilation: how many more cells on each side.
            stride: of depth pictures, every so manieth column and row.

        Raises:
            UsageError: there are neither depth pictures nor points, or none in the box.
        """
        points = surface_points(capture, stride)
        if len(points) == 0:
            raise UsageError("octree: the data has neither points nor depth pictures to make one from: use a grid that "
                             "learns where something is, or run COLMAP")  # fmt: skip
        if to_box is not None:
            points = points @ to_box[:3, :3].T + to_box[:3, 3]
        return cls.from_points(points, level, dilation=dilation)

    def dilated(self, cells: int = 1) -> Octree:
        """A tree with the cells up to so many cells away as well, corners included."""
        side, found = 1 << self.level, self.cells
        around = torch.arange(-1, 2, device=found.device)
        steps = torch.cartesian_prod(around, around, around)
        for _ in range(cells):
            found = torch.unique((found[:, None] + steps).clamp(0, side - 1).flatten(0, 1), dim=0)
        return Octree(found, self.level)

    @torch.no_grad()
    def prune(
        self,
        density: Callable[[Tensor], Tensor],
        generator: torch.Generator,
        *,
        step: float,
        decay: float = 0.95,
        threshold: float = 0.01,
    ) -> Tensor:
        """Ask for the density at a random place in each cell, and take away those in which it stays low: for good.

        As in `OccupancyGrid.update`: what a cell had fades by `decay`, and stays if that, or what it has now, is above
        `threshold / step`, or above the mean where that is less. The first call takes nothing away: a cell is looked at
        twice. If no cell would be left, all stay.

        Args:
            density: takes (n, 3) points and gives (n,) or (n, 1) values, per unit length.
            generator: draws the places, on the CPU.
            step: the step of the march: `threshold` is the optical thickness of one.
            decay, threshold: see above.

        Returns:
            (m,) bool, which of the cells that were there are left: for whoever keeps something for each.

        Raises:
            UsageError: numbers out of range, or a density that is not finite.
        """
        if not (0 <= decay <= 1 and threshold > 0 and step > 0):
            raise UsageError(f"octree: decay is {decay:g}, threshold {threshold:g}, step {step:g}: expected a decay "
                             "from 0 to 1, and a positive threshold and step")  # fmt: skip
        side, found = 1 << self.level, []
        for some in self.cells.split(CHUNK):
            shift = torch.rand(len(some), 3, generator=generator).to(some.device)
            found.append(density((some + shift) * (2 / side) - 1).detach().reshape(-1).float())
        seen = torch.cat(found)
        if len(seen) != len(self) or not bool(seen.isfinite().all()):
            raise UsageError(f"octree: the density gave {len(seen)} values for {len(self)} points, "
                             f"{int((~seen.isfinite()).sum())} of them not finite")  # fmt: skip
        known = self.values.isfinite()
        values = torch.where(known, torch.maximum(self.values * decay, seen), seen)
        kept = (values > min(threshold / step, float(values.double().mean()))) | ~known
        if not bool(kept.any()):
            kept = torch.ones_like(kept)
        if not bool(kept.all()):
            self._keep(self.codes[kept], self.level)
        self.values.copy_(values[kept])
        return kept

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        """Take the saved sizes first: trees differ."""
        for name, here in list(self.named_buffers(recurse=False)):
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor) and saved.shape != here.shape:
                setattr(self, name, torch.empty_like(saved, dtype=here.dtype, device=here.device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        """Level and size, for `print(module)`."""
        return f"level={self.level}, cells={len(self)}"


def surface_points(capture: Capture, stride: int = 1) -> NDArray[np.float64]:
    """(n, 3) places on surfaces, in the capture's coordinates: where its depth pictures are known, and its points."""
    found = [np.zeros((0, 3)) if capture.points is None else np.asarray(capture.points, np.float64)]
    for index in range(len(capture.train)):
        photograph = capture.train[index]
        if photograph.depth is None:
            continue
        camera, depth = photograph.camera, photograph.depth[::stride, ::stride].astype(np.float64)
        rows, columns = np.nonzero(np.isfinite(depth) & (depth > 0))
        z = depth[rows, columns]
        x = (columns * stride + 0.5 - camera.cx) / camera.fx * z
        y = (rows * stride + 0.5 - camera.cy) / camera.fy * z
        pose = camera.camera_to_world
        found.append(np.stack((x, y, z), 1) @ pose[:3, :3].T + pose[:3, 3])
    return np.concatenate(found)
