from pathlib import Path

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.tracts.files import read_streamlines
from treadle.tracts.getters.settings import GetterSettings
from treadle.tracts.models.direction_model import build_direction_model
from treadle.tracts.models.settings import ModelSettings
from treadle.tracts.space import Space
from treadle.tracts.tracking.job import Source, track_to_file
from treadle.tracts.tracking.settings import TrackingSettings

SPACE = Space(np.diag([2.0, 2.0, 2.0, 1.0]), (8, 9, 7))
MASK = np.ones(SPACE.shape, bool)


def source(seed: int = 0, volume_seed: int = 0) -> Source:
    torch.manual_seed(seed)
    model = build_direction_model(ModelSettings(), GetterSettings(), 4)
    volume = np.random.default_rng(volume_seed).normal(size=(*SPACE.shape, 4)).astype(np.float32)
    return Source(model, None, volume, SPACE)


def settings(**given: object) -> TrackingSettings:
    return TrackingSettings(**({"total": 50, "batch": 20, "theta": 180.0, "shortest": 0.0} | given))  # type: ignore[arg-type]


class Stopped(Exception):
    pass


def stop(done: int, total: int) -> None:
    assert total == 50
    if done == 40:
        raise Stopped


def test_a_job_that_was_stopped_ends_with_the_same_file(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.trk", tmp_path / "tracks.trk"
    track_to_file(source(), MASK, MASK, settings(), whole, seed=3, save_seeds=True)
    with pytest.raises(Stopped):
        track_to_file(source(), MASK, MASK, settings(), out, seed=3, save_seeds=True, progress=stop)
    parts = tmp_path / "tracks.trk.parts"
    assert len(list(parts.glob("*.npz"))) == 2 and not out.exists()
    for other in (source(seed=1), source(volume_seed=1)):
        with pytest.raises(UsageError, match="another tracking"):
            track_to_file(other, MASK, MASK, settings(), out, seed=3)
    seen: list[int] = []
    tracked = track_to_file(
        source(), MASK, MASK, settings(), out, seed=3, save_seeds=True, progress=lambda done, _: seen.append(done)
    )
    assert out.read_bytes() == whole.read_bytes() and seen == [20, 40, 50]
    assert not parts.exists() and len(tracked.lines) == 50


def test_without_a_number_there_is_a_seed_for_each_voxel(tmp_path: Path) -> None:
    seeding = np.zeros(SPACE.shape, bool)
    seeding[3:5, 4, 2:5] = True
    out = tmp_path / "tracks.trx"
    tracked = track_to_file(source(), MASK, seeding, settings(total=None), out, seed=0)
    assert len(tracked.lines) == 6 == len(read_streamlines(out)[0])
    tracked = track_to_file(source(), MASK, seeding, settings(total=None, per_voxel=3), out, seed=0)
    assert len(tracked.lines) == 18


def test_masks_of_another_shape_are_refused(tmp_path: Path) -> None:
    for masks in ((MASK[1:], MASK), (MASK, MASK[1:])):
        with pytest.raises(UsageError, match="mask has"):
            track_to_file(source(), *masks, settings(), tmp_path / "tracks.trk", seed=0)
