from __future__ import annotations

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.tracts.feeds.settings import LinesSettings


def test_neighbours_in_voxels_and_in_millimetres():
    sizes = np.array([2.0, 1.0, 0.5])
    voxels = LinesSettings(neighbourhood="axes", radius=1.5)
    assert torch.equal(voxels.offsets(sizes)[1:3], torch.tensor([[1.5, 0, 0], [-1.5, 0, 0]]))
    away = LinesSettings(neighbourhood="axes", radius=1.5, radius_units="mm").offsets(sizes)
    np.testing.assert_allclose(np.linalg.norm(away.numpy() * sizes, axis=1), [0, *[1.5] * 6])
    for kind, rings in (("none", 1), ("none", 2), ("axes", 1), ("axes", 2), ("grid", 1), ("grid", 2)):
        settings = LinesSettings(neighbourhood=kind, rings=rings, radius=0.7)
        assert len(settings.offsets(sizes)) == settings.neighbours


def test_budgets():
    settings = LinesSettings(batch_size=5000, batch_units="length_mm", validation_batch_size=700)
    assert (settings.budget(True), settings.budget(False)) == (5000, 700)
    assert LinesSettings(batch_size=8).budget(False) == 8


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"step_size": 0.5, "compress": 0.1}, "compress is 0.1: expected null, since step_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"split": 1.1}, "split"),
        ({"nb_points": 1}, "nb_points"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, words):
    with pytest.raises(UsageError, match=words):
        LinesSettings(**given)
