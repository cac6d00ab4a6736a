"""A tracking from start to file: seeds, lines, and the batches between, which are kept until the file is there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.tracts.files import write_streamlines
from treadle.tracts.models.direction_model import DirectionModel
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.tracking.model_propagator import ModelPropagator
from treadle.tracts.tracking.seeds import place_seeds
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.tracking.tracker import Tracked, track


@dataclass(frozen=True, eq=False)
class Source:
    """What is tracked in: a model and the volume that it reads."""

    model: DirectionModel
    offsets: Tensor | None
    """(k, 3): the neighbourhood that the model was trained with."""
    volume: np.ndarray
    """(x, y, z, features) float32."""
    space: Space


def track_to_file(
    source: Source,
    mask: np.ndarray,
    seeding: np.ndarray,
    settings: TrackingSettings,
    out: Path,
    *,
    seed: int,
    save_seeds: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Tracked:
    """Track, and write the lines as TRK, TCK or TRX.

    Batches that are done lie in `OUT.parts` until the file is written: the same call goes on after them, and ends with
    the same bytes as one that was never stopped.

    Args:
        source: the model and the volume.
        mask: (x, y, z) bool: where lines may be.
        seeding: (x, y, z) bool: where they begin.
        settings: how; `total` or `per_voxel` seeds, else one for each voxel.
        out: the file.
        seed: of the seeds' places, and of sampled directions.
        save_seeds: write where each line began, in voxel space with corner origin, as its property "seeds".
        progress: called with the seeds that are done, and all.

    Raises:
        UsageError: masks of another shape, no seeds, a volume that is not the model's, batches of another tracking.
        RunError: the disk refuses a batch.
    """
    for name, given in (("tracking", mask), ("seeding", seeding)):
        if given.shape != source.space.shape:
            raise UsageError(f"the {name} mask has {given.shape} voxels: expected {source.space.shape}, as the volume")
    per_voxel = settings.per_voxel if settings.per_voxel or settings.total else 1
    seeds = place_seeds(seeding, seed=seed, per_voxel=per_voxel, total=settings.total)
    volume = torch.from_numpy(np.ascontiguousarray(source.volume, np.float32))
    propagator = ModelPropagator(source.model, volume, source.offsets, sampled=settings.sampled)
    parts = out.with_name(f"{out.name}.parts")
    tracked = track(
        propagator,
        seeds,
        source.space,
        mask,
        settings,
        seed=seed,
        directory=parts,
        identity=_identity(source),
        progress=None if progress is None else lambda done: progress(done, len(seeds)),
    )
    lines = tracked.lines
    if save_seeds:
        lines = Streamlines(lines.points, lines.offsets, {**lines.per_line, "seeds": tracked.seeds}, lines.per_point)
    write_streamlines(out, lines, source.space)
    shutil.rmtree(parts, ignore_errors=True)
    return tracked


def _identity(source: Source) -> str:
    """SHA-256 over the weights, the neighbourhood and the volume."""
    digest = hashlib.sha256(np.ascontiguousarray(source.volume, np.float32).tobytes())
    for name, value in sorted(source.model.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    if source.offsets is not None:
        digest.update(source.offsets.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
