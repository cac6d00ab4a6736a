"""Growing lines: all lines of a batch, point by point, each until something stops it."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from treadle.tracts.space import Space
from treadle.tracts.tracking.propagator import Propagator
from treadle.tracts.tracking.randomness import uniforms
from treadle.tracts.tracking.settings import TrackingSettings

REASONS = ("mask", "angle", "end", "length", "direction")
"""Why a line stopped: it would leave the mask (or the volume), turn too much, the model said that it ends here, it is
as long as it may be, there is no direction."""
T = TypeVar("T")

_MASK, _ANGLE, _END, _LENGTH, _DIRECTION = range(len(REASONS))

_ROWS = 64
"""Lines are computed in multiples of so many: the sums in a matrix product, and the ends of vectorized loops, are then
the same for a line whatever stands beside it."""
_WORTH = 0.875
"""Lines that have stopped are put out of the batch once so much of it, or less, still grows."""


@dataclass(frozen=True, eq=False)
class Grown:
    """Lines of a batch, one after the other, and how each stopped."""

    points: np.ndarray
    """(p, 3) float32, in voxel space."""
    offsets: np.ndarray
    """(n + 1,) int64."""
    reasons: np.ndarray
    """(n,) int8: where in REASONS."""
    first: np.ndarray
    """(n, 3) float32: the direction at the seed."""

    def turned(self) -> tuple[np.ndarray, np.ndarray]:
        """The lines from their last point to their first: points and offsets."""
        lengths = np.diff(self.offsets)
        line = np.repeat(np.arange(len(lengths)), lengths)
        return self.points[self.offsets[line] + self.offsets[line + 1] - 1 - np.arange(len(line))], self.offsets


def grow(
    propagator: Propagator,
    points: np.ndarray,
    offsets: np.ndarray,
    space: Space,
    mask: np.ndarray,
    settings: TrackingSettings,
    *,
    seed: int,
    numbers: np.ndarray,
    purpose: str,
    first: np.ndarray | None = None,
) -> Grown:
    """Grow lines from where they end: what `growing` comes to."""
    steps = growing(
        propagator, points, offsets, space, mask, settings, seed=seed, numbers=numbers, purpose=purpose, first=first
    )
    return last_of(steps)


def last_of(steps: Generator[None, None, T]) -> T:
    """What a generator returns that is taken to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found


