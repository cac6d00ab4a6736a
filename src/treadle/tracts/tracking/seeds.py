"""Seeds: where lines begin. Each is a function of the seed number and its own, however many there are."""

from __future__ import annotations

import numpy as np

from treadle.errors import UsageError
from treadle.tracts.tracking.randomness import uniforms


def place_seeds(mask: np.ndarray, *, seed: int, per_voxel: int | None = None, total: int | None = None) -> np.ndarray:
    """Random places in the voxels of a mask.

    Args:
        mask: (x, y, z) bool.
        seed: another seed, other places.
        per_voxel: so many in each voxel, voxel by voxel; or
        total: so many in all, each in a voxel chosen at random.

    Returns:
        (n, 3) float32, in voxel space with corner origin.

    Raises:
        UsageError: an empty mask; both numbers, or neither.
    """
    if (per_voxel is None) == (total is None) or (per_voxel or total or 0) < 1:
        raise UsageError("expected a number of seeds, either in all or for each voxel")
    voxels = np.argwhere(mask)
    if len(voxels) == 0:
        raise UsageError("the seeding mask is empty: there is nowhere to begin")
    if per_voxel is not None:
        indices = np.arange(per_voxel * len(voxels))
        drawn = uniforms(seed, "seeds", indices, 3)
        chosen = voxels[indices // per_voxel]
    else:
        drawn = uniforms(seed, "seeds", np.arange(total or 0), 4)
        chosen = voxels[(drawn[:, 3].astype(np.float64) * len(voxels)).astype(np.int64)]
    # Rounded to float32, a place next to the voxel's far side would lie in the next voxel.
    last = np.nextafter((chosen + 1).astype(np.float32), np.float32(0))
    return np.minimum((chosen + drawn[:, :3]).astype(np.float32), last)
