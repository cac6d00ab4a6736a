"""A grid that learns where a density is, as instant-ngp's does (Müller et al. 2022, appendix E)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.errors import UsageError
from treadle.fields.structures.structure import Structure
from treadle.kernels.marching_reference import cell_of

CHUNK = 1 << 16
"""Points at which a density is asked for at a time."""


class OccupancyGrid(Structure):
    """Cells of [-1, 1]^3, and of larger boxes around it, with the density that each was seen to have.

    Cascade k covers [-2^k, 2^k]^3 with `resolution`^3 cells; a place belongs to the finest that holds it, so that the
    middle of the coarser ones is never asked for. All cells are occupied until the first `update`.

    Buffers, saved with the model:
        values: (cascades, R, R, R) float32 by x, y, z: the largest density seen in each cell, fading; negative in those
            that `keep_seen` has taken out.
        mask: (cascades, R, R, R) bool: which are occupied.
    """

    values: Tensor
    mask: Tensor

    def __init__(self, resolution: int = 64, cascades: int = 1) -> None:
        super().__init__()
        if resolution < 1 or cascades < 1:
            raise UsageError(f"occupancy grid: resolution is {resolution}, cascades {cascades}: expected at least 1")
        self.resolution, self.cascades, self.extent = resolution, cascades, float(2 ** (cascades - 1))
        shape = (cascades, resolution, resolution, resolution)
        self.register_buffer("values", torch.zeros(shape))
        self.register_buffer("mask", torch.ones(shape, dtype=torch.bool))

    def query(self, points: Tensor) -> Tensor:
        """The place of the occupied cell of each of `points` (n, 3) in the flattened grid: (n,) int64, or -1."""
        cells = cell_of(points, self.cascades, self.resolution)
        return torch.where(self.mask.flatten()[cells.clamp(min=0)], cells, -1)

    def space(self) -> Tensor:
        """`mask`."""
        return self.mask

    @property
    def share(self) -> float:
        """Which part of the volume is occupied, of that of all cells that count."""
        counted = self.counted()
        volume = 8.0 ** torch.arange(self.cascades, device=self.mask.device).double()
        here, all_ = (self.mask & counted).sum((1, 2, 3)), counted.sum((1, 2, 3))
        return float((here * volume).sum() / (all_ * volume).sum())

    @torch.no_grad()
    def keep_seen(self, cameras: Sequence[Camera]) -> None:
        """Take out, for good, the cells of which none of `cameras` sees anything: nothing can be learnt there.

        A cell is seen if the ball around it reaches into the pyramid of a picture.

        Raises:
            UsageError: no cell at all is seen.
        """
        cells = torch.nonzero(self.counted().flatten())[:, 0].cpu()
        x, y, z, half = self._places(cells)
        balls = torch.cat((((torch.stack((x, y, z), 1) + 0.5) * (2 / self.resolution) - 1) * half,
                           3**0.5 / self.resolution * half), 1)  # fmt: skip
        for camera in cameras:
            unseen = torch.nonzero(~in_view(balls, camera))[:, 0]
            cells, balls = cells[unseen], balls[unseen]
        unseen = torch.zeros(self.mask.numel(), dtype=torch.bool)
        unseen[cells] = True
        unseen = unseen.view_as(self.mask).to(self.mask.device)
        if not bool((self.mask & self.counted() & ~unseen).any()):
            raise UsageError(f"occupancy grid: none of {len(cameras)} cameras sees anything of [-{self.extent:g}, "
                             f"{self.extent:g}]^3: bring the scene there first")  # fmt: skip
        self.values[unseen] = -1.0
        self.mask &= ~unseen

    def _places(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, y and z of cells (n,) within their cascade, and half the side of that (n, 1)."""
        side = self.resolution
        return cells // side**2 % side, cells // side % side, cells % side, (2.0 ** (cells // side**3))[:, None]

    def counted(self) -> Tensor:
        """(cascades, R, R, R) bool: the cells that hold a place which no finer cascade holds."""
        side = self.resolution
        inner = torch.zeros(side, dtype=torch.bool, device=self.mask.device)
        inner[-(-side // 4) : 3 * side // 4] = True
        counted = torch.ones_like(self.mask)
        counted[1:] = ~(inner[:, None, None] & inner[:, None] & inner)
        return counted

    @torch.no_grad()
    def update(
        self,
        density: Callable[[Tensor], Tensor],
        generator: torch.Generator,
        *,
        step: float,
        share: float = 1.0,
        decay: float = 0.95,
        threshold: float = 0.01,
    ) -> None:
        """Ask for the density in cells, at a random place in each, and decide anew which are occupied.

        What a cell had fades by `decay` before it is compared with what it has now. Occupied is what is above
        `threshold / step`, or above the mean of all cells where that is less; if that is nothing, `mask` stays.

        Args:
            density: takes (n, 3) points and gives (n,) or (n, 1) values, per unit length.
            generator: draws cells and places, on the CPU.
            step: the step of the march: `threshold` is the optical thickness of one.
            share: 1 asks every cell. Less asks this part of them, drawn from all, and as many of the occupied ones:
                instant-ngp does so with a quarter after the first 256 steps.
            decay, threshold: see above.

        Raises:
            UsageError: numbers out of range, or a density that is not finite.
        """
        if not (0 < share <= 1 and 0 <= decay <= 1 and threshold > 0 and step > 0):
            raise UsageError(f"occupancy grid: share is {share:g}, decay {decay:g}, threshold {threshold:g}, step "
                             f"{step:g}: expected shares up to 1, and a positive threshold and step")  # fmt: skip
        counted = self.counted().flatten() & (self.values.flatten() >= 0)
        cells = torch.nonzero(counted)[:, 0]
        if share < 1:
            cells = self._drawn(cells, max(1, round(share * len(cells))), generator)
        found = self._asked(density, cells, generator)
        values = self.values.view(-1)
        values[cells] = torch.maximum(values[cells] * decay, found)
        level = min(threshold / step, float(values[counted].double().mean()))
        mask = (values > level) & counted
        if bool(mask.any()):
            self.mask.copy_(mask.view_as(self.mask))

    def _drawn(self, cells: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """`count` of `cells`, and as many of those that are occupied, each once, in rising order."""
        held = cells[self.mask.flatten()[cells]]
        chosen = torch.zeros(self.mask.numel(), dtype=torch.bool)
        for some in (cells.cpu(), held.cpu()):
            if len(some) <= count:
                chosen[some] = True
            else:
                chosen[some[torch.randint(len(some), (count,), generator=generator)]] = True
        return torch.nonzero(chosen)[:, 0].to(cells.device)

    def _asked(self, density: Callable[[Tensor], Tensor], cells: Tensor, generator: torch.Generator) -> Tensor:
        """The density at a random place in each of `cells`: (n,) float32."""
        found = []
        for some in cells.split(CHUNK):
            x, y, z, half = self._places(some)
            shift = torch.rand(len(some), 3, generator=generator).to(cells.device)
            points = ((torch.stack((x, y, z), 1) + shift) * (2 / self.resolution) - 1) * half
            found.append(density(points.float()).detach().reshape(-1).float())
        values = torch.cat(found)
        if len(values) != len(cells) or not bool(torch.isfinite(values).all()):
            raise UsageError(f"occupancy grid: the density gave {len(values)} values for {len(cells)} points, "
                             f"{int((~values.isfinite()).sum())} of them not finite")  # fmt: skip
        return values


def in_view(balls: Tensor, camera: Camera) -> Tensor:
    """Whether balls (n, 4), centres and radii, reach into the pyramid of a camera's picture: (n,) bool."""
    pose = torch.from_numpy(camera.world_to_camera).to(balls)
    right, down, ahead = (pose[:3, :3] @ balls[:, :3].T + pose[:3, 3:]).unbind(0)
    outside = -balls[:, 3]
    seen = ahead > outside
    for beside, focal, low, high in (
        (right, camera.fx, camera.cx, camera.width - camera.cx),
        (down, camera.fy, camera.cy, camera.height - camera.cy),
    ):
        # Signed distances from the pyramid's sides, times the lengths of these planes' normals.
        seen &= beside * focal + ahead * low > outside * math.hypot(focal, low)
        seen &= ahead * high - beside * focal > outside * math.hypot(focal, high)
    return seen