@torch.inference_mode()
def growing(
    propagator: Propagator,
    points: np.ndarray,
    offsets: np.ndarray,
    space: Space,
    mask: np.ndarray,
    settings: TrackingSettings,
    *,
    seed: int,
    numbers: np.ndarray,
    purpose: str,
    first: np.ndarray | None = None,
) -> Generator[None, None, Grown]:
    """Grow lines from where they end, yielding after each point: who tracks beside something else can pause there.

    A line that is known so far is followed from its beginning, so that the state of the propagator is what it would be
    had it grown there itself; then it goes on.

    Args:
        propagator: says where lines go on.
        points, offsets: the lines so far, (p, 3) float32 and (n + 1,) int64: at least one point each.
        space: the grid.
        mask: (x, y, z) bool: where lines may be.
        settings: how.
        seed, purpose: of all randomness, with `numbers` (n,) int64, which say whose.
        first: (n, 3) directions for the lines of one point; 0 or None: the propagator's.

    Returns:
        The lines.
    """
    known = torch.from_numpy(np.diff(offsets))
    begins = torch.from_numpy(np.ascontiguousarray(offsets[:-1]))
    given = torch.from_numpy(np.ascontiguousarray(points))
    sizes = torch.from_numpy(space.voxel_sizes).float()
    stride = settings.step / sizes
    allowed = torch.from_numpy(np.ascontiguousarray(mask)).reshape(-1)
    shape = torch.tensor(mask.shape)
    places = torch.tensor([mask.shape[1] * mask.shape[2], mask.shape[2], 1])
    most = math.floor(settings.longest / settings.step + 1e-6) + 1  # points of the longest line
    cosine = math.cos(math.radians(settings.theta))
    given_first = None if first is None else torch.from_numpy(np.ascontiguousarray(first))

    count = len(known)
    reasons = torch.full((count,), -1, dtype=torch.int8)
    began = torch.zeros((count, 3))
    row = _padded(torch.arange(count))
    alive = torch.arange(len(row)) < count
    here, previous = given[begins[row]], torch.zeros((len(row), 3))
    state = propagator.start(len(row))
    steps: list[tuple[Tensor, Tensor]] = []
    tick = 0
    while True:
        chance = torch.from_numpy(uniforms(seed, purpose, numbers[row.numpy()], propagator.uniforms, tick))
        direction, end, state = propagator.advance(state, here, previous, chance)
        direction = torch.where(direction.isfinite().all(dim=1, keepdim=True), direction, 0.0)
        follows = tick + 1 < known[row]
        length = previous.norm(dim=1)
        if tick == 0:
            if given_first is not None:
                theirs = given_first[row]
                use = (known[row] == 1) & (theirs != 0).any(dim=1)
                direction = torch.where(use[:, None], theirs, direction)
            began[row[alive]] = direction[alive]
        aligned = (direction * previous).sum(dim=1)
        if settings.opposite:
            direction = torch.where(aligned[:, None] < 0, -direction, direction)
            aligned = aligned.abs()
        new = here + direction * stride
        voxel = new.floor().long()
        outside = ((voxel < 0) | (voxel >= shape)).any(dim=1)
        outside |= ~allowed[(voxel.clamp(min=0).minimum(shape - 1) * places).sum(dim=1)]

        stops = torch.full((len(row),), -1, dtype=torch.int8)
        stops[outside] = _MASK
        stops[aligned < (cosine - 1e-6) * length] = _ANGLE  # at a seed there is no step before: its length is 0
        stops[(direction == 0).all(dim=1)] = _DIRECTION
        if tick + 1 >= most:
            stops[:] = _LENGTH
        if settings.eos_stop is not None:
            stops[end >= settings.eos_stop] = _END
        stops[follows] = -1
        stopped = alive & (stops >= 0)
        reasons[row[stopped]] = stops[stopped]
        alive = alive & ~stopped

        going = alive & ~follows
        if going.any():
            steps.append((row[going], new[going]))
        known_next = given[(begins[row] + tick + 1).clamp(max=len(given) - 1)]
        new = torch.where(follows[:, None], known_next, new)
        new = torch.where(alive[:, None], new, here)
        previous = (new - here) * sizes
        here = new
        tick += 1
        left = int(alive.sum())
        if left == 0:
            break
        if left <= _WORTH * len(row) and len(row) > _ROWS:
            kept = _padded(alive.nonzero()[:, 0])
            state = propagator.keep(state, kept)
            row, here, previous = row[kept], here[kept], previous[kept]
            alive = torch.arange(len(kept)) < left
        yield
    return _assembled(points, offsets, steps, reasons, began)


def _padded(rows: Tensor) -> Tensor:
    """The rows, the first one repeated so that there are a multiple of _ROWS; the repeated ones do not count."""
    missing = -len(rows) % _ROWS
    return torch.cat([rows, rows[:1].expand(missing)])


def _assembled(
    points: np.ndarray, offsets: np.ndarray, steps: list[tuple[Tensor, Tensor]], reasons: Tensor, first: Tensor
) -> Grown:
    """The lines with what they have grown, from (lines, new points) step by step."""
    count = len(offsets) - 1
    rows = torch.cat([row for row, _ in steps]).numpy() if steps else np.zeros(0, np.int64)
    grown = torch.cat([new for _, new in steps]).numpy() if steps else np.zeros((0, 3), np.float32)
    known = np.diff(offsets)
    whole = np.concatenate([[0], np.cumsum(known + np.bincount(rows, minlength=count))])
    packed = np.empty((whole[-1], 3), np.float32)
    line = np.repeat(np.arange(count), known)
    packed[np.arange(len(points)) - offsets[line] + whole[line]] = points
    order = np.argsort(rows, kind="stable")
    line = rows[order]
    nth = np.arange(len(line)) - np.searchsorted(line, line)
    packed[whole[line] + known[line] + nth] = grown[order]
    return Grown(packed, whole.astype(np.int64), reasons.numpy(), first.numpy())
