"""What a training takes: phantoms of our own or a file, and where a subject is tracked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_tracts import SPACE, subject, volume
from small_tracts import data as small

from treadle.errors import UsageError
from treadle.tracts import data as module
from treadle.tracts.data import PhantomSubject, ground_of, load_tracts
from treadle.tracts.prepared import PreparedSubject
from treadle.tracts.prepared_writer import write_prepared
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject


def test_without_a_file_there_are_phantoms_of_other_seeds_to_test_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not set(module.TRAINING) & {*module.VALIDATION, *module.TESTING}
    monkeypatch.setattr(module, "TRAINING", (1,))
    monkeypatch.setattr(module, "VALIDATION", (100,))
    monkeypatch.setattr(module, "TESTING", ())
    found = load_tracts(None)
    assert [one.name for one in found.training + found.validation] == ["phantom-1", "phantom-100"]
    assert found.testing == () and found.path is None
    first, other = found.training[0], found.validation[0]
    assert isinstance(first, PhantomSubject) and set(first.volumes) == {"input", "tensors"}
    assert first.fingerprint() != other.fingerprint()
    assert load_tracts(None).training[0] is first  # made once
    ground = ground_of(first, "input", "streamlines")
    assert first.phantom is not None and ground.truth is not None
    assert np.array_equal(ground.mask, first.phantom.tracking_mask)
    assert np.array_equal(ground.seeding, first.phantom.seeding_mask)


def test_a_prepared_file_is_opened(tmp_path: Path) -> None:
    write_prepared(tmp_path / "small.h5", small())
    found = load_tracts(tmp_path / "small.h5")
    assert [one.name for one in (*found.training, *found.validation, *found.testing)] == ["one", "two", "three", "four"]
    assert isinstance(found.testing[0], PreparedSubject) and found.path == tmp_path / "small.h5"
    with pytest.raises(UsageError, match=r"nowhere\.h5"):
        load_tracts(tmp_path / "nowhere.h5")


def test_others_are_tracked_where_their_volume_is_not_0_from_where_lines_run() -> None:
    one = subject("one")
    ground = ground_of(one, "input", "fibres")
    assert np.array_equal(ground.mask, (volume() != 0).any(axis=3)) and not ground.mask[0, 0, 0]
    assert ground.truth is None
    points = one.streamlines("fibres").points.astype(int)
    assert ground.seeding[tuple(points.T)].all()
    assert 0 < ground.seeding.sum() < ground.mask.sum() and not (ground.seeding & ~ground.mask).any()


def test_lines_beside_the_volume_have_no_ground() -> None:
    lines = Streamlines.of([np.float32([[0.2, 0.2, 0.2], [0.8, 0.8, 0.2]])])
    lost = MemorySubject("lost", SPACE, {"v": (volume(), "tensor")}, {"f": lines})
    with pytest.raises(UsageError, match="lost: no streamline of 'f' runs where the volume 'v' is not 0"):
        ground_of(lost, "v", "f")
